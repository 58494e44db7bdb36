package state

import "github.com/millrace-io/millrace/runtime/record"

// Flags of an item of a stored Commit.
const (
	itemRelease byte = 1 << iota
	// itemRequests: requests follow the tally.
	itemRequests
	// itemCounted: what was carried and by how much it grew follows the tally.
	itemCounted
	itemFlags = itemRelease | itemRequests | itemCounted
)

func (c *Commit) append(b []byte) []byte {
	b = putInt(putUint(append(b, c.Node[:]...), c.Incarnation), c.At)
	b = putUint(b, uint64(len(c.Items)))
	for i := range c.Items {
		it := &c.Items[i]
		b = putUint(putUint(putUint(b, uint64(it.Flow)), uint64(it.Slot)), it.Epoch)
		b = putInt(putUint(b, uint64(it.Part)), it.Low)
		b = putRanges(b, it.Low, it.Ranges)
		b = putUint(putUint(b, uint64(it.Generation)), uint64(it.Deploy))
		var flags byte
		if it.Release {
			flags |= itemRelease
		}
		if len(it.Requests) > 0 {
			flags |= itemRequests
		}
		if it.Counted {
			flags |= itemCounted
		}
		b = it.Tally.append(putUint(append(b, flags), it.Life))
		if it.Counted {
			b = putInt(it.Carried.append(b), it.Grown)
		}
		if flags&itemRequests != 0 {
			b = putUint(b, uint64(len(it.Requests)))
			for _, r := range it.Requests {
				b = appendFixed64(putString(b, r.Ref), r.Digest)
			}
		}
	}
	b = putUint(b, uint64(len(c.Failures)))
	for i := range c.Failures {
		f := &c.Failures[i]
		b = putUint(putUint(b, uint64(f.Flow)), uint64(f.Part))
		b = putBytes(b, EncodeEntry(f.Entry))
	}
	b = putUint(b, uint64(len(c.Keeps)))
	for i := range c.Keeps {
		k := &c.Keeps[i]
		b = putUint(putUint(b, uint64(k.Flow)), uint64(k.Part))
		b = putBytes(b, EncodeRetry(k.Entry))
	}
	b = putUint(b, uint64(len(c.Gone)))
	for i := range c.Gone {
		g := &c.Gone[i]
		b = putUint(putUint(b, uint64(g.Flow)), uint64(g.Part))
		b = putString(putInt(b, g.Offset), string(g.Path))
	}
	return b
}

func (c *Commit) decode(d *decoder) {
	c.Node, c.Incarnation = d.uuid(), d.uint()
	if d.form == 1 {
		c.tallyless = true
	} else {
		c.At = d.int()
	}
	if n := d.count(9); n > 0 {
		c.Items = make([]CommitItem, n)
		for i := range c.Items {
			c.Items[i].decode(d)
		}
	}
	if n := d.count(3); n > 0 {
		c.Failures = make([]CommitFailure, n)
		for i := range c.Failures {
			c.Failures[i] = CommitFailure{FlowID(d.uint32()), d.uint32(), d.entry()}
		}
	}
	if d.form == 1 {
		// The counts of spills and of retry updates, which there were none of.
		if spills, updates := d.uint(), d.uint(); d.err == nil && (spills != 0 || updates != 0) {
			d.err = &UnknownCommandError{KindCommit, 1}
		}
		return
	}
	if n := d.count(3); n > 0 {
		c.Keeps = make([]CommitRetry, n)
		for i := range c.Keeps {
			k := &c.Keeps[i]
			k.Flow, k.Part, k.raw = FlowID(d.uint32()), d.uint32(), d.view()
			e, err := DecodeRetry(k.raw)
			if err != nil && d.err == nil {
				d.err, d.b = err, nil
			}
			k.Entry = e
		}
	}
	if n := d.count(4); n > 0 {
		c.Gone = make([]CommitGone, n)
		for i := range c.Gone {
			g := &c.Gone[i]
			g.Flow, g.Part, g.Offset, g.Path = FlowID(d.uint32()), d.uint32(), d.int(), record.Path(d.string())
			if g.Offset < 0 || !validPath(g.Path) {
				d.fail("no emission")
			}
		}
	}
}

func (it *CommitItem) decode(d *decoder) {
	it.Flow, it.Slot, it.Epoch = FlowID(d.uint32()), d.uint16(), d.uint()
	it.Part, it.Low = d.uint32(), d.int()
	it.Ranges = d.ranges(it.Low)
	it.Generation, it.Deploy = d.uint32(), d.uint32()
	if d.form == 1 {
		it.Release = d.bool()
		return
	}
	flags := d.byte()
	if flags&^itemFlags != 0 {
		d.fail("unknown flags")
	}
	it.Release, it.Life = flags&itemRelease != 0, d.uint()
	it.Tally = d.tally()
	if it.Counted = flags&itemCounted != 0; it.Counted {
		it.Carried, it.Grown = d.entryCount(), d.int()
	}
	if flags&itemRequests != 0 {
		n := d.count(9)
		if n == 0 {
			d.fail("no requests")
			return
		}
		it.Requests = make([]Request, n)
		for i := range it.Requests {
			it.Requests[i] = Request{d.string(), d.fixed64()}
		}
	}
}

// entry reads a failure entry with its length before it.
func (d *decoder) entry() *record.Entry {
	e, err := DecodeEntry(d.view())
	if err != nil && d.err == nil {
		d.err, d.b = err, nil
	}
	return e
}

func (t *Tally) append(b []byte) []byte {
	b = putInt(putInt(putInt(b, t.Read), t.Split), t.Delivered)
	b = putUint(putInt(putInt(b, t.Known), t.Flying), uint64(len(t.Dropped)))
	for _, d := range t.Dropped {
		b = putInt(putString(b, d.Reason), d.N)
	}
	return b
}

func (n *EntryCount) append(b []byte) []byte {
	return putUint(putUint(putUint(b, n.Failures), n.Keeps), n.Gone)
}

func (d *decoder) entryCount() EntryCount {
	return EntryCount{Failures: d.uint(), Keeps: d.uint(), Gone: d.uint()}
}

func (d *decoder) tally() (t Tally) {
	t.Read, t.Split, t.Delivered, t.Known, t.Flying = d.int(), d.int(), d.int(), d.int(), d.int()
	if n := d.count(2); n > 0 {
		t.Dropped = make([]DropCount, n)
		for i := range t.Dropped {
			t.Dropped[i] = DropCount{d.string(), d.int()}
		}
	}
	return t
}
