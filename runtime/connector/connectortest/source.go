// Package connectortest is the suite that every source and every sink passes.
// A connector's test is a call of Source or Sink with a factory, and the tests
// of what is special about it.
package connectortest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/millrace-io/millrace/runtime/connector"
	"github.com/millrace-io/millrace/runtime/record"
)

// patience is how long anything may take before a test fails.
const patience = 20 * time.Second

// quiet is how long nothing must happen where nothing is to happen.
const quiet = 300 * time.Millisecond

// ASource is what lanes read from.
type ASource interface {
	Partitions(ctx context.Context) ([]connector.Found, error)
	Start(ctx context.Context, p record.Partition, start connector.Start) (int64, error)
	Assign(p record.Partition, offset int64)
	Unassign(p record.Partition)
	Poll(ctx context.Context) (*record.Batch, error)
	Pause(p record.Partition)
	Resume(p record.Partition)
	End(ctx context.Context) (map[record.Partition]int64, error)
	Problem() string
	Close() error
}

// SourceSpec is a place with records in it, and how to read it.
type SourceSpec struct {
	// Open makes a source that reads the place. It is called again for a
	// source over the same records.
	Open func(t *testing.T) ASource
	// Values are what each partition holds, in order. Offsets rise along
	// them and need not be dense.
	Values map[record.Partition][]string
	// Ends says that Poll answers io.EOF once everything was delivered.
	Ends bool
	// Once says that a line that was delivered cannot be read again by the
	// same source.
	Once bool
}

// Values are n values that are likely to be mangled: empty, of all bytes that
// a line may have, long.
func Values(n int) []string {
	vs := make([]string, n)
	for i := range vs {
		switch i % 50 {
		case 7:
			vs[i] = ""
		case 11:
			vs[i] = "héllo, 世界 \U0001F600 " + fmt.Sprint(i)
		case 13:
			vs[i] = "\x00\xff\xfe\x80 " + fmt.Sprint(i)
		case 17:
			vs[i] = strings.Repeat("long ", 5000) + fmt.Sprint(i)
		default:
			vs[i] = fmt.Sprintf(`{"n":%d}`, i)
		}
	}
	if n > 20 {
		vs[20] = strings.Repeat("m", 900_000)
	}
	return vs
}

// Source runs the suite. setup is called for each test and lays out the
// records: at least 100 in some partition.
func Source(t *testing.T, setup func(t *testing.T) SourceSpec) {
	run := func(name string, f func(t *testing.T, spec SourceSpec)) {
		t.Run(name, func(t *testing.T) {
			leaks := goleak.IgnoreCurrent()
			t.Cleanup(func() { goleak.VerifyNone(t, leaks) })
			f(t, setup(t))
		})
	}
	run("partitions", partitions)
	run("everything once and in order", everything)
	run("from an offset on", fromOffset)
	run("pause and resume", pauseResume)
	run("unassign", unassign)
	run("moved by assign", moved)
	run("a poll ends with its context", pollEnds)
	run("close", closes)
}

// reader collects what a source delivers and checks what must hold of it.
type reader struct {
	t      *testing.T
	s      ASource
	values map[record.Partition][]string
	recs   map[record.Partition][]record.Record
	next   map[record.Partition]int64
	ended  bool
}

func read(t *testing.T, spec SourceSpec) *reader {
	t.Helper()
	s := spec.Open(t)
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return &reader{t: t, s: s, values: map[record.Partition][]string{}, recs: map[record.Partition][]record.Record{}, next: map[record.Partition]int64{}}
}

// assignAll assigns every partition from its earliest record on.
func (r *reader) assignAll(spec SourceSpec) {
	r.t.Helper()
	for p := range spec.Values {
		r.assign(p, r.start(p, connector.Start{}))
	}
}

func (r *reader) start(p record.Partition, at connector.Start) int64 {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), patience)
	defer cancel()
	offset, err := r.s.Start(ctx, p, at)
	if err != nil {
		r.t.Fatalf("start of %v: %v", p, err)
	}
	return offset
}

func (r *reader) assign(p record.Partition, offset int64) {
	r.next[p] = offset
	r.s.Assign(p, offset)
}

