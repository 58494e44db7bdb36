//go:build linux

package faulttest

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace-io/millrace/cmd/internal/api"
)

// another is the name of the next topic of a kind.
func (c *realCourse) another(kind string) string {
	c.topics++
	return fmt.Sprintf("%s-%d", kind, c.topics)
}

// passFlow hands a topic through.
func passFlow(topic, more string) string {
	return fmt.Sprintf("flow: v1\nname: %[1]s\nsource: { kafka: { connection: main, topics: [%[1]s]%[2]s } }\nstages:\n  - push: kafka://other/%[1]s-out\n", topic, more)
}

// numbered writes events from..to-1 to a topic, to partitions by their keys,
// and returns what lies at which offset.
func (rr *realRig) numbered(topic string, from, to int) map[int32]map[int64]int {
	rr.t.Helper()
	at := map[int32]map[int64]int{}
	for p := range int32(partitions) {
		at[p] = map[int64]int{}
	}
	var recs []*kgo.Record
	for n := from; n < to; n++ {
		recs = append(recs, &kgo.Record{Topic: topic, Key: fmt.Append(nil, n), Value: fmt.Appendf(nil, "event %d", n),
			Headers: []kgo.RecordHeader{{Key: numberHeader, Value: fmt.Append(nil, n)}}})
	}
	ctx, cancel := context.WithTimeout(rr.t.Context(), 30*time.Second)
	defer cancel()
	// A new client knows no topic that was deleted; one that was just made is
	// known late.
	cl := newClient(rr.t, rr.source.addr, kgo.UnknownTopicRetries(-1))
	defer cl.Close()
	for _, r := range cl.ProduceSync(ctx, recs...) {
		if r.Err != nil {
			rr.t.Fatal(r.Err)
		}
	}
	for i, r := range recs {
		at[r.Partition][r.Offset] = from + i
	}
	return at
}

// arrived reads a topic of the output from its start to its end as it is now,
// and returns how often each event is there.
func (rr *realRig) arrived(topic string) map[int]int {
	rr.t.Helper()
	ends := rr.ends(rr.output, topic)
	f := follow(rr.t, rr.output.addr, topic, partitions)
	f.upTo(rr.t, ends)
	f.mu.Lock()
	defer f.mu.Unlock()
	seen := map[int]int{}
	for _, o := range f.outputs {
		seen[o.number]++
	}
	return seen
}

// held waits until a flow pauses itself, and returns it.
func (rr *realRig) held(name string) *api.Flow {
	rr.t.Helper()
	var f *api.Flow
	await(rr.t, 30*time.Second, "flow "+name+" to pause itself", func() (bool, string) {
		f = rr.flow(name)
		return f.State == api.StateAutoPaused && f.Reason != "", fmt.Sprintf("%s, reason %q, problem %q, lag %d", f.State, f.Reason, f.Problem, f.Lag)
	})
	rr.t.Logf("flow %s: %s, %s", name, f.State, f.Reason)
	return f
}

func (rr *realRig) set(name, state string) {
	rr.t.Helper()
	call(rr.t, func(ctx context.Context) (*api.Flow, error) { return rr.client.SetFlow(ctx, "", name, state) })
}

// drop deletes a flow.
func (rr *realRig) drop(name string) {
	rr.t.Helper()
	if err := rr.client.DeleteFlow(rr.t.Context(), "", name, false); err != nil {
		rr.t.Fatal(err)
	}
}

// same compares which events arrived with which had to; each comes once.
func same(t *testing.T, got map[int]int, want []int) {
	t.Helper()
	for _, n := range want {
		if got[n] != 1 {
			t.Fatalf("event %d arrived %d times", n, got[n])
		}
	}
	if len(got) != len(want) {
		extra := slices.Sorted(maps.Keys(got))
		t.Fatalf("%d events arrived, want %d; the first are %v", len(got), len(want), extra[:min(len(extra), 10)])
	}
}

// deleteBelow deletes the records of a topic below offsets.
func (rr *realRig) deleteBelow(topic string, below offsets) {
	rr.t.Helper()
	os := kadm.Offsets{}
	for p, at := range below {
		os.AddOffset(topic, p, at, -1)
	}
	ctx, cancel := context.WithTimeout(rr.t.Context(), 10*time.Second)
	defer cancel()
	res, err := kadm.NewClient(rr.source.client).DeleteRecords(ctx, os)
	if err == nil {
		err = res.Error()
	}
	if err != nil {
		rr.t.Fatal(err)
	}
}

