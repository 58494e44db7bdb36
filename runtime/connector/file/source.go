// Package file reads a file's lines and appends lines to a file.
//
// The source has one partition, {path, 0}; an offset is the byte position at
// which a line begins. It does not watch folders, decompress or decode.
package file

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"sync/atomic"
	"time"

	"github.com/millrace-io/millrace/runtime/connector"
	"github.com/millrace-io/millrace/runtime/connector/internal/gate"
	"github.com/millrace-io/millrace/runtime/connector/internal/lines"
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
// A record's time is when it was read.
//
// A file that became shorter than the position, and one that another file took
// the place of, is an error of class config once the end is reached: positions
// in the old file mean nothing in the new one. Rotation by renaming is not
// followed. A line longer than MaxLine is an error of class config, too: it
// cannot be passed over without losing it.
//
// Poll belongs to one goroutine; all other methods may be called at any time
// by any.
type Source struct {
	cfg  SourceConfig
	id   record.Partition
	seed record.TraceSeed
	gate *gate.Gate

	// The rest belongs to the goroutine that polls.
	gen    uint64 // of the assignment that file is read for; 0: none
	file   *os.File
	reader *lines.Reader
	next   int64
	lines  []lines.Line

	away atomic.Pointer[string] // why nothing can be read, nil if all is well
}

// NewSource makes a source. The file is opened by the first Poll.
func NewSource(cfg SourceConfig) (*Source, error) {
	if cfg.Path == "" {
		return nil, errors.New("file source: no path")
	}
	if cfg.BatchRecords <= 0 {
		cfg.BatchRecords = 1024
	}
	if cfg.BatchBytes <= 0 {
		cfg.BatchBytes = 1 << 20
	}
	if cfg.PollInterval <= 0 {
		cfg.PollInterval = 250 * time.Millisecond
	}
	id := record.Partition{Topic: cfg.Path}
	return &Source{cfg: cfg, id: id, seed: record.NewTraceSeed(id), gate: gate.New()}, nil
}

// Partitions is the one partition {path, 0}. A file that does not exist is an
// error of class config.
func (s *Source) Partitions(context.Context) ([]connector.Found, error) {
	if _, err := s.size(); err != nil {
		return nil, err
	}
	return []connector.Found{{Partition: s.id}}, nil
}

// Start is 0 for the earliest and for a time (lines have none), and the
// file's size for the latest.
func (s *Source) Start(_ context.Context, _ record.Partition, start connector.Start) (int64, error) {
	if start.Latest {
		return s.size()
	}
	return 0, nil
}

// End is the file's size.
func (s *Source) End(context.Context) (map[record.Partition]int64, error) {
	n, err := s.size()
	if err != nil {
		return nil, err
	}
	return map[record.Partition]int64{s.id: n}, nil
}

func (s *Source) size() (int64, error) {
	info, err := os.Stat(s.cfg.Path)
	if err != nil {
		return 0, openError(err)
	}
	if !info.Mode().IsRegular() {
		return 0, record.Errorf(record.Config, "%s is not a regular file: name one, or read it with a stream", s.cfg.Path)
	}
	return info.Size(), nil
}

// openError classifies why a file cannot be used. The error names the path.
func openError(err error) *record.Error {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return record.Errorf(record.Config, "%w: make the file, or correct the path", err)
	case errors.Is(err, fs.ErrPermission):
		return record.Errorf(record.Config, "%w: give the node the right to the file", err)
	}
	return record.Errorf(record.Config, "%w", err)
}

// Assign begins to deliver from the byte position offset on, where a line
// must begin.
func (s *Source) Assign(_ record.Partition, offset int64) { s.gate.Assign(offset) }

// Unassign stops delivering. No Poll that begins after it returned brings a
// record.
func (s *Source) Unassign(record.Partition) { s.gate.Unassign() }

// Pause holds the lines back until Resume.
func (s *Source) Pause(record.Partition) { s.gate.Pause() }

// Resume ends a Pause.
func (s *Source) Resume(record.Partition) { s.gate.Resume() }

// Problem says why nothing can be read just now, or is empty.
func (s *Source) Problem() string {
	if p := s.away.Load(); p != nil {
		return *p
	}
	return ""
}

// Close ends the source and a Poll under way, which closes the file. It may
// be called twice.
func (s *Source) Close() error {
	s.gate.Close()
	return nil
}

