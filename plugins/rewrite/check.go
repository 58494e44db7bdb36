package rewrite

import (
	"errors"
	"fmt"
)

// Limits bounds what may be compiled. Each 0 means the default.
type Limits struct {
	// MaxBodyBytes bounds one function body with its locals; default 1 MiB.
	MaxBodyBytes int
	// MaxLocals bounds declared locals plus parameters of a function;
	// default 50,000.
	MaxLocals int
	// MaxTotalLocals bounds the declared locals of all functions together,
	// for which the compiler allocates before it looks at them; default
	// 10,000,000.
	MaxTotalLocals int
	// MaxFunctions bounds the functions, imported ones included; default
	// 200,000.
	MaxFunctions int
	// MaxBrTable bounds the labels of one br_table; default 65,536.
	MaxBrTable int
	// MaxNesting bounds how deep blocks (block, loop, if) lie inside each
	// other, MaxLoopNesting how deep loops do: the compiler's time grows with
	// the square of either. Default 10,000 and 500.
	MaxNesting     int
	MaxLoopNesting int
}

func (l Limits) defaults() Limits {
	set := func(p *int, v int) {
		if *p <= 0 {
			*p = v
		}
	}
	set(&l.MaxBodyBytes, 1<<20)
	set(&l.MaxLocals, 50_000)
	set(&l.MaxTotalLocals, 10_000_000)
	set(&l.MaxFunctions, 200_000)
	set(&l.MaxBrTable, 65_536)
	set(&l.MaxNesting, 10_000)
	set(&l.MaxLoopNesting, 500)
	return l
}

// Check reports every limit that m exceeds, and shared memory, as
// *RefusedError values joined by errors.Join; nil if there is none.
func Check(m *Module, lim Limits) error {
	var errs []error
	for _, e := range m.Refusals(lim) {
		errs = append(errs, e)
	}
	return errors.Join(errs...)
}

// Refusals is Check as a list, for a report of everything that has to be
// mended.
func (m *Module) Refusals(lim Limits) []*RefusedError {
	lim = lim.defaults()
	f := &m.facts
	var out []*RefusedError
	if f.Memory != nil && f.Memory.Shared {
		out = append(out, &RefusedError{
			Kind: SharedMemory, Feature: propThreads, Offset: int64(m.memoryOffset), Func: -1,
			Reason: "it has a shared memory", Advice: proposalAdvice[propThreads],
		})
	}
	if n := f.Functions + f.ImportedFunctions; n > lim.MaxFunctions {
		e := tooLarge(-1, "functions", "it has %d functions, the limit is %d", n, lim.MaxFunctions)
		e.Advice = "split the plugin, or let the linker remove unused code (-O2, --gc-sections, wasm-opt -Oz)"
		out = append(out, e)
	}
	extreme := func(x Extreme, limit int, feature, format, advice string) {
		if x.Value <= uint64(limit) {
			return
		}
		e := tooLarge(x.Offset, feature, format, x.Value, limit)
		e.Func = int64(x.Func)
		e.Advice = advice
		out = append(out, e)
	}
	extreme(f.LargestBody, lim.MaxBodyBytes, "function body",
		"a function body has %d bytes, the limit is %d",
		"split that function; tables belong into data segments, and inlining can be lowered (-Os)")
	extreme(f.MostLocals, lim.MaxLocals, "locals",
		"a function has %d locals, the limit is %d",
		"split that function, or optimise the module (wasm-opt -O2 merges locals)")
	if f.TotalLocals > uint64(lim.MaxTotalLocals) {
		e := tooLarge(-1, "total locals", "its functions have %d locals together, the limit is %d", f.TotalLocals, lim.MaxTotalLocals)
		e.Advice = "optimise the module (wasm-opt -O2 merges locals)"
		out = append(out, e)
	}
	extreme(f.LargestBrTable, lim.MaxBrTable, "br_table",
		"a br_table has %d labels, the limit is %d",
		"split that switch statement, or look the value up in a table")
	extreme(f.DeepestNesting, lim.MaxNesting, "nesting",
		"blocks are nested %d deep, the limit is %d",
		"split that function")
	extreme(f.DeepestLoops, lim.MaxLoopNesting, "loop nesting",
		"loops are nested %d deep, the limit is %d",
		"split that function")
	return out
}

// bound refuses a count that no real module reaches, so that what the host and
// the engine allocate per item stays small against the input.
func bound(off int, what string, n uint32, limit int) *RefusedError {
	if uint64(n) <= uint64(limit) {
		return nil
	}
	e := tooLarge(off, what, "%s: %d of them, the limit is %d", what, n, limit)
	e.Advice = fmt.Sprintf("reduce the number of %s", what)
	return e
}

// Fixed bounds of Parse.
const (
	maxModuleBytes   = 1<<31 - 1
	maxTypes         = 100_000
	maxParams        = 1_000
	maxImports       = 100_000
	maxExports       = 100_000
	maxFunctions     = 1_000_000
	maxGlobals       = 100_000
	maxTables        = 1_000
	maxDataSegments  = 500_000
	maxElemSegments  = 100_000
	maxElemEntries   = 2_000_000
	maxCustomSection = 10_000
)
