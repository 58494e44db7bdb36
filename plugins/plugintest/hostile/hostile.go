// Package hostile holds guests that are built against the sandbox: each does
// one thing that a plugin must not be able to do harm with, and says what
// happens to it. They are assembled by hand, so that no toolchain smooths
// them. It is for tests.
package hostile

import (
	"slices"

	"github.com/millrace-io/millrace/runtime/record"
)

// Guest is one hostile guest.
type Guest struct {
	Name string
	// Wasm assembles it; the same bytes each time.
	Wasm func() []byte
	// Lines: it is a program that reads STDIN.
	Lines bool

	// What happens, one of these. Refused is the kind of refusal by Compile;
	// Start is a part of the message with which the stage does not start;
	// Class is that of each record's failure, Message a part of its message;
	// Passes: it does no harm, and each record is answered by an emission or
	// a drop.
	Refused string
	Start   string
	Class   record.Class
	Message string
	Passes  bool

	// Measured guests are built against the measure of fuel: they do what takes
	// the most time for a unit.
	Measured bool

	// Large guests take long to compile or to run: few records will do.
	Large bool

	// Huge guests take seconds to compile: few rounds will do.
	Huge bool
}

const (
	wasi = "wasi_snapshot_preview1"
	// buffer is the address that stage_alloc answers.
	buffer = 1 << 16
	// scratch is memory below that nobody else uses.
	scratch = 1024
)

// stage is a guest of mode call that lacks stage_batch.
type stage struct {
	module
	pass int // (ptr, len) -> result: passes all records on
}

// newStage makes a guest with that much memory; the imports must come first.
func newStage(pages int64, imports ...func(*module)) *stage {
	s := &stage{}
	for _, im := range imports {
		im(&s.module)
	}
	s.memory = limits(pages, -1)
	s.export("memory", 2, 0)
	s.export("stage_abi_1", 0, s.fn(">", 0))
	const ptr, length, p, end = 0, 1, 2, 3
	field := func(store []byte, v int64) []byte { return code(get(p), i32(v), store) }
	s.pass = s.fn("ii>I", 2,
		get(ptr), i32(2), store16(6), // a result
		get(ptr), get(ptr), load32(12), add, i32(32), add, set(p),
		get(ptr), get(length), add, set(end),
		block(loop(
			get(p), get(end), geU, brIf(1),
			field(store16(8), 15<<8),                      // emit, all the same
			field(store32(12), 0), field(store32(32), -1), // default output, no headers, by key
			field(store32(40), 0), field(store32(44), 0), field(store32(48), 0),
			get(p), get(p), load32(0), add, set(p), br(0),
		)),
		result(get(ptr), get(length)))
	return s
}

// alloc exports a stage_alloc with that body; without one it works.
func (s *stage) alloc(body ...any) {
	if len(body) == 0 {
		body = []any{i32(buffer)}
	}
	s.export("stage_alloc", 0, s.fn("i>i", 0, body...))
}

// batch exports a stage_batch with that body, and an alloc that works; the
// locals from 2 on are free.
func (s *stage) batch(body ...any) []byte {
	s.alloc()
	s.export("stage_batch", 0, s.fn("ii>I", 4, body...))
	return s.build()
}

// result makes a result of stage_batch of an address and a length.
func result(ptr, length []byte) []byte {
	return code(ptr, 0xad, i64(32), 0x86, length, 0xad, 0x84)
}

// passing passes the batch on.
func (s *stage) passing() []byte { return code(get(0), get(1), call(s.pass)) }

// imports gives functions to newStage.
func imports(from, name, typ string) func(*module) {
	return func(m *module) { m.importFunc(from, name, typ) }
}

// batchGuest is a guest whose stage_batch has that body before all records
// are passed on. Imports are numbered from 0.
func batchGuest(pages int64, body []byte, im ...func(*module)) func() []byte {
	return func() []byte {
		s := newStage(pages, im...)
		return s.batch(body, s.passing())
	}
}

// answerGuest is a guest that passes all records on, but for what body does to
// the frame at address local 0 then.
func answerGuest(body ...any) func() []byte {
	return func() []byte {
		s := newStage(16)
		return s.batch(s.passing(), drop, code(body...), result(get(0), get(1)))
	}
}

// command is a program of lines with that body of _start.
func command(pages int64, body []byte, im ...func(*module)) func() []byte {
	return func() []byte {
		var m module
		for _, f := range im {
			f(&m)
		}
		m.memory = limits(pages, -1)
		m.export("memory", 2, 0)
		m.export("_start", 0, m.fn(">", 4, body))
		return m.build()
	}
}

// Guests lists the corpus.
func Guests() []Guest {
	return slices.Concat(refused(), starting(), wasting(), measured(), lying(), calling(), programs())
}
