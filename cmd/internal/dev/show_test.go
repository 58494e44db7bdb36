package dev

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/millrace-io/millrace/runtime/pipeline"
	"github.com/millrace-io/millrace/runtime/record"
)

func rec(key, value string, headers ...string) *record.Record {
	r := &record.Record{Topic: "in", Offset: 3, Value: []byte(value), Attempt: 1, To: -1}
	if key != "" {
		r.Key = []byte(key)
	}
	for i := 0; i < len(headers); i += 2 {
		r.Headers = append(r.Headers, record.Header{Key: headers[i], Value: []byte(headers[i+1])})
	}
	return r
}

func TestEmitted(t *testing.T) {
	long := strings.Repeat("x", 100)
	for _, tc := range []struct {
		name    string
		in, out *record.Record
		want    string
	}{
		{"unchanged", rec("k", `{"id":7}`), rec("k", `{"id":7}`), "= unchanged"},
		{"fields", rec("", `{"id":7,"amount":10,"note":"n"}`), rec("", `{"id":7,"amount":12,"cents":1200}`), "~ amount 10 -> 12, - note, + cents 1200"},
		{"below", rec("", `{"a":{"b":1,"c":2}}`), rec("", `{"a":{"b":1,"c":"2"}}`), `~ a.c 2 -> "2"`},
		{"a list", rec("", `{"a":[1,2]}`), rec("", `{"a": [1, 2, 3]}`), "~ a [1,2] -> [1,2,3]"},
		{"an object that is none any more", rec("", `{"a":{"b":1}}`), rec("", `{"a":null}`), `~ a {"b":1} -> null`},
		{"spaces", rec("", `{"a":1}`), rec("", `{ "a": 1 }`), "~ the same fields, written otherwise"},
		{"order of fields", rec("", `{"a":1,"b":2}`), rec("", `{"b":2,"a":1}`), "~ the same fields, written otherwise"},
		{"no objects", rec("", `abc`), rec("", `ABC`), "~ abc -> ABC"},
		{"a tombstone", rec("", `{"a":1}`), &record.Record{Topic: "in"}, `~ {"a":1} -> null`},
		{"behind an object", rec("", `{"a":1}`), rec("", `{"a":1} 2`), `~ {"a":1} -> {"a":1} 2`},
		{"key", rec("", `1`), rec("b", `1`), "~ key null -> b"},
		{"headers", rec("", `1`, "a", "1", "b", "2", "b", "3"), rec("", `1`, "b", "2", "c", "9"), "- header a, ~ header b 3 -> 2, + header c 9"},
		{"control characters", rec("", "a"), rec("", "\x1b[2J"), `~ a -> \x1b[2J`},
		{"long", rec("", `{"a":"","b":"","c":"","d":"","e":"","f":""}`), rec("", strings.ReplaceAll(`{"a":"L","b":"L","c":"L","d":"L","e":"L","f":"L"}`, "L", long)),
			`~ a "" -> "` + long[:38] + `…, ~ b "" -> "` + long[:38] + `…, ~ c "" -> "` + long[:38] + "…, and 3 more"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := paint(false).emitted(tc.in, tc.out); got != tc.want {
				t.Errorf("got  %s\nwant %s", got, tc.want)
			}
		})
	}
	if got, want := paint(true).emitted(rec("", `{"a":1}`), rec("", `{"b":1}`)), "\x1b[31m- a\x1b[0m, \x1b[32m+ b 1\x1b[0m"; got != want {
		t.Errorf("in colour: %q, want %q", got, want)
	}
}

func TestTitle(t *testing.T) {
	for value, want := range map[string]string{
		`{"a":1,"id":7}`:               "{id:7}",
		`{"a":1,"order_id":"o-1"}`:     "{order_id:o-1}",
		`{"paid":1,"orderId":"o-1"}`:   "{orderId:o-1}",
		`{"a":{"id":2},"b":"x"}`:       "{b:x}",
		`{"a":{"id":2}}`:               `{{"a":{"id":2}}}`,
		`plain`:                        "{plain}",
		`{"id":"\u001b[2J` + "\x1b\"}": `{{"id":"\u001b[2J\x1b"}}`,
	} {
		if got := title(rec("", value)); got != want {
			t.Errorf("%q: got %s, want %s", value, got, want)
		}
	}
	if got := title(rec("c-1", `{"id":7}`)); got != "{key:c-1}" {
		t.Errorf("with a key: %s", got)
	}
}

