// Package rewrite reads, judges and rewrites WebAssembly binaries before
// anything is compiled.
//
// Parse decodes a core module completely (every section, every instruction)
// and gathers the facts that the host decides by: imports, exports, memory,
// sizes, and whether an instance can be restored exactly. Check compares the
// facts with limits. Rewrite writes the module that the host runs: the same
// behaviour, with every mutable global exported so that an instance can be
// reset and, if asked for, with a fuel counter that bounds its work.
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

import "fmt"

// Options says how Rewrite goes about it. The zero value applies the default
// Limits.
type Options struct {
	Limits Limits

	// MaxTableEntries lowers the maximum of every table of the module's own to
	// this, but not below its minimum, so that table.grow answers -1 from
	// there on; 0 leaves tables as they are. Engines have no other bound on
	// the memory of tables. Minima are the caller's to judge (Facts.Tables).
	MaxTableEntries uint32

	// Fuel makes the module count what it does; see type Fuel. Its behaviour
	// stays as it was until the counter is below zero. Custom sections that
	// refer to places in code (".debug_*", source maps) are left out.
	Fuel bool

	// InitialFuel is what the counter starts with, so that it bounds the start
	// function; 0 means FuelUnlimited. It must not be negative, and counts
	// only if Fuel is set.
	InitialFuel int64

	// FuelPerExport sets the counter anew at each call from outside; nil
	// leaves that to the host. It counts only if Fuel is set.
	FuelPerExport *ExportFuel

	// ImportFrom names the module that a function is imported from instead of
	// its own, "" for its own; nil changes none. The host must give it there
	// with the same name and type. Facts tell of the imports as they were.
	ImportFrom func(module, name string) string
}

// Result is a rewritten module and what is known about it.
type Result struct {
	// Wasm is the module to compile. It may share memory with the input.
	Wasm []byte

	// Globals lists every mutable global, imported ones too, in index order,
	// each with the name under which Wasm exports it.
	// The counter of Fuel is not among them.
	Globals []Global

	// Fuel tells where the fuel counter is, if Options.Fuel was set.
	Fuel Fuel

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
// Errors are *RefusedError, joined when several limits are exceeded, save for
// amounts of fuel that cannot be.
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
	var e edits
	x := m.newExports()
	res := &Result{Globals: m.exportMutableGlobals(x), Facts: &m.facts}
	if opt.MaxTableEntries > 0 {
		e.payload[secTable] = m.boundedTables(opt.MaxTableEntries)
	}
	if opt.ImportFrom != nil {
		e.payload[secImport] = m.redirected(opt.ImportFrom)
	}
	if opt.Fuel {
		if opt.InitialFuel < 0 {
			return nil, fmt.Errorf("rewrite a module with initial fuel %d: give 0 or more", opt.InitialFuel)
		}
		initial := opt.InitialFuel
		if initial == 0 {
			initial = FuelUnlimited
		}
		var err error
		if res.Fuel, err = m.meter(&e, x, initial, opt.FuelPerExport); err != nil {
			return nil, err
		}
	}
	if x.added > 0 {
		e.payload[secExport] = extendVector(x.content, x.items, x.added)
	}
	var err error
	if res.Wasm, err = m.encode(&e); err != nil {
		return nil, err
	}
	return res, nil
}
