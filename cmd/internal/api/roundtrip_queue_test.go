package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/millrace-io/millrace/runtime/record"
)

// to is a copy of a request for a flow.
func to[T any](req *T, set func(*T)) *T {
	c := *req
	set(&c)
	return &c
}

func queueTrips() []roundTrip {
	var trips []roundTrip
	add := func(name string, ask func(ctx context.Context, b Backend) (any, error), serve func(f *fake, note func(args ...any) error), want any, args ...any) {
		trips = append(trips, roundTrip{name, ask, serve, args, want})
	}
	type ctx = context.Context
	type note = func(args ...any) error

	rollback, plan := to(filled[Rollback](), func(r *Rollback) { r.Project, r.Name = "shop", "orders" }), filled[FlowPlan]()
	add("Rollback", func(c ctx, b Backend) (any, error) { return b.Rollback(c, rollback) },
		func(f *fake, n note) { f.rollback = func(req *Rollback) (*FlowPlan, error) { return plan, n(req) } }, plan, rollback)
	offsets := filled[Offsets]()
	add("Offsets", func(c ctx, b Backend) (any, error) { return b.Offsets(c, "shop", "orders") },
		func(f *fake, n note) {
			f.offsets = func(p, name string) (*Offsets, error) { return offsets, n(p, name) }
		}, offsets, "shop", "orders")
	add("Offsets: none", func(c ctx, b Backend) (any, error) { return b.Offsets(c, "", "orders") },
		func(f *fake, n note) {
			f.offsets = func(p, name string) (*Offsets, error) { return &Offsets{}, n(p, name) }
		}, &Offsets{Partitions: []PartitionOffset{}}, "default", "orders")
	moved := filled[OffsetsPlan]()
	for _, reset := range []*OffsetsReset{
		{Project: "shop", Name: "orders", To: "earliest", DryRun: true},
		{Project: "shop", Name: "orders", Positions: []OffsetTarget{{Topic: "a/b", Partition: 3, Offset: 1 << 60}, {Offset: 0}}, Hash: "00ff"},
	} {
		add("ResetOffsets", func(c ctx, b Backend) (any, error) { return b.ResetOffsets(c, reset) },
			func(f *fake, n note) {
				f.resetOffsets = func(req *OffsetsReset) (*OffsetsPlan, error) { return moved, n(req) }
			}, moved, reset)
	}

	filter := filled[FailureFilter]()
	selections := []Selection{{Seqs: []uint64{1, 1<<64 - 1}}, {Filter: filter, UpTo: 1 << 63, Limit: 7}, {All: true}}
	replayed, dropped := filled[ReplayReport](), filled[DropReport]()
	for _, s := range selections {
		replay := &ReplayFailures{Project: "shop", Name: "orders", Selection: s, Plugin: ReplayFailed, DryRun: true}
		add("ReplayFailures", func(c ctx, b Backend) (any, error) { return b.ReplayFailures(c, replay) },
			func(f *fake, n note) {
				f.replayFailures = func(req *ReplayFailures) (*ReplayReport, error) { return replayed, n(req) }
			}, replayed, replay)
		drop := &DropFailures{Project: "shop", Name: "orders", Selection: s, DryRun: true}
		add("DropFailures", func(c ctx, b Backend) (any, error) { return b.DropFailures(c, drop) },
			func(f *fake, n note) {
				f.dropFailures = func(req *DropFailures) (*DropReport, error) { return dropped, n(req) }
			}, dropped, drop)
	}
	imported, lines := filled[ImportReport](), entryLines(2)
	add("ImportFailures", func(c ctx, b Backend) (any, error) {
		return b.ImportFailures(c, "shop", "orders", strings.NewReader(strings.ReplaceAll(lines, "\n", "\r\n\n")))
	}, func(f *fake, n note) {
		f.importFailures = func(p, name string, r io.Reader) (*ImportReport, error) {
			body, err := io.ReadAll(r)
			return imported, errors.Join(err, n(p, name, string(body)))
		}
	}, imported, "shop", "orders", lines)

	kept := filled[RetryPage]()
	for _, q := range []*RetryQuery{{Project: "shop", Name: "orders"}, {Project: "shop", Name: "orders", After: "a&b=/ü", Limit: 1000, Stage: "deliver", Key: new("a\xff&")}} {
		add("Retries", func(c ctx, b Backend) (any, error) { return b.Retries(c, q) },
			func(f *fake, n note) { f.retries = func(q *RetryQuery) (*RetryPage, error) { return kept, n(q) } }, kept, q)
	}
	add("Retries: none", func(c ctx, b Backend) (any, error) { return b.Retries(c, &RetryQuery{Name: "n"}) },
		func(f *fake, n note) {
			f.retries = func(q *RetryQuery) (*RetryPage, error) { return &RetryPage{}, n(q) }
		}, &RetryPage{Entries: []*Retry{}}, &RetryQuery{Project: "default", Name: "n"})
	logged := filled[LogPage]()
	for _, q := range []*LogQuery{{Project: "shop", Name: "orders"}, {Project: "shop", Name: "orders", Stage: "mask", Level: "warn", After: 1 << 60, Limit: 7, WaitMillis: 1}} {
		add("Logs", func(c ctx, b Backend) (any, error) { return b.Logs(c, q) },
			func(f *fake, n note) { f.logs = func(q *LogQuery) (*LogPage, error) { return logged, n(q) } }, logged, q)
	}
	return trips
}