// Records that are deleted before the flow has read them pause it, with the
// reason; then the flow goes on by the policy that it is given, and says how
// many it passed over.
func (c *realCourse) recordsDeleted() string {
	t, name := c.t, c.another("aged")
	out := name + "-out"
	c.makeTopics(c.source, name)
	c.makeTopics(c.output, out)
	c.apply(passFlow(name, ""), nil)
	at := c.numbered(name, 0, 2000)
	c.settled(name, name, 30*time.Second)
	c.set(name, api.StatePaused)
	committed := c.ends(c.source, name)
	for p, more := range c.numbered(name, 2000, 6000) {
		maps.Copy(at[p], more)
	}
	below, gone, skipped := offsets{}, map[int]bool{}, int64(0)
	for p := range int32(partitions) {
		below[p] = committed[p] + 300 + 100*int64(p)
		for o := committed[p]; o < below[p]; o++ {
			gone[at[p][o]] = true
			skipped++
		}
	}
	c.deleteBelow(name, below)
	c.set(name, api.StateRunning)
	f := c.held(name)
	if !strings.Contains(f.Reason, "out_of_range") {
		t.Errorf("the reason does not say what can be done: %s", f.Reason)
	}
	before := c.endsAtRest(c.output, out, time.Second)
	if n := before.total(); n != 2000 {
		t.Errorf("%d records are in the output of a flow whose position is gone, want 2000", n)
	}

	c.apply(passFlow(name, ", out_of_range: earliest"), nil)
	c.set(name, api.StateRunning)
	c.settled(name, name, 30*time.Second)
	f = c.flow(name)
	told := int64(0)
	for _, s := range f.Skips {
		told += s.Records
		if s.From != committed[s.Partition] || s.To != below[s.Partition] {
			t.Errorf("partition %d: %d to %d were passed over, says the flow; it was %d to %d", s.Partition, s.From, s.To, committed[s.Partition], below[s.Partition])
		}
	}
	if told != skipped {
		t.Errorf("%d records were passed over, says the flow; it was %d", told, skipped)
	}
	var want []int
	for n := range 6000 {
		if !gone[n] {
			want = append(want, n)
		}
	}
	same(t, c.arrived(out), want)
	c.drop(name)
	return fmt.Sprintf("%d of 6000 were passed over, told, and no other", told)
}

// A topic that is deleted and made anew pauses the flow, with the reason:
// never is the new one read silently, from zero or from where the old one was.
// A flow that is applied anew, as the reason says, begins with it.
func (c *realCourse) topicMadeAnew() string {
	t, name := c.t, c.another("anew")
	out := name + "-out"
	c.makeTopics(c.source, name)
	c.makeTopics(c.output, out)
	c.apply(passFlow(name, ""), nil)
	c.numbered(name, 0, 1000)
	c.settled(name, name, 30*time.Second)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if _, err := kadm.NewClient(c.source.client).DeleteTopics(ctx, name); err != nil {
		t.Fatal(err)
	}
	c.remake(name)
	// More than before, so that the old position would be within the new topic.
	c.numbered(name, 1000, 4000)
	f := c.held(name)
	if !strings.Contains(f.Reason, name) {
		t.Errorf("the reason does not name the topic: %s", f.Reason)
	}
	if n := c.endsAtRest(c.output, out, time.Second).total(); n != 1000 {
		t.Errorf("%d records are in the output of a flow whose topic was made anew, want 1000", n)
	}
	// Also a node that starts anew does not read it.
	c.killNode()
	c.ready()
	c.held(name)
	if n := c.endsAtRest(c.output, out, time.Second).total(); n != 1000 {
		t.Errorf("%d records are in the output after the node's restart, want 1000", n)
	}

	c.drop(name)
	c.apply(passFlow(name, ""), nil)
	c.settled(name, name, 30*time.Second)
	var want []int
	for n := range 4000 {
		want = append(want, n)
	}
	same(t, c.arrived(out), want)
	c.drop(name)
	return "nothing of it was read before its flow was made anew, and all after that"
}

// remake makes a topic whose deletion may be under way.
func (rr *realRig) remake(topic string) {
	rr.t.Helper()
	await(rr.t, 20*time.Second, "topic "+topic+" to be made anew", func() (bool, string) {
		ctx, cancel := context.WithTimeout(rr.t.Context(), 5*time.Second)
		defer cancel()
		res, err := kadm.NewClient(rr.source.client).CreateTopics(ctx, partitions, 1, nil, topic)
		if err == nil {
			err = res.Error()
		}
		return err == nil, fmt.Sprint(err)
	})
}
