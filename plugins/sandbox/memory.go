package sandbox

import "github.com/tetratelabs/wazero/experimental"

// memories gives an instance its linear memory: address space for the whole
// limit is reserved at once, so that growth moves nothing and copies nothing.
type memories struct {
	limit uint64
	// mem is the memory that was given out last; an instance has one.
	mem *linearMemory
}

// Allocate implements experimental.MemoryAllocator.
func (a *memories) Allocate(_, most uint64) experimental.LinearMemory {
	a.mem = &linearMemory{limit: min(a.limit, most)}
	return a.mem
}

// free gives the memory back where the engine did not, because it could not
// make the instance.
func (a *memories) free() {
	if a.mem != nil {
		a.mem.Free()
	}
}

// linearMemory is one memory within its limit. It is used by one goroutine at
// a time.
type linearMemory struct {
	limit uint64
	// refused is the greatest size that was asked for in vain.
	refused  uint64
	reserved []byte
	// committed bytes of reserved can be used.
	committed uint64
	// heap says that reserved is of the Go heap, because the system gave no
	// address space.
	heap bool
}

// Reallocate implements experimental.LinearMemory. It returns nil above the
// limit, and the guest's memory.grow then answers -1.
func (m *linearMemory) Reallocate(size uint64) []byte {
	if size > m.limit {
		m.refused = max(m.refused, size)
		return nil
	}
	if m.reserved == nil && m.limit > 0 {
		var err error
		if m.reserved, err = reserve(int(m.limit)); err != nil {
			m.reserved, m.heap = make([]byte, m.limit), true
		}
	}
	if size > m.committed {
		if !m.heap && !commit(m.reserved[m.committed:size]) {
			m.refused = max(m.refused, size)
			return nil
		}
		m.committed = size
	}
	return m.reserved[:size:size]
}

// Free implements experimental.LinearMemory. Views of the memory must not be
// used afterwards.
func (m *linearMemory) Free() {
	if m.reserved != nil && !m.heap {
		release(m.reserved)
	}
	m.reserved = nil
}