// poll takes one batch. It returns false at the end, or when nothing came for
// the given time.
func (r *reader) poll(wait time.Duration) bool {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), wait)
	defer cancel()
	b, err := r.s.Poll(ctx)
	switch {
	case errors.Is(err, io.EOF):
		r.ended = true
		return false
	case errors.Is(err, context.DeadlineExceeded):
		return false
	case err != nil:
		r.t.Fatalf("poll: %v", err)
	}
	next, assigned := r.next[b.Partition]
	if !assigned {
		r.t.Fatalf("a batch of %v, which is not assigned", b.Partition)
	}
	for i := range b.Records {
		rec := &b.Records[i]
		if rec.Topic != b.Partition.Topic || rec.Partition != b.Partition.Num {
			r.t.Fatalf("record %s in a batch of %v", rec.ID(), b.Partition)
		}
		if rec.Offset < next {
			r.t.Fatalf("record %s below the position %d", rec.ID(), next)
		}
		if rec.Attempt != 1 || rec.To != -1 || rec.Trace.IsZero() || rec.Timestamp <= 0 || rec.Path != "" {
			r.t.Fatalf("record %s: attempt %d, to %d, trace %s, timestamp %d, path %s", rec.ID(), rec.Attempt, rec.To, rec.Trace, rec.Timestamp, rec.Path)
		}
		next = rec.Offset + 1
		r.values[b.Partition] = append(r.values[b.Partition], string(rec.Value))
		r.recs[b.Partition] = append(r.recs[b.Partition], *rec)
	}
	if b.Next < next {
		r.t.Fatalf("batch of %v ends at %d, behind its last record %d", b.Partition, b.Next, next-1)
	}
	r.next[b.Partition] = b.Next
	return true
}

// until polls until there are as many records as want of each partition.
func (r *reader) until(want map[record.Partition]int) {
	r.t.Helper()
	deadline := time.Now().Add(patience)
	for {
		missing := false
		for p, n := range want {
			missing = missing || len(r.values[p]) < n
		}
		if !missing {
			return
		}
		if time.Now().After(deadline) {
			r.t.Fatalf("waited %s for %v", patience, r.missing(want))
		}
		if !r.poll(time.Until(deadline)) && r.ended {
			r.t.Fatalf("ended before %v", r.missing(want))
		}
	}
}

func (r *reader) missing(want map[record.Partition]int) string {
	var s []string
	for p, n := range want {
		s = append(s, fmt.Sprintf("%s/%d: %d of %d", p.Topic, p.Num, len(r.values[p]), n))
	}
	slices.Sort(s)
	return strings.Join(s, ", ")
}

// nothing fails the test if a record comes.
func (r *reader) nothing() {
	r.t.Helper()
	before := r.count()
	for r.poll(quiet) {
	}
	if n := r.count() - before; n > 0 {
		r.t.Fatalf("%d records came where none were to come", n)
	}
}

func (r *reader) count() int {
	n := 0
	for _, v := range r.values {
		n += len(v)
	}
	return n
}

func counts(values map[record.Partition][]string) map[record.Partition]int {
	n := map[record.Partition]int{}
	for p, vs := range values {
		n[p] = len(vs)
	}
	return n
}

func (r *reader) same(want map[record.Partition][]string) {
	r.t.Helper()
	for p, vs := range want {
		r.samePart(p, vs)
	}
}

func (r *reader) samePart(p record.Partition, want []string) {
	r.t.Helper()
	got := r.values[p]
	for i := range min(len(got), len(want)) {
		if got[i] != want[i] {
			r.t.Fatalf("%s/%d: record %d is %.60q, want %.60q", p.Topic, p.Num, i, got[i], want[i])
		}
	}
	if len(got) != len(want) {
		r.t.Fatalf("%s/%d: %d records, want %d", p.Topic, p.Num, len(got), len(want))
	}
}

// longest is the partition with the most records.
func longest(spec SourceSpec) record.Partition {
	var best record.Partition
	n := -1
	for p, vs := range spec.Values {
		if len(vs) > n {
			best, n = p, len(vs)
		}
	}
	return best
}

func partitions(t *testing.T, spec SourceSpec) {
	r := read(t, spec)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	found, err := r.s.Partitions(ctx)
	if err != nil {
		t.Fatal(err)
	}
	got := map[record.Partition]bool{}
	for _, f := range found {
		got[f.Partition] = true
	}
	for p := range spec.Values {
		if !got[p] {
			t.Errorf("%v was not found, only %v", p, found)
		}
	}
}

