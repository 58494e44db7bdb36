package sandbox

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"
	"reflect"
	"slices"
	"time"

	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/experimental"
	"github.com/tetratelabs/wazero/sys"
)

const (
	// maxForks is how often a program is brought back to its first read.
	maxForks = 256
	// maxForkBytes bounds the stacks that are kept for it.
	maxForkBytes = 4 << 20
)

// guestModule and forkModule are what the entry of a program imports from.
const (
	guestModule = "guest"
	forkModule  = "millrace"
)

// entryWasm calls a program's _start and tells the host when it returns, in
// the same call: a stack can be brought back only inside of it.
//
//	(module
//	  (import "guest" "_start" (func))
//	  (import "millrace" "returned" (func))
//	  (func (export "run") call 0 call 1))
var entryWasm = []byte("\x00asm\x01\x00\x00\x00" +
	"\x01\x04\x01\x60\x00\x00" +
	"\x02\x24\x02\x05guest\x06_start\x00\x00\x08millrace\x08returned\x00\x00" +
	"\x03\x02\x01\x00" +
	"\x07\x07\x01\x03run\x00\x02" +
	"\x0a\x08\x01\x06\x00\x10\x00\x10\x01\x0b" +
	"\x00\x18\x04name\x01\x11\x01\x02\x0e" + entryName)

// entryName is what the entry is called in stack traces.
const entryName = "millrace:entry"

// program is a running lines program. It is started up to its first read of
// STDIN, and from there on run once for each input: what it is at that read,
// memory, globals, stack and what it wrote so far, is kept and brought back.
// One goroutine uses it at a time; the guest runs in a coroutine of it.
type program struct {
	stage   *Stage
	ctx     context.Context
	env     *guestEnv
	alloc   *memories
	mod     api.Module
	entry   api.Module
	memory  api.Memory
	globals []api.MutableGlobal
	in      bytes.Reader
	out     output

	// The state at the first read. reading: it came so far.
	reading      bool
	image        []byte
	imageZero    []bool
	imageGlobals []uint64
	written      []byte
	logged       guestEnv
	arguments    [3]uint32 // of that fd_read
	snapshots    []experimental.Snapshot

	// now, id and fuel are the circumstances of the next run.
	now, fuel int64
	id        uint64
	runs      int

	next  func() (halt, bool)
	stop  func()
	yield func(halt) bool
}

// halt tells why a program gave control back.
type halt struct {
	// ready: it is about to read for the first time.
	ready bool
	// err is how the run ended: nil, *sys.ExitError, or a trap.
	err error
	// final: the program is over and cannot be brought back.
	final bool
}

// errStopped unwinds a program that is of no more use.
var errStopped = errors.New("the program is stopped")

// spawn starts a program. Where its first halt is not ready it ended, or
// trapped, before it read anything. An error is about the sandbox.
func (s *Stage) spawn() (*program, halt, error) {
	p := &program{stage: s, env: &guestEnv{fuelExport: s.mod.fuel}, alloc: &memories{limit: uint64(s.limit)}}
	p.env.program, p.out.early = p, true
	p.ctx = experimental.WithMemoryAllocator(context.WithValue(context.Background(), envKey{}, p.env), p.alloc)
	p.env.begin(imageMillis, 0)
	s.count.instances.Add(1)
	mod, err := s.rt.wz.InstantiateModule(p.ctx, s.mod.compiled, p.env.moduleConfig())
	if err != nil {
		if p.alloc.mem == nil {
			return nil, halt{}, fmt.Errorf("make an instance: %w", err)
		}
		p.alloc.free()
		return p, halt{err: err, final: true}, nil
	}
	p.mod, p.memory = mod, mod.Memory()
	p.env.fuel.bind(mod, s.mod.fuel)
	p.env.fuel.set(s.startFuel())
	for _, g := range s.mod.globals {
		if mg, ok := mod.ExportedGlobal(g.Export).(api.MutableGlobal); ok {
			p.globals = append(p.globals, mg)
		}
	}
	resolve := func(name string) api.Module {
		if name == guestModule {
			return mod
		}
		return nil
	}
	p.entry, err = s.rt.wz.InstantiateModule(experimental.WithImportResolver(p.ctx, resolve), s.rt.entry, p.env.moduleConfig())
	if err != nil {
		p.close()
		return nil, halt{}, fmt.Errorf("make an instance: %w", err)
	}
	p.next, p.stop = iter.Pull(p.life)
	h, _ := p.next()
	return p, h, nil
}

// life is the coroutine.
func (p *program) life(yield func(halt) bool) {
	p.yield = yield
	_, err := p.entry.ExportedFunction("run").Call(experimental.WithSnapshotter(p.ctx))
	yield(halt{err: err, final: true})
}

// run gives a program that is ready an input and lets it end.
func (p *program) run(input []byte, now int64, id uint64, fuel int64) halt {
	p.in.Reset(input)
	p.now, p.id, p.fuel = now, id, fuel
	p.runs++
	p.alloc.mem.refused = 0
	h, _ := p.next()
	return h
}

// again reports whether the program can be run once more.
func (p *program) again() bool {
	return len(p.snapshots) > 0 && uint64(p.memory.Size()) == uint64(len(p.image))
}

// firstRead is called by the program's first fd_read of STDIN.
func (p *program) firstRead(ctx context.Context, arguments [3]uint32) {
	p.reading, p.arguments = true, arguments
	p.capture(ctx)
	if !p.yield(halt{ready: true}) {
		panic(errStopped)
	}
	p.begin()
}

