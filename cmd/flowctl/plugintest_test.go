package main

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"

	"github.com/millrace-io/millrace/plugins/abi"
	"github.com/millrace-io/millrace/plugins/plugintest"
	"github.com/millrace-io/millrace/plugins/plugintest/guests"
	"github.com/millrace-io/millrace/runtime/record"
)

// isolateCache keeps compiled plugins out of the user's folder.
func isolateCache(t *testing.T) { t.Setenv("XDG_CACHE_HOME", t.TempDir()) }

// testOf runs `plugin test -o json`.
func testOf(t *testing.T, h *harness, args ...string) (int, *testReport, string) {
	t.Helper()
	code, stdout, stderr := h.call("", append([]string{"plugin", "test", "-o", "json", "--batch", "300"}, args...)...)
	r := new(testReport)
	if stdout != "" {
		if err := json.Unmarshal([]byte(stdout), r); err != nil {
			t.Fatalf("%v: %s", err, stdout)
		}
	}
	return code, r, stderr
}

// extismDrops is an Extism plugin whose function count answers nothing, which
// drops the record.
const extismDrops = wasmHead +
	"\x01\x0e\x03\x60\x00\x01\x7f\x60\x01\x7e\x01\x7f\x60\x00\x01\x7e" + // types: () -> i32, (i64) -> i32, () -> i64
	"\x02\x20\x01\x0fextism:host/env\x0cinput_length\x00\x02" +
	"\x03\x02\x01\x00" + // a function of type 0
	"\x07\x09\x01\x05count\x00\x01" +
	"\x0a\x06\x01\x04\x00\x41\x00\x0b"

func TestPluginTest(t *testing.T) {
	isolateCache(t)
	h := newHarness(t)
	h.copy("examples/upper/upper.wasm", "upper.wasm")
	h.write("conformance.wasm", string(guests.Conformance))
	h.write("mutant.wasm", string(guests.Mutant))
	h.write("records.ndjson", `{"key":"a","value":"one"}`+"\n"+`{"key":null,"value":null}`+"\n")
	h.write("lines.txt", "one\n\ntwo\n")

	code, r, stderr := testOf(t, h, "upper.wasm", "--input", "lines.txt")
	if code != 0 || r.Failed != 0 || r.Passed < 20 || r.Mode != "call" || r.Figures.FuelMax == 0 || r.Results[2].Detail != "the given records, one at a time: 3 emitted" {
		t.Errorf("upper: exit %d, %s\n%+v", code, stderr, r)
	}
	code, r, stderr = testOf(t, h, "conformance.wasm")
	if code != 0 || r.Failed != 0 || r.Plugin != "millrace/conformance@1.0.0" || !strings.HasPrefix(r.Results[len(r.Results)-1].Check, "vector ") {
		t.Errorf("conformance: exit %d, %s\n%+v", code, stderr, r)
	}

	h.write("extism.wasm", extismDrops)
	code, r, stderr = testOf(t, h, "extism.wasm", "--function", "count")
	if code != 0 || r.Failed != 0 || r.Mode != "extism" || !strings.HasSuffix(r.Results[2].Detail, "0 emitted, 16 dropped") {
		t.Errorf("extism: exit %d, %s\n%+v", code, stderr, r)
	}

	h.write("vectors/one.json", `{"format":"millrace-vectors/1","about":"One.","do":"value 1","records":[{"value":"x"}],"expect":[{"in":0,"emit":{"value":"2"}}]}`)
	code, r, stderr = testOf(t, h, "conformance.wasm", "--vectors", "vectors")
	if last := r.Results[len(r.Results)-1]; code != 4 || r.Failed != 1 || last.Detail != `record 0: value is "1", want "2"` || !strings.Contains(stderr, codeChecks) {
		t.Errorf("a wrong vector: exit %d, %s\n%+v", code, stderr, last)
	}

	code, r, stderr = testOf(t, h, "mutant.wasm", "--with", `{"do":"pass","fault":"traps-on-null"}`, "--input", "records.ndjson", "--envelope")
	if code != 4 || r.Failed == 0 || !strings.Contains(stderr, "1 of 2 records fail with class trap") {
		t.Errorf("a mutant: exit %d, %s\n%+v", code, stderr, r)
	}
}

