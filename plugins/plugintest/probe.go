package plugintest

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/millrace-io/millrace/plugins/sandbox"
	"github.com/millrace-io/millrace/runtime/record"
)

// probe is a stage whose doings are written down.
type probe struct {
	stage     Stage
	startLogs []string // of its start

	mu     sync.Mutex
	logs   []string           // guarded by mu; since the last run
	counts map[string]float64 // guarded by mu; likewise
}

func (p *probe) onLog(l sandbox.LogLine) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.logs = append(p.logs, strings.ToLower(l.Level.String())+" "+l.Text)
}

func (p *probe) onCount(name string, delta float64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.counts[name] += delta
}

// trace is what a stage did with one batch.
type trace struct {
	batch   *record.Batch
	results record.Results
	logs    []string
	lost    bool // not all logs are here
	counts  map[string]float64
	fuel    int64
	calls   int64
	took    time.Duration
}

// run passes a batch through the stage.
func (p *probe) run(ctx context.Context, b *record.Batch) (*trace, error) {
	before := p.stage.Stats()
	t := &trace{batch: b}
	t0 := time.Now()
	err := p.stage.Process(ctx, b, &t.results)
	t.took = time.Since(t0)
	after := p.stage.Stats()
	t.fuel, t.calls, t.lost = after.Fuel-before.Fuel, after.Calls-before.Calls, after.LogsDropped > before.LogsDropped
	p.mu.Lock()
	defer p.mu.Unlock()
	t.logs, t.counts = p.logs, p.counts
	p.logs, p.counts = nil, map[string]float64{}
	// A fresh instance says at its start what the first one said.
	if n := len(p.startLogs); n > 0 && len(t.logs) >= n && slices.Equal(t.logs[:n], p.startLogs) {
		t.logs = t.logs[n:]
	}
	return t, err
}

// answers are the answers to one record.
type answers struct {
	emits   []record.Emit
	drops   int
	failure *record.Failure
	more    int // failures beyond that one
}

// byRecord sorts the answers. The error says which rule of the answers is
// broken.
func (t *trace) byRecord() ([]answers, error) {
	n := len(t.batch.Records)
	all := make([]answers, n)
	in := func(i int32, what string) (*answers, error) {
		if i < 0 || int(i) >= n {
			return nil, fmt.Errorf("%s answers record %d of %d", what, i, n)
		}
		return &all[i], nil
	}
	for _, e := range t.results.Emits {
		a, err := in(e.In, "an emission")
		if err != nil {
			return nil, err
		}
		a.emits = append(a.emits, e)
	}
	for _, d := range t.results.Drops {
		a, err := in(d, "a drop")
		if err != nil {
			return nil, err
		}
		a.drops++
	}
	for i := range t.results.Failures {
		f := &t.results.Failures[i]
		a, err := in(f.In, "a failure")
		if err != nil {
			return nil, err
		}
		if a.failure != nil {
			a.more++
		}
		a.failure = f
	}
	for i := range all {
		a := &all[i]
		ways := a.drops + a.more
		if len(a.emits) > 0 {
			ways++
		}
		if a.failure != nil {
			ways++
		}
		switch {
		case ways == 0:
			return nil, fmt.Errorf("record %d is not answered", i)
		case ways > 1:
			return nil, fmt.Errorf("record %d is answered in %d ways", i, ways)
		}
	}
	return all, nil
}

// difference says where two traces of the same batch differ first, as "this,
// then that"; empty if nowhere.
func (t *trace) difference(o *trace) string {
	if d := t.answersDiffer(o); d != "" {
		return d
	}
	if t.fuel != o.fuel {
		return fmt.Sprintf("it used %d units of fuel, then %d", t.fuel, o.fuel)
	}
	if !t.lost && !o.lost && !slices.Equal(t.logs, o.logs) {
		return fmt.Sprintf("it logged %s, then %s", logText(t.logs), logText(o.logs))
	}
	if !maps.Equal(t.counts, o.counts) {
		return fmt.Sprintf("it counted %v, then %v", t.counts, o.counts)
	}
	return ""
}

func logText(lines []string) string {
	if len(lines) == 0 {
		return "nothing"
	}
	return fmt.Sprintf("%d lines (the first is %q)", len(lines), clip(lines[0]))
}