// capture keeps the state that later runs start from.
func (p *program) capture(ctx context.Context) {
	p.written = clone(p.out.b)
	p.logged.keep(p.env)
	s := p.stage
	n := int(s.forks.Load())
	if !s.mod.info.ExactRestore || n == 0 {
		return
	}
	from := experimental.GetSnapshotter(ctx)
	first := from.Snapshot()
	size := stackBytes(first)
	if size <= 0 {
		return
	}
	if n = min(n, maxForkBytes/size); n == 0 {
		return
	}
	p.snapshots = append(make([]experimental.Snapshot, 0, n), first)
	for range n - 1 {
		p.snapshots = append(p.snapshots, from.Snapshot())
	}
	memory, _ := p.memory.Read(0, p.memory.Size())
	p.image = clone(memory)
	p.imageZero = zerosOf(p.image)
	for _, g := range p.globals {
		p.imageGlobals = append(p.imageGlobals, g.Get())
	}
}

// stackBytes is the size of the stack that a snapshot holds, or 0 if it cannot
// be told: wazero's type is not exported.
func stackBytes(s experimental.Snapshot) int {
	v := reflect.Indirect(reflect.ValueOf(s))
	if v.Kind() != reflect.Struct {
		return 0
	}
	stack := v.FieldByName("stack")
	if !stack.IsValid() || stack.Kind() != reflect.Slice {
		return 0
	}
	return stack.Len()*int(stack.Type().Elem().Size()) + int(v.Type().Size())
}

// begin starts the world of a run: what the program wrote and logged before it
// read belongs to every one.
func (p *program) begin() {
	p.env.begin(p.now, p.id)
	p.env.keep(&p.logged)
	p.out.begin(p.written)
	p.env.fuel.set(p.fuel)
}

// ended is called when the program called proc_exit, or returned. It does not
// return if the program is brought back.
func (p *program) ended(code uint32) {
	if !p.reading || !p.again() {
		return
	}
	h := halt{}
	if code != 0 {
		h.err = sys.NewExitError(code)
	}
	if !p.yield(h) {
		return
	}
	t0 := time.Now()
	memory, _ := p.memory.Read(0, p.memory.Size())
	restore(memory, p.image, p.imageZero)
	for i, g := range p.globals {
		g.Set(p.imageGlobals[i])
	}
	p.stage.count.restores.Add(1)
	p.stage.count.restoring.Add(int64(time.Since(t0)))
	p.begin()
	errno := p.env.readInto(p.mod, p.arguments)
	last := len(p.snapshots) - 1
	snapshot := p.snapshots[last]
	p.snapshots[last] = nil
	p.snapshots = p.snapshots[:last]
	snapshot.Restore([]uint64{uint64(errno)})
}

// close ends the program; it is idempotent.
func (p *program) close() {
	if p.stop != nil {
		p.stop()
	}
	for _, m := range []api.Module{p.entry, p.mod} {
		if m != nil {
			_ = m.Close(p.ctx)
		}
	}
	p.out.release()
}

// takeProgram gets a program that is ready. Where the halt is not ready, a new
// one ended before it read.
func (s *Stage) takeProgram() (*program, halt, error) {
	s.mu.Lock()
	if n := len(s.programs); n > 0 {
		p := s.programs[n-1]
		s.programs = s.programs[:n-1]
		s.mu.Unlock()
		return p, halt{ready: true}, nil
	}
	s.mu.Unlock()
	return s.spawn()
}

// giveProgram keeps a program whose run has ended for the next one, or closes
// it. A program that is seldom brought back is not worth many snapshots.
func (s *Stage) giveProgram(p *program, h halt) {
	if !h.final && p.again() {
		s.mu.Lock()
		keep := !s.gate.IsShut()
		if keep {
			s.programs = append(s.programs, p)
		}
		s.mu.Unlock()
		if keep {
			return
		}
	} else if p.reading && s.forks.Load() > 0 {
		s.forks.Store(int64(min(maxForks, 2*p.runs)))
	}
	p.close()
}

// execute runs the program once. The first result is about the records; it
// leaves the output in p.out and the log in p.env, and p must be given back
// with the halt.
func (s *Stage) execute(input []byte, now int64, id uint64, records int) (*program, halt, error) {
	t0 := time.Now()
	p, h, err := s.takeProgram()
	if err != nil {
		return nil, h, err
	}
	if h.ready {
		h = p.run(input, now, id, s.budget(records, len(input)))
	}
	p.env.Finish()
	s.count.calls.Add(1)
	s.count.records.Add(int64(records))
	s.count.fuel.Add(p.env.fuel.used())
	s.count.guest.Add(int64(time.Since(t0)))
	return p, h, nil
}

// keep makes e's log and output that of o.
func (e *guestEnv) keep(o *guestEnv) {
	e.lines = append(e.lines[:0], o.lines...)
	e.bytes, e.lost = o.bytes, o.lost
	for i := range e.partial {
		e.partial[i] = append(e.partial[i][:0], o.partial[i]...)
	}
	e.counts = slices.Clone(o.counts)
}

// hostReturned is called when _start of a program has returned.
func hostReturned(ctx context.Context, _ api.Module, _ []uint64) {
	if e := envOf(ctx); e != nil && e.program != nil {
		e.program.ended(0)
	}
}
