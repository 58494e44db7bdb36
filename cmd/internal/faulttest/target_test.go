//go:build linux

package faulttest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

const maxMemory = 200 << 20 // bytes of flowd, whatever the target does

// attempt is a request that the target got.
type attempt struct {
	number   int
	key      string // Idempotency-Key
	begun    int    // its place among all beginnings and ends
	answered int    // the place of its end; 0 if it was refused
}

// target is an HTTP server that can be slow, and gone.
type target struct {
	t    *testing.T
	addr string

	mu       sync.Mutex
	delay    time.Duration         // guarded by mu
	clock    int                   // guarded by mu; beginnings and ends so far
	attempts map[string][]*attempt // guarded by mu; by path, in the order in which they began
	taken    map[string]int        // guarded by mu; by path, records that were answered with 200
	server   *http.Server          // guarded by mu; nil while it is gone
}

func newTarget(t *testing.T) *target {
	g := &target{t: t, addr: freeAddr(t), attempts: map[string][]*attempt{}, taken: map[string]int{}}
	t.Cleanup(g.leave)
	return g
}

// come lets the target answer after a delay.
func (g *target) come(delay time.Duration) {
	g.t.Helper()
	l, err := net.Listen("tcp", g.addr)
	if err != nil {
		g.t.Fatal(err)
	}
	s := &http.Server{Handler: g}
	g.mu.Lock()
	g.delay, g.server = delay, s
	g.mu.Unlock()
	go func() {
		if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			g.t.Errorf("serve the target: %v", err)
		}
	}()
}

// leave cuts every connection; then nothing listens any more.
func (g *target) leave() {
	g.mu.Lock()
	s := g.server
	g.server = nil
	g.mu.Unlock()
	if s != nil {
		_ = s.Close()
	}
}

// refuses says whether the first attempt for a record is refused: some are,
// so that there are records with several.
func refuses(number int) bool { return number%97 == 0 }

func (g *target) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	n, err := strconv.Atoi(req.Header.Get("X-Number"))
	if err != nil {
		g.t.Errorf("request to %s without a number: %v", req.URL.Path, err)
	}
	a := &attempt{number: n, key: req.Header.Get("Idempotency-Key")}
	g.mu.Lock()
	g.clock++
	a.begun = g.clock
	first := true
	if refuses(n) {
		for _, b := range g.attempts[req.URL.Path] {
			first = first && b.number != n
		}
	}
	g.attempts[req.URL.Path] = append(g.attempts[req.URL.Path], a)
	delay := g.delay
	g.mu.Unlock()
	if delay > 0 {
		timer := time.NewTimer(delay)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-req.Context().Done():
			return
		}
	}
	if refuses(n) && first {
		http.Error(w, "come back", http.StatusServiceUnavailable)
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.clock++
	a.answered = g.clock
	g.taken[req.URL.Path]++
	w.WriteHeader(http.StatusOK)
}

func (g *target) count(path string) int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.taken[path]
}

func pushFlow(name, order string) string {
	return fmt.Sprintf(`flow: v1
name: %[1]s
source: kafka://main/events
order: %[2]s
stages:
  - id: deliver
    push: { http: { connection: partner, post: /%[1]s, timeout: 3s, headers: { X-Number: "${headers.number}" } } }
    retry: { max: 1s }
`, name, order)
}

// A target that is slow, then gone, then back: the node's memory stays
// bounded, nothing is lost or filed, the flows pause themselves, the lag and its reason show, and
// everything is delivered, each record under one key, in order where asked.
func TestSlowAndDeadTarget(t *testing.T) {
	records, size, dead := 8000, 2<<10, 8*time.Second
	if os.Getenv("MILLRACE_FAULT_LONG") != "" {
		records, size, dead = 100_000, 300, time.Minute
	}
	r := newRig(t, true) // the race detector takes memory of its own
	r.makeTopics(r.source, "events")
	g := newTarget(t)
	g.come(100 * time.Millisecond)
	r.run()
	r.connectKafka()
	r.connect("connection: v1\nname: partner\nhttp: { base: \"http://" + g.addr + "\", concurrent: 16 }\n")
	paths := map[string]string{"loose": "none", "strict": "partition"}
	for name, order := range paths {
		r.apply(pushFlow(name, order), nil)
	}
	memory := r.sampleMemory()
	idle, _, err := r.node.memory()
	if err != nil {
		t.Fatal(err)
	}
	events := r.produceEvents("events", records, size)

	pass(t.Context(), 3*time.Second)
	slow := map[string]int{}
	for name := range paths {
		if slow[name] = g.count("/" + name); slow[name] < 20 {
			t.Errorf("a slow target got %d records of flow %s in 3 s", slow[name], name)
		}
	}

	g.leave()
	before := map[string]int{}
	for name := range paths {
		before[name] = g.count("/" + name)
	}
	gone := time.Now()
	for name := range paths {
		await(t, 10*time.Second, "flow "+name+" to say why it lags", func() (bool, string) {
			f := r.flow(name)
			return f.Lag > 0 && strings.Contains(f.Problem, "refused"), fmt.Sprintf("lag %d, problem %q", f.Lag, f.Problem)
		})
	}
	pass(t.Context(), dead-time.Since(gone))
	for name := range paths {
		f := r.flow(name)
		t.Logf("flow %s after %s: %s, lag %d, problem: %s", name, dead, f.State, f.Lag, f.Problem)
		if f.State != "auto_paused" || f.Lag < int64(records-before[name]-partitions*window) || !strings.Contains(f.Problem, "refused") {
			t.Errorf("flow %s: state %s %s, lag %d, problem %q", name, f.State, f.Reason, f.Lag, f.Problem)
		}
	}

	g.come(0)
	for name := range paths {
		r.settled(name, "events", 2*time.Minute)
		if q := r.flow(name).Queue.Entries; q != 0 {
			t.Errorf("%d entries in the failure queue of %s", q, name)
		}
		g.check("/"+name, events, paths[name] == "partition")
	}
	r.stopNode()
	now, highest := memory()
	t.Logf("memory of flowd: %d MiB idle, %d MiB at most as sampled, %d MiB at its highest", idle>>20, now>>20, highest>>20)
	if now == 0 || max(now, highest) > maxMemory {
		t.Errorf("flowd took %d MiB, more than %d", max(now, highest)>>20, int64(maxMemory)>>20)
	}
}

