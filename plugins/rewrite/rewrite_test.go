package rewrite_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"

	"github.com/millrace-io/millrace/plugins/rewrite"
)

var rewriteGolden = flag.Bool("rewrite", false, "update golden files")

// counterModule increments its mutable globals; it has none of the sections
// that it can do without.
func counterModule() []byte {
	return newWasm().
		vec(1, funcTypeOf("", ""), funcTypeOf("", "\x7f")).
		vec(3, []byte{0}).
		vec(6, i32Global(true, 7), i32Global(false, 1), []byte{0x7e, 1, 0x42, 9, 0x0b}).
		section(8, []byte{0}).
		vec(10, body(0x23, 0, 0x41, 1, 0x6a, 0x24, 0)).out
}

func TestRewriteExportsMutableGlobals(t *testing.T) {
	ctx := context.Background()
	imported := importOf("env", "g", 3, 0x7f, 1)
	tests := []struct {
		name string
		wasm []byte
		want []rewrite.Global
	}{
		{"empty module", newWasm().out, nil},
		{"only custom sections", newWasm().custom("a", "b").out, nil},
		{"only immutable globals", newWasm().vec(6, i32Global(false, 1)).out, nil},
		{
			"no export section, start function",
			counterModule(),
			[]rewrite.Global{
				{Export: "millrace:g0", Index: 0, Type: rewrite.I32},
				{Export: "millrace:g2", Index: 2, Type: rewrite.I64},
			},
		},
		{
			"global section at the end of the file",
			newWasm().vec(6, i32Global(true, 1)).custom("name", "").out,
			[]rewrite.Global{{Export: "millrace:g0", Type: rewrite.I32}},
		},
		{
			"imported global, no section of its own",
			newWasm().vec(2, imported).out,
			[]rewrite.Global{{Export: "millrace:g0", Type: rewrite.I32, Imported: true}},
		},
		{
			"imported global before other sections",
			newWasm().vec(1, funcTypeOf("", "")).vec(2, imported).vec(3, []byte{0}).
				vec(6, i32Global(true, 2)).vec(10, body()).out,
			[]rewrite.Global{
				{Export: "millrace:g0", Index: 0, Type: rewrite.I32, Imported: true},
				{Export: "millrace:g1", Index: 1, Type: rewrite.I32},
			},
		},
		{
			"own names are kept, the first counts",
			newWasm().vec(6, i32Global(true, 1), i32Global(true, 2)).
				vec(7, exportOf("a", 3, 1), exportOf("b", 3, 1)).out,
			[]rewrite.Global{
				{Export: "millrace:g0", Index: 0, Type: rewrite.I32},
				{Export: "a", Index: 1, Type: rewrite.I32},
			},
		},
		{
			"all exported already",
			newWasm().vec(6, i32Global(true, 1)).vec(7, exportOf("a", 3, 0)).out,
			[]rewrite.Global{{Export: "a", Index: 0, Type: rewrite.I32}},
		},
		{
			"the name is taken, by a memory and by another global",
			newWasm().vec(5, []byte{0, 1}).vec(6, i32Global(true, 1), i32Global(true, 2)).
				vec(7, exportOf("millrace:g0", 2, 0), exportOf("millrace:g0'", 3, 1)).out,
			[]rewrite.Global{
				{Export: "millrace:g0''", Index: 0, Type: rewrite.I32},
				{Export: "millrace:g0'", Index: 1, Type: rewrite.I32},
			},
		},
		{
			"data count and passive data stay",
			newWasm().vec(1, funcTypeOf("", "")).vec(3, []byte{0}).vec(5, []byte{0, 1}).
				vec(6, i32Global(true, 1)).section(12, []byte{1}).
				vec(10, body(0x41, 0, 0x41, 0, 0x41, 1, 0xfc, 8, 0, 0)).
				vec(11, []byte{1, 1, 'x'}).out,
			[]rewrite.Global{{Export: "millrace:g0", Index: 0, Type: rewrite.I32}},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			before := bytes.Clone(tt.wasm)
			res, err := rewrite.Rewrite(tt.wasm, rewrite.Options{})
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(before, tt.wasm) {
				t.Error("the input was changed")
			}
			if !slices.Equal(res.Globals, tt.want) {
				t.Errorf("got globals %+v, want %+v", res.Globals, tt.want)
			}
			rt := wazero.NewRuntimeWithConfig(ctx, wazero.NewRuntimeConfigInterpreter())
			defer rt.Close(ctx)
			host, err := rewrite.Rewrite(newWasm().vec(6, i32Global(true, 5)).vec(7, exportOf("g", 3, 0)).out, rewrite.Options{})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := rt.InstantiateWithConfig(ctx, host.Wasm, wazero.NewModuleConfig().WithName("env")); err != nil {
				t.Fatal(err)
			}
			mod, err := rt.InstantiateWithConfig(ctx, res.Wasm, wazero.NewModuleConfig().WithName(""))
			if err != nil {
				t.Fatal(err)
			}
			for _, g := range res.Globals {
				mg, ok := mod.ExportedGlobal(g.Export).(api.MutableGlobal)
				if !ok {
					t.Errorf("global %s cannot be set", g.Export)
					continue
				}
				mg.Set(42)
				if got := mg.Get(); got != 42 {
					t.Errorf("global %s: got %d after setting 42", g.Export, got)
				}
			}
			again, err := rewrite.Rewrite(res.Wasm, rewrite.Options{})
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(again.Wasm, res.Wasm) || !slices.Equal(again.Globals, res.Globals) {
				t.Error("rewriting twice is not the same as once")
			}
		})
	}
}

