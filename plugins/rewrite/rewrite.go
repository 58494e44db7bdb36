// Package rewrite reads, judges and rewrites WebAssembly binaries before
// anything is compiled.
//
// Parse decodes a core module completely (every section, every instruction)
// and gathers the facts that the host decides by: imports, exports, memory,
// sizes, and whether an instance can be restored exactly. Check compares the
// facts with limits. Rewrite writes the module that the host runs: the same
// behaviour, with every mutable global exported so that an instance can be
// reset.
//
// What is accepted is WebAssembly 2.0 (the release of April 2022, with SIMD),
// read the way wazero reads it. Anything else is refused with the name of the
// proposal and the byte offset, never passed through unread.
//
// The package is pure and works on hostile input: no panic, every length is
// checked before it is believed, memory used is a small multiple of the
// input. It is not a validator: types are not checked (wazero does that), only
// the structure is. It knows nothing of the plugin ABI or of WASI.
package rewrite

// Options says how Rewrite goes about it. The zero value applies the default
// Limits.
type Options struct {
	Limits Limits
}

// Result is a rewritten module and what is known about it.
type Result struct {
	// Wasm is the module to compile. It may share memory with the input.
	Wasm []byte

	// Globals lists every mutable global, imported ones too, in index order,
	// each with the name under which Wasm exports it.
	Globals []Global

	// Facts describes the input: the exports that Rewrite added are not in it.
	Facts *Facts
}

// Global is a mutable global of a rewritten module.
type Global struct {
	// Export is the name to look it up by: its own first one, else one of
	// the form "millrace:g<index>".
	Export   string
	Index    uint32
	Type     ValType
	Imported bool
}

// Rewrite parses wasm, holds it against the limits and exports every mutable
// global. Behaviour stays as it was; custom sections are kept, except a "name"
// section that is damaged or a repeated one, which engines must ignore.
//
// Errors are *RefusedError, joined when several limits are exceeded.
func Rewrite(wasm []byte, opt Options) (*Result, error) {
	m, err := Parse(wasm)
	if err != nil {
		return nil, err
	}
	return m.Rewrite(opt)
}

// Rewrite is the function Rewrite for a module that is already parsed.
func (m *Module) Rewrite(opt Options) (*Result, error) {
	if err := Check(m, opt.Limits); err != nil {
		return nil, err
	}
	globals, exports := m.exportMutableGlobals()
	var e edits
	if len(exports) > 0 {
		e.payload[secExport] = exports
	}
	out, err := m.encode(&e)
	if err != nil {
		return nil, err
	}
	return &Result{Wasm: out, Globals: globals, Facts: &m.facts}, nil
}
