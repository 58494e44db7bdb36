package file

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"syscall"

	"github.com/millrace-io/millrace/runtime/connector"
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
// never acknowledged, so its record comes again. A file that is one unfinished
// line as a whole was written by somebody else; its line gets an end.
//
// One sink writes a file at a time. A file that is renamed or removed while the
// sink has it open is written to until the sink is closed. Safe for concurrent
// use.
type Sink struct {
	path string

	mu     sync.Mutex
	file   *os.File // nil when closed; guarded by mu
	buf    []byte   // guarded by mu
	broken error    // what no further write mends; guarded by mu
	last   string   // why the last write did not get through; guarded by mu
}

// NewSink opens the file, or makes it. The error is a *record.Error of class
// config.
func NewSink(cfg SinkConfig) (*Sink, error) {
	if cfg.Path == "" {
		return nil, record.Errorf(record.Config, "file sink: no path")
	}
	f, err := os.OpenFile(cfg.Path, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o644)
	if err != nil {
		return nil, openError(err)
	}
	if err := repair(f); err != nil {
		_ = f.Close()
		return nil, record.Errorf(record.Config, "open %s for writing: %w", cfg.Path, err)
	}
	syncDir(filepath.Dir(cfg.Path))
	return &Sink{path: cfg.Path, file: f}, nil
}

// repair makes the file end with a whole line.
func repair(f *os.File) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return errors.New("not a regular file")
	}
	size := info.Size()
	block := make([]byte, 64<<10)
	for end := size; end > 0; {
		n := min(end, int64(len(block)))
		if _, err := f.ReadAt(block[:n], end-n); err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		if i := bytes.LastIndexByte(block[:n], '\n'); i >= 0 {
			if whole := end - n + int64(i) + 1; whole < size {
				return f.Truncate(whole)
			}
			return nil
		}
		end -= n
	}
	if size == 0 {
		return nil
	}
	_, err = f.Write([]byte("\n"))
	return err
}

// syncDir makes the entry of a new file durable, where the system can.
func syncDir(dir string) {
	if d, err := os.Open(dir); err == nil {
		_ = d.Sync()
		_ = d.Close()
	}
}

// Deliver writes the records in order, flushes them to the disk once, and
// calls done for each index before it returns. A value that holds a line end
// is an error of class schema; a disk that takes no more is one of class
// retryable (ENOSPC, EDQUOT), any other fault of the file is internal. When
// ctx has ended nothing is written.
func (s *Sink) Deliver(ctx context.Context, recs []record.Record, done func(i int, err error)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if ctx.Err() != nil {
		all(recs, done, fmt.Errorf("write to %s: %w", s.path, context.Canceled))
		return
	}
	s.buf = s.buf[:0]
	lined := 0
	for i := range recs {
		if bytes.IndexByte(recs[i].Value, '\n') < 0 {
			s.buf = append(append(s.buf, recs[i].Value...), '\n')
			lined++
		}
	}
	var err error
	if lined > 0 {
		err = s.write()
	}
	for i := range recs {
		switch {
		case bytes.IndexByte(recs[i].Value, '\n') >= 0:
			done(i, record.Errorf(record.Schema, "the value has a line end in it, and %s holds one record a line: map it to one line", s.path))
		case err != nil:
			done(i, err)
		default:
			done(i, nil)
		}
	}
	if cap(s.buf) > 4<<20 {
		s.buf = nil
	}
}

func all(recs []record.Record, done func(i int, err error), err error) {
	for i := range recs {
		done(i, err)
	}
}

// write appends buf and flushes it. What was written in part is taken back. mu
// is held.
func (s *Sink) write() error {
	if s.file == nil {
		return record.Errorf(record.Internal, "write to %s: %w", s.path, connector.ErrClosed)
	}
	if s.broken != nil {
		return s.broken
	}
	before, err := s.file.Stat()
	if err != nil {
		return s.internal(err)
	}
	n, err := s.file.Write(s.buf)
	if err == nil {
		if err = s.file.Sync(); err != nil {
			// What the disk holds now is not known, and a second flush
			// would not tell.
			s.broken = s.internal(err)
			return s.broken
		}
		s.last = ""
		return nil
	}
	if n > 0 {
		if terr := s.file.Truncate(before.Size()); terr != nil {
			s.broken = s.internal(errors.Join(err, terr))
			return s.broken
		}
	}
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		s.last = err.Error()
		return record.Errorf(record.Retryable, "write to %s: %w", s.path, err)
	}
	return s.internal(err)
}

func (s *Sink) internal(err error) error {
	s.last = err.Error()
	return record.Errorf(record.Internal, "write to %s: %w: start the flow again once the disk is well", s.path, err)
}

// Problem says why the last write did not get through, or is empty.
func (s *Sink) Problem() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.last
}

// Close closes the file. It may be called twice.
func (s *Sink) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.file == nil {
		return nil
	}
	err := s.file.Close()
	s.file = nil
	return err
}