func TestPlace(t *testing.T) {
	r := rec("", "1")
	if got := place(r); got != "3" {
		t.Errorf("got %s, want 3", got)
	}
	r.Partition, r.Path = 2, record.Path([]byte{0, 1})
	if got := place(r); got != "2/3#1" {
		t.Errorf("got %s, want 2/3#1", got)
	}
}

func TestFailure(t *testing.T) {
	for _, tc := range []struct {
		err  *record.Error
		want string
	}{
		{&record.Error{Class: record.Rejected, Code: 7, Message: "amount is negative"}, "failed: rejected (7): amount is negative"},
		{&record.Error{Class: record.Trap, Message: "unreachable\nin f"}, `failed: trap: unreachable\nin f`},
		{&record.Error{Class: record.Retryable, Code: 3, Message: "busy", RetryAfter: 250 * time.Millisecond}, "later (attempt 2, after 250ms): retryable (3): busy"},
		{&record.Error{Class: record.Timeout, Err: errors.New("slow")}, "later (attempt 2): timeout: slow"},
	} {
		if got := paint(false).failure(tc.err, 2); got != tc.want {
			t.Errorf("got %s, want %s", got, tc.want)
		}
	}
}

// TestAnswers: a batch is shown record by record, in its order, whatever
// became of each.
func TestAnswers(t *testing.T) {
	var out strings.Builder
	o := newObserver(&console{out: &out, err: io.Discard, now: time.Now})
	b := &record.Batch{}
	for i := range 5 {
		r := rec("", fmt.Sprintf(`{"id":%d}`, i))
		r.Offset = int64(10 + i)
		b.Records = append(b.Records, *r)
	}
	var logs []string
	for i := range maxLogsShown + 2 {
		logs = append(logs, fmt.Sprint("line ", i))
	}
	o.tell("mask", b, &record.Results{
		Emits:    []record.Emit{{In: 0, Record: *rec("", `{"id":0}`)}, {In: 2, Output: 1, Record: *rec("", `{"id":2,"x":1}`)}, {In: 4, Record: *rec("", `{}`)}, {In: 4, Output: 2, Record: *rec("", `{"id":4}`)}},
		Drops:    []int32{3},
		Failures: []record.Failure{{In: 1, Err: record.Errorf(record.Rejected, "no"), Replay: &record.Replay{Logs: logs}}},
	})
	want := `10  mask  {id:0} = unchanged
11  mask  {id:1} failed: rejected: no
     log line 0
     log line 1
     log line 2
     log line 3
     log line 4
     log line 5
     log line 6
     log line 7
     log line 8
     log line 9
     and 2 lines more
12  mask  {id:2} [output 1] + x 1
13  mask  {id:3} dropped
14  mask  {id:4} -> 2 records
     0: - id
     1: [output 2] = unchanged
`
	if got := out.String(); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// TestTooManyLines: what is not shown is counted by kind, and failures have a
// share of their own.
func TestTooManyLines(t *testing.T) {
	var out, err strings.Builder
	now := time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	c := &console{out: &out, err: &err, now: func() time.Time { return now }}
	made := 0
	for i := range 500 {
		c.bounded(kindRecord, c.out, func() string { made++; return fmt.Sprint("record ", i) })
	}
	c.bounded(kindFailure, c.out, func() string { return "failure" })
	if got := strings.Count(out.String(), "record"); got != recordsShown || made != recordsShown {
		t.Errorf("%d records are shown and %d lines made, want %d", got, made, recordsShown)
	}
	if !strings.HasSuffix(out.String(), "failure\n") {
		t.Errorf("the failure is not shown: %s", out.String())
	}
	now = now.Add(999 * time.Millisecond)
	c.bounded(kindLog, &err, func() string { return "log" })
	if got := err.String(); got != "log\n" {
		t.Errorf("told too early: %q", got)
	}
	now = now.Add(time.Millisecond)
	c.bounded(kindRecord, c.out, func() string { return "the next" })
	if got, want := err.String(), "log\n... and 480 records not shown\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if !strings.HasSuffix(out.String(), "the next\n") {
		t.Error("the next second shows nothing")
	}
}