// TestPluginTestGolden holds what people see.
func TestPluginTestGolden(t *testing.T) {
	isolateCache(t)
	h := newHarness(t)
	h.write("mutant.wasm", string(guests.Mutant))
	h.write("faulty.wasm", string(guests.Faulty))
	h.copy("examples/lines/lines.wasm", "lines.wasm")
	h.write("notes.wasm", "this is a text\n")
	h.write("empty.txt", "")
	h.write("broken.ndjson", "{\n")
	h.do("plugin", "test", "faulty.wasm", "--with", `{"behaviour":"doubled"}`)
	h.do("plugin", "test", "faulty.wasm", "--with", `{"behaviour":"doubled"}`, "-o", "json")
	h.note("mistakes")
	h.do("plugin", "test", "notes.wasm")
	h.do("plugin", "test", "absent.wasm")
	h.do("plugin", "test", "mutant.wasm", "--with", "[1]")
	h.do("plugin", "test", "mutant.wasm", "--function", "stage_batch")
	h.do("plugin", "test", "mutant.wasm", "--host", "example.com")
	h.do("plugin", "test", "mutant.wasm", "--input", "empty.txt")
	h.do("plugin", "test", "mutant.wasm", "--input", "broken.ndjson", "--envelope")
	h.do("plugin", "test", "mutant.wasm", "--vectors", "nowhere")
	h.do("plugin", "test", "mutant.wasm", "--batch", "0")
	h.do("plugin", "test", "lines.wasm", "--with", `{"a":1}`)
	h.golden("plugin_test")
}

// program is a WASI command whose memory has so many pages, as LEB128, and
// whose _start has this code.
func program(pages, code string) string {
	section := func(id byte, s string) string { return string([]byte{id, byte(len(s))}) + s }
	return wasmHead[:8] + section(1, "\x01\x60\x00\x00") + section(3, "\x01\x00") + section(5, "\x01\x00"+pages) +
		section(7, "\x02\x06_start\x00\x00\x06memory\x02\x00") + section(10, "\x01"+string([]byte{byte(len(code) + 1), 0})+code)
}

// TestInspectGolden holds the report of each kind of plugin, and what is said
// of files that are none.
func TestInspectGolden(t *testing.T) {
	h := newHarness(t)
	for _, name := range []string{"upper", "lines", "orders"} {
		h.copy("examples/"+name+"/"+name+".wasm", name+".wasm")
	}
	h.do("plugin", "inspect", "upper.wasm")
	h.do("plugin", "inspect", "upper.wasm", "-o", "json")
	h.do("plugin", "inspect", "lines.wasm")
	h.do("plugin", "inspect", "orders.wasm", "-o", "name")

	h.note("what needs keys")
	h.copy("plugins/plugintest/guests/sign/sign.wasm", "sign.wasm")
	h.do("plugin", "inspect", "sign.wasm")

	h.note("functions, and what is refused")
	h.write("extism.wasm", extismDrops)
	h.do("plugin", "inspect", "extism.wasm")
	h.write("foreign.wasm", wasmHead+"\x01\x04\x01\x60\x00\x00"+"\x02\x0c\x01\x03env\x04\x61bcd\x00\x00"+"\x03\x02\x01\x00"+"\x07\x0a\x01\x06_start\x00\x01"+"\x0a\x04\x01\x02\x00\x0b")
	h.do("plugin", "inspect", "foreign.wasm")

	h.note("more than nodes give by default")
	manifest := func(m string) string {
		return "\x00" + string(rune(len(m)+15)) + "\x0estage.manifest" + m
	}
	h.write("large.wasm", program("\xd0\x0f", "\x0b"))
	h.do("plugin", "inspect", "large.wasm")
	h.do("run", "large.wasm")
	h.write("small.wasm", program("\xd0\x0f", "\x0b")+manifest(`{"memory_mb":1}`))
	h.do("plugin", "inspect", "small.wasm")
	h.write("greedy.wasm", program("\x01", "\x0b")+manifest(`{"memory_mb":4000,"fuel_per_record":99999999999,"lines":"batch"}`))
	h.do("plugin", "inspect", "greedy.wasm")
	h.do("run", "greedy.wasm")

	h.note("files that are no plugins")
	for _, f := range []struct{ name, content string }{
		{"empty.wasm", ""}, {"short.wasm", wasmHead[:5]}, {"head.wasm", wasmHead[:8]}, {"damaged.wasm", extismDrops[:40]},
		{"component.wasm", "\x00asm\x0d\x00\x01\x00\x07\x01"}, {"picture.wasm", "\x89PNG\r\n\x1a\n\x00\x00"}, {"program.wasm", "\x7fELF\x02\x01\x01\x00"},
		{"packed.wasm", "\x1f\x8b\x08\x00"}, {"text.wasm", "  (module)\n"}, {"page.wasm", "<!DOCTYPE html><html>"}, {"notes.wasm", "some notes\n"},
		{"bytes.wasm", "\x01\x02\x03\x04\x05\x06\x07\x08\x09"},
	} {
		h.write(f.name, f.content)
		h.do("plugin", "inspect", f.name)
	}
	h.golden("inspect")
}

