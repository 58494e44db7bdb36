package connectortest

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/millrace-io/millrace/runtime/record"
)

// ASink is what lanes deliver to.
type ASink interface {
	Deliver(ctx context.Context, recs []record.Record, done func(i int, err error))
	Problem() string
	Close() error
}

// SinkSpec is a place to write to.
type SinkSpec struct {
	// Open makes a sink that writes to the place.
	Open func(t *testing.T) ASink
	// Read returns the n values that were written, those of records with the
	// same key in the order in which they were. A null value reads as "".
	Read func(t *testing.T, n int) []string
}

// Sink runs the suite. setup is called for each test and makes an empty place.
func Sink(t *testing.T, setup func(t *testing.T) SinkSpec) {
	run := func(name string, f func(t *testing.T, spec SinkSpec)) {
		t.Run(name, func(t *testing.T) {
			leaks := goleak.IgnoreCurrent()
			t.Cleanup(func() { goleak.VerifyNone(t, leaks) })
			f(t, setup(t))
		})
	}
	run("everything once and in order", sinkEverything)
	run("many deliverers", sinkConcurrent)
	run("the slice is the caller's again", sinkReuse)
	run("an ended context", sinkContext)
	run("nothing to deliver", sinkNothing)
	run("close", sinkClose)
}

// answers collects the calls of done.
type answers struct {
	t    *testing.T
	mu   sync.Mutex
	errs []error
	n    []int
	left sync.WaitGroup
}

func newAnswers(t *testing.T, n int) *answers {
	a := &answers{t: t, errs: make([]error, n), n: make([]int, n)}
	a.left.Add(n)
	return a
}

func (a *answers) done(i int, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if i < 0 || i >= len(a.n) {
		a.t.Errorf("done(%d) of %d", i, len(a.n))
		return
	}
	if a.n[i]++; a.n[i] > 1 {
		a.t.Errorf("done(%d) was called %d times", i, a.n[i])
		return
	}
	a.errs[i] = err
	a.left.Done()
}

// wait waits for all answers and returns the errors.
func (a *answers) wait() []error {
	a.t.Helper()
	all := make(chan struct{})
	go func() { a.left.Wait(); close(all) }()
	select {
	case <-all:
	case <-time.After(patience):
		a.mu.Lock()
		defer a.mu.Unlock()
		missing := 0
		for _, n := range a.n {
			if n == 0 {
				missing++
			}
		}
		a.t.Fatalf("%d of %d answers are missing after %s", missing, len(a.n), patience)
	}
	return a.errs
}

func (a *answers) noErrors() {
	a.t.Helper()
	for i, err := range a.wait() {
		if err != nil {
			a.t.Fatalf("record %d: %v", i, err)
		}
	}
}

// records makes records of one key.
func records(key string, values []string) []record.Record {
	recs := make([]record.Record, len(values))
	for i, v := range values {
		recs[i] = record.Record{Key: []byte(key), Value: []byte(v), Topic: "t", Offset: int64(i), Timestamp: 1_700_000_000_000 + int64(i), Attempt: 1, To: -1}
	}
	return recs
}

func open(t *testing.T, spec SinkSpec) ASink {
	t.Helper()
	s := spec.Open(t)
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return s
}

func sinkEverything(t *testing.T, spec SinkSpec) {
	s := open(t, spec)
	want := Values(500)
	recs := records("k", want)
	recs[3].Value, recs[3].Headers = nil, []record.Header{{Key: "h", Value: nil}, {Key: "h", Value: []byte("x")}}
	want[3] = ""
	for from := 0; from < len(recs); from += 100 {
		a := newAnswers(t, 100)
		s.Deliver(t.Context(), recs[from:from+100], a.done)
		if from%200 == 0 {
			a.noErrors()
		} else {
			defer a.noErrors()
		}
	}
	compare(t, spec.Read(t, len(want)), want)
	if p := s.Problem(); p != "" {
		t.Errorf("problem %q where all is well", p)
	}
}

func compare(t *testing.T, got, want []string) {
	t.Helper()
	for i := range min(len(got), len(want)) {
		if got[i] != want[i] {
			t.Fatalf("value %d is %.60q, want %.60q", i, got[i], want[i])
		}
	}
	if len(got) != len(want) {
		t.Fatalf("%d values were written, want %d", len(got), len(want))
	}
}

func sinkConcurrent(t *testing.T, spec SinkSpec) {
	s := open(t, spec)
	const lanes, rounds, n = 8, 10, 20
	var wg sync.WaitGroup
	for lane := range lanes {
		wg.Go(func() {
			for round := range rounds {
				var vs []string
				for i := range n {
					vs = append(vs, fmt.Sprintf("%d %d", lane, round*n+i))
				}
				a := newAnswers(t, n)
				s.Deliver(t.Context(), records(fmt.Sprint("key", lane), vs), a.done)
				a.left.Wait()
			}
		})
	}
	wg.Wait()
	next := map[int]int{}
	for _, v := range spec.Read(t, lanes*rounds*n) {
		var lane, i int
		if _, err := fmt.Sscanf(v, "%d %d", &lane, &i); err != nil {
			t.Fatalf("value %q: %v", v, err)
		}
		if i != next[lane] {
			t.Fatalf("lane %d: %d came where %d was to come", lane, i, next[lane])
		}
		next[lane]++
	}
	for lane := range lanes {
		if next[lane] != rounds*n {
			t.Errorf("lane %d: %d values, want %d", lane, next[lane], rounds*n)
		}
	}
}

func sinkReuse(t *testing.T, spec SinkSpec) {
	s := open(t, spec)
	recs := records("k", []string{"a", "b", "c"})
	a := newAnswers(t, len(recs))
	s.Deliver(t.Context(), recs, a.done)
	for i := range recs {
		recs[i] = record.Record{Value: []byte("not to be written")}
	}
	a.noErrors()
	compare(t, spec.Read(t, 3), []string{"a", "b", "c"})
}

func sinkContext(t *testing.T, spec SinkSpec) {
	s := open(t, spec)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	recs := records("k", []string{"a", "b"})
	a := newAnswers(t, len(recs))
	s.Deliver(ctx, recs, a.done)
	for i, err := range a.wait() {
		if err != nil && !strings.Contains(err.Error(), context.Canceled.Error()) {
			t.Errorf("record %d: %v, want none or %v", i, err, context.Canceled)
		}
	}
	a = newAnswers(t, 1)
	s.Deliver(t.Context(), records("k", []string{"c"}), a.done)
	a.noErrors()
}

func sinkNothing(t *testing.T, spec SinkSpec) {
	s := open(t, spec)
	s.Deliver(t.Context(), nil, func(i int, err error) { t.Errorf("done(%d, %v) of nothing", i, err) })
}

func sinkClose(t *testing.T, spec SinkSpec) {
	s := open(t, spec)
	for range 2 {
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	a := newAnswers(t, 2)
	s.Deliver(t.Context(), records("k", []string{"a", "b"}), a.done)
	for i, err := range a.wait() {
		if err == nil {
			t.Errorf("record %d was acknowledged by a closed sink", i)
		}
	}
}