// Poll blocks until a batch is there or ctx ends. Next is the position behind
// the last line's end. The error is io.EOF at the end of a file that is not
// followed, ctx's, connector.ErrClosed, or a *connector.PartitionError, after
// which nothing is delivered until the partition is assigned again.
func (s *Source) Poll(ctx context.Context) (*record.Batch, error) {
	for {
		a, err := s.gate.Wait(ctx)
		if err != nil {
			if errors.Is(err, connector.ErrClosed) {
				s.release()
			}
			return nil, err
		}
		b, err := s.read(ctx, a)
		changed, open := s.gate.Open(a.Gen)
		switch {
		case !open:
			s.release() // what was read is read again, should it be wanted
			continue
		case err == nil && b != nil:
			s.away.Store(nil)
			return b, nil
		case errors.Is(err, io.EOF):
			return nil, io.EOF
		case err != nil:
			s.release()
			s.gate.End(a.Gen)
			return nil, &connector.PartitionError{Partition: s.id, Err: record.AsError(err)}
		}
		wait := time.NewTimer(s.cfg.PollInterval)
		select {
		case <-wait.C:
		case <-changed:
		case <-ctx.Done():
		}
		wait.Stop()
	}
}

// read makes a batch of the lines that are there. It returns nil when a
// followed file has no more.
func (s *Source) read(ctx context.Context, a gate.Assignment) (*record.Batch, error) {
	if s.file == nil || s.gen != a.Gen {
		from := a.Offset
		if s.gen == a.Gen {
			from = s.next
		}
		if err := s.open(from); err != nil {
			return nil, err
		}
		s.gen = a.Gen
	}
	ls, err := s.reader.Next(s.lines[:0], s.cfg.BatchRecords, s.cfg.BatchBytes)
	switch {
	case errors.Is(err, lines.ErrTooLong):
		return nil, record.Errorf(record.Config, "the line at byte %d of %s is longer than %d bytes: shorten it", s.next, s.cfg.Path, MaxLine)
	case errors.Is(err, io.EOF) && s.cfg.Follow:
		return nil, s.lookAround()
	case errors.Is(err, io.EOF):
		l, ok := s.reader.Rest()
		if !ok {
			return nil, io.EOF
		}
		ls = append(ls, l)
	case err != nil:
		return nil, record.Errorf(record.Config, "read %s at byte %d: %w", s.cfg.Path, s.next, err)
	}
	now := time.Now().UnixMilli()
	b := &record.Batch{Partition: s.id, Records: make([]record.Record, len(ls))}
	at := s.next
	for i, l := range ls {
		b.Records[i] = record.Record{Value: l.Value, Topic: s.id.Topic, Offset: at, Timestamp: now, Trace: s.seed.Trace(at), Attempt: 1, To: -1}
		at = l.End
	}
	clear(ls)
	s.lines = ls
	if _, open := s.gate.Open(a.Gen); open && ctx.Err() == nil {
		s.next = at
		b.Next = at
		return b, nil
	}
	s.release()
	return nil, nil
}

// open opens the file at a position where a line begins.
func (s *Source) open(from int64) error {
	s.release()
	n, err := s.size()
	if err != nil {
		return err
	}
	f, err := os.Open(s.cfg.Path)
	if err != nil {
		return openError(err)
	}
	if err := s.seek(f, from, n); err != nil {
		_ = f.Close()
		return err
	}
	s.file, s.next = f, from
	s.reader = lines.New(f, MaxLine, from)
	return nil
}

func (s *Source) seek(f *os.File, from, size int64) error {
	const reset = "it is not the file that was read before: delete the flow and apply it again"
	if from > size {
		return record.Errorf(record.Config, "position %d is behind the end of %s, at %d: %s", from, s.cfg.Path, size, reset)
	}
	if from > 0 {
		var before [1]byte
		if _, err := f.ReadAt(before[:], from-1); err != nil {
			return record.Errorf(record.Config, "read %s at byte %d: %w", s.cfg.Path, from-1, err)
		}
		if before[0] != '\n' && from < size {
			return record.Errorf(record.Config, "no line begins at byte %d of %s: %s", from, s.cfg.Path, reset)
		}
	}
	_, err := f.Seek(from, io.SeekStart)
	return err
}

// lookAround finds out whether the end of a followed file is one to wait at.
func (s *Source) lookAround() error {
	open, err := s.file.Stat()
	if err != nil {
		return record.Errorf(record.Config, "%w", err)
	}
	if open.Size() < s.next {
		return record.Errorf(record.Config, "%s was cut off: position %d was read, and it ends at %d now: delete the flow and apply it again", s.cfg.Path, s.next, open.Size())
	}
	named, err := os.Stat(s.cfg.Path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		p := fmt.Sprintf("%s is gone; waiting for it to grow, or for another one", s.cfg.Path)
		s.away.Store(&p)
		return nil
	case err != nil:
		p := err.Error()
		s.away.Store(&p)
		return nil
	case !os.SameFile(open, named):
		return record.Errorf(record.Config, "another file took the place of %s after byte %d: delete the flow and apply it again to read it", s.cfg.Path, s.next)
	}
	s.away.Store(nil)
	return nil
}

func (s *Source) release() {
	if s.file != nil {
		_ = s.file.Close()
		s.file, s.reader = nil, nil
	}
}
