package file

import (
	"context"

	"github.com/millrace-io/millrace/runtime/record"
)

// SinkConfig configures a Sink.
type SinkConfig struct {
	// Path of the file. It is created with mode 0644 if it does not exist;
	// its folder must exist.
	Path string
}

// Sink appends each record's value and "\n" to a file. What is acknowledged
// has been flushed to the disk. A null value is written as an empty line; keys
// and headers are not written.
//
// A line that an earlier process left unfinished at the end of the file (a
// crash in the middle of a write) is removed when the sink is opened: it was
// never acknowledged, so its record comes again.
//
// Safe for concurrent use.
type Sink struct{}

// NewSink opens the file, or makes it.
func NewSink(cfg SinkConfig) (*Sink, error) { return nil, nil }

// Deliver writes the records in order, flushes them to the disk once, and
// calls done for each index before it returns. A value that holds a line end
// is an error of class schema; a disk that takes no more is one of class
// retryable (ENOSPC, EDQUOT), any other fault of the file is internal.
func (s *Sink) Deliver(ctx context.Context, recs []record.Record, done func(i int, err error)) {}

// Problem says why the last write did not get through, or is empty.
func (s *Sink) Problem() string { return "" }

// Close closes the file. It may be called twice.
func (s *Sink) Close() error { return nil }
