//go:build linux

package faulttest

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace-io/millrace/cmd/internal/api"
)

// maxDeliveryMemory is the most that flowd may take while it delivers.
const maxDeliveryMemory = 300 << 20

// troubled is a partner with every trouble that a twin knows.
const troubled = `twin: v1
name: regulator
seed: %d
keep: 1
latency: { median: 4ms, p99: 60ms, max: 300ms }
outages:
  - { every: 45s, for: 3s }
routes:
  - id: orders
    match: POST /v2/orders
    rate: { requests: 400/s, retry_after: seconds }
    signature: { hmac: sha256, key: { text: made-up }, over: 'request.headers["x-time"] + "." + request.body', header: X-Sign, time: 'request.headers["x-time"]', within: 30s }
    idempotency: { header: Idempotency-Key, mismatch: 422 }
    items:
      in: json_array
      id: value.id
      key: value.shop
      verdicts:
        - { verdict: reject, when: value.amount <= 0 }
        - { verdict: retry, when: attempt < 3, chance: 0.05 }
    bursts:
      - { every: 400, for: 20, status: 500 }
    answers:
      - { weight: 90, body: { code: 0, results: "${response.items}" } }
      - { weight: 2, status: 503, body: busy }
      - { weight: 2, body: { code: 5001, message: try again }, applied: false }
      - { weight: 1, broken: html }
      - { weight: 1, broken: truncated }
      - { weight: 1, reset: before }
      - { weight: 1, reset: body }
      - { weight: 1, slow: 3s }
      - { weight: 1, hang: 10s }
`

const troubledFlow = `flow: v1
name: partner
source: kafka://main/orders
order: key
stages:
  - id: paid
    filter: value.status == "PAID"
  - id: deliver
    batch: { records: 100, wait: 50ms, as: json_array }
    sign: { hmac: sha256, key: { secret: partner/hmac }, headers: { X-Time: "${time.Unix()}" }, over: "${request.headers['x-time']}.${request.body}", header: X-Sign }
    push: { http: { connection: partner, post: /v2/orders, timeout: 2s } }
    validate:
      ok: response.status == 200 && response.body.code == 0
      each: response.body.results
    retry: { first: 50ms, max: 2s, spill: 1s }
`

// produceOrders writes orders of some shops; the number is header and id.
func (r *rig) produceOrders(topic string, from, to, shops int) {
	r.t.Helper()
	var mu sync.Mutex
	var failed error
	for n := from; n < to; n++ {
		status, amount, shop := "PAID", 100+n%900, fmt.Sprint("shop-", n%shops)
		switch kindOf(n) {
		case toDrop:
			status = "OPEN"
		case toReject:
			amount = 0
		}
		value := fmt.Appendf(nil, `{"id":"%d","shop":%q,"status":%q,"amount":%d,"note":"as agreed on the telephone"}`, n, shop, status, amount)
		r.source.client.Produce(r.t.Context(), &kgo.Record{Topic: topic, Key: []byte(shop), Value: value,
			Headers: []kgo.RecordHeader{{Key: numberHeader, Value: strconv.AppendInt(nil, int64(n), 10)}}}, func(_ *kgo.Record, err error) {
			if err != nil {
				mu.Lock()
				failed = err
				mu.Unlock()
			}
		})
	}
	ctx, cancel := context.WithTimeout(r.t.Context(), time.Minute)
	defer cancel()
	if err := r.source.client.Flush(ctx); err != nil {
		r.t.Fatal(err)
	}
	mu.Lock()
	defer mu.Unlock()
	if failed != nil {
		r.t.Fatal(failed)
	}
}

// secret gives the node a secret.
func (r *rig) secret(name, value string) {
	r.t.Helper()
	path := filepath.Join(r.data(), "secrets", name)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		r.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(value), 0o600); err != nil {
		r.t.Fatal(err)
	}
}

