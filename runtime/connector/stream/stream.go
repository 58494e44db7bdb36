// Package stream reads records from an io.Reader and writes them to an
// io.Writer, one a line: STDIN and STDOUT of a command. Nothing can be read a
// second time; a process that dies loses its place.
package stream

import (
	"context"
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/millrace-io/millrace/runtime/connector"
	"github.com/millrace-io/millrace/runtime/connector/internal/gate"
	"github.com/millrace-io/millrace/runtime/connector/internal/lines"
	"github.com/millrace-io/millrace/runtime/record"
)

// MaxLine is the longest line, without its end, that is read.
const MaxLine = 16 << 20

// Partition is the only partition of a stream.
var Partition = record.Partition{Topic: "-"}

// SourceConfig configures a Source.
type SourceConfig struct {
	// Reader to read from. It is not closed.
	Reader io.Reader
	// Envelope reads each line as the JSON form of a record. Key, value,
	// headers and timestamp are taken from it; where it came from is this
	// stream and the number of the line.
	Envelope bool
	// BatchRecords bounds the lines of a batch. Default 1024.
	BatchRecords int
	// Now is the clock for records that bring no time. Default time.Now.
	Now func() time.Time
}

// Source reads lines. A line's end is "\n" or "\r\n" and is not part of the
// value; the last line needs none. An offset is the number of a line, from 0.
//
// Reading begins with the first Poll, in a goroutine of its own that ends with
// the reader: a reader that blocks for ever keeps it, also after Close.
//
// Poll belongs to one goroutine; all other methods may be called at any time
// by any.
type Source struct {
	cfg  SourceConfig
	seed record.TraceSeed
	gate *gate.Gate

	start  sync.Once
	chunks chan chunk    // from the goroutine that reads; unbuffered: it is one chunk ahead
	closed chan struct{} // ends that goroutine
	closer sync.Once
	count  atomic.Int64 // lines read

	// The rest belongs to the goroutine that polls.
	gen     uint64       // of the assignment that next was taken from
	next    int64        // the next line to deliver
	first   int64        // the line that pending begins with
	pending []lines.Line // read and not delivered
	end     error        // why nothing more is read; nil as long as it is
}

// chunk is what one read of the goroutine brought.
type chunk struct {
	lines []lines.Line
	err   error
}

