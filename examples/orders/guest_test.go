package orders_test

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"math/rand/v2"
	"os"
	"strings"
	"testing"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"

	"github.com/millrace-io/millrace/examples/orders/gen"
	"github.com/millrace-io/millrace/examples/orders/orderstage"
)

func readGuest(tb testing.TB) []byte {
	tb.Helper()
	wasm, err := os.ReadFile("orders.wasm")
	if err != nil {
		tb.Fatal(err)
	}
	return wasm
}

func TestModule(t *testing.T) {
	ctx := context.Background()
	rt := wazero.NewRuntimeWithConfig(ctx, wazero.NewRuntimeConfigInterpreter().WithCustomSections(true))
	t.Cleanup(func() { rt.Close(ctx) })
	m, err := rt.CompileModule(ctx, readGuest(t))
	if err != nil {
		t.Fatal(err)
	}
	if n := len(m.ImportedFunctions()); n != 0 {
		t.Errorf("%d imported functions, want none", n)
	}
	for _, name := range []string{"stage_abi_1", "stage_alloc", "stage_batch"} {
		if m.ExportedFunctions()[name] == nil {
			t.Errorf("no export %s", name)
		}
	}
	var manifest struct {
		ABI     int
		Name    string
		Version string
		Mode    string
		Sample  []struct {
			Key   string
			Value json.RawMessage
		}
	}
	for _, s := range m.CustomSections() {
		if s.Name() == "stage.manifest" {
			if err := json.Unmarshal(s.Data(), &manifest); err != nil {
				t.Fatalf("section stage.manifest: %v", err)
			}
		}
	}
	if manifest.ABI != 1 || manifest.Name != "orders" || manifest.Version != "1.0.0" || manifest.Mode != "call" {
		t.Errorf("manifest %+v", manifest)
	}
	if len(manifest.Sample) == 0 {
		t.Fatal("no sample in the manifest")
	}
	for i, s := range manifest.Sample {
		if _, outcome := orderstage.Order(nil, s.Value); outcome == orderstage.Fail {
			t.Errorf("sample %d is no order event", i)
		}
	}
}

// guest speaks as much stage/1 as a comparison of values needs.
type guest struct {
	memory api.Memory
	alloc  api.Function
	batch  api.Function
	frame  []byte
}

func newGuest(tb testing.TB) *guest {
	tb.Helper()
	ctx := context.Background()
	rt := wazero.NewRuntime(ctx)
	tb.Cleanup(func() { rt.Close(ctx) })
	m, err := rt.InstantiateWithConfig(ctx, readGuest(tb), wazero.NewModuleConfig().WithName(""))
	if err != nil {
		tb.Fatal(err)
	}
	return &guest{memory: m.Memory(), alloc: m.ExportedFunction("stage_alloc"), batch: m.ExportedFunction("stage_batch")}
}

type answer struct {
	outcome byte
	same    byte
	code    uint32
	value   string
}

var le = binary.LittleEndian

func (g *guest) encode(values [][]byte) {
	f := append(g.frame[:0], make([]byte, 32)...)
	for i, v := range values {
		at := len(f)
		f = append(f, make([]byte, 72)...)
		f = append(f, "hvkey"...)
		f = append(f, v...)
		for len(f)%8 != 0 {
			f = append(f, 0)
		}
		h := f[at:]
		le.PutUint32(h, uint32(len(h)))
		le.PutUint32(h[4:], uint32(i))
		le.PutUint32(h[36:], 1)
		le.PutUint32(h[40:], 3)
		le.PutUint32(h[44:], uint32(len(v)))
		le.PutUint32(h[48:], 2)
	}
	le.PutUint32(f, uint32(len(f)))
	le.PutUint16(f[4:], 1)
	le.PutUint16(f[6:], 1)
	le.PutUint32(f[8:], uint32(len(values)))
	le.PutUint64(f[16:], 42)
	g.frame = f
}

func (g *guest) call(tb testing.TB) []byte {
	ctx := context.Background()
	n := uint64(len(g.frame))
	stack := [2]uint64{n}
	if err := g.alloc.CallWithStack(ctx, stack[:]); err != nil {
		tb.Fatal(err)
	}
	p := uint32(stack[0])
	if p == 0 || p%8 != 0 || !g.memory.Write(p, g.frame) {
		tb.Fatalf("stage_alloc(%d) = %d", n, p)
	}
	stack = [2]uint64{uint64(p), n}
	if err := g.batch.CallWithStack(ctx, stack[:]); err != nil {
		tb.Fatal(err)
	}
	out, ok := g.memory.Read(uint32(stack[0]>>32), uint32(stack[0]))
	if !ok || len(out) < 32 || int(le.Uint32(out)) != len(out) || le.Uint16(out[6:]) != 2 || le.Uint64(out[16:]) != 42 {
		tb.Fatalf("no result frame at %#x", stack[0])
	}
	return out
}