// sampleMemory looks at the memory of the node until it is gone; the result
// is the most that was seen, and the most that the system has noted.
func (r *rig) sampleMemory() func() (most, highest int64) {
	var seen, noted int64
	done := make(chan struct{})
	node := r.node
	go func() {
		defer close(done)
		tick := time.NewTicker(50 * time.Millisecond)
		defer tick.Stop()
		for {
			if now, h, err := node.memory(); err == nil {
				seen, noted = max(seen, now), max(noted, h)
			}
			select {
			case <-tick.C:
			case <-node.exited:
				return
			}
		}
	}()
	return func() (int64, int64) { <-done; return seen, noted }
}

// produceEvents writes records of about size bytes and returns where each one
// lies.
func (r *rig) produceEvents(topic string, records, size int) []sent {
	r.t.Helper()
	events := make([]sent, records)
	filler := strings.Repeat("x", size)
	for n := range records {
		r.source.client.Produce(r.t.Context(), &kgo.Record{Topic: topic, Key: []byte(strconv.Itoa(n % 500)), Value: []byte(filler),
			Headers: []kgo.RecordHeader{{Key: numberHeader, Value: []byte(strconv.Itoa(n))}}}, func(rec *kgo.Record, err error) {
			if err != nil {
				r.t.Errorf("produce: %v", err)
				return
			}
			events[n].acked, events[n].partition, events[n].offset = true, rec.Partition, rec.Offset
		})
	}
	ctx, cancel := context.WithTimeout(r.t.Context(), 20*time.Second)
	defer cancel()
	if err := r.source.client.Flush(ctx); err != nil {
		r.t.Fatal(err)
	}
	return events
}

// check looks at all attempts of a flow.
func (g *target) check(path string, events []sent, inOrder bool) {
	g.t.Helper()
	g.mu.Lock()
	defer g.mu.Unlock()
	keys := map[int]string{}
	owner := map[string]int{}
	taken := make([]int, len(events)) // when the record was taken first
	again, several := 0, map[int]bool{}
	for _, a := range g.attempts[path] {
		if before, ok := keys[a.number]; ok {
			several[a.number] = true
			if before != a.key {
				g.t.Errorf("%s: record %d came with Idempotency-Key %q, before with %q", path, a.number, a.key, before)
			}
		}
		if n, ok := owner[a.key]; a.key == "" || ok && n != a.number {
			g.t.Errorf("%s: record %d has Idempotency-Key %q, as record %d", path, a.number, a.key, n)
		}
		keys[a.number], owner[a.key] = a.key, a.number
		if a.answered > 0 {
			if taken[a.number] > 0 {
				again++
			} else {
				taken[a.number] = a.answered
			}
		}
	}
	for n, at := range taken {
		if at == 0 {
			g.t.Errorf("%s: record %d was never delivered", path, n)
		}
		if refuses(n) && !several[n] {
			g.t.Errorf("%s: record %d was refused and came once", path, n)
		}
	}
	g.t.Logf("%s: %d attempts, %d records with several, %d delivered again", path, len(g.attempts[path]), len(several), again)
	if !inOrder {
		return
	}
	// A record begins only once all before it in its partition were taken.
	type place struct {
		partition int32
		offset    int64
	}
	at := map[place]int{}
	for n, e := range events {
		at[place{e.partition, e.offset}] = n
	}
	for _, a := range g.attempts[path] {
		e := events[a.number]
		if n, ok := at[place{e.partition, e.offset - 1}]; ok && (taken[n] == 0 || taken[n] > a.begun) {
			g.t.Errorf("%s: record %d/%d began before the one before it was taken", path, e.partition, e.offset)
		}
	}
}
