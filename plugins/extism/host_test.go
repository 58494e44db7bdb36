package extism

import (
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/millrace-io/millrace/plugins/internal/testkit"
	"github.com/millrace-io/millrace/plugins/sandbox"
	"github.com/millrace-io/millrace/runtime/record"
)

// body is a function under construction; it has one i64 local.
type body []byte

func (b body) number(n int64) body {
	b = append(b, 0x42)
	for {
		c := byte(n & 0x7f)
		n >>= 7
		if done := n == 0 && c&0x40 == 0 || n == -1 && c&0x40 != 0; done {
			return append(b, c)
		}
		b = append(b, c|0x80)
	}
}

// The imports of scribbler.
const (
	fnAlloc = iota
	fnStore
	fnConfig
	fnLength
	fnReset
	fnFree
	scribblerImports
)

func (b body) call(fn byte) body { return append(b, 0x10, fn) }
func (b body) drop() body        { return append(b, 0x1a) }
func (b body) set() body         { return append(b, 0x21, 0) }
func (b body) get() body         { return append(b, 0x20, 0) }
func (b body) add(n int64) body  { return append(b.number(n), 0x7c) }

// times repeats what follows; it is unrolled.
func (b body) times(n int, part body) body {
	for range n {
		b = append(b, part...)
	}
	return b
}

// scribbler exports run, which does what code says and returns 0.
func scribbler(code body) []byte {
	types := testkit.Vector([]byte{0x60, 0, 1, i32}, []byte{0x60, 1, i64, 1, i64}, []byte{0x60, 2, i64, i64, 0}, []byte{0x60, 0, 0}, []byte{0x60, 1, i64, 0})
	env := func(name string, typ byte) []byte {
		return append(append(testkit.Name(sandbox.ExtismModule), testkit.Name(name)...), 0, typ)
	}
	imports := testkit.Vector(env("alloc", 1), env("store_u64", 2), env("config_get", 1), env("length", 1), env("reset", 3), env("free", 4))
	code = append(append([]byte{1, 1, i64}, code...), 0x41, 0, 0x0b)
	wasm := []byte("\x00asm\x01\x00\x00\x00")
	for _, s := range [][]byte{
		testkit.Section(1, types), testkit.Section(2, imports), testkit.Section(3, testkit.Vector([]byte{0})), testkit.Section(5, testkit.Vector([]byte{0, 1})),
		testkit.Section(7, testkit.Vector(append(testkit.Name("run"), 0, scribblerImports))), testkit.Section(10, testkit.Vector(append(testkit.Uleb(len(code)), code...))),
	} {
		wasm = append(wasm, s...)
	}
	return wasm
}

// TestHostCallsAreBounded: no call of Extism's functions takes longer than the
// guest pays for, whatever it wrote before.
func TestHostCallsAreBounded(t *testing.T) {
	rt := open(t, Config{Workers: 1})
	alloc := func(n int64) body { return body{}.number(n).call(fnAlloc).set() }
	store := func(b body) body { return b.number(-1).call(fnStore) }
	for _, tt := range []struct {
		name    string
		code    body
		class   record.Class
		message string
	}{
		{"the list of the allocator made endless", append(alloc(8).get().add(-8).number(0xfffffff4).call(fnStore), body{}.number(96).call(fnLength).drop()...), record.Trap, "not in a block of its own"},
		{"a block's end", store(alloc(16).get().add(9)), record.Trap, "not in a block of its own"},
		{"the allocator's own data", store(body{}.number(8)), record.Trap, "not in a block of its own"},
		{"a freed block", store(alloc(16).get().call(fnFree).get()), record.Trap, "not in a block of its own"},
		{"a block before a reset", store(alloc(16).call(fnReset).get()), record.Trap, "not in a block of its own"},
		{"beyond 32 bits", store(alloc(16).get().add(1 << 32)), record.Trap, "not in a block of its own"},
		{"its own block", store(alloc(16).get().add(8)), 0, ""},
		{"a large name once", alloc(16 << 20).get().call(fnConfig).drop(), 0, ""},
		{"a large name again and again", alloc(16<<20).times(20, body{}.get().call(fnConfig).drop()), record.Fuel, "1000000 units of fuel"},
		{"memory cleared again and again", alloc(16<<20).times(20, body{}.call(fnReset)), record.Fuel, "1000000 units of fuel"},
		{"a long list searched again and again", body{}.times(3000, alloc(1)).times(3000, body{}.number(1).call(fnLength).drop()), record.Fuel, "1000000 units of fuel"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := compile(t, rt, scribbler(tt.code))
			out := testkit.Process(t, newStage(t, m, sandbox.StageConfig{Function: "run", Fuel: 1_000_000}), testkit.Batch("abc"))
			switch {
			case tt.message == "" && len(out.Drops) == 1:
			case tt.message == "" || len(out.Failures) != 1:
				t.Errorf("got %+v", out)
			case out.Failures[0].Err.Class != tt.class || !strings.Contains(out.Failures[0].Err.Message, tt.message):
				t.Errorf("got %v, want %s: %s", out.Failures[0].Err, tt.class, tt.message)
			}
		})
	}
}

// TestBlocks holds blocks against a map of bytes.
func TestBlocks(t *testing.T) {
	seed := rand.Uint64()
	r := rand.New(rand.NewPCG(seed, 0))
	const size = 512
	var b blocks
	owner := [size]uint64{} // the block that has each byte, 0: none
	for step := range 20_000 {
		from, n := headerBytes+r.Uint64N(size-64), r.Uint64N(40)
		switch r.IntN(4) {
		case 0:
			b.add(from, n)
			if n > 0 {
				gone := map[uint64]bool{}
				for i := from - headerBytes; i < from+n; i++ {
					gone[owner[i]] = true
				}
				for i := range owner {
					if gone[owner[i]] {
						owner[i] = 0
					}
				}
				for i := from; i < from+n; i++ {
					owner[i] = from
				}
			}
		case 1:
			b.remove(from)
			for i := range owner {
				if owner[i] == from {
					owner[i] = 0
				}
			}
		case 2:
			want := uint64(0)
			for i := range owner {
				if owner[i] == from {
					want++
				}
			}
			if got, _ := b.at(from); got != want {
				t.Fatalf("seed %d, step %d: block at %d has %d bytes, want %d", seed, step, from, got, want)
			}
		default:
			n = 1 + r.Uint64N(8)
			want := owner[from] != 0
			for i := from; i < from+n; i++ {
				want = want && owner[i] == owner[from]
			}
			if got := b.hold(from, n); got != want {
				t.Fatalf("seed %d, step %d: %d bytes at %d held: %v, want %v", seed, step, n, from, got, want)
			}
		}
	}
	b.clear()
	if b.hold(100, 1) {
		t.Error("cleared blocks hold something")
	}
}
