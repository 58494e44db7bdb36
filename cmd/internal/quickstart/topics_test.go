package quickstart

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/sync/errgroup"

	"github.com/millrace-io/millrace/cmd/internal/api"
	"github.com/millrace-io/millrace/cmd/internal/devbroker"
	"github.com/millrace-io/millrace/examples/orders/gen"
	"github.com/millrace-io/millrace/examples/orders/orderstage"
	"github.com/millrace-io/millrace/runtime/record"
)

// A native stage stands where the node is in a run: what load produces and
// follower reads must satisfy check, also behind the records of an earlier
// run, and what the stage does wrong must be seen.
func TestLoadAndFollow(t *testing.T) {
	b, err := devbroker.Start(devbroker.Config{Partitions: partitions})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	for _, tc := range []struct {
		name    string
		doubles int // every so many outputs are sent twice
		loses   int // the output of this order is not sent
	}{
		{"first run", 0, -1},
		{"second run, with doubles", 100, -1},
		{"third run, with a loss", 0, 20},
	} {
		t.Run(tc.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 15*time.Second)
			defer cancel()
			l, err := newLoad(b.Addr(), 3000)
			if err != nil {
				t.Fatal(err)
			}
			defer l.client.Close()
			if err := makeTopics(ctx, l.client); err != nil {
				t.Fatal(err)
			}
			startIn, err := endOffsets(ctx, l.client, sourceTopic)
			if err != nil {
				t.Fatal(err)
			}
			startOut, err := endOffsets(ctx, l.client, outputTopic)
			if err != nil {
				t.Fatal(err)
			}
			f, err := follow(b.Addr(), startOut)
			if err != nil {
				t.Fatal(err)
			}
			fctx, stop := context.WithCancel(ctx)
			var following errgroup.Group
			following.Go(func() error { return f.run(fctx) })
			defer func() {
				stop()
				if err := following.Wait(); err != nil {
					t.Error(err)
				}
			}()

			began := time.Now()
			if err := l.produce(ctx, 2000, 0); err != nil {
				t.Fatal(err)
			}
			pacedAt := time.Now()
			if err := l.produce(ctx, 1000, 5000); err != nil {
				t.Fatal(err)
			}
			if took := time.Since(pacedAt); took < 195*time.Millisecond {
				t.Errorf("1,000 records at 5,000/s took %s", took)
			}
			var failed []failure
			doubled := 0
			g := gen.New(seed)
			for i := range 3000 {
				e := g.Next()
				out, _ := orderstage.Order(nil, e.Value)
				switch {
				case e.Mark == gen.Fail:
					failed = append(failed, failure{l.events[i].partition, l.events[i].offset, "cut off"})
				case e.Mark == gen.Emit && i != tc.loses:
					recs := []*kgo.Record{{Topic: outputTopic, Key: e.Key, Value: out}}
					if tc.doubles > 0 && i%tc.doubles == 0 {
						doubled++
						recs = append(recs, &kgo.Record{Topic: outputTopic, Key: e.Key, Value: out})
					}
					for _, r := range recs {
						l.client.Produce(ctx, r, nil)
					}
				}
			}
			if err := l.client.Flush(ctx); err != nil {
				t.Fatal(err)
			}
			ends, err := endOffsets(ctx, l.client, outputTopic)
			if err != nil {
				t.Fatal(err)
			}
			until(ctx, t, func() bool { return f.caughtUp(ends) })

			var produced int64
			for p, end := range l.ends() {
				produced += end - startIn[p]
			}
			if produced != 3000 {
				t.Errorf("%d records between the positions, want 3000", produced)
			}
			lost := 0
			if tc.loses >= 0 {
				if m := l.events[tc.loses].mark; m != gen.Emit {
					t.Fatalf("order %d is marked %s", tc.loses, m)
				}
				lost = 1
			}
			got := check(l.events, f.all(), failed, doubled)
			if got.Lost != lost || got.Redelivered != doubled || got.OK() != (lost == 0) {
				t.Errorf("got %+v, want %d lost and %d redelivered", got, lost, doubled)
			}
			if n := f.distinct(); n != got.Emitted {
				t.Errorf("%d distinct orders followed, %d checked", n, got.Emitted)
			}
			if n := f.arrivedBetween(began, time.Now()); n != got.Emitted+doubled {
				t.Errorf("%d outputs arrived since the beginning, want %d", n, got.Emitted+doubled)
			}
			if at := f.lastArrival(); at.Before(pacedAt) || f.arrivedBetween(at, at.Add(1)) == 0 {
				t.Errorf("the last output arrived at %s", at)
			}
			if len(l.samples) != maxSamples {
				t.Fatalf("%d samples, want %d", len(l.samples), maxSamples)
			}
			for _, s := range l.samples {
				want, _ := orderstage.Order(nil, s.value)
				if got := f.value(s.order); s.order != tc.loses && string(got) != string(want) {
					t.Errorf("sample %s: got %s, want %s", orderID(s.order), got, want)
				}
			}
		})
	}
}

func TestLongestPause(t *testing.T) {
	at := time.Unix(1000, 0)
	ms := func(n int) time.Time { return at.Add(time.Duration(n) * time.Millisecond) }
	f := &follower{arrivals: []time.Time{ms(0), ms(900), ms(901), ms(1000), ms(1300), ms(1300), ms(1350)}}
	for _, tc := range []struct{ from, to, want int }{
		{-1, 2000, 900}, {899, 2000, 900}, {900, 2000, 300}, {1100, 1200, 300}, {1300, 2000, 50}, {1350, 2000, 0},
		{901, 1000, 99}, {901, 1001, 300},
	} {
		if got := f.longestPause(ms(tc.from), ms(tc.to)); got != time.Duration(tc.want)*time.Millisecond {
			t.Errorf("from %d to %d: got %s, want %d ms", tc.from, tc.to, got, tc.want)
		}
	}
	if got := new(follower).longestPause(at, at); got != 0 {
		t.Errorf("of none: got %s", got)
	}
}