func (g *guest) run(tb testing.TB, values [][]byte) []answer {
	tb.Helper()
	g.encode(values)
	out := g.call(tb)
	var answers []answer
	for p := 32; p < len(out); {
		h := out[p:]
		length, valueLen := int(le.Uint32(h)), int(le.Uint32(h[44:]))
		if length%8 != 0 || length < 72+valueLen || int(le.Uint32(h[4:])) != len(answers) {
			tb.Fatalf("answer %d: length %d, value %d, id %d", len(answers), length, valueLen, le.Uint32(h[4:]))
		}
		answers = append(answers, answer{h[8], h[9], le.Uint32(h[36:]), string(h[72 : 72+valueLen])})
		p += length
	}
	if len(answers) != len(values) {
		tb.Fatalf("%d answers to %d records", len(answers), len(values))
	}
	return answers
}

func check(t *testing.T, values [][]byte, answers []answer) {
	t.Helper()
	for i, v := range values {
		want, outcome := orderstage.Order(nil, v)
		a := answers[i]
		switch outcome {
		case orderstage.Emit:
			const sameKeyHeadersTimestamp = 1 | 4 | 8
			if a.outcome != 0 || a.same != sameKeyHeadersTimestamp || a.value != string(want) {
				t.Fatalf("record %q: got %+v, want emit %q", v, a, want)
			}
		case orderstage.Drop:
			if a.outcome != 1 || a.value != "" {
				t.Fatalf("record %q: got %+v, want drop", v, a)
			}
		case orderstage.Fail:
			if a.outcome != 3 || a.code == 0 || !strings.Contains(a.value, " at byte ") {
				t.Fatalf("record %q: got %+v, want fail with a code and a place", v, a)
			}
		}
	}
}

func TestGuestAnswersAsNative(t *testing.T) {
	g := newGuest(t)
	events := gen.New(3)
	for _, n := range []int{0, 1, 2, 16, 128, 1000} {
		for range 20 {
			values := make([][]byte, n)
			for i := range values {
				values[i] = events.Next().Value
			}
			check(t, values, g.run(t, values))
		}
	}
}

func TestGuestMessages(t *testing.T) {
	values := [][]byte{nil, []byte("hello"), []byte(`{"order_id":"o-0`), []byte(`{"a":1]`), []byte(`{"email":,`)}
	answers := newGuest(t).run(t, values)
	for i, want := range []answer{
		{3, 0, 1, "not a JSON object: no '{' at byte 0"},
		{3, 0, 1, "not a JSON object: no '{' at byte 0"},
		{3, 0, 2, "cut off inside a value at byte 16"},
		{3, 0, 3, "no key where one should begin at byte 6"},
		{3, 0, 3, "an empty value at byte 9"},
	} {
		if answers[i] != want {
			t.Errorf("%q: got %+v, want %+v", values[i], answers[i], want)
		}
	}
}

// Damaged events: what the guest's index does not understand goes to its
// plain scanner, and neither may differ from the native twin.
func TestGuestAnswersAsNativeOnDamage(t *testing.T) {
	const seed = 5
	rng := rand.New(rand.NewPCG(seed, 0))
	events := gen.New(seed)
	g := newGuest(t)
	for round := range 300 {
		values := make([][]byte, 128)
		for i := range values {
			v := events.Next().Value
			for range 1 + rng.IntN(3) {
				at := rng.IntN(len(v))
				switch c := "{}[]\",:\\ \nx\x00"[rng.IntN(12)]; rng.IntN(4) {
				case 0:
					v[at] = c
				case 1:
					v = append(v[:at], append([]byte{c}, v[at:]...)...)
				case 2:
					v = append(v[:at], v[at+1:]...)
				case 3:
					v = v[:at]
				}
				if len(v) == 0 {
					break
				}
			}
			values[i] = v
		}
		check(t, values, g.run(t, values))
		if t.Failed() {
			t.Fatalf("round %d of seed %d", round, seed)
		}
	}
}

func BenchmarkOrder(b *testing.B) {
	const batch = 128
	events := gen.New(1)
	values := make([][]byte, batch)
	for i := range values {
		values[i] = events.Next().Value
	}
	perRecord := func(b *testing.B) {
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/batch, "ns/record")
	}
	b.Run("guest=native", func(b *testing.B) {
		var out []byte
		for b.Loop() {
			out = out[:0]
			for _, v := range values {
				out, _ = orderstage.Order(out, v)
			}
		}
		perRecord(b)
	})
	b.Run("guest=rust", func(b *testing.B) {
		g := newGuest(b)
		g.encode(values)
		for b.Loop() {
			g.call(b)
		}
		perRecord(b)
	})
}
