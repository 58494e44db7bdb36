package daemon

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/millrace-io/millrace/cluster/state"
	"github.com/millrace-io/millrace/cmd/internal/api"
	"github.com/millrace-io/millrace/runtime/record"
)

func TestClockThatIsSetBack(t *testing.T) {
	c := newClock()
	if _, back := c.look(time.Now()); back {
		t.Error("a clock that runs was set back")
	}
	// The monotonic reading is of the base, the time of day an hour before.
	c.drift = time.Hour
	if _, back := c.look(time.Now()); !back {
		t.Error("an hour back was not seen")
	}
	if _, back := c.look(time.Now()); back {
		t.Error("it was seen twice")
	}
}

func TestWhatIsTriedNow(t *testing.T) {
	entry := func(stage, group string, due, at int64) *record.Retry {
		return &record.Retry{Stage: stage, Group: group, Due: due, At: at}
	}
	stages := func(es []*record.Retry) string {
		s := ""
		for _, e := range es {
			s += e.Stage + e.Group + " "
		}
		return s
	}
	s := &retrying{room: map[string]int{"down": 0, "probe": 1}}
	page := []*record.Retry{entry("down", "", 1, 1), entry("up", "", 1, 1), entry("probe", "g", 1, 1), entry("probe", "g", 1, 1), entry("probe", "h", 1, 1), entry("probe", "", 1, 1)}
	if got := stages(s.choose(&looking{now: 10, upTo: 10}, page)); got != "up probeg probeg " {
		t.Errorf("while partners are down: %s", got)
	}
	l := looking{now: 10_000, upTo: maxDue, skewed: true}
	page = []*record.Retry{entry("a", "", 5_000, 1), entry("b", "", 20_000, 9_000), entry("c", "", 3_600_000, 3_500_000), entry("d", "", 15_000, 9_000)}
	if got := stages((&retrying{}).choose(&l, page)); got != "a c " || !l.ahead || l.due != 15_000 {
		t.Errorf("after the clock was set back: %s, %+v", got, l)
	}
	group := []*record.Retry{entry("a", "", 1, 1), entry("a", "g", 2, 1), entry("a", "h", 3, 1), entry("a", "g", 3, 1)}
	if n := wholeGroups(group); n != 2 {
		t.Errorf("%d entries before what may be cut", n)
	}
	if n := wholeGroups(group[:1]); n != 1 {
		t.Errorf("%d entries without a group", n)
	}
}

// Entries that a clock ahead of the present one has written are due at once
// when the node starts, others when they say.
func TestKeptRecordsOfAClockThatWasAhead(t *testing.T) {
	broker := startBroker(t)
	p := startPartner(t, func(received) (int, string) { return 503, "" })
	dir := t.TempDir()
	d, stop := life(t, dir)
	connect(t, d, broker.Addr())
	feed(t, kafkaClient(t, broker.Addr()), "in", "a", "1", "b", "2")
	mustPut(t, d, &api.PutFlow{Document: pushing(p, "", "    retry: { first: 20ms, max: 50ms, spill: 50ms }\n")})
	keptIs(t, d, "push", 2)
	setState(t, d, "push", api.StatePaused)
	f, err := d.store.Flow("default", "push")
	if err != nil {
		t.Fatal(err)
	}
	kept, err := d.store.Retries(f.ID, nil, 0, nil)
	if err != nil || len(kept) != 2 {
		t.Fatalf("%d kept, %v", len(kept), err)
	}
	slots, err := d.store.Slots(f.ID)
	if err != nil {
		t.Fatal(err)
	}
	marks, err := d.store.Watermarks(f.ID)
	if err != nil {
		t.Fatal(err)
	}
	// The first was written by a clock a day ahead, the second is due in a day.
	day := 24 * time.Hour.Milliseconds()
	parts, err := d.store.Receipt(f.ID)
	if err != nil {
		t.Fatal(err)
	}
	c := &state.Commit{Node: d.node.ID(), Incarnation: d.node.Incarnation()}
	for i, k := range kept {
		at := slices.IndexFunc(marks, func(w state.Watermark) bool { return w.Part == k.Part })
		w := marks[at]
		e := *k.Entry
		e.Due = e.At + day
		if i == 0 {
			e.At, e.Due = e.At+day, e.At+day+100
		}
		c.Keeps = append(c.Keeps, state.CommitRetry{Flow: f.ID, Part: k.Part, Entry: &e})
		if i > 0 && kept[i-1].Part == k.Part {
			continue
		}
		slot := slots[int(k.Part)%len(slots)]
		c.Items = append(c.Items, state.CommitItem{Flow: f.ID, Slot: slot.Slot, Epoch: slot.Epoch, Part: k.Part, Low: w.Low, Ranges: w.Ranges, Generation: w.Generation, Deploy: w.Deploy, Life: d.lives.Add(1)})
	}
	res, err := d.node.Propose(t.Context(), c)
	if err != nil || len(res.Value.(*state.CommitResult).Refused) > 0 {
		t.Fatalf("%+v, %v, %+v", res.Value, err, parts)
	}
	stop()
	p.set(nil)
	d, stop = life(t, dir)
	defer stop()
	setState(t, d, "push", api.StateRunning)
	keptIs(t, d, "push", 1)
	if got := p.bodies(); len(got) != 1 || got[0] != "1" {
		t.Errorf("delivered %q", got)
	}
	if page, err := d.Retries(t.Context(), &api.RetryQuery{Project: "default", Name: "push"}); err != nil || len(page.Entries) != 1 || page.Entries[0].Due < time.Now().Add(time.Hour).UnixMilli() {
		t.Errorf("kept %+v, %v", page, err)
	}
}

func TestPagesOfWhatIsKept(t *testing.T) {
	broker := startBroker(t)
	p := startPartner(t, func(r received) (int, string) { return 503, "" })
	d, _ := life(t, t.TempDir())
	connect(t, d, broker.Addr())
	cl := kafkaClient(t, broker.Addr())
	for i := range 7 {
		feed(t, cl, "in", fmt.Sprint("k", i%2), fmt.Sprint("v", i))
	}
	mustPut(t, d, &api.PutFlow{Document: pushing(p, "", "    retry: { first: 50ms, max: 5s, spill: 50ms }\n")})
	keptIs(t, d, "push", 7)
	var ids []string
	for after := ""; ; {
		page, err := d.Retries(t.Context(), &api.RetryQuery{Project: "default", Name: "push", After: after, Limit: 3})
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range page.Entries {
			ids = append(ids, e.ID)
		}
		if after = page.Next; after == "" {
			break
		}
	}
	if len(ids) != 7 || !slices.IsSorted(ids) || len(slices.Compact(ids)) != 7 {
		t.Errorf("ids %q", ids)
	}
	key := "k1"
	if page, err := d.Retries(t.Context(), &api.RetryQuery{Project: "default", Name: "push", Key: &key}); err != nil || len(page.Entries) != 3 {
		t.Errorf("of key k1: %+v, %v", page, err)
	}
	if _, err := d.Retries(t.Context(), &api.RetryQuery{Project: "default", Name: "push", After: "nonsense"}); err == nil {
		t.Error("a cursor that is none was taken")
	}
	if f := status(t, d, "push"); f.Retries.Held != 5 || f.Retries.NextDue == 0 {
		t.Errorf("retries %+v", f.Retries)
	}
	err := d.DeleteFlow(t.Context(), "default", "push", false)
	if err == nil {
		t.Error("a flow that keeps records was deleted")
	}
}