// A partner with all troubles at once, and a node that is killed again and
// again: every record is delivered, in the failure queue or dropped by rule;
// in order, signed rightly, and the receipt adds up all the while.
func TestPartnerInTrouble(t *testing.T) {
	records, kills, limit := 20_000, 3, 3*time.Minute
	if s := os.Getenv("MILLRACE_CHAOS_RECORDS"); s != "" {
		n, err := strconv.Atoi(s)
		if err != nil {
			t.Fatalf("MILLRACE_CHAOS_RECORDS: %v", err)
		}
		records, kills, limit = n, 20, time.Hour
	}
	rng := seeded(t)
	r := newRig(t, true) // the race detector takes memory of its own
	r.makeTopics(r.source, "orders")
	p := newPartner(t, fmt.Sprintf(troubled, rng.Uint64()%1000+1), records)
	r.secret("partner/hmac", "made-up")
	r.run()
	r.connectKafka()
	r.connect("connection: v1\nname: partner\nhttp: { base: \"http://" + p.addr + "\", concurrent: 32, breaker: { probe: 500ms } }\n")
	r.apply(troubledFlow, nil)
	r.watch("partner")
	receipts := r.watchReceipts("partner")

	began := time.Now()
	produced := make(chan struct{})
	go func() {
		defer close(produced)
		for from := 0; from < records; from += 10_000 {
			r.produceOrders("orders", from, min(records, from+10_000), 3000)
		}
	}()
	var at []death
	var most int64
	for range kills {
		memory := r.sampleMemory()
		pass(t.Context(), between(rng, 800*time.Millisecond, 5*time.Second))
		d := r.die()
		now, highest := memory()
		most = max(most, now, highest)
		r.rise(&d)
		at = append(at, d)
	}
	<-produced
	memory := r.sampleMemory()
	r.settled("partner", "orders", limit)
	await(t, limit, "what is kept to be delivered", func() (bool, string) {
		f := r.flow("partner")
		return keptOf(f) == 0, fmt.Sprintf("%d are kept, %s", keptOf(f), f.Problem)
	})
	took := time.Since(began)
	final := r.flow("partner")
	filed := r.failures("partner")
	r.stopNode()
	now, highest := memory()
	most = max(most, now, highest)

	if err := p.Wait(t.Context()); err != nil { // what it answers slowly is seen at its end
		t.Fatal(err)
	}
	p.judge(filed, at).check(t)
	r.watched.check(t)
	receipts.check(t)
	if final.Receipt == nil || final.Receipt.Unaccounted != 0 || final.Receipt.Flying != 0 {
		t.Errorf("the receipt at the end: %+v", final.Receipt)
	}
	state := p.State()
	t.Logf("%d records in %s with %d kills; %d requests (%v, troubles %v), %d of them known by their key; at most %d MiB; %d receipts",
		records, took.Round(time.Second), kills, state.Requests, state.Outcomes, state.Troubles, state.Duplicates, most>>20, receipts.seen)
	if most > maxDeliveryMemory {
		t.Errorf("flowd took %d MiB, more than %d", most>>20, int64(maxDeliveryMemory)>>20)
	}
}

// receipts are those of a flow as they were seen.
type receipts struct {
	mu   sync.Mutex
	seen int      // guarded by mu
	off  []string // guarded by mu; receipts that do not add up
}

// watchReceipts asks for the receipt again and again, over all lives of the
// node, until the test ends.
func (r *rig) watchReceipts(name string) *receipts {
	r.t.Helper()
	w := &receipts{}
	r.poll(name, 30*time.Millisecond, w.add)
	return w
}

func (w *receipts) add(f *api.Flow) {
	if f.Receipt == nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.seen++
	if f.Receipt.Unaccounted != 0 {
		w.off = append(w.off, fmt.Sprintf("%+v", f.Receipt))
	}
}

func (w *receipts) check(t *testing.T) {
	t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.seen == 0 {
		t.Error("no receipt was ever seen")
	}
	for _, o := range w.off[:min(len(w.off), 5)] {
		t.Errorf("a receipt does not add up: %s", o)
	}
}
