package sandbox

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/imports/wasi_snapshot_preview1"

	"github.com/millrace-io/millrace/plugins/internal/testkit"
	"github.com/millrace-io/millrace/plugins/manifest"
	"github.com/millrace-io/millrace/plugins/rewrite"
)

// asm assembles modules for tests: sections by hand, all functions empty or
// returning zero.
type asm struct {
	types   []string // "(i32) -> i64" in package rewrite's form
	imports []asmImport
	funcs   []asmFunc
	memory  []byte // content of the memory section, nil for {0, 1}
	noMem   bool
	globals []byte
	customs []byte
}

type asmImport struct {
	module, name, typ string
}

type asmFunc struct {
	export, typ string
	body        []byte // nil: zero results
}

func valTypes(s string) []byte {
	var out []byte
	for f := range strings.SplitSeq(s, ",") {
		switch strings.TrimSpace(f) {
		case "i32":
			out = append(out, 0x7f)
		case "i64":
			out = append(out, 0x7e)
		case "f64":
			out = append(out, 0x7c)
		}
	}
	return append(testkit.Uleb(len(out)), out...)
}

func (a asm) typeIndex(list *[]string, t string) int {
	if i := slices.Index(*list, t); i >= 0 {
		return i
	}
	*list = append(*list, t)
	return len(*list) - 1
}

func (a asm) build() []byte {
	types := slices.Clone(a.types)
	var imports, decls, exports, bodies [][]byte
	for _, im := range a.imports {
		t := a.typeIndex(&types, im.typ)
		imports = append(imports, append(append(testkit.Name(im.module), testkit.Name(im.name)...), append([]byte{0}, testkit.Uleb(t)...)...))
	}
	for i, f := range a.funcs {
		t := a.typeIndex(&types, f.typ)
		decls = append(decls, testkit.Uleb(t))
		if f.export != "" {
			exports = append(exports, append(append(testkit.Name(f.export), 0), testkit.Uleb(len(a.imports)+i)...))
		}
		body := f.body
		if body == nil {
			switch _, res, _ := strings.Cut(f.typ, " -> "); res {
			case "i32":
				body = []byte{0x41, 0}
			case "i64":
				body = []byte{0x42, 0}
			}
		}
		body = append(append([]byte{0}, body...), 0x0b)
		bodies = append(bodies, append(testkit.Uleb(len(body)), body...))
	}
	var typeItems [][]byte
	for _, t := range types {
		params, results, _ := strings.Cut(t, " -> ")
		typeItems = append(typeItems, append(append([]byte{0x60}, valTypes(strings.Trim(params, "()"))...), valTypes(results)...))
	}
	out := []byte{0, 'a', 's', 'm', 1, 0, 0, 0}
	out = append(out, testkit.Section(1, testkit.Vector(typeItems...))...)
	if len(imports) > 0 {
		out = append(out, testkit.Section(2, testkit.Vector(imports...))...)
	}
	out = append(out, testkit.Section(3, testkit.Vector(decls...))...)
	if !a.noMem {
		mem := a.memory
		if mem == nil {
			mem = []byte{0, 1}
		}
		out = append(out, testkit.Section(5, testkit.Vector(mem))...)
		exports = append(exports, append(testkit.Name("memory"), 2, 0))
	}
	if a.globals != nil {
		out = append(out, testkit.Section(6, testkit.Vector(a.globals))...)
	}
	out = append(out, testkit.Section(7, testkit.Vector(exports...))...)
	out = append(out, testkit.Section(10, testkit.Vector(bodies...))...)
	return append(out, a.customs...)
}

// minimal is a call mode guest that gives every batch up.
func minimal() asm {
	return asm{funcs: []asmFunc{
		{export: "stage_abi_1", typ: "()"},
		{export: "stage_alloc", typ: "(i32) -> i32"},
		{export: "stage_batch", typ: "(i32, i32) -> i64"},
	}}
}

func command() asm { return asm{funcs: []asmFunc{{export: "_start", typ: "()"}}} }

func withManifest(a asm, json string) asm {
	a.customs = testkit.Section(0, append(testkit.Name(manifest.Section), json...))
	return a
}

