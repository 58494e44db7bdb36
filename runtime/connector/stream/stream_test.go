package stream

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/millrace-io/millrace/runtime/connector"
	"github.com/millrace-io/millrace/runtime/connector/connectortest"
	"github.com/millrace-io/millrace/runtime/record"
)

func TestSourceSuite(t *testing.T) {
	connectortest.Source(t, func(t *testing.T) connectortest.SourceSpec {
		values := connectortest.Values(300)
		return connectortest.SourceSpec{
			Values: map[record.Partition][]string{Partition: values},
			Ends:   true,
			Once:   true,
			Open: func(t *testing.T) connectortest.ASource {
				return source(t, SourceConfig{Reader: strings.NewReader(strings.Join(values, "\n") + "\n"), BatchRecords: 20})
			},
		}
	})
}

func source(t *testing.T, cfg SourceConfig) *Source {
	t.Helper()
	s, err := NewSource(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// locked is a buffer that may be read while it is written.
type locked struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *locked) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(b)
}

func (l *locked) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

func TestSinkSuite(t *testing.T) {
	connectortest.Sink(t, func(t *testing.T) connectortest.SinkSpec {
		var out locked
		return connectortest.SinkSpec{
			Open: func(t *testing.T) connectortest.ASink {
				s, err := NewSink(SinkConfig{Writer: &out})
				if err != nil {
					t.Fatal(err)
				}
				return s
			},
			Read: func(t *testing.T, n int) []string {
				return strings.Split(strings.TrimSuffix(out.String(), "\n"), "\n")
			},
		}
	})
}

func bounded(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func TestEnvelopes(t *testing.T) {
	const trace = "0af7651916cd43dd8448eb211c80319c"
	in := `{"key":"k","value":{"a":1},"headers":[{"key":"traceparent","value":"00-` + trace + `-b7ad6b7169203331-01"}],"topic":"elsewhere","partition":3,"offset":9,"timestamp":1700000000123}
{"value":"no time"}
`
	now := time.UnixMilli(1_800_000_000_000)
	s := source(t, SourceConfig{Reader: strings.NewReader(in), Envelope: true, Now: func() time.Time { return now }})
	s.Assign(Partition, 0)
	b, err := s.Poll(bounded(t))
	if err != nil {
		t.Fatal(err)
	}
	if r := b.Records[0]; r.ID() != "-/0/0" || string(r.Key) != "k" || string(r.Value) != `{"a":1}` || r.Timestamp != 1_700_000_000_123 || r.Trace.String() != trace {
		t.Errorf("got %s: %q=%q at %d, trace %s", r.ID(), r.Key, r.Value, r.Timestamp, r.Trace)
	}
	if r := b.Records[1]; r.ID() != "-/0/1" || r.Key != nil || r.Timestamp != now.UnixMilli() {
		t.Errorf("got %s: %q=%q at %d", r.ID(), r.Key, r.Value, r.Timestamp)
	}

	var out bytes.Buffer
	sink, err := NewSink(SinkConfig{Writer: &out, Envelope: true})
	if err != nil {
		t.Fatal(err)
	}
	sink.Deliver(t.Context(), []record.Record{{Key: []byte("k"), Value: []byte("two\nlines"), Topic: "t", Partition: 1, Offset: 2, Timestamp: 3}, {}}, func(i int, err error) {
		if err != nil {
			t.Errorf("record %d: %v", i, err)
		}
	})
	want := `{"key":"k","value":"two\nlines","topic":"t","partition":1,"offset":2,"timestamp":3}
{"key":null,"value":null,"partition":0,"offset":0,"timestamp":0}
`
	if out.String() != want {
		t.Errorf("got  %s\nwant %s", out.String(), want)
	}
}

func TestBadEnvelope(t *testing.T) {
	in := "{\"value\":\"1\"}\n{\"valeu\":\"2\"}\n{\"value\":\"3\"}\n"
	s := source(t, SourceConfig{Reader: strings.NewReader(in), Envelope: true})
	s.Assign(Partition, 0)
	b, err := s.Poll(bounded(t))
	if err != nil || len(b.Records) != 1 || b.Next != 1 {
		t.Fatalf("before the bad line: %+v, %v", b, err)
	}
	_, err = s.Poll(bounded(t))
	pe, ok := errors.AsType[*connector.PartitionError](err)
	if !ok || pe.Err.Class != record.Config || !strings.Contains(err.Error(), "line 2: read envelope") || !strings.Contains(err.Error(), "valeu") {
		t.Fatalf("got %v, want it to name line 2", err)
	}
	short, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if b, err := s.Poll(short); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("after the error: %v, %v", b, err)
	}
	s.Assign(Partition, 2)
	if b, err := s.Poll(bounded(t)); err != nil || string(b.Records[0].Value) != "3" {
		t.Errorf("behind the bad line: %v, %v", b, err)
	}
}

