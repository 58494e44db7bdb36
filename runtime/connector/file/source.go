// Package file reads a file's lines and appends lines to a file.
//
// The source has one partition, {path, 0}; an offset is the byte position at
// which a line begins. It does not watch folders, decompress or decode.
package file

import (
	"context"
	"time"

	"github.com/millrace-io/millrace/runtime/connector"
	"github.com/millrace-io/millrace/runtime/record"
)

// MaxLine is the longest line, without its end, that is read.
const MaxLine = 16 << 20

// SourceConfig configures a Source.
type SourceConfig struct {
	// Path of the file.
	Path string
	// Follow waits at the end of the file for it to grow. Without it Poll
	// answers io.EOF there.
	Follow bool
	// BatchRecords bounds the lines of a batch. Default 1024.
	BatchRecords int
	// BatchBytes bounds their bytes; a batch has at least one line.
	// Default 1 MiB.
	BatchBytes int
	// PollInterval is how often a followed file is looked at. Default 250 ms.
	PollInterval time.Duration
}

// Source reads the lines of a file. A line's end is "\n" or "\r\n" and is not
// part of the value; empty lines are records too. A last line without an end
// counts when the file is not followed; in a followed file it is waited for.
//
// A file that became shorter than the position, and one that another file took
// the place of, is an error of class config: its old positions mean nothing in
// the new one. Rotation by renaming is not followed.
//
// Poll belongs to one goroutine; all other methods may be called at any time
// by any.
type Source struct{}

// NewSource makes a source. The file is opened by Assign.
func NewSource(cfg SourceConfig) (*Source, error) { return nil, nil }

// Partitions is the one partition {path, 0}. A file that does not exist is an
// error of class config.
func (s *Source) Partitions(ctx context.Context) ([]connector.Found, error) { return nil, nil }

// Start is 0 for the earliest and for a time (lines have none), and the
// file's size for the latest.
func (s *Source) Start(ctx context.Context, p record.Partition, start connector.Start) (int64, error) {
	return 0, nil
}

// Assign begins to deliver from the byte position offset on, where a line
// must begin.
func (s *Source) Assign(p record.Partition, offset int64) {}

// Unassign stops delivering. No Poll that ends after it returned brings a
// record.
func (s *Source) Unassign(p record.Partition) {}

// Pause holds the lines back until Resume.
func (s *Source) Pause(p record.Partition) {}

// Resume ends a Pause.
func (s *Source) Resume(p record.Partition) {}

// Poll blocks until a batch is there or ctx ends. Next is the position behind
// the last line's end. The error is io.EOF at the end of a file that is not
// followed, ctx's, connector.ErrClosed, or a *connector.PartitionError, after
// which nothing is delivered until the partition is assigned again.
func (s *Source) Poll(ctx context.Context) (*record.Batch, error) { return nil, nil }

// End is the file's size.
func (s *Source) End(ctx context.Context) (map[record.Partition]int64, error) { return nil, nil }

// Problem says why nothing can be read just now, or is empty.
func (s *Source) Problem() string { return "" }

// Close ends the source and a Poll under way. It may be called twice.
func (s *Source) Close() error { return nil }
