package rewrite

import (
	"fmt"
	"strconv"
	"strings"
)

// ValType is a value type in its binary encoding.
type ValType byte

// The value types of WebAssembly 2.0.
const (
	I32       ValType = 0x7f
	I64       ValType = 0x7e
	F32       ValType = 0x7d
	F64       ValType = 0x7c
	V128      ValType = 0x7b
	FuncRef   ValType = 0x70
	ExternRef ValType = 0x6f
)

func (t ValType) String() string {
	switch t {
	case I32:
		return "i32"
	case I64:
		return "i64"
	case F32:
		return "f32"
	case F64:
		return "f64"
	case V128:
		return "v128"
	case FuncRef:
		return "funcref"
	case ExternRef:
		return "externref"
	}
	return fmt.Sprintf("valtype(%#x)", byte(t))
}

// ExternKind is what an import or export is, in its binary encoding.
type ExternKind byte

// The kinds of WebAssembly 2.0.
const (
	KindFunc   ExternKind = 0
	KindTable  ExternKind = 1
	KindMemory ExternKind = 2
	KindGlobal ExternKind = 3
)

func (k ExternKind) String() string {
	switch k {
	case KindFunc:
		return "func"
	case KindTable:
		return "table"
	case KindMemory:
		return "memory"
	case KindGlobal:
		return "global"
	}
	return fmt.Sprintf("extern(%d)", byte(k))
}

// Import is one import. Its names are valid UTF-8 and otherwise the guest's:
// quote them when printing.
type Import struct {
	Module, Name string
	Kind         ExternKind

	// Signature is the type as text; see Export.
	Signature string
}

// Export is one export. Its name is valid UTF-8 and otherwise the guest's.
type Export struct {
	Name  string
	Kind  ExternKind
	Index uint32

	// Signature is the type as text, made to be compared and shown:
	//
	//	function  "()", "(i32, i32) -> i64", "(i32) -> (i32, i64)"
	//	memory    "1..16", "1.."; " shared" follows if it is
	//	table     "funcref 1..10", "externref 0.."
	//	global    "i32", "mut i64"
	//
	// A function of more than 16 parameters or results has the rest replaced
	// by a count: "(i32, ... 20 in all)".
	Signature string
}

// Memory is the module's memory, its own or imported.
type Memory struct {
	// Min and Max are in pages of 64 KiB. Max counts only if HasMax.
	Min, Max uint32
	HasMax   bool
	Shared   bool
	Imported bool
}

// Table is one table, own or imported, in index order.
type Table struct {
	Type ValType
	// Min and Max are in entries. Max counts only if HasMax.
	Min, Max uint32
	HasMax   bool
	Imported bool
}

// CustomSection tells where a custom section's content lies. Offset and Size
// leave out the section's header and name.
type CustomSection struct {
	Name         string
	Offset, Size int
}

// Extreme is the greatest value of something and the first function that has
// it. Func counts imports; both are 0 if no function has any.
type Extreme struct {
	Value uint64
	Func  uint32
	// Offset is the byte offset of the function body, or of the instruction.
	Offset int
}

// Facts is what Parse found out about a module. It must not be changed.
type Facts struct {
	Imports []Import
	Exports []Export

	// Memory is nil if the module has none. MemoryExport is the first name
	// under which it is exported, or empty.
	Memory       *Memory
	MemoryExport string
	Tables       []Table

	// HasStart: a start function runs at instantiation.
	HasStart bool

	// Functions and ImportedFunctions are numbers of functions, the first
	// without the second. CodeBytes is the size of all bodies with locals.
	Functions         int
	ImportedFunctions int
	CodeBytes         int
	Instructions      int

	// LargestBody is in bytes; MostLocals counts declared locals and
	// parameters; LargestBrTable counts labels without the default;
	// DeepestNesting counts block, loop and if inside each other, DeepestLoops
	// only the loops of them.
	LargestBody    Extreme
	MostLocals     Extreme
	LargestBrTable Extreme
	DeepestNesting Extreme
	DeepestLoops   Extreme

	// TotalLocals is the sum of declared locals over all functions.
	TotalLocals uint64

	// MutableGlobals and Globals are numbers, imports included.
	Globals, MutableGlobals int

	DataSegments, ElementSegments int

	// GrowsMemory: some function has memory.grow.
	GrowsMemory bool

	// ExactRestore: putting back memory and mutable globals gives the state
	// of before, provided that the memory did not grow meanwhile. If false,
	// RestoreObstacles says why, one reason each, in a fixed order.
	ExactRestore     bool
	RestoreObstacles []string

	CustomSections []CustomSection
}

// Export returns the export of that name and kind.
func (f *Facts) Export(name string, kind ExternKind) (Export, bool) {
	for _, e := range f.Exports {
		if e.Kind == kind && e.Name == name {
			return e, true
		}
	}
	return Export{}, false
}

const signatureTypes = 16

func typeList(types []byte) string {
	var b strings.Builder
	b.WriteByte('(')
	for i, t := range types {
		if i > 0 {
			b.WriteString(", ")
		}
		if i == signatureTypes {
			fmt.Fprintf(&b, "... %d in all", len(types))
			break
		}
		b.WriteString(ValType(t).String())
	}
	b.WriteByte(')')
	return b.String()
}

func funcSignature(params, results []byte) string {
	switch len(results) {
	case 0:
		return typeList(params)
	case 1:
		return typeList(params) + " -> " + ValType(results[0]).String()
	}
	return typeList(params) + " -> " + typeList(results)
}

func limitsText(minimum, maximum uint32, hasMax bool) string {
	s := strconv.FormatUint(uint64(minimum), 10) + ".."
	if hasMax {
		s += strconv.FormatUint(uint64(maximum), 10)
	}
	return s
}

func (m *Memory) signature() string {
	s := limitsText(m.Min, m.Max, m.HasMax)
	if m.Shared {
		s += " shared"
	}
	return s
}

func (t *Table) signature() string {
	return t.Type.String() + " " + limitsText(t.Min, t.Max, t.HasMax)
}

func (g global) signature() string {
	if g.mutable {
		return "mut " + g.typ.String()
	}
	return g.typ.String()
}
