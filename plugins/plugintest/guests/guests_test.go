package guests_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"strings"
	"testing"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/imports/wasi_snapshot_preview1"

	"github.com/millrace-io/millrace/plugins/plugintest/guests"
)

var le = binary.LittleEndian

// compiled spares each test the compilation of the same two modules.
var compiled = wazero.NewCompilationCache()

// host runs one guest as plainly as possible: what the guests do is checked
// here, what becomes of it is the sandbox's test.
type host struct {
	t      *testing.T
	ctx    context.Context
	m      api.Module
	log    []string
	counts map[string]float64
	stdout bytes.Buffer
	stderr bytes.Buffer
}

func start(t *testing.T, wasm []byte) *host {
	t.Helper()
	h := &host{t: t, ctx: context.Background(), counts: map[string]float64{}}
	rt := wazero.NewRuntimeWithConfig(h.ctx, wazero.NewRuntimeConfig().WithCompilationCache(compiled).WithMemoryLimitPages(16<<20>>16))
	t.Cleanup(func() { rt.Close(h.ctx) })
	wasi_snapshot_preview1.MustInstantiate(h.ctx, rt)
	text := func(m api.Module, p, n uint32) string {
		b, _ := m.Memory().Read(p, n)
		return string(b)
	}
	_, err := rt.NewHostModuleBuilder("stage").
		NewFunctionBuilder().WithFunc(func(_ context.Context, m api.Module, level int32, p, n uint32) {
		h.log = append(h.log, fmt.Sprintf("%d %s", level, text(m, p, n)))
	}).Export("log").
		NewFunctionBuilder().WithFunc(func(_ context.Context, m api.Module, p, n uint32, delta float64) {
		h.counts[text(m, p, n)] += delta
	}).Export("count").Instantiate(h.ctx)
	if err != nil {
		t.Fatal(err)
	}
	cfg := wazero.NewModuleConfig().WithName("").WithStdout(&h.stdout).WithStderr(&h.stderr).WithStartFunctions("_initialize")
	if h.m, err = rt.InstantiateWithConfig(h.ctx, wasm, cfg); err != nil {
		t.Fatal(err)
	}
	return h
}

// write puts b into a buffer of the guest's and returns its place.
func (h *host) write(b []byte) uint64 {
	h.t.Helper()
	p, err := h.m.ExportedFunction("stage_alloc").Call(h.ctx, uint64(len(b)))
	if err != nil {
		h.t.Fatal(err)
	}
	if !h.m.Memory().Write(uint32(p[0]), b) {
		h.t.Fatalf("stage_alloc(%d) = %d", len(b), p[0])
	}
	return p[0]
}

// batch sends one record a value and returns stage_batch's own result.
func (h *host) batch(values ...string) (uint64, error) {
	h.t.Helper()
	f := make([]byte, 32)
	for i, v := range values {
		r := make([]byte, 72, 72+len(v)+8)
		r = append(r, v...)
		for len(r)%8 != 0 {
			r = append(r, 0)
		}
		le.PutUint32(r, uint32(len(r)))
		le.PutUint32(r[4:], uint32(i))
		le.PutUint32(r[44:], uint32(len(v)))
		f = append(f, r...)
	}
	le.PutUint32(f, uint32(len(f)))
	le.PutUint16(f[4:], 1)
	le.PutUint16(f[6:], 1)
	le.PutUint32(f[8:], uint32(len(values)))
	le.PutUint64(f[16:], 9)
	r, err := h.m.ExportedFunction("stage_batch").Call(h.ctx, h.write(f), uint64(len(f)))
	if err != nil {
		return 0, err
	}
	return r[0], nil
}

// answers reads a result frame as text, trusting nothing that the test is about.
func (h *host) answers(result uint64) string {
	h.t.Helper()
	out, ok := h.m.Memory().Read(uint32(result>>32), uint32(result))
	if !ok {
		return fmt.Sprintf("result outside the memory: %#x", result)
	}
	if len(out) < 32 {
		return fmt.Sprintf("result of %d bytes", len(out))
	}
	var s []string
	if n := int(le.Uint32(out)); n != len(out) {
		s = append(s, fmt.Sprintf("frame length %+d", n-len(out)))
	}
	if v, k, id := le.Uint16(out[4:]), le.Uint16(out[6:]), le.Uint64(out[16:]); v != 1 || k != 2 || id != 9 {
		s = append(s, fmt.Sprintf("version %d kind %d batch %d", v, k, id))
	}
	for p := 32; p < len(out); {
		a := out[p:]
		n, value := int(le.Uint32(a)), int(le.Uint32(a[44:]))
		text := fmt.Sprintf("%d:%d/%d", le.Uint32(a[4:]), a[8], a[9])
		if output := le.Uint16(a[12:]); output != 0 {
			text += fmt.Sprintf(" output %d", output)
		}
		if delay := le.Uint64(a[16:]); delay != 0 {
			text += fmt.Sprintf(" delay %d", delay)
		}
		if code := le.Uint32(a[36:]); code != 0 {
			text += fmt.Sprintf(" code %d", code)
		}
		if lengths := [2]uint32{le.Uint32(a[40:]), le.Uint32(a[48:])}; lengths != [2]uint32{} {
			text += fmt.Sprintf(" key %d headers %d", lengths[0], lengths[1])
		}
		if 72+value <= len(a) {
			text += " " + string(a[72:72+value])
		} else {
			text += fmt.Sprintf(" value of %d bytes", value)
		}
		s = append(s, strings.TrimSpace(text))
		if n < 72 || n%8 != 0 || n > len(a) {
			s = append(s, fmt.Sprintf("record length %d", n))
			break
		}
		p += n
	}
	return strings.Join(s, "; ")
}

