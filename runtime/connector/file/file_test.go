package file

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/millrace-io/millrace/runtime/connector"
	"github.com/millrace-io/millrace/runtime/connector/connectortest"
	"github.com/millrace-io/millrace/runtime/record"
)

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestSourceSuite(t *testing.T) {
	for name, follow := range map[string]bool{"to the end": false, "follow": true} {
		t.Run(name, func(t *testing.T) {
			connectortest.Source(t, func(t *testing.T) connectortest.SourceSpec {
				path := filepath.Join(t.TempDir(), "in.txt")
				values := connectortest.Values(300)
				write(t, path, strings.Join(values, "\n")+"\n")
				return connectortest.SourceSpec{
					Values: map[record.Partition][]string{{Topic: path}: values},
					Ends:   !follow,
					Open: func(t *testing.T) connectortest.ASource {
						s, err := NewSource(SourceConfig{Path: path, Follow: follow, BatchRecords: 20, PollInterval: 5 * time.Millisecond})
						if err != nil {
							t.Fatal(err)
						}
						return s
					},
				}
			})
		})
	}
}

func TestSinkSuite(t *testing.T) {
	connectortest.Sink(t, func(t *testing.T) connectortest.SinkSpec {
		path := filepath.Join(t.TempDir(), "out.txt")
		return connectortest.SinkSpec{
			Open: func(t *testing.T) connectortest.ASink {
				s, err := NewSink(SinkConfig{Path: path})
				if err != nil {
					t.Fatal(err)
				}
				return s
			},
			Read: func(t *testing.T, n int) []string {
				b, err := os.ReadFile(path)
				if err != nil {
					t.Fatal(err)
				}
				return strings.Split(strings.TrimSuffix(string(b), "\n"), "\n")
			},
		}
	})
}

func open(t *testing.T, path string, follow bool) (*Source, record.Partition) {
	t.Helper()
	s, err := NewSource(SourceConfig{Path: path, Follow: follow, PollInterval: time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = s.Close()
		_, _ = s.Poll(t.Context())
	})
	return s, record.Partition{Topic: path}
}

// take polls n records.
func take(t *testing.T, s *Source, n int) []record.Record {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	var recs []record.Record
	for len(recs) < n {
		b, err := s.Poll(ctx)
		if err != nil {
			t.Fatalf("poll with %d of %d records in hand: %v", len(recs), n, err)
		}
		recs = append(recs, b.Records...)
	}
	return recs
}

func wantConfig(t *testing.T, err error, parts ...string) {
	t.Helper()
	e, ok := errors.AsType[*record.Error](err)
	if !ok || e.Class != record.Config {
		t.Fatalf("got %v, want class config", err)
	}
	for _, part := range parts {
		if !strings.Contains(e.Message, part) {
			t.Errorf("got %q, want it to contain %q", e.Message, part)
		}
	}
}

func TestOffsetsAreBytes(t *testing.T) {
	path := filepath.Join(t.TempDir(), "in.txt")
	write(t, path, "a\nbc\r\n\nlast")
	s, p := open(t, path, false)
	s.Assign(p, 0)
	recs := take(t, s, 4)
	for i, want := range []struct {
		offset int64
		value  string
	}{{0, "a"}, {2, "bc"}, {6, ""}, {7, "last"}} {
		if r := recs[i]; r.Offset != want.offset || string(r.Value) != want.value || r.Value == nil {
			t.Errorf("record %d: %q at %d, want %q at %d", i, r.Value, r.Offset, want.value, want.offset)
		}
	}
	if _, err := s.Poll(t.Context()); !errors.Is(err, io.EOF) {
		t.Errorf("at the end: %v, want io.EOF", err)
	}
	if n, err := s.Start(t.Context(), p, connector.Start{Latest: true}); n != 11 || err != nil {
		t.Errorf("latest is %d, %v, want 11", n, err)
	}
	s.Assign(p, 11)
	if _, err := s.Poll(t.Context()); !errors.Is(err, io.EOF) {
		t.Errorf("from the end on: %v, want io.EOF", err)
	}
}

func TestFollow(t *testing.T) {
	path := filepath.Join(t.TempDir(), "in.txt")
	write(t, path, "one\nhal")
	s, p := open(t, path, true)
	s.Assign(p, 0)
	take(t, s, 1)
	short, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if b, err := s.Poll(short); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("an unfinished line was delivered: %v, %v", b, err)
	}
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteString("f\nthree\n"); err != nil {
		t.Fatal(err)
	}
	recs := take(t, s, 2)
	if string(recs[0].Value) != "half" || recs[0].Offset != 4 || string(recs[1].Value) != "three" {
		t.Errorf("got %q at %d and %q", recs[0].Value, recs[0].Offset, recs[1].Value)
	}
}

func failure(t *testing.T, s *Source) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	for {
		_, err := s.Poll(ctx)
		if err == nil {
			continue
		}
		if _, ok := errors.AsType[*connector.PartitionError](err); !ok {
			t.Fatalf("poll: %v, want a PartitionError", err)
		}
		return err
	}
}