func (t *trace) answersDiffer(o *trace) string {
	a, b := &t.results, &o.results
	for i := range max(len(a.Emits), len(b.Emits)) {
		switch {
		case i >= len(a.Emits):
			return fmt.Sprintf("record %d was not emitted, then it was", b.Emits[i].In)
		case i >= len(b.Emits):
			return fmt.Sprintf("record %d was emitted, then it was not", a.Emits[i].In)
		case a.Emits[i].In != b.Emits[i].In:
			return fmt.Sprintf("emission %d was of record %d, then of record %d", i, a.Emits[i].In, b.Emits[i].In)
		}
		if d := emitsDiffer(&a.Emits[i], &b.Emits[i], "%s, then %s"); d != "" {
			return fmt.Sprintf("record %d: %s", a.Emits[i].In, d)
		}
	}
	if !slices.Equal(a.Drops, b.Drops) {
		return fmt.Sprintf("it dropped %d records, then %d others", len(a.Drops), len(b.Drops))
	}
	for i := range max(len(a.Failures), len(b.Failures)) {
		switch {
		case i >= len(a.Failures):
			return fmt.Sprintf("record %d did not fail, then it did: %v", b.Failures[i].In, b.Failures[i].Err)
		case i >= len(b.Failures):
			return fmt.Sprintf("record %d failed, then it did not: %v", a.Failures[i].In, a.Failures[i].Err)
		}
		if d := failuresDiffer(&a.Failures[i], &b.Failures[i]); d != "" {
			return d
		}
	}
	return ""
}

func failuresDiffer(a, b *record.Failure) string {
	x, y := a.Err, b.Err
	if a.In != b.In || x.Class != y.Class || x.Code != y.Code || x.Message != y.Message || x.RetryAfter != y.RetryAfter {
		return fmt.Sprintf("record %d failed with %q, then record %d with %q", a.In, clip(x.Error()), b.In, clip(y.Error()))
	}
	return ""
}

// emitsDiffer says in which field two emissions of a record differ; format
// joins the two values.
func emitsDiffer(a, b *record.Emit, format string) string {
	say := func(field string, x, y any) string {
		return field + " is " + fmt.Sprintf(format, fmt.Sprint(x), fmt.Sprint(y))
	}
	x, y := &a.Record, &b.Record
	switch {
	case a.Output != b.Output:
		return say("output", a.Output, b.Output)
	case !same(x.Key, y.Key):
		k, l := shown(x.Key, y.Key)
		return say("key", k, l)
	case !same(x.Value, y.Value):
		k, l := shown(x.Value, y.Value)
		return say("value", k, l)
	case x.Timestamp != y.Timestamp:
		return say("timestamp", x.Timestamp, y.Timestamp)
	case x.To != y.To:
		return say("output partition", x.To, y.To)
	case len(x.Headers) != len(y.Headers):
		return say("number of headers", len(x.Headers), len(y.Headers))
	}
	for i := range x.Headers {
		if g, h := x.Headers[i], y.Headers[i]; g.Key != h.Key || !bytes.Equal(g.Value, h.Value) {
			return say("header "+strconv.Itoa(i), fmt.Sprintf("%q: %s", clip(g.Key), quote(g.Value)), fmt.Sprintf("%q: %s", clip(h.Key), quote(h.Value)))
		}
	}
	return ""
}

// same tells null from empty.
func same(a, b []byte) bool { return (a == nil) == (b == nil) && bytes.Equal(a, b) }

// shown are two values that differ, from a little before where they do.
func shown(a, b []byte) (string, string) {
	if a == nil || b == nil {
		return quote(a), quote(b)
	}
	at := 0
	for at < len(a) && at < len(b) && a[at] == b[at] {
		at++
	}
	if at -= 8; at < 16 {
		return quote(a), quote(b)
	}
	from := func(b []byte) string {
		return fmt.Sprintf("%s from byte %d on (%d bytes)", quote(b[at:]), at, len(b))
	}
	return from(a), from(b)
}

const quotedBytes = 60

func quote(b []byte) string {
	switch {
	case b == nil:
		return "null"
	case len(b) > quotedBytes:
		return fmt.Sprintf("%q... (%d bytes)", b[:quotedBytes], len(b))
	}
	return fmt.Sprintf("%q", b)
}

func clip(s string) string {
	if len(s) > 200 {
		return strings.ToValidUTF8(s[:200], "") + "..."
	}
	return s
}
