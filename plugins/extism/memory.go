package extism

import "github.com/tetratelabs/wazero/experimental"

// memories gives an instance its linear memories, first that of Extism's own
// module and then the guest's, within one limit for both.
type memories struct {
	limit uint64
	total uint64
	all   []*linearMemory
}

// Allocate implements experimental.MemoryAllocator.
func (a *memories) Allocate(_, _ uint64) experimental.LinearMemory {
	m := &linearMemory{owner: a}
	a.all = append(a.all, m)
	return m
}

// begin forgets what was refused before.
func (a *memories) begin() {
	for _, m := range a.all {
		m.refused = 0
	}
}

// refusedToHost is the total that Extism's own memory, where input, output and
// messages are, asked for in vain.
func (a *memories) refusedToHost() uint64 {
	if len(a.all) == 0 {
		return 0
	}
	return a.all[0].refused
}

// refused is the greatest total that was asked for in vain.
func (a *memories) refused() uint64 {
	var n uint64
	for _, m := range a.all {
		n = max(n, m.refused)
	}
	return n
}

// linearMemory is one memory. It is used by one goroutine at a time.
type linearMemory struct {
	owner   *memories
	buf     []byte
	started bool
	refused uint64
}

// Reallocate implements experimental.LinearMemory. It returns nil above the
// limit, and memory.grow then answers -1. The first size, which the module
// cannot start without, is always given; NewStage looks at it.
func (m *linearMemory) Reallocate(size uint64) []byte {
	a := m.owner
	total := a.total - uint64(len(m.buf)) + size
	if m.started && total > a.limit {
		m.refused = max(m.refused, total)
		return nil
	}
	m.started = true
	if size <= uint64(cap(m.buf)) {
		m.buf = m.buf[:size]
	} else {
		room := size
		if m.buf != nil {
			room = max(size, min(2*uint64(len(m.buf)), a.limit))
		}
		buf := make([]byte, size, room)
		copy(buf, m.buf)
		m.buf = buf
	}
	a.total = total
	return m.buf[:size:size]
}

// Free implements experimental.LinearMemory.
func (m *linearMemory) Free() {
	m.owner.total -= uint64(len(m.buf))
	m.buf = nil
}