func TestFaultyAnswers(t *testing.T) {
	for _, c := range []struct{ behaviour, want string }{
		{"anything else", "0:0/15"},
		{"drop", "0:1/0"},
		{"fail", "0:3/0 code 9 not acceptable"},
		{"retry", "0:2/0 delay 50 code 7 come back later"},
		{"emit3", "0:0/13 emit3-0; 0:0/13 emit3-1; 0:0/13 emit3-2"},
		{"output1", "0:0/15 output 1"},
		{"state", "0:0/13 1"},
		{"count", "0:0/15"},
		{"log", "0:0/15"},
		{"log-flood", "0:0/15"},
		{"grow", "0:0/15"},
		{"missing", ""},
		{"doubled", "0:1/0; 0:1/0"},
		{"emit-drop", "0:0/15; 0:1/0"},
		{"unknown-id", "1000000:0/15"},
		{"unknown-outcome", "0:9/15"},
		{"unknown-output", "0:0/15 output 7"},
		{"wrong-length", "0:0/15; record length 1048576"},
		{"short-length", "0:0/15; record length 8"},
		{"zero-length", "0:0/15; record length 0"},
		{"odd-length", "0:0/15; record length 73"},
		{"long-key", "0:0/0 key 4294967295 headers 0"},
		{"long-value", "0:0/13 value of 4294967295 bytes"},
		{"long-headers", "0:0/0 key 0 headers 4294967295"},
		{"bad-headers", "0:0/1 key 0 headers 16"},
		{"bad-kind", "version 1 kind 1 batch 9; 0:0/15"},
		{"bad-version", "version 0 kind 2 batch 9; 0:0/15"},
		{"bad-batch-id", "version 1 kind 2 batch 3735928559; 0:0/15"},
		{"bad-frame-length", "frame length +4096; 0:0/15"},
		{"bad-offset", "result outside the memory: 0xffff000000001000"},
		{"empty-result", "result of 0 bytes"},
		{"short-result", "result of 16 bytes"},
	} {
		t.Run(c.behaviour, func(t *testing.T) {
			h := start(t, guests.Faulty)
			r, err := h.batch(c.behaviour)
			if err != nil {
				t.Fatal(err)
			}
			if got := h.answers(r); got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
	h := start(t, guests.Faulty)
	if r, err := h.batch("zero-result"); r != 0 || err != nil {
		t.Errorf("zero-result: %#x, %v", r, err)
	}
	before := h.m.Memory().Size()
	if _, err := h.batch("grow"); err != nil || h.m.Memory().Size() < before+4<<20 {
		t.Errorf("grow: from %d to %d bytes, %v", before, h.m.Memory().Size(), err)
	}
	if r, err := h.batch("state", "x", "state"); err != nil || h.answers(r) != "0:0/13 1; 1:0/15; 2:0/13 2" {
		t.Errorf("state: %s, %v", h.answers(r), err)
	}
	if _, err := h.batch("count", "log", "count"); err != nil || h.counts["faulty.records"] != 2 || strings.Join(h.log, "") != "1 log: hello from faulty" {
		t.Errorf("counts %v, log %q, %v", h.counts, h.log, err)
	}
}

func TestFaultyTraps(t *testing.T) {
	for _, c := range []struct{ behaviour, trap, log string }{
		{"trap", "unreachable", "3 trap: reached what cannot be reached"},
		{"count-trap", "unreachable", "3 count-trap: trapping after a count"},
		{"panic", "unreachable", ""},
		{"stack", "stack overflow", ""},
		{"outside", "out of bounds memory access", ""},
		{"hog", "unreachable", ""},
	} {
		t.Run(c.behaviour, func(t *testing.T) {
			h := start(t, guests.Faulty)
			_, err := h.batch("x", c.behaviour)
			if err == nil || !strings.Contains(err.Error(), c.trap) {
				t.Errorf("got %v, want %s", err, c.trap)
			}
			if got := strings.Join(h.log, "\n"); got != c.log {
				t.Errorf("log %q, want %q", got, c.log)
			}
		})
	}
}

// A trap leaves the stack pointer behind: the global that an image must hold.
func TestFaultyTrapMovesAGlobal(t *testing.T) {
	h := start(t, guests.Faulty)
	address := func() string {
		r, err := h.batch("stack-address")
		if err != nil {
			t.Fatal(err)
		}
		return h.answers(r)
	}
	first := address()
	if again := address(); again != first {
		t.Errorf("two good calls: %s and %s", first, again)
	}
	if _, err := h.batch("trap"); err == nil {
		t.Fatal("no trap")
	}
	if after := address(); after == first {
		t.Errorf("the same address %s after a trap", after)
	}
}

func TestFaultyInit(t *testing.T) {
	for _, c := range []struct {
		behaviour string
		want      uint64
		log       string
	}{
		{"init-fail", 3, "3 init-fail: the config is not acceptable"},
		{"init-echo", 0, `1 {"x": 1, "behaviour": "init-echo"}`},
		{"drop", 0, ""},
	} {
		t.Run(c.behaviour, func(t *testing.T) {
			h := start(t, guests.Faulty)
			config := fmt.Sprintf(`{"x": 1, "behaviour": %q}`, c.behaviour)
			r, err := h.m.ExportedFunction("stage_init").Call(h.ctx, h.write([]byte(config)), uint64(len(config)))
			if err != nil || r[0] != c.want {
				t.Errorf("stage_init: %v, %v, want %d", r, err, c.want)
			}
			if got := strings.Join(h.log, "\n"); got != c.log {
				t.Errorf("log %q, want %q", got, c.log)
			}
		})
	}
	for behaviour, want := range map[string]uint64{"alloc0": 0, "alloc-outside": 0xffff_ff00} {
		h := start(t, guests.Faulty)
		config := fmt.Sprintf(`{"behaviour":%q}`, behaviour)
		if _, err := h.m.ExportedFunction("stage_init").Call(h.ctx, h.write([]byte(config)), uint64(len(config))); err != nil {
			t.Fatal(err)
		}
		if r, err := h.m.ExportedFunction("stage_alloc").Call(h.ctx, 8); err != nil || uint32(r[0]) != uint32(want) {
			t.Errorf("%s: stage_alloc = %v, %v", behaviour, r, err)
		}
	}
	h := start(t, guests.Faulty)
	config := `{"behaviour":"init-trap"}`
	if _, err := h.m.ExportedFunction("stage_init").Call(h.ctx, h.write([]byte(config)), uint64(len(config))); err == nil {
		t.Error("init-trap: no trap")
	}
}

func TestWASI(t *testing.T) {
	h := start(t, guests.WASI)
	for _, c := range []struct{ behaviour, want string }{
		{"anything else", "0:0/13 anything else"},
		{"stdout", "0:0/13 stdout"},
		{"stderr", "0:0/13 stderr"},
		{"args", "0:0/13"},
		{"env", "0:0/13"},
		{"stdin", "0:0/13 0"},
	} {
		r, err := h.batch(c.behaviour)
		if err != nil {
			t.Fatalf("%s: %v", c.behaviour, err)
		}
		if got := h.answers(r); got != c.want {
			t.Errorf("%s: got %q, want %q", c.behaviour, got, c.want)
		}
	}
	for behaviour, prefix := range map[string]string{
		"time": "0:0/13 1", "monotonic": "0:0/13 ", "sleep": "0:0/13 ", "random": "0:0/13 ", "open": "0:3/0 code 1 ",
	} {
		r, err := h.batch(behaviour)
		if got := h.answers(r); err != nil || !strings.HasPrefix(got, prefix) {
			t.Errorf("%s: got %q, %v, want %q...", behaviour, got, err, prefix)
		}
	}
	if h.stdout.String() != "stdout: hello from wasi\n" || h.stderr.String() != "stderr: hello from wasi\n" {
		t.Errorf("STDOUT %q, STDERR %q", &h.stdout, &h.stderr)
	}
	for behaviour, want := range map[string]string{"exit": "exit_code(3)", "exit0": "exit_code(0)", "panic": "unreachable"} {
		h := start(t, guests.WASI)
		if _, err := h.batch(behaviour); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", behaviour, err, want)
		}
		if behaviour == "panic" && !strings.Contains(h.stderr.String(), "panic: told on STDERR") {
			t.Errorf("panic: STDERR %q", &h.stderr)
		}
	}
}
