package rewrite

import (
	"fmt"
	"slices"
)

// ExportFuel is for hosts that can call exports and cannot reach globals.
// Exports of functions keep their names and types.
type ExportFuel struct {
	// Budget is what the counter is set to whenever the host calls an
	// exported function, from 1 to MaxExportFuel.
	Budget int64
	// Initializers are exports that return at once, without a new budget,
	// where the counter is below zero, unless they have a result. A host that
	// may call one of them on its own before another export then still learns
	// from Fuel.Left what went before.
	Initializers []string
}

// MaxExportFuel is the most that ExportFuel.Budget can be: Fuel.Left has 32
// bits.
const MaxExportFuel = 1 << 30

// refuel puts a function before each exported one that sets the counter, and
// adds the exports that tell of it. The global behind the counter holds what
// calls before the last one used.
func (t *meter) refuel(fuel *Fuel, x *newExports, opt *ExportFuel) error {
	if opt.Budget <= 0 || opt.Budget > MaxExportFuel {
		return fmt.Errorf("rewrite a module with fuel %d an export: give 1 to %d", opt.Budget, int64(MaxExportFuel))
	}
	initializers := map[uint32]bool{}
	var exported []uint32
	for _, e := range t.m.facts.Exports {
		if e.Kind != KindFunc {
			continue
		}
		exported = append(exported, e.Index)
		if slices.Contains(opt.Initializers, e.Name) && len(t.m.types[t.m.funcTypes[e.Index]].results) == 0 {
			initializers[e.Index] = true
		}
	}
	slices.Sort(exported)
	t.wrappers = map[uint32]uint32{}
	for _, fn := range slices.Compact(exported) {
		t.wrappers[fn] = t.wrapper(fn, opt.Budget, initializers[fn])
	}
	probe := t.funcType("", string([]byte{byte(I32)}))
	left := code{0}
	left.index(opGlobalGet, t.counter)
	left.op(opI32WrapI64, opEnd)
	fuel.Left = x.function("millrace:fuel-left", t.add(probe, left))
	spent := code{0}
	t.spent(&spent, opt.Budget)
	spent.op(opI32WrapI64, opEnd)
	fuel.Spent = x.function("millrace:fuel-spent", t.add(probe, spent))
	return nil
}

// spent writes instructions that leave on the stack what all calls used.
func (t *meter) spent(c *code, budget int64) {
	c.index(opGlobalGet, t.counter+1)
	c.i64(budget)
	c.op(opI64Add)
	c.index(opGlobalGet, t.counter)
	c.op(opI64Sub)
}

func (t *meter) wrapper(fn uint32, budget int64, initializer bool) uint32 {
	typ := t.m.funcTypes[fn]
	body := code{0}
	if initializer {
		body.index(opGlobalGet, t.counter)
		body.i64(0)
		body.op(opI64LtS, opIf, blockVoid, opReturn, opEnd)
	}
	t.spent(&body, budget)
	body.index(opGlobalSet, t.counter+1)
	body.i64(budget)
	body.index(opGlobalSet, t.counter)
	for i := range t.m.types[typ].params {
		body.index(opLocalGet, uint32(i))
	}
	if s, ok := t.shims[fn]; ok {
		fn = s
	}
	body.index(opCall, fn)
	body.op(opEnd)
	return t.add(typ, body)
}

// declared is an element segment that names the functions whose exports now
// name their wrappers: a reference in code is valid only to a function that
// the rest of the module names.
func (t *meter) declared() []byte {
	functions := make([]uint32, 0, len(t.wrappers))
	for fn := range t.wrappers {
		if s, ok := t.shims[fn]; ok {
			fn = s
		}
		functions = append(functions, fn)
	}
	slices.Sort(functions)
	out := appendUvarint([]byte{elementDeclares, 0}, uint32(len(functions)))
	for _, fn := range functions {
		out = appendUvarint(out, fn)
	}
	return out
}

// elementDeclares is the form of an element segment that declares functions
// and has no other effect.
const elementDeclares = 3
