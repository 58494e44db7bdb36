package ingest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/millrace-io/millrace/runtime/ledger"
	"github.com/millrace-io/millrace/runtime/pipeline"
	"github.com/millrace-io/millrace/runtime/record"
)

var _ pipeline.Acker = (*Source)(nil)

// place is what outlives a node: what was committed, and the partner.
type place struct {
	mu  sync.Mutex
	rnd *rand.Rand // guarded by mu

	low      int64             // committed
	ranges   []ledger.Range    // committed
	filed    map[string]int    // committed, by id
	requests []Request         // committed
	took     map[string]int    // by the partner, by id
	dropped  map[string]bool   // by the stage, by id
	bodies   map[string]string // that the partner has seen, by id
}

func (p *place) chance(n int) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.rnd.IntN(n) == 0
}

func (p *place) ms(n int) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	return time.Duration(p.rnd.IntN(n)) * time.Millisecond
}

// Deliver is the partner's: slow, and it refuses what says so.
func (p *place) Deliver(ctx context.Context, recs []record.Record, done func(int, error)) {
	for i := range recs {
		go func() {
			time.Sleep(p.ms(300))
			if ctx.Err() != nil && p.chance(2) {
				done(i, fmt.Errorf("deliver: %w", context.Canceled))
				return
			}
			if strings.Contains(string(recs[i].Value), "refuse") {
				done(i, record.Errorf(record.Rejected, "refused"))
				return
			}
			p.mu.Lock()
			p.took[recs[i].ID()]++
			p.bodies[recs[i].ID()] = string(recs[i].Value)
			p.mu.Unlock()
			done(i, nil)
		}()
	}
}

func (p *place) Problem() string { return "" }

// Process drops what says so.
func (p *place) Process(_ context.Context, b *record.Batch, out *record.Results) error {
	for i := range b.Records {
		if strings.Contains(string(b.Records[i].Value), "drop") {
			out.Drops = append(out.Drops, int32(i))
			p.mu.Lock()
			p.dropped[b.Records[i].ID()] = true
			p.mu.Unlock()
			continue
		}
		out.Emits = append(out.Emits, record.Emit{In: int32(i), Record: b.Records[i]})
	}
	return nil
}

// node is one life over a place.
type node struct {
	t    *testing.T
	p    *place
	src  *Source
	flow *pipeline.Flow
	stop context.CancelFunc
	ends sync.WaitGroup
}

func start(t *testing.T, p *place) *node {
	src, err := New(Config{Durable: true, Wait: 2 * time.Second, InFlight: 8})
	if err != nil {
		t.Fatal(err)
	}
	n := &node{t: t, p: p, src: src}
	set := pipeline.Linear(1, []pipeline.BoundStage{{Stage: p, StageInfo: pipeline.StageInfo{ID: "rule"}}}, pipeline.StageInfo{ID: "deliver"})
	n.flow = pipeline.New(pipeline.Config{Flow: "default/orders", Order: pipeline.OrderNone, DrainLimit: time.Millisecond}, src, set, []pipeline.Delivery{pipeline.Plain(p)})
	p.mu.Lock()
	low, ranges, requests := p.low, slices.Clone(p.ranges), slices.Clone(p.requests)
	p.mu.Unlock()
	src.Remember(requests)
	above := low
	for _, r := range ranges {
		above = max(above, r.To)
	}
	src.Above(above)
	if err := n.flow.Open(pipeline.LaneConfig{Partition: Partition, Low: low, Ranges: ranges, Life: 1}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	n.stop = cancel
	n.ends.Go(func() {
		if err := n.flow.Run(ctx); err != nil {
			t.Errorf("run: %v", err)
		}
	})
	n.ends.Go(func() {
		tick := time.NewTicker(100 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
				n.commit()
			}
		}
	})
	return n
}

// commit is one round of the owner's. Some fail, and of some the outcome is
// not known.
func (n *node) commit() {
	for _, p := range n.flow.Dirty() {
		reqs := n.src.Settling(func(offset int64) bool {
			return offset < p.Low || slices.ContainsFunc(p.Ranges, func(r ledger.Range) bool { return offset >= r.From && offset < r.To })
		})
		lost := n.p.chance(6)
		if !lost || n.p.chance(2) {
			n.p.mu.Lock()
			n.p.low, n.p.ranges = p.Low, slices.Clone(p.Ranges)
			for _, e := range p.Failures {
				n.p.filed[e.ID()]++
			}
			for _, r := range reqs {
				if !slices.ContainsFunc(n.p.requests, func(o Request) bool { return o.Ref == r.Ref }) {
					n.p.requests = append(n.p.requests, Request{Ref: r.Ref, Digest: r.Digest, At: r.At})
				}
			}
			n.p.mu.Unlock()
		}
		if lost {
			n.flow.Ack(p, errors.New("no leader"))
			continue
		}
		n.src.Saved(reqs)
		n.flow.Ack(p, nil)
	}
}

