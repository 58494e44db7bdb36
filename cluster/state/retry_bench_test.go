package state

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/millrace-io/millrace/runtime/record"
)

// million is the size of the backlog that the benchmarks below work on.
const million = 1_000_000

// backlog is a store with kept entries of one partition.
type backlog struct {
	s     *Store
	flow  FlowID
	index uint64
}

func newBacklog(tb testing.TB) *backlog {
	s, err := Open(tb.TempDir(), Options{})
	if err != nil {
		tb.Fatal(err)
	}
	b := &backlog{s: s}
	b.flow = b.apply(tb, &FlowPut{Project: "p", Name: "a", Document: []byte("d")}).Value.(*FlowPutResult).Flow
	b.apply(tb, &PartitionsAdd{Flow: b.flow, Partitions: []PartitionKey{{Kind: "kafka", Topic: "t"}}})
	b.apply(tb, &NodeUp{Node: nodeA, Incarnation: 1})
	b.apply(tb, &Assign{Slots: []SlotAssignment{{b.flow, 0, nodeA, 1}}})
	return b
}

func (b *backlog) apply(tb testing.TB, c Command) Result {
	b.index++
	res, err := b.s.Apply(entriesOf(tb, b.index, c))
	if err != nil || res[0].Err != nil {
		tb.Fatal(err, res[0].Err)
	}
	if r, ok := res[0].Value.(*CommitResult); ok && len(r.Refused) > 0 {
		tb.Fatalf("refused: %+v", r.Refused)
	}
	return res[0]
}

func (b *backlog) commit(tb testing.TB, c *Commit) {
	c.Node, c.Incarnation, c.At = nodeA, 1, 1000
	c.Items = []CommitItem{{Flow: b.flow, Epoch: 1, Low: 0, Life: 1}}
	b.apply(tb, c)
}

// retryOf is an entry of about 300 bytes; keys is over how many Holds they are
// spread, 0: none.
func (b *backlog) retryOf(off int64, keys uint64) CommitRetry {
	e := &record.Retry{Stage: "deliver", Class: record.Retryable, Code: 503, Message: "busy", Attempts: 1, First: 900, At: 950, Due: 1000 + off%60_000,
		Input: record.Record{Topic: "t", Offset: off, Key: []byte(fmt.Sprint("customer-", off)), Value: benchValue(off), Attempt: 1, To: -1}}
	if keys > 0 {
		e.Hold = uint64(off)%keys + 1
	}
	return CommitRetry{Flow: b.flow, Entry: e}
}

func benchValue(off int64) []byte {
	r := rand.New(rand.NewPCG(uint64(off), 1))
	return fmt.Appendf(nil, `{"order":%d,"customer":"%x","lines":[{"sku":"%x","n":3},{"sku":"%x","n":1}],"note":"%s"}`, off, r.Uint64(), r.Uint64(), r.Uint64(), strings.Repeat("deliver by noon ", 6))
}

const benchBatch = 256

func (b *backlog) fill(tb testing.TB, from, n int64, keys uint64) {
	for off := from; off < from+n; off += benchBatch {
		c := &Commit{}
		for i := range min(benchBatch, from+n-off) {
			c.Keeps = append(c.Keeps, b.retryOf(off+i, keys))
		}
		b.commit(tb, c)
	}
}

// BenchmarkRetry works on a million kept entries; an operation is one entry.
// Fill made the million, by Commits of 256 as Insert adds to it.
func BenchmarkRetry(b *testing.B) {
	s := newBacklog(b)
	defer s.s.Close()
	began := time.Now()
	s.fill(b, 0, million, 0)
	took := time.Since(began)
	b.Run("Fill", func(b *testing.B) {
		for b.Loop() {
		}
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		b.ReportMetric(million/took.Seconds(), "entries/s")
		b.ReportMetric(float64(m.HeapInuse)/(1<<20), "heap-MiB")
		b.ReportMetric(0, "ns/op")
	})
	next := int64(million)
	for _, keys := range []uint64{0, 10_000, 1} {
		b.Run(fmt.Sprintf("Insert/keys=%d", keys), func(b *testing.B) {
			b.ReportAllocs()
			s.fill(b, next, int64(b.N), keys)
			next += int64(b.N)
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "entries/s")
		})
	}
	b.Run("Due", func(b *testing.B) {
		b.ReportAllocs()
		var after RetryCursor
		for n := 0; n < b.N; {
			due, last, _, err := s.s.RetryDue(s.flow, 0, 1<<40, after, benchBatch)
			if err != nil {
				b.Fatal(err)
			}
			if after = last; len(due) == 0 {
				after = RetryCursor{}
			}
			n += len(due)
		}
		b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "entries/s")
	})
	b.Run("Index", func(b *testing.B) {
		for n := 0; n < b.N; {
			if err := s.s.RetryIndex(s.flow, 0, func(RetryMark) bool { n++; return n < b.N }); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "entries/s")
	})
}

// BenchmarkRetryDrain empties one Hold, 64 entries a Commit, as they are
// un-parked; an operation is one entry.
func BenchmarkRetryDrain(b *testing.B) {
	for _, size := range []int64{10_000, 100_000} {
		b.Run(fmt.Sprintf("hold=%d", size), func(b *testing.B) {
			done := int64(0)
			for done < int64(b.N) {
				b.StopTimer()
				s := newBacklog(b)
				s.fill(b, 0, size, 1)
				runtime.GC()
				b.StartTimer()
				for off := int64(0); off < size && done < int64(b.N); off += UnparkAtOnce {
					c := &Commit{}
					for i := range int64(UnparkAtOnce) {
						c.Gone = append(c.Gone, CommitGone{Flow: s.flow, Offset: off + i})
					}
					s.commit(b, c)
					if due, _, _, err := s.s.RetryDue(s.flow, 0, 1<<40, RetryCursor{}, UnparkAtOnce); err != nil || off+UnparkAtOnce < size && len(due) == 0 {
						b.Fatal(len(due), err)
					}
					done += UnparkAtOnce
				}
				b.StopTimer()
				_ = s.s.Close()
				b.StartTimer()
			}
		})
	}
}