func TestLinesComeAsTheyAreWritten(t *testing.T) {
	r, w := io.Pipe()
	s := source(t, SourceConfig{Reader: r})
	s.Assign(Partition, 0)
	for _, line := range []string{"one", "two", "three"} {
		go func() { _, _ = io.WriteString(w, line+"\n") }()
		b, err := s.Poll(bounded(t))
		if err != nil || len(b.Records) != 1 || string(b.Records[0].Value) != line {
			t.Fatalf("got %+v, %v, want %s", b, err, line)
		}
	}
	go func() { _, _ = io.WriteString(w, "last without an end"); _ = w.Close() }()
	if b, err := s.Poll(bounded(t)); err != nil || string(b.Records[0].Value) != "last without an end" || b.Next != 4 {
		t.Fatalf("got %+v, %v", b, err)
	}
	if _, err := s.Poll(bounded(t)); !errors.Is(err, io.EOF) {
		t.Errorf("got %v, want io.EOF", err)
	}
}

func TestReadingFails(t *testing.T) {
	r, w := io.Pipe()
	s := source(t, SourceConfig{Reader: r})
	s.Assign(Partition, 0)
	go func() { _, _ = io.WriteString(w, "one\ntw"); _ = w.CloseWithError(errors.New("torn")) }()
	if b, err := s.Poll(bounded(t)); err != nil || len(b.Records) != 1 {
		t.Fatalf("got %+v, %v", b, err)
	}
	if _, err := s.Poll(bounded(t)); err == nil || !strings.Contains(err.Error(), "read line 2: torn") {
		t.Errorf("got %v, want it to name line 2", err)
	}
}

func TestTooLongLine(t *testing.T) {
	s := source(t, SourceConfig{Reader: strings.NewReader("one\n" + strings.Repeat("x", MaxLine+1) + "\n")})
	s.Assign(Partition, 0)
	if _, err := s.Poll(bounded(t)); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Poll(bounded(t)); err == nil || !strings.Contains(err.Error(), "line 2 is longer than 16777216 bytes") {
		t.Errorf("got %v, want it to name line 2", err)
	}
}

func TestNoWayBack(t *testing.T) {
	s := source(t, SourceConfig{Reader: strings.NewReader("one\ntwo\n")})
	s.Assign(Partition, 0)
	if _, err := s.Poll(bounded(t)); err != nil {
		t.Fatal(err)
	}
	s.Assign(Partition, 0)
	if _, err := s.Poll(bounded(t)); err == nil || !strings.Contains(err.Error(), "a stream cannot be read again") {
		t.Errorf("got %v", err)
	}
}

type broken struct{ takes int }

func (b *broken) Write(p []byte) (int, error) {
	n := min(b.takes, len(p))
	b.takes -= n
	if n < len(p) {
		return n, io.ErrClosedPipe
	}
	return n, nil
}

func TestReaderWentAway(t *testing.T) {
	s, err := NewSink(SinkConfig{Writer: &broken{takes: 7}})
	if err != nil {
		t.Fatal(err)
	}
	errs := make([]error, 4)
	recs := []record.Record{{Value: []byte("one")}, {Value: []byte("a\nb")}, {Value: []byte("two")}, {Value: []byte("three")}}
	s.Deliver(t.Context(), recs, func(i int, err error) { errs[i] = err })
	if errs[0] != nil {
		t.Errorf("what was written: %v", errs[0])
	}
	for i, want := range map[int]record.Class{1: record.Schema, 2: record.Internal, 3: record.Internal} {
		if e := record.AsError(errs[i]); e == nil || e.Class != want {
			t.Errorf("record %d: %v, want class %s", i, errs[i], want)
		}
	}
	if !errors.Is(errs[2], io.ErrClosedPipe) || s.Problem() == "" {
		t.Errorf("got %v, problem %q", errs[2], s.Problem())
	}
	s.Deliver(t.Context(), recs[:1], func(i int, err error) {
		if !errors.Is(err, io.ErrClosedPipe) {
			t.Errorf("after the failure: %v", err)
		}
	})
}

func TestFaultyConfig(t *testing.T) {
	if _, err := NewSource(SourceConfig{}); err == nil {
		t.Error("no reader: no error")
	}
	if _, err := NewSink(SinkConfig{}); err == nil {
		t.Error("no writer: no error")
	}
}