func TestInspectRefusals(t *testing.T) {
	with := func(a asm, f func(*asm)) asm { f(&a); return a }
	for _, c := range []struct {
		name string
		wasm []byte
		kind Refusal
		want string
	}{
		{"call", minimal().build(), "", ""},
		{"lines", command().build(), "", ""},
		{"wasi and stage imports", with(minimal(), func(a *asm) {
			a.imports = []asmImport{{"stage", "log", "(i32, i32, i32)"}, {"stage", "count", "(i32, i32, f64)"}, {wasiModule, "proc_exit", "(i32)"}}
		}).build(), "", ""},
		{"not wasm", []byte("#!/bin/sh\n"), RefusedFormat, ""},
		{"empty", nil, RefusedFormat, ""},
		{"cut", minimal().build()[:20], RefusedFormat, ""},
		{"next abi", asm{funcs: []asmFunc{{export: "stage_abi_2", typ: "()"}}}.build(), RefusedABI, "it exports stage_abi_2: this host runs stage_abi_1; build it with a PDK for stage/1, or upgrade this host"},
		{"neither", asm{funcs: []asmFunc{{export: "run", typ: "()"}}}.build(), RefusedMode, "it exports neither stage_abi_1 nor _start"},
		{"extism", with(command(), func(a *asm) { a.imports = []asmImport{{ExtismModule, "input_length", "() -> i64"}} }).build(), "", ""},
		{"extism with wasi", with(command(), func(a *asm) {
			a.imports = []asmImport{{ExtismModule, "alloc", "(i64) -> i64"}, {wasiModule, "proc_exit", "(i32)"}}
		}).build(), "", ""},
		{"extism says so", withManifest(asm{funcs: []asmFunc{{export: "run", typ: "() -> i32"}}}, `{"mode":"extism","function":"run"}`).build(), "", ""},
		{"extism without a function", with(minimal(), func(a *asm) {
			a.funcs, a.imports = []asmFunc{{export: "two", typ: "(i32, i32) -> i32"}}, []asmImport{{ExtismModule, "input_length", "() -> i64"}}
		}).build(), RefusedMode, "it exports no function without parameters; export one, of the type () -> i32"},
		{"extism unknown", with(command(), func(a *asm) { a.imports = []asmImport{{ExtismModule, "fetch", "()"}} }).build(), RefusedImport, `it imports the function "extism:host/env" "fetch", which the Extism SDK of this host does not have`},
		{"extism wrong type", with(command(), func(a *asm) { a.imports = []asmImport{{ExtismModule, "alloc", "(i32) -> i32"}} }).build(), RefusedImport, `its import "extism:host/env" "alloc" has the type (i32) -> i32; declare it as (i64) -> i64`},
		{"extism with foreign", with(command(), func(a *asm) {
			a.imports = []asmImport{{ExtismModule, "alloc", "(i64) -> i64"}, {"extism:host/user", "mult", "(i64) -> i64"}}
		}).build(), RefusedImport, `it imports the function "extism:host/user" "mult", which this host does not have; an Extism plugin may import only extism:host/env and WASI preview 1`},
		{"extism with stage", with(command(), func(a *asm) {
			a.imports = []asmImport{{ExtismModule, "alloc", "(i64) -> i64"}, {"stage", "log", "(i32, i32, i32)"}}
		}).build(), RefusedImport, `"stage" "log"`},
		{"extism says lines", withManifest(with(command(), func(a *asm) { a.imports = []asmImport{{ExtismModule, "input_length", "() -> i64"}} }), `{"mode":"lines"}`).build(), RefusedABI,
			`it runs in extism mode (it imports extism:host/env), but its manifest says mode "lines"`},
		{"call says extism", withManifest(minimal(), `{"mode":"extism"}`).build(), RefusedABI, `it exports stage_abi_1, but its manifest says mode "extism"`},
		{"extism default is not there", withManifest(command(), `{"mode":"extism","function":"run"}`).build(), RefusedManifest, `its manifest names the function "run", and the functions that can be called are ["_start"]`},
		{"call imports extism", with(minimal(), func(a *asm) { a.imports = []asmImport{{ExtismModule, "alloc", "(i64) -> i64"}} }).build(), RefusedImport, `it imports the function "extism:host/env" "alloc", which this host does not have`},
		{"foreign import", with(minimal(), func(a *asm) { a.imports = []asmImport{{"env", "abort", "(i32, i32)"}} }).build(), RefusedImport, `it imports the function "env" "abort", which this host does not have`},
		{"unknown of ours", with(minimal(), func(a *asm) { a.imports = []asmImport{{"stage", "fetch", "()"}} }).build(), RefusedImport, `"stage" "fetch"`},
		{"wrong type of ours", with(minimal(), func(a *asm) { a.imports = []asmImport{{"stage", "log", "()"}} }).build(), RefusedImport, `its import "stage" "log" has the type (); declare it as (i32, i32, i32)`},
		{"old wasi", with(minimal(), func(a *asm) { a.imports = []asmImport{{"wasi_unstable", "fd_write", "(i32, i32, i32, i32) -> i32"}} }).build(), RefusedImport, "of an old WASI"},
		{"no alloc", with(minimal(), func(a *asm) { a.funcs = slices.Delete(a.funcs, 1, 2) }).build(), RefusedABI, "it does not export the function stage_alloc"},
		{"wrong batch", with(minimal(), func(a *asm) { a.funcs[2].typ = "(i32) -> i64" }).build(), RefusedABI, "its export stage_batch has the type (i32) -> i64; declare it as (i32, i32) -> i64"},
		{"wrong init", with(minimal(), func(a *asm) { a.funcs = append(a.funcs, asmFunc{export: "stage_init", typ: "()"}) }).build(), RefusedABI, "its export stage_init has the type ()"},
		{"no memory", with(minimal(), func(a *asm) { a.noMem = true }).build(), RefusedMemory, `it exports no memory named "memory"`},
		{"shared memory", with(minimal(), func(a *asm) { a.memory = []byte{3, 1, 2} }).build(), RefusedMemory, "it has a shared memory"},
		{"bad manifest", withManifest(minimal(), `{"name":"X"}`).build(), RefusedManifest, "is no plugin name"},
		{"manifest says call", withManifest(command(), `{"mode":"call"}`).build(), RefusedABI, `its manifest says mode "call", but it does not export stage_abi_1`},
		{"manifest of another abi", withManifest(command(), `{"abi":2}`).build(), RefusedABI, "its manifest says abi 2: this host runs 1"},
		{"manifest differs", withManifest(minimal(), `{"abi":2}`).build(), RefusedABI, "but its manifest says abi 2"},
	} {
		t.Run(c.name, func(t *testing.T) {
			info, err := Inspect(c.wasm)
			if err == nil {
				err = info.Err()
			}
			if c.kind == "" {
				if err != nil {
					t.Fatal(err)
				}
				return
			}
			e, ok := errors.AsType[*RefusedError](err)
			if !ok || e.Kind != c.kind || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want kind %s and %q", err, c.kind, c.want)
			}
		})
	}
}