func until(ctx context.Context, t *testing.T, ok func() bool) {
	t.Helper()
	for !ok() {
		if err := pause(ctx, time.Millisecond); err != nil {
			t.Fatal(err)
		}
	}
}

// backend answers what a test wants.
type backend struct {
	api.Backend
	flow     func() (*api.Flow, error)
	failures func(q *api.FailureQuery) *api.FailurePage
}

func (b backend) Flow(context.Context, string, string) (*api.Flow, error) { return b.flow() }

func (b backend) Failures(_ context.Context, q *api.FailureQuery) (*api.FailurePage, error) {
	return b.failures(q), nil
}

func TestSettle(t *testing.T) {
	nothing := func() int { return 0 }
	alive := func() error { return nil }
	at := func(c0, c1 int64) *api.Flow {
		return &api.Flow{State: api.StateRunning, Problem: "the sink is down", Partitions: []api.Partition{{Partition: 0, Committed: c0}, {Partition: 1, Committed: c1}}}
	}
	ends := positions{0: 10, 1: 20}

	t.Run("moves on, slowly", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			begin := time.Now()
			f, err := settle(t.Context(), backend{flow: func() (*api.Flow, error) {
				steps := int64(time.Since(begin) / (20 * time.Second))
				return at(min(steps, 10), 20), nil
			}}, ends, nothing, alive)
			if err != nil || f.Partitions[0].Committed != 10 {
				t.Errorf("got %+v, %v; want the settled flow after 200 s", f, err)
			}
		})
	})
	t.Run("outputs move on", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			begin := time.Now()
			_, err := settle(t.Context(), backend{flow: func() (*api.Flow, error) {
				if time.Since(begin) > 100*time.Second {
					return at(10, 20), nil
				}
				return at(0, 0), nil
			}}, ends, func() int { return int(time.Since(begin).Seconds()) }, alive)
			if err != nil {
				t.Error(err)
			}
		})
	})
	t.Run("stuck", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			_, err := settle(t.Context(), backend{flow: func() (*api.Flow, error) { return at(10, 7), nil }}, ends, nothing, alive)
			want := "flow orders (running) did not move for 30s: orders/1 is committed up to 7 of 20: the sink is down"
			if err == nil || err.Error() != want {
				t.Errorf("got %v, want %s", err, want)
			}
		})
	})
	t.Run("not answered", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			cause := errors.New("connection refused")
			_, err := settle(t.Context(), backend{flow: func() (*api.Flow, error) { return nil, cause }}, ends, nothing, alive)
			if !errors.Is(err, cause) {
				t.Errorf("got %v, want the cause", err)
			}
		})
	})
	t.Run("node gone", func(t *testing.T) {
		gone := errors.New("the node ended by itself")
		_, err := settle(t.Context(), backend{flow: func() (*api.Flow, error) { return nil, errors.New("refused") }}, ends, nothing, func() error { return gone })
		if !errors.Is(err, gone) {
			t.Errorf("got %v, want that the node is gone", err)
		}
	})
	t.Run("an end that is not known", func(t *testing.T) {
		if committed(&api.Flow{Partitions: []api.Partition{{Partition: 0, Committed: 10}}}, ends) {
			t.Error("a flow without partition 1 is settled")
		}
	})
}

func TestFailuresOfThisRun(t *testing.T) {
	var entries []*record.Entry
	for i := range 25 {
		entries = append(entries, &record.Entry{Seq: uint64(i + 1), Stage: "mask", Message: fmt.Sprint("cut off ", i),
			Input: record.Record{Topic: sourceTopic, Partition: int32(i % 2), Offset: int64(i / 2)}})
	}
	entries[24].Input.Topic = "other"
	asked := 0
	b := backend{failures: func(q *api.FailureQuery) *api.FailurePage {
		asked++
		end := min(int(q.After)+10, len(entries))
		page := &api.FailurePage{Entries: entries[q.After:end], Next: uint64(end)}
		if end == len(entries) {
			page.Next = 0
		}
		return page
	}}
	all, first, err := failures(t.Context(), b, positions{0: 4, 1: 10})
	if err != nil || asked != 3 {
		t.Fatalf("asked for %d pages, %v; want 3", asked, err)
	}
	if len(all) != 8+2 {
		t.Errorf("%d entries, want the 8 of partition 0 from 4 on and the 2 of partition 1 from 10 on", len(all))
	}
	if len(first) != maxPoison || first[0].id != "orders/0/4" || first[0].seq != 9 {
		t.Errorf("first entries %+v", first)
	}
}

func TestRefusals(t *testing.T) {
	if err := Run(t.Context(), Config{Records: 999}); err == nil || !strings.Contains(err.Error(), "--records 999") {
		t.Errorf("got %v, want that it is too few", err)
	}
	var said strings.Builder
	dir := t.TempDir()
	b, err := devbroker.Start(devbroker.Config{Dir: dir + "/broker"})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	err = Run(t.Context(), Config{Dir: dir, Stderr: &said})
	if err == nil || !strings.Contains(err.Error(), "is in use by the broker of process") {
		t.Errorf("got %v, want that the folder is in use", err)
	}
	if !strings.HasPrefix(said.String(), "quickstart: starting") {
		t.Errorf("said %q, want what is going on first", said.String())
	}
}
