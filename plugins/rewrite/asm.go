package rewrite

// code is a sequence of instructions being written.
type code []byte

func (c *code) op(ops ...opcode) {
	for _, o := range ops {
		*c = append(*c, byte(o))
	}
}

// index writes an instruction whose immediate is an index.
func (c *code) index(o opcode, x uint32) {
	*c = appendUvarint(append(*c, byte(o)), x)
}

func (c *code) i32(v int32) { *c = appendVarint(append(*c, byte(opI32Const)), int64(v)) }
func (c *code) i64(v int64) { *c = appendVarint(append(*c, byte(opI64Const)), v) }

// appendVarint appends v as a signed LEB128 of minimal length.
func appendVarint(b []byte, v int64) []byte {
	for v < -64 || v > 63 {
		b = append(b, byte(v)|0x80)
		v >>= 7
	}
	return append(b, byte(v)&0x7f)
}
