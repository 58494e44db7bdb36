package state

import (
	"encoding/binary"
	"fmt"
	"time"

	"github.com/cockroachdb/pebble/v2"
)

const (
	// RequestWindow is how long the requests of a partition are remembered.
	RequestWindow = 24 * time.Hour
	// MaxRequests is how many of them are.
	MaxRequests = 100_000
	// maxRequestRef is the longest Ref that is remembered.
	maxRequestRef = 255
	// requestSweep is how many old requests each command takes out beside two
	// for each that it brings.
	requestSweep = 16
)

func ingestCounterKey(f FlowID, part uint32) []byte {
	return append(counterKey("requests/"), key32(0, uint32(f), part)[1:]...)
}

// rememberRequests keeps requests for RequestWindow from the commit's time on,
// and takes out what is older or more than MaxRequests. A request that is
// remembered already keeps its time.
func (p *partTx) rememberRequests(rs []Request) {
	t, flow := p.t, p.f.id
	now := min(p.f.at, 1<<48-1)
	oldest := now - RequestWindow.Milliseconds()
	counter := ingestCounterKey(flow, p.part)
	count := t.requests(counter)
	for _, r := range rs {
		if r.Ref == "" || len(r.Ref) > maxRequestRef {
			continue
		}
		key := ingestKey(flow, p.part, r.Ref)
		if v, ok := t.get(key); ok {
			n, err := decodeIngest(v)
			t.fault(err)
			at := int64(n)
			if at > oldest {
				continue
			}
			t.del(ingestAgeKey(flow, p.part, at, r.Ref))
			count--
		}
		t.set(key, putUint(newValue(7), uint64(now)))
		t.put(ingestAgeKey(flow, p.part, now, r.Ref), binary.BigEndian.AppendUint64(newValue(9), r.Digest))
		count++
	}
	type old struct {
		at  int64
		ref string
	}
	var out []old
	t.scan(key32(keyIngestAge, uint32(flow), p.part), func(key, _ []byte) bool {
		at, ref := cutIngestAge(key)
		if at > oldest && count-uint64(len(out)) <= t.maxRequests || len(out) >= 2*len(rs)+requestSweep {
			return false
		}
		out = append(out, old{at, ref})
		return true
	})
	for _, o := range out {
		t.del(ingestAgeKey(flow, p.part, o.at, o.ref))
		t.del(ingestKey(flow, p.part, o.ref))
	}
	t.set(counter, putUint(newValue(4), count-uint64(len(out))))
}

// requests is how many a partition has.
func (t *tx) requests(counter []byte) uint64 {
	v, ok := t.get(counter)
	if !ok {
		return 0
	}
	n, err := decodeIngest(v)
	t.fault(err)
	return n
}

// forgetRequests takes out those of a flow.
func (t *tx) forgetRequests(flow FlowID) {
	t.purge(flowPrefix(keyIngest, flow))
	t.purge(flowPrefix(keyIngestAge, flow))
	t.purge(append(counterKey("requests/"), u32(uint32(flow))...))
}

// decodeIngest reads the value of a key of kind 0x21, and that of the counter.
func decodeIngest(v []byte) (n uint64, err error) {
	err = decodeValue("request", v, func(d *decoder) { n = d.uint() })
	return n, err
}

// cutIngestAge takes a key of kind 0x22 apart.
func cutIngestAge(key []byte) (at int64, ref string) {
	r := keyReader{b: key[9:]}
	return int64(r.u48()), string(r.rest())
}

// Requests lists what is remembered of a partition's requests, the oldest
// first, until f returns false: its ref, its digest and when it was committed,
// Unix milliseconds. Some may be older than RequestWindow.
func (s *Store) Requests(flow FlowID, part uint32, f func(ref string, digest uint64, at int64) bool) error {
	return s.view(func(r pebble.Reader) error {
		var bad error
		prefix := key32(keyIngestAge, uint32(flow), part)
		err := scan(r, prefix, prefix, func(key, value []byte) bool {
			at, ref := cutIngestAge(key)
			if len(value) != 9 || value[0] != valueVersion {
				bad = fmt.Errorf("read request %q: %w", ref, ErrMalformed)
				return false
			}
			return f(ref, binary.BigEndian.Uint64(value[1:]), at)
		})
		if bad != nil {
			return bad
		}
		return err
	})
}