// kill ends the life without a last commit.
func (n *node) kill() {
	n.stop()
	_ = n.src.Close()
	n.ends.Wait()
}

// Senders that repeat until they have 200, over a node that is killed again
// and again: what was answered is at the partner, dropped, or filed; no key
// has two identities; and without a kill nothing is delivered twice.
func TestNoAnswerIsLost(t *testing.T) {
	for _, c := range []struct{ kills, senders, each int }{{0, 6, 30}, {12, 6, 30}} {
		t.Run(fmt.Sprint(c.kills, " kills"), func(t *testing.T) {
			seed := uint64(time.Now().UnixNano())
			t.Logf("seed %d", seed)
			synctest.Test(t, func(t *testing.T) {
				p := &place{rnd: rand.New(rand.NewPCG(seed, 1)), filed: map[string]int{}, took: map[string]int{}, dropped: map[string]bool{}, bodies: map[string]string{}}
				var at struct {
					sync.Mutex
					node *node
				}
				at.node = start(t, p)
				send := func(key, body string) reply {
					at.Lock()
					n := at.node
					at.Unlock()
					w := httptest.NewRecorder()
					n.src.ServeHTTP(w, post(key, body))
					return read(t, w)
				}
				body := func(key string, i int) string {
					return key + []string{"", "", "", " refuse", " drop"}[i%5]
				}
				var senders sync.WaitGroup
				for s := range c.senders {
					senders.Go(func() {
						for i := range c.each {
							key := fmt.Sprintf("k-%d-%d", s/2, i) // two senders send the same
							for tries := 0; ; tries++ {
								got := send(key, body(key, i))
								id := "ingest/0/" + key
								p.mu.Lock()
								safe := p.took[id]+p.filed[id] > 0 || p.dropped[id]
								p.mu.Unlock()
								if got.status == 200 {
									if !safe || got.answer.ID != id {
										t.Errorf("%s was answered with %+v, and is nowhere", key, got.answer)
									}
									break
								}
								if got.status != 503 && got.status != 429 || tries > 500 {
									t.Errorf("%s: %+v after %d tries", key, got, tries)
									break
								}
								time.Sleep(p.ms(200))
							}
						}
					})
				}
				for range c.kills {
					time.Sleep(p.ms(600))
					at.node.kill() // no lock is held where the bubble's time must pass
					next := start(t, p)
					at.Lock()
					at.node = next
					at.Unlock()
				}
				senders.Wait()
				time.Sleep(2 * time.Second) // the last commits
				at.node.kill()
				at.node = start(t, p)
				synctest.Wait()
				for s := range c.senders / 2 {
					for i := range c.each {
						key := fmt.Sprintf("k-%d-%d", s, i)
						// Only what was answered just before a kill is not in a commit.
						known := slices.ContainsFunc(p.requests, func(r Request) bool { return r.Ref == key })
						if !known && c.kills == 0 {
							t.Errorf("%s is in no commit", key)
						}
						took := p.took["ingest/0/"+key]
						if got := send(key, body(key, i)); got.status != 200 || got.answer.Repeated != known || known && p.took["ingest/0/"+key] != took {
							t.Errorf("%s, sent again in a later life, in a commit %t: %+v", key, known, got)
						}
					}
				}
				at.node.kill()
				for id, n := range p.took {
					if c.kills == 0 && n != 1 {
						t.Errorf("%s was delivered %d times", id, n)
					}
					if key, _, _ := strings.Cut(p.bodies[id], " "); id != "ingest/0/"+key {
						t.Errorf("%s brought %s", id, p.bodies[id])
					}
				}
				if want := c.senders / 2 * c.each; len(p.took)+len(p.filed)+len(p.dropped) != want {
					t.Errorf("%d delivered, %d filed, %d dropped, want %d in all", len(p.took), len(p.filed), len(p.dropped), want)
				}
			})
		})
	}
}