func TestInspectFacts(t *testing.T) {
	info, err := Inspect(testkit.Read(t, ordersWasm))
	if err != nil {
		t.Fatal(err)
	}
	if err := info.Err(); err != nil {
		t.Fatal(err)
	}
	if info.Mode != manifest.ModeCall || info.ABI != 1 || info.Manifest == nil || info.Manifest.Name != "orders" || !info.ExactRestore || info.MemoryMinBytes == 0 {
		t.Errorf("got %+v", info)
	}
	if n := info.Named("x.wasm"); n.Name != "orders" || n.Version != "1.0.0" {
		t.Errorf("got %s@%s", n.Name, n.Version)
	}
	info, err = Inspect(testkit.Read(t, linesWasm))
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode != manifest.ModeLines || info.Why != "it is a WASI command: it exports _start" {
		t.Errorf("got mode %q: %s", info.Mode, info.Why)
	}
	if n := info.Named("lines.wasm"); n.Name != "lines" || n.Version != "0.0.0+"+info.Digest[7:15] {
		t.Errorf("got %s@%s", n.Name, n.Version)
	}
}

func TestInspectExtism(t *testing.T) {
	a := asm{
		imports: []asmImport{{ExtismModule, "http_request", "(i64, i64) -> i64"}},
		funcs:   []asmFunc{{export: "_initialize", typ: "()"}, {export: "count", typ: "() -> i32"}, {export: "add", typ: "(i32, i32) -> i32"}, {export: "_start", typ: "()"}},
	}
	info, err := Inspect(a.build())
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode != manifest.ModeExtism || info.Why != "it imports extism:host/env" || !slices.Equal(info.Callable, []string{"count", "_start"}) || !info.UsesHTTP || !info.Configurable || info.ExactRestore {
		t.Errorf("got %+v", info)
	}
	// A command becomes one when its stage names a function, a plugin of our
	// own does not.
	info, err = InspectAs(command().build(), manifest.ModeExtism)
	if err != nil || info.Mode != manifest.ModeExtism || info.Err() != nil || info.UsesHTTP {
		t.Errorf("got %+v, %v", info, err)
	}
	info, err = InspectAs(minimal().build(), manifest.ModeExtism)
	if err != nil || info.Err() == nil || !strings.Contains(info.Err().Error(), "take `function` away") {
		t.Errorf("got %+v, %v", info, err)
	}
}

