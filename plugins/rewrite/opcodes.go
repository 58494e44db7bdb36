package rewrite

import "fmt"

// opcode is an instruction: the byte itself, or the prefix in the high byte
// and the sub-opcode in the low one.
type opcode uint16

const (
	opUnreachable   opcode = 0x00
	opBlock         opcode = 0x02
	opLoop          opcode = 0x03
	opIf            opcode = 0x04
	opElse          opcode = 0x05
	opEnd           opcode = 0x0b
	opBr            opcode = 0x0c
	opBrIf          opcode = 0x0d
	opBrTable       opcode = 0x0e
	opReturn        opcode = 0x0f
	opCall          opcode = 0x10
	opCallIndirect  opcode = 0x11
	opLocalGet      opcode = 0x20
	opLocalSet      opcode = 0x21
	opLocalTee      opcode = 0x22
	opGlobalGet     opcode = 0x23
	opGlobalSet     opcode = 0x24
	opTableSet      opcode = 0x26
	opMemoryGrow    opcode = 0x40
	opI32Const      opcode = 0x41
	opI64Const      opcode = 0x42
	opF32Const      opcode = 0x43
	opF64Const      opcode = 0x44
	opI32Ne         opcode = 0x47
	opI64LtS        opcode = 0x53
	opI32ShrU       opcode = 0x76
	opI64Add        opcode = 0x7c
	opI64Sub        opcode = 0x7d
	opI64Shl        opcode = 0x86
	opI32WrapI64    opcode = 0xa7
	opI64ExtendI32U opcode = 0xad
	opRefNull       opcode = 0xd0
	opRefFunc       opcode = 0xd2
	opMemoryInit    opcode = 0xfc08
	opDataDrop      opcode = 0xfc09
	opMemoryCopy    opcode = 0xfc0a
	opMemoryFill    opcode = 0xfc0b
	opTableInit     opcode = 0xfc0c
	opElemDrop      opcode = 0xfc0d
	opTableCopy     opcode = 0xfc0e
	opTableGrow     opcode = 0xfc0f
	opTableFill     opcode = 0xfc11
	opV128Const     opcode = 0xfd0c
)

// blockVoid is the type of a block that takes and leaves nothing, formFunc
// the mark of a function type.
const (
	blockVoid opcode = 0x40
	formFunc  byte   = 0x60
)

const (
	prefixGC     = 0xfb
	prefixMisc   = 0xfc
	prefixVector = 0xfd
	prefixAtomic = 0xfe
)

// immediates says what follows an opcode.
type immediates uint8

const (
	immUnknown    immediates = iota // refused
	immNone                         //
	immBlock                        // block type: s33
	immIndex                        // u32
	immIndexes                      // u32, u32
	immMemArg                       // u32 align, u32 offset
	immZero                         // one byte 0: the memory
	immZeroZero                     // two of them
	immIndexZero                    // u32, then one byte 0
	immI32                          // s32
	immI64                          // s64
	immBytes4                       // 4 bytes
	immBytes8                       // 8 bytes
	immBytes16                      // 16 bytes
	immBrTable                      // vector of u32, u32
	immSelect                       // vector of exactly one value type
	immHeapType                     // funcref or externref, one byte
	immLane                         // one byte
	immMemArgLane                   // u32 align, u32 offset, one byte
	immPrefix                       // another opcode
)

// plain holds the immediates of the opcodes of one byte, misc those after
// 0xfc, vector those after 0xfd.
var (
	plain  = plainImmediates()
	misc   = miscImmediates()
	vector = vectorImmediates()
)

func plainImmediates() (t [256]immediates) {
	fill := func(from, to int, k immediates) {
		for i := from; i <= to; i++ {
			t[i] = k
		}
	}
	fill(0x00, 0x01, immNone)           // unreachable, nop
	fill(0x02, 0x04, immBlock)          // block, loop, if
	t[0x05], t[0x0b] = immNone, immNone // else, end
	fill(0x0c, 0x0d, immIndex)          // br, br_if
	t[0x0e] = immBrTable
	t[0x0f] = immNone         // return
	t[0x10] = immIndex        // call
	t[0x11] = immIndexes      // call_indirect: type, table
	fill(0x1a, 0x1b, immNone) // drop, select
	t[0x1c] = immSelect
	fill(0x20, 0x26, immIndex)  // local.*, global.*, table.get, table.set
	fill(0x28, 0x3e, immMemArg) // loads and stores
	fill(0x3f, 0x40, immZero)   // memory.size, memory.grow
	t[0x41], t[0x42], t[0x43], t[0x44] = immI32, immI64, immBytes4, immBytes8
	fill(0x45, 0xc4, immNone) // numeric
	t[0xd0] = immHeapType     // ref.null
	t[0xd1] = immNone         // ref.is_null
	t[0xd2] = immIndex        // ref.func
	fill(prefixMisc, prefixVector, immPrefix)
	return t
}

func miscImmediates() (t [18]immediates) {
	for i := 0x00; i <= 0x07; i++ {
		t[i] = immNone // saturating truncations
	}
	t[0x08] = immIndexZero // memory.init
	t[0x09] = immIndex     // data.drop
	t[0x0a] = immZeroZero  // memory.copy
	t[0x0b] = immZero      // memory.fill
	t[0x0c] = immIndexes   // table.init
	t[0x0d] = immIndex     // elem.drop
	t[0x0e] = immIndexes   // table.copy
	t[0x0f] = immIndex     // table.grow
	t[0x10] = immIndex     // table.size
	t[0x11] = immIndex     // table.fill
	return t
}