// TestRest: what was not shown is told also when nothing follows.
func TestRest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out, err strings.Builder
		c := &console{out: &out, err: &err, now: time.Now}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() { defer close(ended); c.run(ctx) }()
		for range recordsShown + 1 {
			c.bounded(kindRecord, c.out, func() string { return "record" })
		}
		time.Sleep(3 * time.Second) // of the bubble's clock
		cancel()
		<-ended
		if got, want := err.String(), "... and 1 record not shown\n"; got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	})
}

// emitter answers each batch with as many emissions as it has records.
type emitter struct{ err error }

func (e emitter) Process(_ context.Context, b *record.Batch, out *record.Results) error {
	for i := range b.Records {
		out.Emits = append(out.Emits, record.Emit{In: int32(i), Record: b.Records[i]})
	}
	return e.err
}

// TestObserved: answers that were there before a call are not of its records,
// only the chosen flow is shown, and a first record is waited for.
func TestObserved(t *testing.T) {
	var out, err strings.Builder
	o := newObserver(&console{out: &out, err: &err, now: time.Now})
	o.show("default/mask", true)
	first, forget := o.await("sha256:1")
	defer forget()
	b := &record.Batch{Records: []record.Record{*rec("", `{"id":1}`)}}
	results := &record.Results{}
	for _, s := range []pipeline.Stage{
		o.wrap("default/other", pipeline.StageInfo{ID: "map1", Digest: "sha256:2"}, emitter{}),
		o.wrap("default/mask", pipeline.StageInfo{ID: "map1", Digest: "sha256:1"}, emitter{}),
	} {
		select {
		case <-first:
			t.Error("the first record went before there was one")
		default:
		}
		if err := s.Process(t.Context(), b, results); err != nil {
			t.Fatal(err)
		}
	}
	select {
	case <-first:
	default:
		t.Error("nobody heard of the first record")
	}
	if got, want := out.String(), "3  {id:1} = unchanged\n"; got != want || len(results.Emits) != 2 {
		t.Errorf("got %q and %d emissions, want %q and 2", got, len(results.Emits), want)
	}
	broken := errors.New("no memory")
	if got := o.wrap("default/mask", pipeline.StageInfo{ID: "map1"}, emitter{broken}).Process(t.Context(), b, results); got != broken || err.String() != "stage map1 does not work: no memory\n" {
		t.Errorf("got %v, told %q", got, err.String())
	}
	if !o.has("default/mask", "map1") || o.has("default/mask", "deliver") {
		t.Error("the stages that are seen are others")
	}
}

func TestLogs(t *testing.T) {
	var out strings.Builder
	c := &console{out: io.Discard, err: &out, now: time.Now}
	log := slog.New(&logHandler{c: c, level: slog.LevelWarn}).With("flow", "default/mask")
	log.With("stage", "map1", "plugin", "mask@1.0.0-dev").Info(guestLog, "line", "saw\x1b 7")
	log.With("plugin", "mask@1.0.0-dev").Warn(guestLog, "line", "odd", "record", "in/0/7#1")
	log.With("plugin", "mask@1.0.0-dev").Info(guestLog, "line", "far", "record", "in/2/7")
	log.Info("nobody wants to know")
	log.Warn("flow paused", "reason", "x")
	want := "log mask: saw\\x1b 7\nlog mask 7#1: warning: odd\nlog mask 2/7: far\nnode: warning: flow paused flow=default/mask reason=x\n"
	if got := out.String(); got != want {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

// TestWords: what compilers say does not move or paint the terminal.
func TestWords(t *testing.T) {
	var out strings.Builder
	c := &console{out: io.Discard, err: &out, now: time.Now}
	words := "\x1b[1m\x1b[91merror\x1b[0m: a\tb \u2514\r\n\x1b]0;title\a\x1b[2J\n"
	if n, err := c.Write([]byte(words)); n != len(words) || err != nil {
		t.Errorf("wrote %d of %d, %v", n, len(words), err)
	}
	if got, want := out.String(), "error: a\tb \u2514\n\\x1b]0;title\\a\\x1b[2J\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
