package daemon

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"time"

	"github.com/millrace-io/millrace/runtime/connector"
	"github.com/millrace-io/millrace/runtime/connector/file"
	"github.com/millrace-io/millrace/runtime/flow"
	"github.com/millrace-io/millrace/runtime/record"
)

const (
	// tailBytes is what a pre-flight keeps of a source's records at most.
	tailBytes = 64 << 20
	// tailIdle is how long the end of a source is read without anything new:
	// a transaction that is open holds it back.
	tailIdle = 3 * time.Second
	// tailRounds is how often it is read further back where offsets have no
	// records, as in a compacted topic.
	tailRounds = 4
)

// sourced is a record as its source gave it.
type sourced struct {
	partition record.Partition
	rec       record.Record
}

// span is a part of a partition: the offsets from `from` up to and without
// `to`. first is the first offset that there is.
type span struct {
	partition       record.Partition
	first, from, to int64

	records []sourced // of earlier rounds, in order
	fresh   []sourced // of this one, before those
	bytes   int64     // of both
}

// tail reads the latest n records of a flow's source, over all partitions, the
// newest first. It has a consumer of its own, for this once: nothing of the
// flow's is touched. partial says what could not be read. An error of class
// config says that there is nothing to read.
func (d *Daemon) tail(ctx context.Context, f *flow.Flow, n int) (recs []sourced, partial string, err error) {
	var src source
	var spans []*span
	switch s := f.Source; {
	case s.Kafka != nil || s.RocketMQ != nil:
		if src, err = d.asking().source(f); err != nil {
			return nil, "", err
		}
		defer src.Close()
		asking, cancel := context.WithTimeout(ctx, probe)
		spans, err = wholeOf(asking, src)
		cancel()
		if err != nil {
			return nil, "", err
		}
	case s.File != nil:
		if src, err = file.NewSource(file.SourceConfig{Path: s.File.Path, Follow: true}); err != nil {
			return nil, "", err
		}
		defer src.Close()
		from, to, err := lastLines(s.File.Path, n, tailBytes)
		if err != nil {
			return nil, "", err
		}
		spans = []*span{{partition: record.Partition{Topic: s.File.Path}, first: from, from: to, to: to}}
	default:
		return nil, "", record.Errorf(record.Config, "its source is %s: what it gave cannot be read again", f.Source)
	}
	for round := range tailRounds {
		missing := n
		for _, s := range spans {
			s.records, s.fresh = append(s.fresh, s.records...), nil
			missing -= len(s.records)
		}
		if round > 0 {
			missing *= 2 // so many offsets had fewer records
		}
		if !reach(spans, missing, f.Source.File != nil) {
			break
		}
		if partial, err = readSpans(ctx, src, spans); err != nil || partial != "" {
			break
		}
	}
	for _, s := range spans {
		recs = append(append(recs, s.fresh...), s.records...)
	}
	slices.SortStableFunc(recs, func(a, b sourced) int {
		return cmp.Or(cmp.Compare(b.rec.Timestamp, a.rec.Timestamp), cmp.Compare(b.rec.Offset, a.rec.Offset))
	})
	return recs[:min(len(recs), n)], partial, err
}

// wholeOf are the partitions of a source, of which nothing is to be read yet.
// The error is of class config where there is none of its topics.
func wholeOf(ctx context.Context, src source) ([]*span, error) {
	found, err := src.Partitions(ctx)
	if errors.Is(err, connector.ErrNoTopic) {
		if len(found) == 0 {
			return nil, record.Errorf(record.Config, "%s", messageOf(record.AsError(err)))
		}
		err = nil
	}
	if err != nil {
		return nil, err
	}
	spans := make([]*span, len(found))
	for i, p := range found {
		s := &span{partition: p.Partition}
		if s.first, err = src.Start(ctx, p.Partition, connector.Start{}); err == nil {
			s.to, err = src.Start(ctx, p.Partition, connector.Start{Latest: true})
		}
		if err != nil {
			return nil, err
		}
		s.from = s.to
		spans[i] = s
	}
	return spans, nil
}