// TestRewriteKeepsBytes checks that the sections around the new one are copied
// as they are, long-winded numbers included.
func TestRewriteKeepsBytes(t *testing.T) {
	head := newWasm().custom("first", "\x00\x01").out
	types := []byte{1, 0x84, 0x80, 0x00, 1, 0x60, 0, 0} // a section size of three bytes
	globals := newWasm().vec(6, i32Global(true, 1)).custom("between", "x").out[8:]
	tail := newWasm().vec(9).vec(11).custom("stage.manifest", "{}").out[8:]
	res, err := rewrite.Rewrite(cat(head, types, globals, tail), rewrite.Options{})
	if err != nil {
		t.Fatal(err)
	}
	exports := newWasm().vec(7, exportOf("millrace:g0", 3, 0)).out[8:]
	want := cat(head, types, globals, exports, tail)
	if !bytes.Equal(res.Wasm, want) {
		t.Errorf("got  %x\nwant %x", res.Wasm, want)
	}
}

func TestNameSection(t *testing.T) {
	good := string(cat([]byte{0}, sized(str("m")), []byte{1}, sized([]byte{1, 0}, str("f"))))
	tests := []struct {
		name, content string
		kept          bool
	}{
		{"sound", good, true},
		{"local names", string(cat([]byte{2}, sized([]byte{1, 0, 1, 0}, str("x")))), true},
		{"unknown subsection", "\x09\x02ab", true},
		{"two thousand million function names", "\x01\x06\xff\xff\xff\xff\x07\x00", false},
		{"two thousand million local names", "\x02\x08\x01\x00\xff\xff\xff\xff\x07\x00", false},
		{"cut short", good[:len(good)-1], false},
		{"not UTF-8", "\x00\x02\x01\xff", false},
		{"subsection too long", "\x00\x03\x01mm", false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			wasm := newWasm().custom("name", tt.content).custom("other", "x").out
			res, err := rewrite.Rewrite(wasm, rewrite.Options{})
			if err != nil {
				t.Fatal(err)
			}
			want := wasm
			if !tt.kept {
				want = newWasm().custom("other", "x").out
			}
			if !bytes.Equal(res.Wasm, want) {
				t.Errorf("got %q, want %q", res.Wasm, want)
			}
		})
	}
	double, err := rewrite.Rewrite(newWasm().custom("name", good).custom("name", good).out, rewrite.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if want := newWasm().custom("name", good).out; !bytes.Equal(double.Wasm, want) {
		t.Errorf("two name sections: got %q, want %q", double.Wasm, want)
	}
}

func TestCustom(t *testing.T) {
	m, err := rewrite.Parse(newWasm().custom("stage.manifest", "{1}").custom("stage.manifest", "{2}").out)
	if err != nil {
		t.Fatal(err)
	}
	if got, ok := m.Custom("stage.manifest"); !ok || string(got) != "{1}" {
		t.Errorf("got %q, %v, want the first section", got, ok)
	}
	if got, ok := m.Custom("stage.sig"); ok {
		t.Errorf("got %q for a section that is not there", got)
	}
}

