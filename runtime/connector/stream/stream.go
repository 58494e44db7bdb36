// Package stream reads records from an io.Reader and writes them to an
// io.Writer, one a line: STDIN and STDOUT of a command. Nothing can be read a
// second time; a process that dies loses its place.
package stream

import (
	"context"
	"io"
	"time"

	"github.com/millrace-io/millrace/runtime/connector"
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
// the reader: a reader that blocks for ever keeps it.
//
// Poll belongs to one goroutine; all other methods may be called at any time
// by any.
type Source struct{}

// NewSource makes a source.
func NewSource(cfg SourceConfig) (*Source, error) { return nil, nil }

// Partitions is {"-", 0}.
func (s *Source) Partitions(ctx context.Context) ([]connector.Found, error) { return nil, nil }

// Start is 0.
func (s *Source) Start(ctx context.Context, p record.Partition, start connector.Start) (int64, error) {
	return 0, nil
}

// Assign begins to deliver from line offset on. Lines before it are passed
// over; lines that were delivered are gone, and an offset among them is an
// error of the next Poll.
func (s *Source) Assign(p record.Partition, offset int64) {}

// Unassign stops delivering. No Poll that ends after it returned brings a
// record.
func (s *Source) Unassign(p record.Partition) {}

// Pause holds the lines back until Resume.
func (s *Source) Pause(p record.Partition) {}

// Resume ends a Pause.
func (s *Source) Resume(p record.Partition) {}

// Poll blocks until a batch is there or ctx ends; it does not wait for a batch
// to be full. The error is io.EOF at the end, ctx's, connector.ErrClosed, or a
// *connector.PartitionError that names the line: an envelope that cannot be
// read, a line that is too long (class config). Then nothing more is delivered.
func (s *Source) Poll(ctx context.Context) (*record.Batch, error) { return nil, nil }

// End is the number of lines read so far.
func (s *Source) End(ctx context.Context) (map[record.Partition]int64, error) { return nil, nil }

// Problem is empty.
func (s *Source) Problem() string { return "" }

// Close ends the source and a Poll under way. It may be called twice.
func (s *Source) Close() error { return nil }
