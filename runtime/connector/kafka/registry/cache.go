package registry

import (
	"container/list"
	"time"

	"github.com/millrace-io/millrace/runtime/record"
)

// Bounds of the cache: what was used longest ago goes when either is passed.
const (
	maxSchemas     = 1000
	maxCachedBytes = 32 << 20 // of schemas' texts
)

// failureAge is how long a failed look-up answers for the next ones.
const failureAge = time.Second

// entry is a schema that is looked up, is known, or could not be had. done is
// closed when schema or err is set; neither changes afterwards.
type entry struct {
	id     uint32
	done   chan struct{}
	schema *schema
	err    *record.Error
	// until is when a failure is forgotten; zero otherwise.
	until time.Time
	// place in the order of use; nil while it is looked up.
	place *list.Element
}

// cache keeps schemas for good, which the registry never changes under an id,
// and failures for a moment. It is not safe for concurrent use.
type cache struct {
	entries map[uint32]*entry
	used    *list.List // of *entry, the last used in front
	bytes   int
}

func newCache() cache { return cache{entries: map[uint32]*entry{}, used: list.New()} }

// get is the entry of an id, nil if it has to be looked up.
func (c *cache) get(id uint32, now time.Time) *entry {
	e := c.entries[id]
	switch {
	case e == nil || e.place == nil:
		return e
	case e.err != nil && !now.Before(e.until):
		c.remove(e)
		return nil
	}
	c.used.MoveToFront(e.place)
	return e
}

// begin makes the entry of a look-up, which complete ends.
func (c *cache) begin(id uint32) *entry {
	e := &entry{id: id, done: make(chan struct{})}
	c.entries[id] = e
	return e
}

func (c *cache) complete(e *entry, s *schema, err *record.Error, now time.Time) {
	e.schema, e.err = s, err
	if err != nil {
		e.until = now.Add(failureAge)
	}
	e.place = c.used.PushFront(e)
	c.bytes += e.size()
	for c.used.Len() > maxSchemas || c.bytes > maxCachedBytes && c.used.Len() > 1 {
		c.remove(c.used.Back().Value.(*entry))
	}
	close(e.done)
}

func (c *cache) remove(e *entry) {
	c.used.Remove(e.place)
	delete(c.entries, e.id)
	c.bytes -= e.size()
}

func (e *entry) size() int {
	if e.schema == nil {
		return 0
	}
	return e.schema.bytes
}