// entryLines are n entries as an export writes them.
func entryLines(n int) string {
	var b strings.Builder
	for i := range n {
		e := sampleEntry()
		e.Input.Offset = int64(i)
		line, err := json.Marshal(e)
		if err != nil {
			panic(err)
		}
		fmt.Fprintf(&b, "%s\n", line)
	}
	return b.String()
}

func code(err error) string {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Code
	}
	return fmt.Sprint(err)
}

// What is not chosen clearly reaches no backend, from whichever client.
func TestSelectionsThatAreRefused(t *testing.T) {
	server := startNode(t, &fake{})
	client := NewClient(server.URL)
	for name, s := range map[string]Selection{
		"nothing":         {},
		"an empty filter": {Filter: &FailureFilter{}},
		"two ways":        {All: true, Seqs: []uint64{1}},
		"filter and all":  {All: true, Filter: &FailureFilter{Class: "trap"}},
		"a limit below 0": {All: true, Limit: -1},
	} {
		if got := code(s.Check()); got != CodeInvalid {
			t.Errorf("%s: check says %s", name, got)
		}
		if _, err := client.DropFailures(t.Context(), &DropFailures{Name: "n", Selection: s}); code(err) != CodeInvalid {
			t.Errorf("%s: drop says %v", name, err)
		}
		for _, verb := range []string{"drop", "replay"} {
			body, err := json.Marshal(s)
			if err != nil {
				t.Fatal(err)
			}
			if status, text := post(t, server.URL+"/v1/flows/default/n/failures/"+verb, string(body), nil); status != 422 {
				t.Errorf("%s: %s answers %d %s", name, verb, status, text)
			}
		}
	}
	bad := Selection{Filter: &FailureFilter{Key: new("\xff")}}
	if _, err := client.ReplayFailures(t.Context(), &ReplayFailures{Name: "n", Selection: bad}); code(err) != CodeUsage {
		t.Errorf("a key that JSON cannot carry: %v", err)
	}
	for _, body := range []string{`{"dry_run":true}`, `{"to":"latest"}`, `{"to":"latest","positions":[{"partition":0,"offset":1}],"dry_run":true}`} {
		if status, text := post(t, server.URL+"/v1/flows/default/n/offsets/reset", body, nil); status != 422 {
			t.Errorf("%s: %d %s", body, status, text)
		}
	}
}

func TestAnEntryIsDroppedByItsNumber(t *testing.T) {
	f := &fake{}
	server := startNode(t, f)
	var asked *DropFailures
	f.dropFailures = func(req *DropFailures) (*DropReport, error) {
		asked = req
		return &DropReport{Dropped: uint64(len(req.Seqs)) * req.Seqs[0] % 2}, nil
	}
	f.failure = func(string, string, uint64) (*record.Entry, error) {
		return nil, &Error{Code: CodeNotFound, Detail: "no such entry"}
	}
	for seq, want := range map[int]int{7: 204, 8: 404} {
		if status, body := send(t, "DELETE", fmt.Sprintf("%s/v1/flows/shop/orders/failures/%d", server.URL, seq), "", nil); status != want {
			t.Errorf("entry %d: %d %s", seq, status, body)
		}
		if asked.Project != "shop" || asked.Name != "orders" || len(asked.Seqs) != 1 || asked.Seqs[0] != uint64(seq) || asked.DryRun {
			t.Errorf("the backend was asked %+v", asked)
		}
	}
}

// An import that is too much for one request is sent in several; what is wrong
// is told by its line, and what was filed before.
func TestImportInParts(t *testing.T) {
	f := &fake{}
	client := NewClient(startNode(t, f).URL)
	requests := 0
	f.importFailures = func(_, _ string, r io.Reader) (*ImportReport, error) {
		requests++
		body, err := io.ReadAll(r)
		return &ImportReport{Filed: uint64(strings.Count(string(body), "\n")), Present: 1}, err
	}
	large := sampleEntry()
	large.Input.Value = []byte(strings.Repeat("x", 1<<20))
	line, err := json.Marshal(large)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Repeat(string(line)+"\n", 9)
	got, err := client.ImportFailures(t.Context(), "", "orders", strings.NewReader(lines))
	if err != nil || requests != 3 || *got != (ImportReport{Filed: 9, Present: 3}) {
		t.Fatalf("%d requests, %+v, %v", requests, got, err)
	}
	_, err = client.ImportFailures(t.Context(), "", "orders", strings.NewReader(lines+`{"failure":1}`))
	if code(err) != CodeInvalid || !strings.HasPrefix(err.Error(), "line 10: ") || !strings.Contains(err.Error(), "; 6 entries before were filed") {
		t.Errorf("a bad line: %v", err)
	}
	if _, err = client.ImportFailures(t.Context(), "", "orders", strings.NewReader("")); err != nil {
		t.Errorf("nothing: %v", err)
	}
}