// NewSource makes a source.
func NewSource(cfg SourceConfig) (*Source, error) {
	if cfg.Reader == nil {
		return nil, errors.New("stream source: no reader")
	}
	if cfg.BatchRecords <= 0 {
		cfg.BatchRecords = 1024
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	return &Source{
		cfg:    cfg,
		seed:   record.NewTraceSeed(Partition),
		gate:   gate.New(),
		chunks: make(chan chunk),
		closed: make(chan struct{}),
	}, nil
}

// Partitions is {"-", 0}.
func (s *Source) Partitions(context.Context) ([]connector.Found, error) {
	return []connector.Found{{Partition: Partition}}, nil
}

// Start is 0.
func (s *Source) Start(context.Context, record.Partition, connector.Start) (int64, error) {
	return 0, nil
}

// End is the number of lines read so far.
func (s *Source) End(context.Context) (map[record.Partition]int64, error) {
	return map[record.Partition]int64{Partition: s.count.Load()}, nil
}

// Assign begins to deliver from line offset on. Lines before it are passed
// over; lines that were delivered are gone, and an offset among them is an
// error of the next Poll.
func (s *Source) Assign(_ record.Partition, offset int64) { s.gate.Assign(offset) }

// Unassign stops delivering. No Poll that begins after it returned brings a
// record.
func (s *Source) Unassign(record.Partition) { s.gate.Unassign() }

// Pause holds the lines back until Resume.
func (s *Source) Pause(record.Partition) { s.gate.Pause() }

// Resume ends a Pause.
func (s *Source) Resume(record.Partition) { s.gate.Resume() }

// Problem is empty.
func (s *Source) Problem() string { return "" }

// Close ends the source and a Poll under way. It may be called twice.
func (s *Source) Close() error {
	s.gate.Close()
	s.closer.Do(func() { close(s.closed) })
	return nil
}

// Poll blocks until a batch is there or ctx ends; it does not wait for a batch
// to be full. The error is io.EOF at the end, ctx's, connector.ErrClosed, or a
// *connector.PartitionError of class config that names the line: an envelope
// that cannot be read, a line that is too long. Then nothing more is delivered
// until the partition is assigned again, behind that line.
func (s *Source) Poll(ctx context.Context) (*record.Batch, error) {
	for {
		a, err := s.gate.Wait(ctx)
		if err != nil {
			return nil, err
		}
		s.start.Do(func() { go s.read() })
		if a.Gen != s.gen {
			s.gen, s.next = a.Gen, a.Offset
		}
		if s.first > s.next {
			return nil, s.fail(a, record.Errorf(record.Config, "line %d was read before, and a stream cannot be read again", s.next+1))
		}
		if skip := min(s.next-s.first, int64(len(s.pending))); skip > 0 {
			s.first += skip
			s.pending = s.pending[skip:]
		}
		if len(s.pending) > 0 {
			b, err := s.batch()
			if err != nil {
				return nil, s.fail(a, err)
			}
			return b, nil
		}
		if s.end != nil {
			if errors.Is(s.end, io.EOF) {
				return nil, io.EOF
			}
			return nil, s.fail(a, s.broken())
		}
		changed, open := s.gate.Open(a.Gen)
		if !open {
			continue
		}
		select {
		case c := <-s.chunks:
			s.pending, s.end = c.lines, c.err
		case <-changed:
		case <-ctx.Done():
		}
	}
}

func (s *Source) fail(a gate.Assignment, why *record.Error) error {
	s.gate.End(a.Gen)
	return &connector.PartitionError{Partition: Partition, Err: why}
}

// broken says why reading ended before the end.
func (s *Source) broken() *record.Error {
	if errors.Is(s.end, lines.ErrTooLong) {
		return record.Errorf(record.Config, "line %d is longer than %d bytes", s.first+1, MaxLine)
	}
	return record.Errorf(record.Config, "read line %d: %w", s.first+1, s.end)
}

// batch takes pending lines up to one that cannot be read. The error is about
// the first one.
func (s *Source) batch() (*record.Batch, *record.Error) {
	n := min(len(s.pending), s.cfg.BatchRecords)
	b := &record.Batch{Partition: Partition, Records: make([]record.Record, 0, n)}
	now := s.cfg.Now().UnixMilli()
	for _, l := range s.pending[:n] {
		r := record.Record{Value: l.Value, Attempt: 1, To: -1}
		if s.cfg.Envelope {
			var err error
			if r, err = record.ParseEnvelope(l.Value); err != nil {
				if len(b.Records) == 0 {
					return nil, record.Errorf(record.Config, "line %d: %w", s.first+1, err)
				}
				break
			}
		}
		r.Topic, r.Broker, r.Partition, r.Offset = Partition.Topic, "", 0, s.first
		if r.Timestamp == 0 {
			r.Timestamp = now
		}
		if t, ok := record.TraceFromHeaders(r.Headers); ok {
			r.Trace = t
		} else {
			r.Trace = s.seed.Trace(r.Offset)
		}
		b.Records = append(b.Records, r)
		s.first++
	}
	s.pending = s.pending[len(b.Records):]
	s.next = s.first
	b.Next = s.next
	return b, nil
}

// read cuts the reader's lines and hands them over until it ends.
func (s *Source) read() {
	r := lines.New(s.cfg.Reader, MaxLine, 0)
	for {
		ls, err := r.Next(nil, s.cfg.BatchRecords, 1<<20)
		if errors.Is(err, io.EOF) {
			if l, ok := r.Rest(); ok {
				ls = append(ls, l)
			}
		}
		s.count.Add(int64(len(ls)))
		select {
		case s.chunks <- chunk{ls, err}:
		case <-s.closed:
			return
		}
		if err != nil {
			return
		}
	}
}
