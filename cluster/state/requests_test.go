package state

import (
	"fmt"
	"slices"
	"testing"

	"github.com/cockroachdb/pebble/v2"
)

// requests applies a Commit with requests and returns what is remembered, as
// ref@at.
func (f *fixture) requests(flow FlowID, at, low int64, refs ...string) []string {
	f.Helper()
	it := CommitItem{Flow: flow, Epoch: 1, Low: low}
	for i, ref := range refs {
		it.Requests = append(it.Requests, Request{ref, uint64(i) + 1})
	}
	if res := accept[*CommitResult](f, &Commit{Node: nodeA, Incarnation: 1, At: at, Items: []CommitItem{it}}); len(res.Refused) > 0 {
		f.Fatalf("refused: %+v", res.Refused)
	}
	return f.remembered(flow)
}

func (f *fixture) remembered(flow FlowID) (out []string) {
	f.Helper()
	if err := f.s.Requests(flow, 0, func(ref string, digest uint64, at int64) bool {
		if digest == 0 {
			f.Errorf("%s has no digest", ref)
		}
		out = append(out, fmt.Sprintf("%s@%d", ref, at))
		return true
	}); err != nil {
		f.Fatal(err)
	}
	return out
}

func TestIngestRequests(t *testing.T) {
	f := newFixture(t)
	flow := f.running("a").Flow
	day := RequestWindow.Milliseconds()
	want := func(got []string, want ...string) {
		t.Helper()
		if !slices.Equal(got, want) {
			t.Errorf("remembered %v, want %v", got, want)
		}
	}
	want(f.requests(flow, 1000, 1, "b", "a"), "a@1000", "b@1000")
	want(f.requests(flow, 2000, 2, "a", "c"), "a@1000", "b@1000", "c@2000")
	before := f.s.Hash()
	f.requests(flow, 2000, 2, "c")
	if f.s.Hash() != before {
		t.Error("a repeated Commit changes the state")
	}
	want(f.requests(flow, 1000+day-1, 3), "a@1000", "b@1000", "c@2000")
	want(f.requests(flow, 1000+day, 4, "b"), "c@2000", fmt.Sprintf("b@%d", 1000+day))
	want(f.requests(flow, 500, 5, "early"), "early@500", "c@2000", fmt.Sprintf("b@%d", 1000+day))

	// A refused item brings none.
	res := accept[*CommitResult](f, &Commit{Node: nodeA, Incarnation: 1, At: 9000, Items: []CommitItem{{Flow: flow, Epoch: 7, Low: 9, Requests: []Request{{"refused", 1}}}}})
	if len(res.Refused) != 1 || slices.Contains(f.remembered(flow), "refused@9000") {
		t.Errorf("a refused item: %+v, remembered %v", res.Refused, f.remembered(flow))
	}
	// What cannot be a key of a record is passed over.
	long := make([]byte, maxRequestRef+1)
	if got := f.requests(flow, 9000, 6, "", string(long)); len(got) != 3 {
		t.Errorf("remembered %d requests, want 3", len(got))
	}

	other := accept[*FlowPutResult](f, &FlowPut{Project: "default", Name: "b", UID: 2, Document: []byte("b"), At: 1}).Flow
	accept[any](f, &FlowDelete{Flow: flow})
	want(f.remembered(flow))
	for _, prefix := range [][]byte{flowPrefix(keyIngest, flow), append(counterKey("requests/"), u32(uint32(flow))...)} {
		_ = f.s.view(func(r pebble.Reader) error {
			return scan(r, prefix, prefix, func(key, _ []byte) bool {
				text, _ := DescribeKey(key)
				t.Errorf("%s is left of a deleted flow", text)
				return true
			})
		})
	}
	want(f.remembered(other))
}

func TestIngestRequestsAreBounded(t *testing.T) {
	const most = 1000
	f := newFixture(t)
	f.s.maxRequests = most
	flow := f.running("a").Flow
	low := int64(0)
	batch := func(n int) []Request {
		rs := make([]Request, n)
		for i := range rs {
			low++
			rs[i] = Request{fmt.Sprintf("r-%07d", low), 1}
		}
		return rs
	}
	for len(f.remembered(flow)) < most {
		accept[*CommitResult](f, &Commit{Node: nodeA, Incarnation: 1, At: 1000 + low, Items: []CommitItem{{Flow: flow, Epoch: 1, Requests: batch(200), Low: low}}})
	}
	accept[*CommitResult](f, &Commit{Node: nodeA, Incarnation: 1, At: 1000 + low, Items: []CommitItem{{Flow: flow, Epoch: 1, Requests: batch(3), Low: low}}})
	got := f.remembered(flow)
	if len(got) != most || got[0][:9] != "r-0000004" || got[len(got)-1][:9] != fmt.Sprintf("r-%07d", low) {
		t.Errorf("%d requests are remembered, from %s to %s", len(got), got[0], got[len(got)-1])
	}
	// Long after, they go a few with each commit and not all at once.
	day := RequestWindow.Milliseconds()
	accept[*CommitResult](f, &Commit{Node: nodeA, Incarnation: 1, At: 1000 + low + day, Items: []CommitItem{{Flow: flow, Epoch: 1, Requests: batch(1), Low: low}}})
	if n := len(f.remembered(flow)); n != most+1-2-requestSweep {
		t.Errorf("%d requests are remembered", n)
	}
}