// TestRunOfWhatDoesNotStart: a plugin that fails before it sees a configuration
// is not told to correct it.
func TestRunOfWhatDoesNotStart(t *testing.T) {
	h := newHarness(t)
	h.write("loop.wasm", program("\x01", "\x03\x40\x0c\x00\x0b\x0b"))
	code, stdout, stderr := h.call("x\n", "run", "loop.wasm")
	if code != 2 || stdout != "" || !strings.Contains(stderr, "E_PLUGIN_REFUSED: run loop.wasm: start plugin") || !strings.Contains(stderr, "before it read anything") || strings.Contains(stderr, "--with") {
		t.Errorf("exit %d: %s%s", code, stdout, stderr)
	}
}

// TestForeignIsQuick: of a file that is no module only the beginning is read.
func TestForeignIsQuick(t *testing.T) {
	h := newHarness(t)
	f, err := os.Create(filepath.Join(h.dir, "disk.img"))
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Truncate(1 << 40); err != nil {
		t.Skipf("no sparse files here: %v", err)
	}
	f.Close()
	done := make(chan string, 1)
	go func() {
		_, _, stderr := h.call("", "plugin", "inspect", "./disk.img")
		done <- stderr
	}()
	select {
	case stderr := <-done:
		if !strings.Contains(stderr, "it is not WebAssembly: it begins with 00 00 00 00") {
			t.Error(stderr)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("the whole file is read")
	}
}

func TestPluginRewrite(t *testing.T) {
	h := newHarness(t)
	h.copy("examples/upper/upper.wasm", "upper.wasm")
	h.write("notes.wasm", "this is a text\n")
	h.env["FLOWCTL_OUTPUT"] = "json" // the format of everything else
	code, stdout, stderr := h.call("", "plugin", "rewrite", "upper.wasm", "-o", "out.wasm")
	if code != 0 || stdout != "" || !strings.Contains(stderr, `fuel: export "millrace:fuel", a mutable i64`) {
		t.Fatalf("exit %d, %s%s", code, stdout, stderr)
	}
	rewritten, err := os.ReadFile(filepath.Join(h.dir, "out.wasm"))
	if err != nil {
		t.Fatal(err)
	}
	if code, stdout, _ := h.call("", "plugin", "rewrite", "upper.wasm", "-o", "-"); code != 0 || stdout != string(rewritten) {
		t.Errorf("to STDOUT: exit %d, %d bytes, want %d", code, len(stdout), len(rewritten))
	}
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"upper.wasm"}, "add -o OUT.wasm"},
		{[]string{"upper.wasm", "-o", "upper.wasm"}, "would be written over itself"},
		{[]string{"upper.wasm", "-o", "nowhere/out.wasm"}, "nowhere/out.wasm"},
		{[]string{"notes.wasm", "-o", "other.wasm"}, "it is a text"},
	} {
		code, stdout, stderr := h.call("", append([]string{"plugin", "rewrite"}, c.args...)...)
		if code != 2 || stdout != "" || !strings.Contains(stderr, c.want) {
			t.Errorf("%q: exit %d, %s%s", c.args, code, stdout, stderr)
		}
	}

	original, err := os.ReadFile(filepath.Join(h.dir, "upper.wasm"))
	if err != nil {
		t.Fatal(err)
	}
	records := []record.Record{{Key: []byte("k"), Value: []byte("hello"), Topic: "t", Attempt: 1}, {Topic: "t", Attempt: 1}, {Value: []byte{0xff, 'a'}, Topic: "t", Attempt: 1}}
	want, _ := plainRun(t, original, records, nil)
	got, guest := plainRun(t, rewritten, records, nil)
	if got != want {
		t.Errorf("rewritten: got %s, want %s", got, want)
	}
	fuel, ok := guest.ExportedGlobal("millrace:fuel").(api.MutableGlobal)
	if !ok || int64(fuel.Get()) <= 1<<62 {
		t.Fatalf("got fuel %v", guest.ExportedGlobal("millrace:fuel"))
	}
	short := int64(20)
	if got, _ := plainRun(t, rewritten, records, &short); !strings.Contains(got, "unreachable") {
		t.Errorf("without fuel: got %s", got)
	}
}

