package rewrite

import "fmt"

// locals reads the declarations of a function body and leaves r at its first
// instruction.
func (r *reader) locals() (uint64, *RefusedError) {
	n, err := r.count("local declarations", 2)
	if err != nil {
		return 0, err
	}
	var total uint64
	for range n {
		at := r.pos
		k, err := r.u32("a number of locals")
		if err != nil {
			return 0, err
		}
		total += uint64(k)
		if total > 1<<32-1 {
			return 0, malformed(at, "a function has more than 2^32-1 locals")
		}
		t, err := r.byte("the type of locals")
		if err != nil {
			return 0, err
		}
		if err := checkValType(r.pos-1, t); err != nil {
			return 0, err
		}
	}
	return total, nil
}

// walk decodes every function body once and gathers the facts about them.
func (m *Module) walk(o *obstacles) *RefusedError {
	var open []opcode
	for i, b := range m.bodies {
		fn := uint32(m.facts.ImportedFunctions + i)
		if err := m.walkBody(fn, b, &open, o); err != nil {
			err.Func = int64(fn)
			return err
		}
	}
	return nil
}

// walkBody uses open as its stack of open blocks; it keeps the room of it for
// the next body.
func (m *Module) walkBody(fn uint32, b span, open *[]opcode, o *obstacles) *RefusedError {
	f := &m.facts
	start := int(b.start)
	size := int(b.end - b.start)
	f.CodeBytes += size
	f.LargestBody.raise(uint64(size), fn, start)

	r := reader{b: m.wasm, pos: start, end: int(b.end)}
	locals, err := r.locals()
	if err != nil {
		return err
	}
	f.TotalLocals += locals
	f.MostLocals.raise(locals+uint64(len(m.types[m.funcTypes[fn]].params)), fn, start)

	d := newDecoder(m.wasm, r.pos, r.end)
	var in instr
	stack := (*open)[:0]
	loops, count := 0, 0
	for d.next(&in) {
		count++
		switch in.op {
		case opBlock, opLoop, opIf:
			stack = append(stack, in.op)
			f.DeepestNesting.raise(uint64(len(stack)), fn, in.start)
			if in.op == opLoop {
				loops++
				f.DeepestLoops.raise(uint64(loops), fn, in.start)
			}
		case opEnd:
			if n := len(stack); n > 0 {
				if stack[n-1] == opLoop {
					loops--
				}
				stack = stack[:n-1]
			}
		case opBrTable:
			f.LargestBrTable.raise(uint64(in.x), fn, in.start)
		case opMemoryGrow:
			f.GrowsMemory = true
		case opTableSet, opTableInit, opTableCopy, opTableGrow, opTableFill, opElemDrop, opDataDrop:
			o.op(in.op, fn)
		}
	}
	*open = stack
	f.Instructions += count
	if d.err != nil {
		return d.err
	}
	if d.pos != d.end {
		return malformed(d.pos, "a function body has %d bytes after its end", d.end-d.pos)
	}
	return nil
}

func (x *Extreme) raise(v uint64, fn uint32, off int) {
	if v > x.Value {
		*x = Extreme{Value: v, Func: fn, Offset: off}
	}
}

// obstacles gathers why an instance cannot be restored exactly.
type obstacles struct {
	ops     [len(restoreOps)]tally
	globals tally
}

// tally is a number of occurrences and where the first one is.
type tally struct {
	n     int
	first uint32
}

func (t *tally) add(at uint32) {
	if t.n == 0 {
		t.first = at
	}
	t.n++
}

// restoreOps change state that cannot be read or written from outside.
var restoreOps = [...]opcode{
	opTableSet, opTableGrow, opTableFill, opTableCopy, opTableInit, opElemDrop, opDataDrop,
}

func (o *obstacles) op(op opcode, fn uint32) {
	for i, r := range restoreOps {
		if r == op {
			o.ops[i].add(fn)
		}
	}
}

func (o *obstacles) v128(index int) { o.globals.add(uint32(index)) }

func (o *obstacles) reasons() []string {
	var out []string
	for i, t := range o.ops {
		switch {
		case t.n == 1:
			out = append(out, fmt.Sprintf("%s in function %d", opcodeNames[restoreOps[i]], t.first))
		case t.n > 1:
			out = append(out, fmt.Sprintf("%s in function %d and %d more", opcodeNames[restoreOps[i]], t.first, t.n-1))
		}
	}
	switch t := o.globals; {
	case t.n == 1:
		out = append(out, fmt.Sprintf("global %d is mutable and of type v128", t.first))
	case t.n > 1:
		out = append(out, fmt.Sprintf("global %d and %d more are mutable and of type v128", t.first, t.n-1))
	}
	return out
}