// kitchenSink has something of everything that facts report.
func kitchenSink() []byte {
	return newWasm().
		vec(1, funcTypeOf("", ""), funcTypeOf("\x7f\x7f", "\x7e"), funcTypeOf("\x7f", "\x7f\x7e"),
			funcTypeOf(strings.Repeat("\x7c", 20), "")).
		vec(2,
			importOf("wasi_snapshot_preview1", "fd_write", 0, 1),
			importOf("env", "t", 1, 0x6f, 1, 2, 9),
			importOf("env", "g", 3, 0x7e, 1)).
		vec(3, []byte{0}, []byte{2}, []byte{3}).
		vec(4, []byte{0x70, 0, 4}).
		vec(5, []byte{1, 2, 16}).
		vec(6, i32Global(false, 0), cat([]byte{0x7b, 1, 0xfd, 0x0c}, make([]byte, 16), []byte{0x0b})).
		vec(7,
			exportOf("_start", 0, 1), exportOf("pair", 0, 2), exportOf("many", 0, 3),
			exportOf("memory", 2, 0), exportOf("mem2", 2, 0), exportOf("tab", 1, 1), exportOf("g", 3, 1)).
		section(8, []byte{1}).
		vec(9, []byte{0x02, 1, 0x41, 0, 0x0b, 0, 1, 1}).
		section(12, []byte{2}).
		vec(10,
			sized([]byte{1, 3, 0x7f}, []byte{
				0x02, 0x40, 0x03, 0x40, // block, loop
				0x41, 0, 0x0e, 2, 0, 1, 0, // i32.const 0, br_table 0 1, default 0
				0x0b, 0x0b,
				0x41, 1, 0x40, 0, 0x1a, // memory.grow
				0x41, 0, 0xd0, 0x6f, 0x26, 0, // table.set of the imported table
				0xfc, 9, 0, 0xfc, 9, 1, // data.drop, twice
				0x0b,
			}),
			body(0x20, 0, 0x42, 1),
			body(0xfc, 0x0d, 0)). // elem.drop
		vec(11, []byte{1, 1, 'x'}, []byte{0, 0x41, 0, 0x0b, 2, 'a', 'b'}).
		custom("stage.manifest", "{}").out
}

// TestFactsGolden holds the facts about a few modules; the JSON is only this
// test's, not a format.
func TestFactsGolden(t *testing.T) {
	for name, wasm := range map[string][]byte{
		"empty":   newWasm().out,
		"counter": counterModule(),
		"sink":    kitchenSink(),
	} {
		t.Run(name, func(t *testing.T) {
			rt := wazero.NewRuntimeWithConfig(context.Background(), wazero.NewRuntimeConfigInterpreter())
			defer rt.Close(context.Background())
			if _, err := rt.CompileModule(context.Background(), wasm); err != nil {
				t.Fatalf("the test's module is not valid: %v", err)
			}
			m, err := rewrite.Parse(wasm)
			if err != nil {
				t.Fatal(err)
			}
			got, err := json.MarshalIndent(m.Facts(), "", "  ")
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, '\n')
			path := filepath.Join("testdata", "facts-"+name+".json")
			if *rewriteGolden {
				if err := os.MkdirAll("testdata", 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(path, got, 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			want, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got, want) {
				t.Errorf("got\n%s\nwant\n%s", got, want)
			}
		})
	}
}

func TestExactRestore(t *testing.T) {
	zero3 := []byte{0x41, 0, 0x41, 0, 0x41, 0}
	tests := []struct {
		name string
		code []byte
		want string
	}{
		{"nothing", nil, ""},
		{"memory.grow", []byte{0x41, 0, 0x40, 0, 0x1a}, ""},
		{"memory.fill", cat(zero3, []byte{0xfc, 0x0b, 0}), ""},
		{"memory.init", cat(zero3, []byte{0xfc, 0x08, 0, 0}), ""},
		{"table.get", []byte{0x41, 0, 0x25, 0, 0x1a}, ""},
		{"table.size", []byte{0xfc, 0x10, 0, 0x1a}, ""},
		{"table.set", []byte{0x41, 0, 0xd0, 0x70, 0x26, 0}, "table.set in function 0"},
		{"table.grow", []byte{0xd0, 0x70, 0x41, 0, 0xfc, 0x0f, 0, 0x1a}, "table.grow in function 0"},
		{"table.fill", []byte{0x41, 0, 0xd0, 0x70, 0x41, 0, 0xfc, 0x11, 0}, "table.fill in function 0"},
		{"table.copy", cat(zero3, []byte{0xfc, 0x0e, 0, 0}), "table.copy in function 0"},
		{"table.init", cat(zero3, []byte{0xfc, 0x0c, 0, 0}), "table.init in function 0"},
		{"elem.drop", []byte{0xfc, 0x0d, 0}, "elem.drop in function 0"},
		{"data.drop twice", []byte{0xfc, 0x09, 0, 0xfc, 0x09, 0}, "data.drop in function 0 and 1 more"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			m, err := rewrite.Parse(oneFunc(tt.code...))
			if err != nil {
				t.Fatal(err)
			}
			f := m.Facts()
			if got := strings.Join(f.RestoreObstacles, "; "); got != tt.want || f.ExactRestore != (tt.want == "") {
				t.Errorf("got %v %q, want %q", f.ExactRestore, got, tt.want)
			}
		})
	}
}