// plainRun gives records to a stage/1 guest in an engine that knows nothing of
// Millrace, and writes down what it answers or how it ends. fuel is set before
// the batch.
func plainRun(t *testing.T, wasm []byte, records []record.Record, fuel *int64) (string, api.Module) {
	t.Helper()
	ctx := t.Context()
	rt := wazero.NewRuntime(ctx)
	t.Cleanup(func() { rt.Close(context.WithoutCancel(ctx)) })
	guest, err := rt.Instantiate(ctx, wasm)
	if err != nil {
		t.Fatal(err)
	}
	var enc abi.Encoder
	size, err := enc.Size(records)
	if err != nil {
		t.Fatal(err)
	}
	frame := make([]byte, size)
	enc.Encode(frame, 7, 8, records)
	p, err := guest.ExportedFunction("stage_alloc").Call(ctx, uint64(size))
	if err != nil {
		t.Fatal(err)
	}
	if !guest.Memory().Write(uint32(p[0]), frame) {
		t.Fatalf("stage_alloc answered %#x", p[0])
	}
	if fuel != nil {
		guest.ExportedGlobal("millrace:fuel").(api.MutableGlobal).Set(uint64(*fuel))
	}
	r, err := guest.ExportedFunction("stage_batch").Call(ctx, p[0], uint64(size))
	if err != nil {
		return err.Error(), guest
	}
	answer, ok := guest.Memory().Read(uint32(r[0]>>32), uint32(r[0]))
	if !ok {
		t.Fatalf("stage_batch answered %#x", r[0])
	}
	dec := abi.Decoder{Outputs: []abi.Output{{Name: "default", Bound: true}}}
	var out record.Results
	if err := dec.Decode(answer, 7, records, 0, &out); err != nil {
		t.Fatal(err)
	}
	b, err := json.Marshal(out)
	if err != nil {
		t.Fatal(err)
	}
	return string(b), guest
}

// TestVectorsShip: flowctl takes the very vectors of the tree along.
func TestVectorsShip(t *testing.T) {
	a := &app{dir: t.TempDir()}
	shipped, err := a.testVectors("acme/go-conformance", "")
	if err != nil {
		t.Fatal(err)
	}
	tree, err := plugintest.LoadVectors(os.DirFS("../../pdk/testdata/conformance"))
	if err != nil || len(shipped) != len(tree) {
		t.Errorf("got %d vectors, the tree has %d, %v", len(shipped), len(tree), err)
	}
	if v, err := a.testVectors("orders", ""); v != nil || err != nil {
		t.Errorf("a plugin of another name gets %d vectors, %v", len(v), err)
	}
}
