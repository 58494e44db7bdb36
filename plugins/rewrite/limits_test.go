package rewrite_test

import (
	"errors"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/millrace-io/millrace/plugins/rewrite"
)

func repeat(n int, code ...byte) []byte { return slices.Repeat(code, n) }

// module has n functions without parameters, all with the given body.
func module(n int, fn []byte) []byte {
	return newWasm().
		vec(1, funcTypeOf("", "")).
		section(3, leb(n), make([]byte, n)).
		section(10, leb(n), slices.Repeat(fn, n)).out
}

func withLocals(n int) []byte { return sized([]byte{1}, leb(n), []byte{0x7f, 0x0b}) }

func nested(n int, op byte) []byte {
	return body(cat(repeat(n, op, 0x40), repeat(n, 0x0b))...)
}

func brTable(n int) []byte {
	return body(cat([]byte{0x41, 0, 0x0e}, leb(n), make([]byte, n+1))...)
}

// TestLimits tries each limit at its default: the last value that passes and
// the first that does not.
func TestLimits(t *testing.T) {
	tests := []struct {
		feature string
		build   func(int) []byte
		limit   int
	}{
		{"function body", func(n int) []byte { return module(1, body(repeat(n-2, 0x01)...)) }, 1 << 20},
		{"locals", func(n int) []byte { return module(1, withLocals(n)) }, 50_000},
		{"total locals", func(n int) []byte {
			return newWasm().vec(1, funcTypeOf("", "")).
				section(3, leb(201), make([]byte, 201)).
				section(10, leb(201), slices.Repeat(withLocals(49_760), 200), withLocals(n-200*49_760)).out
		}, 10_000_000},
		{"functions", func(n int) []byte { return module(n, body()) }, 200_000},
		{"br_table", func(n int) []byte { return module(1, brTable(n)) }, 65_536},
		{"nesting", func(n int) []byte { return module(1, nested(n, 0x02)) }, 10_000},
		{"loop nesting", func(n int) []byte { return module(1, nested(n, 0x03)) }, 500},
	}
	for _, tt := range tests {
		t.Run(tt.feature, func(t *testing.T) {
			if _, err := rewrite.Rewrite(tt.build(tt.limit), rewrite.Options{}); err != nil {
				t.Errorf("refused at the limit: %v", err)
			}
			wasm := tt.build(tt.limit + 1)
			began := time.Now()
			_, err := rewrite.Rewrite(wasm, rewrite.Options{})
			if took := time.Since(began); took > time.Second {
				t.Errorf("the refusal took %v", took)
			}
			var r *rewrite.RefusedError
			if !errors.As(err, &r) {
				t.Fatalf("got %v above the limit, want a RefusedError", err)
			}
			if r.Kind != rewrite.TooLarge || r.Feature != tt.feature || r.Advice == "" {
				t.Errorf("got %v %q with advice %q, want too-large %q", r.Kind, r.Feature, r.Advice, tt.feature)
			}
		})
	}
}

func TestLimitsAreReportedTogether(t *testing.T) {
	wasm := newWasm().
		vec(1, funcTypeOf("", ""), funcTypeOf("\x7f\x7f", "")).
		vec(2, importOf("env", "f", 0, 0)).
		vec(3, []byte{0}, []byte{1}).
		vec(5, []byte{3, 1, 1}).
		vec(10, brTable(3), withLocals(2)).out
	m, err := rewrite.Parse(wasm)
	if err != nil {
		t.Fatal(err)
	}
	err = rewrite.Check(m, rewrite.Limits{MaxBrTable: 2, MaxLocals: 3, MaxFunctions: 2})
	want := strings.Join([]string{
		"wasm module refused: it has a shared memory (byte offset 0x26): compile for one thread (no -pthread, no atomics target feature)",
		"wasm module refused: it has 3 functions, the limit is 2: split the plugin, or let the linker remove unused code (-O2, --gc-sections, wasm-opt -Oz)",
		"wasm module refused: a function has 4 locals, the limit is 3 (function 2, byte offset 0x38): split that function, or optimise the module (wasm-opt -O2 merges locals)",
		"wasm module refused: a br_table has 3 labels, the limit is 2 (function 1, byte offset 0x30): split that switch statement, or look the value up in a table",
	}, "\n")
	if err == nil || err.Error() != want {
		t.Errorf("got\n%v\nwant\n%v", err, want)
	}
	if got := len(m.Refusals(rewrite.Limits{MaxBrTable: 2, MaxLocals: 3, MaxFunctions: 2})); got != 4 {
		t.Errorf("got %d refusals, want 4", got)
	}
}

// TestHostileAllocation holds what Parse allocates against the size of inputs
// that announce much and hold little, or are as dense as the format allows.
func TestHostileAllocation(t *testing.T) {
	const size = 300_000
	head := func(sections ...[]byte) []byte { return cat(append([][]byte{newWasm().out}, sections...)...) }
	tests := map[string][]byte{
		"empty types":       newWasm().section(1, leb(size/3), slices.Repeat([]byte{0x60, 0, 0}, size/3)).out,
		"empty imports":     newWasm().vec(1, funcTypeOf("", "")).section(2, leb(size/4), slices.Repeat([]byte{0, 0, 0, 0}, size/4)).out,
		"functions":         module(size/4, body()),
		"custom sections":   head(slices.Repeat([]byte{0, 1, 0}, size/3)),
		"passive data":      newWasm().section(11, leb(size/2), slices.Repeat([]byte{1, 0}, size/2)).out,
		"passive elements":  newWasm().section(9, leb(size/3), slices.Repeat([]byte{1, 0, 0}, size/3)).out,
		"globals":           newWasm().section(6, leb(size/5), slices.Repeat(i32Global(true, 1), size/5)).out,
		"nested blocks":     module(1, nested(size/3, 0x03)),
		"count of types":    newWasm().section(1, leb(1<<31)).out,
		"count of exports":  newWasm().section(7, leb(1<<31)).out,
		"count of bodies":   newWasm().section(10, leb(1<<31)).out,
		"count of elements": newWasm().section(9, []byte{1, 1, 0}, leb(1<<31)).out,
		"size of data":      newWasm().section(11, []byte{1, 1}, leb(1<<31)).out,
		"locals":            module(1, sized([]byte{1}, leb(1<<31), []byte{0x7f, 0x0b})),
	}
	for name, wasm := range tests {
		t.Run(name, func(t *testing.T) {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			_, err := rewrite.Rewrite(wasm, rewrite.Options{})
			runtime.ReadMemStats(&after)
			var r *rewrite.RefusedError
			if err != nil && !errors.As(err, &r) {
				t.Errorf("got %v, want a RefusedError", err)
			}
			if got, limit := after.TotalAlloc-before.TotalAlloc, uint64(64*len(wasm)+1<<16); got > limit {
				t.Errorf("allocated %d bytes for %d, want at most %d (%v)", got, len(wasm), limit, err)
			}
		})
	}
}