func TestRefused(t *testing.T) {
	const (
		bad     = rewrite.Malformed
		foreign = rewrite.Unsupported
	)
	tests := []struct {
		name    string
		wasm    []byte
		kind    rewrite.Kind
		feature string
		offset  int64
		fn      int64
		text    string
	}{
		{"nothing", nil, bad, "", 0, -1, "give the compiled .wasm file"},
		{"text", []byte(" (module)\n"), bad, "", 0, -1, "WebAssembly text"},
		{"component", []byte("\x00asm\x0d\x00\x01\x00"), foreign, "component-model", 4, -1, "wasm32-wasip1"},
		{"version 2", []byte("\x00asm\x02\x00\x00\x00"), foreign, "", 4, -1, "binary version 02 00 00 00"},
		{"tag section", newWasm().vec(13).out, foreign, "exception-handling", 8, -1, "tag section"},
		{"section 14", newWasm().vec(14).out, foreign, "stringref", 8, -1, ""},
		{"section 99", newWasm().vec(99).out, foreign, "", 8, -1, "section id 99 is not known"},
		{"section twice", newWasm().vec(1).vec(1).out, bad, "", 11, -1, "type section is repeated or out of order"},
		{"section too long", append(newWasm().out, 1, 5, 0), bad, "", 8, -1, "announces 5 bytes, 1 are left"},
		{"section with a rest", newWasm().section(1, []byte{0, 9}).out, bad, "", 11, -1, "1 bytes too many"},
		{"huge count", newWasm().section(1, []byte{0xff, 0xff, 0xff, 0xff, 0x0f}).out, bad, "", 10, -1, "announces 4294967295 types"},
		{"struct type", newWasm().vec(1, []byte{0x5f, 0, 0}).out, foreign, "gc", 11, -1, "type form 0x5f"},
		{"typed reference", newWasm().vec(1, funcTypeOf("\x64\x70", "")).out, foreign, "function-references", 13, -1, ""},
		{"exception reference", newWasm().vec(1, funcTypeOf("\x69", "")).out, foreign, "exception-handling", 13, -1, ""},
		{"import of a tag", newWasm().vec(1, funcTypeOf("", "")).vec(2, importOf("a", "b", 4, 0, 0)).out, foreign, "exception-handling", 21, -1, ""},
		{"memory64", newWasm().vec(5, []byte{4, 1}).out, foreign, "memory64", 11, -1, "wasm32 instead of wasm64"},
		{"page size", newWasm().vec(5, []byte{8, 1, 0}).out, foreign, "custom-page-sizes", 11, -1, ""},
		{"two memories", newWasm().vec(5, []byte{0, 1}, []byte{0, 1}).out, foreign, "multi-memory", 13, -1, "second memory"},
		{"imported and own memory", newWasm().vec(2, importOf("a", "b", 2, 0, 1)).vec(5, []byte{0, 1}).out, foreign, "multi-memory", 21, -1, ""},
		{"shared memory", newWasm().vec(5, []byte{3, 1, 2}).out, rewrite.SharedMemory, "threads", 11, -1, "compile for one thread"},
		{"imported shared memory", newWasm().vec(2, importOf("a", "b", 2, 3, 1, 2)).out, rewrite.SharedMemory, "threads", 16, -1, ""},
		{"table with a value", newWasm().vec(4, []byte{0x40, 0, 0x70, 0, 1, 0xd0, 0x70, 0x0b}).out, foreign, "function-references", 11, -1, ""},
		{"extended const", newWasm().vec(6, []byte{0x7f, 0, 0x41, 1, 0x41, 1, 0x6a, 0x0b}).out, foreign, "extended-const", 17, -1, ""},
		{"two exports of a name", newWasm().vec(5, []byte{0, 1}).vec(7, exportOf("a", 2, 0), exportOf("a", 2, 0)).out, bad, "", 20, -1, `two exports named "a"`},
		{"data count", newWasm().section(12, []byte{1}).vec(11).out, bad, "", 14, -1, "announces 1 data segments and has 0"},
		{"return_call", oneFunc(0x12, 0), foreign, "tail-call", 0x22, 0, "instruction return_call belongs to the proposal tail-call"},
		{"return_call_indirect", oneFunc(0x13, 0, 0), foreign, "tail-call", 0x22, 0, "return_call_indirect"},
		{"try", oneFunc(0x06, 0x40, 0x0b), foreign, "exception-handling", 0x22, 0, "instruction try"},
		{"try_table", oneFunc(0x1f, 0x40, 0, 0x0b), foreign, "exception-handling", 0x22, 0, "try_table"},
		{"struct.new", oneFunc(0xfb, 0, 0), foreign, "gc", 0x22, 0, "0xfb 0x00"},
		{"i32.atomic.load", oneFunc(0xfe, 0x10, 2, 0), foreign, "threads", 0x22, 0, "atomic"},
		{"relaxed SIMD", oneFunc(0xfd, 0x80, 0x02), foreign, "relaxed-simd", 0x22, 0, "0xfd 0x100"},
		{"unassigned SIMD", oneFunc(0xfd, 0x9a, 0x01), foreign, "", 0x22, 0, "0xfd 0x9a"},
		{"SIMD opcode written long", oneFunc(0xfd, 0x8c, 0x00), bad, "", 0x22, 0, "2 bytes instead of 1"},
		{"i64.add128", oneFunc(0xfc, 0x13), foreign, "wide-arithmetic", 0x22, 0, ""},
		{"unknown opcode", oneFunc(0x01, 0xff), foreign, "", 0x23, 0, "opcode 0xff is not known"},
		{"memory index in a load", oneFunc(0x41, 0, 0x28, 0x42, 1, 0), foreign, "multi-memory", 0x25, 0, ""},
		{"memory index in memory.grow", oneFunc(0x41, 0, 0x40, 1), foreign, "multi-memory", 0x25, 0, ""},
		{"call_ref", oneFunc(0x14, 0), foreign, "function-references", 0x22, 0, ""},
		{"ref.null of a type", oneFunc(0xd0, 0, 0x1a), foreign, "function-references", 0x23, 0, ""},
		{"body without end", newWasm().vec(1, funcTypeOf("", "")).vec(3, []byte{0}).vec(10, sized([]byte{0, 1, 1})).out, bad, "", 0x19, 0, "no end"},
		{"body goes on after its end", oneFunc(0x0b), bad, "", 0x23, 0, "1 bytes after its end"},
		{"huge br_table", oneFunc(0x41, 0, 0x0e, 0xff, 0xff, 0xff, 0xff, 0x0f), bad, "", 0x25, 0, "announces 4294967295 labels"},
		{"functions without bodies", newWasm().vec(1, funcTypeOf("", "")).vec(3, []byte{0}).out, bad, "", 18, -1, "declares 1 functions and has 0 bodies"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			res, err := rewrite.Rewrite(tt.wasm, rewrite.Options{})
			var r *rewrite.RefusedError
			if res != nil || !errors.As(err, &r) {
				t.Fatalf("got %v, %v, want a RefusedError", res, err)
			}
			if r.Kind != tt.kind || r.Feature != tt.feature || r.Offset != tt.offset || r.Func != tt.fn {
				t.Errorf("got kind %v, feature %q, offset %#x, func %d, want %v, %q, %#x, %d",
					r.Kind, r.Feature, r.Offset, r.Func, tt.kind, tt.feature, tt.offset, tt.fn)
			}
			if !strings.Contains(r.Error(), tt.text) || r.Advice == "" {
				t.Errorf("got %q with advice %q, want it to hold %q", r.Error(), r.Advice, tt.text)
			}
		})
	}
	_, err := rewrite.Rewrite(oneFunc(0x12, 0), rewrite.Options{})
	const want = "wasm module refused: instruction return_call belongs to the proposal tail-call, which is not supported" +
		" (function 0, byte offset 0x22): compile without tail calls (clang: -mno-tail-call; Rust: -C target-feature=-tail-call)"
	if err.Error() != want {
		t.Errorf("got  %q\nwant %q", err, want)
	}
}
