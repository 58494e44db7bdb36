package daemon

import (
	"cmp"
	"slices"
	"sync"
	"time"

	"github.com/millrace-io/millrace/cmd/internal/api"
	"github.com/millrace-io/millrace/runtime/record"
)

// skips are the records that a flow's source has passed over in this life,
// because its log no longer had them, or as the flow's `out_of_range` says. It
// is safe for concurrent use.
type skips struct {
	mu    sync.Mutex
	sum   int64                         // guarded by mu
	parts map[record.Partition]api.Skip // guarded by mu
}

func (s *skips) add(p record.Partition, from, to int64, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.parts == nil {
		s.parts = map[record.Partition]api.Skip{}
	}
	s.sum += to - from
	was := s.parts[p]
	s.parts[p] = api.Skip{Topic: p.Topic, Broker: p.Broker, Partition: p.Num, Records: was.Records + to - from, From: from, To: to, At: now.UnixMilli()}
}

// all are the skips by partition, and how many records they are in all.
func (s *skips) all() (list []api.Skip, sum int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, k := range s.parts {
		list = append(list, k)
	}
	slices.SortFunc(list, func(a, b api.Skip) int {
		return cmp.Or(cmp.Compare(a.Topic, b.Topic), cmp.Compare(a.Broker, b.Broker), cmp.Compare(a.Partition, b.Partition))
	})
	return list, s.sum
}

// skipped notes that the source goes on at to, and not at from.
func (r *runner) skipped(p record.Partition, from, to int64) {
	r.skips.add(p, from, to, time.Now())
	r.log.Warn("records are passed over: the source's log no longer has the flow's position", "topic", p.Topic, "partition", p.Num, "offset", from, "to", to, "records", to-from)
}