func TestFileChanges(t *testing.T) {
	for _, tc := range []struct {
		name   string
		change func(path string) error
		want   string
	}{
		{"cut off", func(p string) error { return os.Truncate(p, 2) }, "was cut off: position 8 was read, and it ends at 2 now"},
		{"replaced", func(p string) error {
			if err := os.WriteFile(p+".new", []byte("x\n"), 0o644); err != nil {
				return err
			}
			return os.Rename(p+".new", p)
		}, "another file took the place of"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "in.txt")
			write(t, path, "one\ntwo\n")
			s, p := open(t, path, true)
			s.Assign(p, 0)
			take(t, s, 2)
			if err := tc.change(path); err != nil {
				t.Fatal(err)
			}
			wantConfig(t, failure(t, s), tc.want, "delete the flow")
		})
	}
}

func TestFileIsGone(t *testing.T) {
	path := filepath.Join(t.TempDir(), "in.txt")
	write(t, path, "one\n")
	s, p := open(t, path, true)
	s.Assign(p, 0)
	take(t, s, 1)
	if err := os.Rename(path, path+".1"); err != nil {
		t.Fatal(err)
	}
	short, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if b, err := s.Poll(short); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("got %v, %v", b, err)
	}
	if got := s.Problem(); !strings.Contains(got, "is gone") {
		t.Errorf("problem %q", got)
	}
	f, err := os.OpenFile(path+".1", os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteString("two\n"); err != nil {
		t.Fatal(err)
	}
	if r := take(t, s, 1)[0]; string(r.Value) != "two" {
		t.Errorf("got %q, want what was still written to the file", r.Value)
	}
}

func TestUnusablePositions(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "in.txt")
	write(t, path, "one\ntwo\n"+strings.Repeat("x", MaxLine+1)+"\n")
	s, p := open(t, path, false)
	for _, tc := range []struct {
		at         int64
		want, next string
	}{
		{5, "no line begins at byte 5 of", "delete the flow"},
		{1 << 40, "is behind the end of", "delete the flow"},
		{8, "the line at byte 8 of", "shorten it"},
	} {
		s.Assign(p, tc.at)
		wantConfig(t, failure(t, s), tc.want, tc.next)
	}
	s.Assign(p, 4)
	take(t, s, 1)

	missing, p := open(t, filepath.Join(dir, "missing"), true)
	_, err := missing.Partitions(t.Context())
	wantConfig(t, err, "missing", "make the file, or correct the path")
	missing.Assign(p, 0)
	wantConfig(t, failure(t, missing), "missing")
	folder, _ := open(t, dir, false)
	_, err = folder.Partitions(t.Context())
	wantConfig(t, err, "is not a regular file")
	if _, err := NewSource(SourceConfig{}); err == nil {
		t.Error("no path: no error")
	}
}

func deliver(t *testing.T, s *Sink, values ...string) []error {
	t.Helper()
	errs := make([]error, len(values))
	var recs []record.Record
	for _, v := range values {
		recs = append(recs, record.Record{Value: []byte(v)})
	}
	s.Deliver(t.Context(), recs, func(i int, err error) { errs[i] = err })
	return errs
}

func TestEndOfTheFileIsRepaired(t *testing.T) {
	long := strings.Repeat("x", 200_000)
	for _, tc := range []struct{ name, before, after string }{
		{"new", "", "v\n"},
		{"whole", "a\nb\n", "a\nb\nv\n"},
		{"unfinished line", "a\nb\nhal", "a\nb\nv\n"},
		{"long unfinished line", "a\n" + long, "a\nv\n"},
		{"only a line without an end", long, long + "\nv\n"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "out.txt")
			if tc.before != "" {
				write(t, path, tc.before)
			}
			s, err := NewSink(SinkConfig{Path: path})
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			if err := errors.Join(deliver(t, s, "v")...); err != nil {
				t.Fatal(err)
			}
			got, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if string(got) != tc.after {
				t.Errorf("got %.40q (%d bytes), want %.40q", got, len(got), tc.after)
			}
		})
	}
}

func TestValueWithALineEnd(t *testing.T) {
	path := filepath.Join(t.TempDir(), "out.txt")
	s, err := NewSink(SinkConfig{Path: path})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	errs := deliver(t, s, "a", "b\nc", "d")
	if errs[0] != nil || errs[2] != nil || record.AsError(errs[1]).Class != record.Schema {
		t.Errorf("got %v, want class schema for the second", errs)
	}
	if got, _ := os.ReadFile(path); string(got) != "a\nd\n" {
		t.Errorf("wrote %q", got)
	}
}

func TestFullDisk(t *testing.T) {
	f, err := os.OpenFile("/dev/full", os.O_RDWR, 0)
	if err != nil {
		t.Skip("no /dev/full here")
	}
	s := &Sink{path: "/dev/full", file: f}
	defer s.Close()
	errs := deliver(t, s, "a", "b")
	for _, err := range errs {
		if e := record.AsError(err); e.Class != record.Retryable || !errors.Is(err, syscall.ENOSPC) {
			t.Errorf("got %v, want class retryable", err)
		}
	}
	if s.Problem() == "" {
		t.Error("no problem on a full disk")
	}
}

func TestUnusableSinks(t *testing.T) {
	dir := t.TempDir()
	for _, path := range []string{"", dir, filepath.Join(dir, "no", "folder")} {
		s, err := NewSink(SinkConfig{Path: path})
		if err == nil {
			_ = s.Close()
		}
		wantConfig(t, err)
	}
}