func everything(t *testing.T, spec SourceSpec) {
	r := read(t, spec)
	r.assignAll(spec)
	r.until(counts(spec.Values))
	if spec.Ends {
		for r.poll(patience) {
		}
		if !r.ended {
			t.Fatalf("no io.EOF after everything was delivered")
		}
		if r.poll(patience) {
			t.Fatalf("a batch after io.EOF")
		}
	} else {
		r.nothing()
	}
	r.same(spec.Values)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	ends, err := r.s.End(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for p := range spec.Values {
		if ends[p] != r.next[p] {
			t.Errorf("end of %v is %d, and the position after everything %d", p, ends[p], r.next[p])
		}
	}
	if problem := r.s.Problem(); problem != "" {
		t.Errorf("problem %q where all is well", problem)
	}
}

func fromOffset(t *testing.T, spec SourceSpec) {
	p := longest(spec)
	all := read(t, spec)
	all.assign(p, all.start(p, connector.Start{}))
	all.until(map[record.Partition]int{p: len(spec.Values[p])})

	i := len(spec.Values[p]) / 2
	r := read(t, spec)
	r.assign(p, all.recs[p][i].Offset)
	r.until(map[record.Partition]int{p: len(spec.Values[p]) - i})
	r.samePart(p, spec.Values[p][i:])
	if got, want := r.recs[p][0].Trace, all.recs[p][i].Trace; got != want {
		t.Errorf("trace of a record read again is %s, was %s", got, want)
	}
}

func pauseResume(t *testing.T, spec SourceSpec) {
	r := read(t, spec)
	r.assignAll(spec)
	p := longest(spec)
	r.s.Pause(p)
	others := counts(spec.Values)
	delete(others, p)
	r.until(others)
	for r.poll(quiet) {
	}
	if n := len(r.values[p]); n > 0 {
		t.Fatalf("%d records of a paused partition", n)
	}
	r.s.Resume(p)
	for len(r.values[p]) == 0 {
		r.poll(patience)
	}
	for range 3 {
		r.s.Pause(p)
		before := len(r.values[p])
		for r.poll(quiet / 3) {
		}
		if n := len(r.values[p]); n > before {
			t.Fatalf("%d records after Pause", n-before)
		}
		r.s.Resume(p)
		r.poll(patience)
	}
	r.until(counts(spec.Values))
	r.same(spec.Values)
}

func unassign(t *testing.T, spec SourceSpec) {
	r := read(t, spec)
	r.assignAll(spec)
	p := longest(spec)
	for len(r.values[p]) == 0 {
		r.poll(patience)
	}
	r.s.Unassign(p)
	next := r.next[p]
	delete(r.next, p)
	before := len(r.values[p])
	others := counts(spec.Values)
	delete(others, p)
	r.until(others)
	for r.poll(quiet) {
	}
	if n := len(r.values[p]); n > before {
		t.Fatalf("%d records after Unassign", n-before)
	}
	if spec.Ends && r.ended && before < len(spec.Values[p]) {
		t.Fatalf("io.EOF with nothing assigned and %d records left", len(spec.Values[p])-before)
	}
	r.assign(p, next)
	r.until(counts(spec.Values))
	r.same(spec.Values)
}

func moved(t *testing.T, spec SourceSpec) {
	if spec.Once {
		t.Skip("what was delivered cannot be read again")
	}
	r := read(t, spec)
	p := longest(spec)
	from := r.start(p, connector.Start{})
	r.assign(p, from)
	for len(r.values[p]) == 0 {
		r.poll(patience)
	}
	for range 5 {
		r.values[p], r.recs[p] = nil, nil
		r.assign(p, from)
		r.poll(patience)
	}
	r.values[p], r.recs[p] = nil, nil
	r.assign(p, from)
	r.until(map[record.Partition]int{p: len(spec.Values[p])})
	r.samePart(p, spec.Values[p])
}

func pollEnds(t *testing.T, spec SourceSpec) {
	r := read(t, spec)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() {
		_, err := r.s.Poll(ctx)
		done <- err
	}()
	select {
	case err := <-done:
		t.Fatalf("poll with nothing assigned ended: %v", err)
	case <-time.After(quiet / 3):
	}
	cancel()
	select {
	case err := <-done:
		if !errors.Is(err, context.Canceled) {
			t.Errorf("poll: %v, want context.Canceled", err)
		}
	case <-time.After(patience):
		t.Fatalf("poll goes on after its context ended")
	}
	r.assignAll(spec)
	r.until(counts(spec.Values))
	r.same(spec.Values)
}

func closes(t *testing.T, spec SourceSpec) {
	r := read(t, spec)
	for p := range spec.Values {
		r.assign(p, r.start(p, connector.Start{Latest: !spec.Ends}))
		r.s.Pause(p)
	}
	done := make(chan error)
	go func() {
		_, err := r.s.Poll(t.Context())
		done <- err
	}()
	select {
	case err := <-done:
		t.Fatalf("poll of paused partitions ended: %v", err)
	case <-time.After(quiet / 3):
	}
	for range 2 {
		if err := r.s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	select {
	case err := <-done:
		if !errors.Is(err, connector.ErrClosed) {
			t.Errorf("poll: %v, want %v", err, connector.ErrClosed)
		}
	case <-time.After(patience):
		t.Fatalf("poll goes on after Close")
	}
	if _, err := r.s.Poll(t.Context()); !errors.Is(err, connector.ErrClosed) {
		t.Errorf("poll after Close: %v, want %v", err, connector.ErrClosed)
	}
}