// reach moves the spans back by n offsets in all, shared evenly; what a short
// one cannot give others do. What was read before is not read again. all takes
// whatever there is: offsets are not numbers of records. It reports whether
// there is anything to read.
func reach(spans []*span, n int, all bool) bool {
	left := int64(max(n, 0))
	open := slices.Clone(spans)
	slices.SortFunc(open, func(a, b *span) int { return cmp.Compare(a.from-a.first, b.from-b.first) })
	any := false
	for i, s := range open {
		share := left / int64(len(open)-i)
		if rest := left % int64(len(open)-i); rest > 0 {
			share++
		}
		share = min(share, s.from-s.first)
		if all && left > 0 {
			share = s.from - s.first
		}
		s.to, s.from = s.from, s.from-share
		left = max(left-share, 0)
		any = any || share > 0
	}
	return any
}

// readSpans reads what lies in the spans. partial says what could not be.
func readSpans(ctx context.Context, src source, spans []*span) (partial string, err error) {
	open := map[record.Partition]*span{}
	for _, s := range spans {
		if s.from < s.to {
			open[s.partition] = s
			src.Assign(s.partition, s.from)
		}
	}
	most := tailBytes / int64(len(spans))
	dropped := 0
	for len(open) > 0 {
		waiting, cancel := context.WithTimeout(ctx, tailIdle)
		b, err := src.Poll(waiting)
		idle := waiting.Err() != nil
		cancel()
		if e, ok := errors.AsType[*connector.PartitionError](err); ok {
			delete(open, e.Partition)
			partial = "not all of the source could be read: " + e.Err.Error()
			continue
		}
		switch {
		case err != nil && ctx.Err() != nil:
			return partial, ctx.Err()
		case err != nil && idle:
			if why := src.Problem(); why != "" {
				return partial, record.Errorf(record.Retryable, "%s", why)
			}
			return "not all of the source could be read: its end does not come, a transaction may be open", nil
		case err != nil:
			return partial, err
		}
		s := open[b.Partition]
		if s == nil {
			continue
		}
		dropped += s.take(b.Records, most)
		if b.Next >= s.to {
			delete(open, b.Partition)
			src.Unassign(b.Partition)
		}
	}
	if dropped > 0 {
		partial = fmt.Sprintf("%d records were left out: the pre-flight keeps %d MiB", dropped, tailBytes>>20)
	}
	return partial, nil
}

// take adds records below the span's end, and lets go of the oldest ones where
// they are more than most bytes. It returns how many.
func (s *span) take(recs []record.Record, most int64) (dropped int) {
	for i := range recs {
		if recs[i].Offset >= s.to {
			break
		}
		s.fresh = append(s.fresh, sourced{s.partition, recs[i]})
		s.bytes += int64(recs[i].Size())
	}
	for s.bytes > most && len(s.fresh) > 0 {
		s.bytes -= int64(s.fresh[0].rec.Size())
		s.fresh[0] = sourced{}
		s.fresh = s.fresh[1:]
		dropped++
	}
	return dropped
}

// lastLines finds where the last n whole lines of a file begin and end, but
// looks at no more than most bytes.
func lastLines(path string, n int, most int64) (from, to int64, err error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, 0, record.Errorf(record.Config, "%w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return 0, 0, record.Errorf(record.Config, "%w", err)
	}
	buf := make([]byte, 64<<10)
	at, lines := info.Size(), -1 // the end of a line that came before the last one
	from, to = at, 0
	for at > 0 && info.Size()-at < most {
		size := min(int64(len(buf)), at)
		at -= size
		if _, err := f.ReadAt(buf[:size], at); err != nil && !errors.Is(err, io.EOF) {
			return 0, 0, record.Errorf(record.Config, "read %s: %w", path, err)
		}
		for i := size; ; {
			if i = int64(bytes.LastIndexByte(buf[:i], '\n')); i < 0 {
				break
			}
			from = at + i + 1
			if lines++; lines == 0 {
				to = from
			}
			if lines == n {
				return from, to, nil
			}
		}
	}
	if lines < 0 {
		return 0, 0, nil // no line has an end yet
	}
	if at == 0 {
		from = 0
	}
	return from, to, nil
}
