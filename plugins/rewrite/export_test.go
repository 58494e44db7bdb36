package rewrite

// WeightOf is the weight of the first instruction of code.
func WeightOf(code []byte) uint32 {
	d := newDecoder(code, 0, len(code))
	var in instr
	d.next(&in)
	return weightOf(in.op)
}
