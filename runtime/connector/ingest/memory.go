package ingest

import (
	"time"

	"github.com/millrace-io/millrace/runtime/record"
)

// settled is what the memory holds of a request. The outcome is 0 where it is
// of an earlier life.
type settled struct {
	digest  uint64
	at      int64 // Unix milliseconds
	outcome record.Settlement
}

// memory remembers the latest requests, bounded by number and age.
type memory struct {
	limit  int
	window time.Duration
	byRef  map[string]settled
	// order are the refs as they were put, from head on; a ref that was put
	// again stands in it twice.
	order []put
	head  int
}

type put struct {
	ref string
	at  int64
}

func newMemory(limit int, window time.Duration) *memory {
	return &memory{limit: limit, window: window, byRef: map[string]settled{}}
}

func (m *memory) get(ref string, now time.Time) (settled, bool) {
	s, ok := m.byRef[ref]
	if ok && m.old(s.at, now) {
		return settled{}, false
	}
	return s, ok
}

func (m *memory) has(ref string, now time.Time) bool {
	_, ok := m.get(ref, now)
	return ok
}

func (m *memory) old(at int64, now time.Time) bool {
	return now.UnixMilli()-at >= m.window.Milliseconds()
}

func (m *memory) put(ref string, s settled, now time.Time) {
	m.byRef[ref] = s
	m.order = append(m.order, put{ref, s.at})
	for m.head < len(m.order) && (len(m.order)-m.head > m.limit || m.old(m.order[m.head].at, now)) {
		p := m.order[m.head]
		m.order[m.head] = put{}
		m.head++
		if m.byRef[p.ref].at == p.at {
			delete(m.byRef, p.ref)
		}
	}
	if m.head > len(m.order)/2 && m.head > 1024 {
		m.order = append([]put(nil), m.order[m.head:]...)
		m.head = 0
	}
}