// TestHostModules compares the list that Inspect goes by with what wazero has.
func TestHostModules(t *testing.T) {
	ctx := context.Background()
	r := wazero.NewRuntimeWithConfig(ctx, wazero.NewRuntimeConfigInterpreter())
	defer r.Close(ctx)
	c, err := wasi_snapshot_preview1.NewBuilder(r).Compile(ctx)
	if err != nil {
		t.Fatal(err)
	}
	functions := c.ExportedFunctions()
	if len(functions) != len(hostModules[wasiModule]) {
		t.Errorf("wazero has %d functions, the list %d", len(functions), len(hostModules[wasiModule]))
	}
	for name, def := range functions {
		types := func(vs []byte) string {
			s := make([]string, len(vs))
			for i, v := range vs {
				s[i] = rewrite.ValType(v).String()
			}
			return strings.Join(s, ", ")
		}
		want := "(" + types(def.ParamTypes()) + ")"
		if len(def.ResultTypes()) > 0 {
			want += " -> " + types(def.ResultTypes())
		}
		if got := hostModules[wasiModule][name]; got != want {
			t.Errorf("%s: listed as %q, wazero has %q", name, got, want)
		}
	}
}

func TestCompileRefuses(t *testing.T) {
	rt := open(t, Config{MaxMemoryBytes: 1 << 20})
	a := minimal()
	a.memory = []byte{0, 17}
	_, err := rt.Compile(t.Context(), a.build())
	if e, ok := errors.AsType[*RefusedError](err); !ok || e.Kind != RefusedMemory || !strings.Contains(err.Error(), "it starts with 1088 KiB of memory, the limit is 1 MiB") {
		t.Errorf("got %v, want a refusal of its memory", err)
	}
	// Structure is right, types are not.
	b := minimal()
	b.funcs[1].body = []byte{0x42, 0}
	_, err = rt.Compile(t.Context(), b.build())
	if e, ok := errors.AsType[*RefusedError](err); !ok || e.Kind != RefusedFormat {
		t.Errorf("an invalid function: got %v, want a refusal of its format", err)
	}
}

func TestConfigValidate(t *testing.T) {
	_, err := New(t.Context(), Config{Workers: -1, MaxMemoryBytes: 5})
	if err == nil || !strings.Contains(err.Error(), "workers: -1") || !strings.Contains(err.Error(), "memory limit: 5 bytes") {
		t.Errorf("got %v, want both faults", err)
	}
}

func TestFileCache(t *testing.T) {
	dir := t.TempDir()
	wasm := testkit.Read(t, ordersWasm)
	for range 2 {
		rt, err := New(t.Context(), Config{CacheDir: dir})
		if err != nil {
			t.Fatal(err)
		}
		m, err := rt.Compile(t.Context(), wasm)
		if err != nil {
			t.Fatal(err)
		}
		s, err := m.NewStage(t.Context(), StageConfig{Stage: "s"})
		if err != nil {
			t.Fatal(err)
		}
		out := testkit.Process(t, s, testkit.Batch(`{"status":"cancelled"}`))
		if len(out.Drops) != 1 {
			t.Errorf("got %+v, want a drop", out)
		}
		if err := errors.Join(s.Close(t.Context()), m.Close(t.Context()), rt.Close(t.Context())); err != nil {
			t.Fatal(err)
		}
	}
}

func FuzzInspect(f *testing.F) {
	f.Add(minimal().build())
	f.Add(withManifest(command(), `{"abi":1,"mode":"lines"}`).build())
	f.Fuzz(func(t *testing.T, b []byte) {
		info, err := Inspect(b)
		if (info == nil) == (err == nil) {
			t.Fatalf("got %v and %v", info, err)
		}
		if err == nil && info.Mode == "" && info.Err() == nil {
			t.Fatal("no mode and no refusal")
		}
	})
}
