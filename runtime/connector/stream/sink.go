package stream

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/millrace-io/millrace/runtime/connector"
	"github.com/millrace-io/millrace/runtime/record"
)

// SinkConfig configures a Sink.
type SinkConfig struct {
	// Writer to write to. It is not closed.
	Writer io.Writer
	// Envelope writes the JSON form of each record, with key, headers and
	// place of origin, instead of its value.
	Envelope bool
}

// Sink writes each record's value and "\n". A null value is written as an
// empty line. Safe for concurrent use.
type Sink struct {
	cfg SinkConfig

	mu     sync.Mutex
	buf    []byte // guarded by mu
	ends   []int  // of the records in buf, -1 for those that are not; guarded by mu
	broken error  // the writer failed, or the sink is closed; guarded by mu
}

// NewSink makes a sink.
func NewSink(cfg SinkConfig) (*Sink, error) {
	if cfg.Writer == nil {
		return nil, errors.New("stream sink: no writer")
	}
	return &Sink{cfg: cfg}, nil
}

// Deliver writes the records in order with one call of the writer and calls
// done for each index before it returns. Without Envelope a value that holds
// a line end is an error of class schema; a writer that fails (a reader that
// went away) is one of class internal, and stays one: half a line may have
// been written. When ctx has ended nothing is written.
func (s *Sink) Deliver(ctx context.Context, recs []record.Record, done func(i int, err error)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if ctx.Err() != nil {
		for i := range recs {
			done(i, fmt.Errorf("write: %w", context.Canceled))
		}
		return
	}
	s.buf, s.ends = s.buf[:0], s.ends[:0]
	bad := map[int]error{}
	for i := range recs {
		if err := s.append(&recs[i]); err != nil {
			bad[i] = err
			s.ends = append(s.ends, -1)
			continue
		}
		s.ends = append(s.ends, len(s.buf))
	}
	written := 0
	if len(s.buf) > 0 && s.broken == nil {
		n, err := s.cfg.Writer.Write(s.buf)
		if err == nil && n < len(s.buf) {
			err = io.ErrShortWrite
		}
		if err != nil {
			s.broken = record.Errorf(record.Internal, "write: %w", err)
		}
		written = n
	}
	for i := range recs {
		switch {
		case bad[i] != nil:
			done(i, bad[i])
		case s.ends[i] > written:
			done(i, s.broken)
		default:
			done(i, nil)
		}
	}
	if cap(s.buf) > 4<<20 {
		s.buf = nil
	}
}

// append adds a record's line to buf. mu is held.
func (s *Sink) append(r *record.Record) error {
	if s.cfg.Envelope {
		b, err := record.AppendEnvelope(s.buf, r)
		if err != nil {
			return record.Errorf(record.Internal, "%w", err)
		}
		s.buf = append(b, '\n')
		return nil
	}
	if bytes.IndexByte(r.Value, '\n') >= 0 {
		return record.Errorf(record.Schema, "the value has a line end in it, and a stream holds one record a line: map it to one line, or use --envelope")
	}
	s.buf = append(append(s.buf, r.Value...), '\n')
	return nil
}

// Problem says why the last write did not get through, or is empty.
func (s *Sink) Problem() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.broken != nil {
		return s.broken.Error()
	}
	return ""
}

// Close ends the sink. It may be called twice.
func (s *Sink) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.broken == nil {
		s.broken = record.Errorf(record.Internal, "write: %w", connector.ErrClosed)
	}
	return nil
}