func vectorImmediates() (t [256]immediates) {
	for i := range t {
		t[i] = immNone
	}
	for i := 0x00; i <= 0x0b; i++ {
		t[i] = immMemArg
	}
	t[0x0c], t[0x0d] = immBytes16, immBytes16 // v128.const, i8x16.shuffle
	for i := 0x15; i <= 0x22; i++ {
		t[i] = immLane
	}
	for i := 0x54; i <= 0x5b; i++ {
		t[i] = immMemArgLane
	}
	t[0x5c], t[0x5d] = immMemArg, immMemArg
	for _, i := range []int{
		0x9a, 0xa2, 0xa5, 0xa6, 0xaf, 0xb0, 0xb2, 0xb3, 0xb4, 0xbb,
		0xc2, 0xc5, 0xc6, 0xcf, 0xd0, 0xd2, 0xd3, 0xd4, 0xe2, 0xee,
	} {
		t[i] = immUnknown
	}
	return t
}

// opcodeNames holds the instructions that reports mention.
var opcodeNames = map[opcode]string{
	opTableSet:   "table.set",
	opTableInit:  "table.init",
	opElemDrop:   "elem.drop",
	opTableCopy:  "table.copy",
	opTableGrow:  "table.grow",
	opTableFill:  "table.fill",
	opDataDrop:   "data.drop",
	opMemoryInit: "memory.init",
	opBrTable:    "br_table",
}

type foreignOp struct{ proposal, name string }

// foreignOps are opcodes of one byte that belong to other proposals.
var foreignOps = map[byte]foreignOp{
	0x06: {propExceptions, "try"},
	0x07: {propExceptions, "catch"},
	0x08: {propExceptions, "throw"},
	0x09: {propExceptions, "rethrow"},
	0x0a: {propExceptions, "throw_ref"},
	0x12: {propTailCall, "return_call"},
	0x13: {propTailCall, "return_call_indirect"},
	0x14: {propFuncRefs, "call_ref"},
	0x15: {propFuncRefs, "return_call_ref"},
	0x18: {propExceptions, "delegate"},
	0x19: {propExceptions, "catch_all"},
	0x1f: {propExceptions, "try_table"},
	0xd3: {propGC, "ref.eq"},
	0xd4: {propFuncRefs, "ref.as_non_null"},
	0xd5: {propFuncRefs, "br_on_null"},
	0xd6: {propFuncRefs, "br_on_non_null"},
	0xe0: {propStackSwitch, "cont.new"},
	0xe1: {propStackSwitch, "cont.bind"},
	0xe2: {propStackSwitch, "suspend"},
	0xe3: {propStackSwitch, "resume"},
	0xe4: {propStackSwitch, "resume_throw"},
	0xe5: {propStackSwitch, "switch"},
}

func unknownOpcode(off int, op byte) *RefusedError {
	if f, ok := foreignOps[op]; ok {
		return unsupported(off, f.proposal, "instruction "+f.name)
	}
	return unsupported(off, "", fmt.Sprintf("opcode %#02x", op))
}

func unknownPrefixed(off int, prefix byte, sub uint32) *RefusedError {
	what := fmt.Sprintf("opcode %#02x %#02x", prefix, sub)
	switch {
	case prefix == prefixGC && sub >= 0x80:
		return unsupported(off, propStringRef, what)
	case prefix == prefixGC:
		return unsupported(off, propGC, what)
	case prefix == prefixAtomic:
		return unsupported(off, propThreads, "atomic instruction ("+what+")")
	case prefix == prefixVector && sub >= 0x100 && sub <= 0x113:
		return unsupported(off, propRelaxedSIMD, what)
	case prefix == prefixMisc && sub == 0x12:
		return unsupported(off, propMemControl, what)
	case prefix == prefixMisc && sub >= 0x13 && sub <= 0x16:
		return unsupported(off, propWideArith, what)
	}
	return unsupported(off, "", what)
}

// checkValType refuses a byte that is not a value type of WebAssembly 2.0.
func checkValType(off int, b byte) *RefusedError {
	switch ValType(b) {
	case I32, I64, F32, F64, V128, FuncRef, ExternRef:
		return nil
	}
	what := fmt.Sprintf("value type %#02x", b)
	switch b {
	case 0x63, 0x64:
		return unsupported(off, propFuncRefs, "a typed reference ("+what+")")
	case 0x69, 0x74:
		return unsupported(off, propExceptions, "an exception reference ("+what+")")
	case 0x68, 0x75:
		return unsupported(off, propStackSwitch, what)
	case 0x6a, 0x6b, 0x6c, 0x6d, 0x6e, 0x71, 0x72, 0x73, 0x77, 0x78:
		return unsupported(off, propGC, what)
	}
	return unsupported(off, "", what)
}

func checkRefType(off int, b byte) *RefusedError {
	if t := ValType(b); t == FuncRef || t == ExternRef {
		return nil
	}
	if err := checkValType(off, b); err != nil {
		return err
	}
	return malformed(off, "%s stands where a reference type is needed", ValType(b))
}
