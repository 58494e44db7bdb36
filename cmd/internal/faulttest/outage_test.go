//go:build linux

package faulttest

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace-io/millrace/cmd/internal/api"
)

const plainPartner = `twin: v1
name: plain
latency: %s
routes:
  - id: orders
    match: POST /v2/orders
    idempotency: { header: Idempotency-Key, mismatch: 422 }
    items: { id: value.id, key: value.shop }
    answers: [%s{ body: { ok: true } }]
`

func plainFlow(retry string) string {
	return `flow: v1
name: partner
source: kafka://main/orders
order: key
stages:
  - id: paid
    filter: value.status == "PAID"
  - id: deliver
    push: { http: { connection: partner, post: /v2/orders, timeout: 2s } }
    validate: { ok: response.status == 200, reject: response.status == 422 }
    retry: ` + retry + "\n"
}

func partnerConnection(addr, more string) string {
	return "connection: v1\nname: partner\nhttp: { base: \"http://" + addr + "\"" + more + " }\n"
}

func (r *rig) quiet(name string, limit time.Duration) {
	r.t.Helper()
	r.settled(name, "orders", limit)
	await(r.t, limit, "what is kept to be delivered", func() (bool, string) {
		f := r.flow(name)
		return keptOf(f) == 0, fmt.Sprintf("%d are kept, %s", keptOf(f), f.Problem)
	})
}

// A partner that is down: the flow pauses itself and says why, keeps nothing in
// the state, and resumes by itself within a probe's interval; the backlog
// goes at the configured rate.
func TestPartnerDown(t *testing.T) {
	down := 6 * time.Second
	if os.Getenv("MILLRACE_FAULT_LONG") != "" {
		down = time.Minute
	}
	const rate, probe = 60, 2 * time.Second
	records := 3000
	r := newRig(t, true)
	r.makeTopics(r.source, "orders")
	p := newPartner(t, fmt.Sprintf(plainPartner, "2ms", ""), records)
	r.run()
	r.connectKafka()
	r.connect(partnerConnection(p.addr, fmt.Sprintf(", concurrent: 32, requests: %d/s, breaker: { failures: 5, probe: %s }", rate, probe)))
	r.apply(strings.ReplaceAll(plainFlow("{ first: 50ms, max: 1s, spill: 1s }"), "PAID\"", "PAID\" && value.amount > 0"), nil)
	p.SetOutage(true, 0)
	r.produceOrders("orders", 0, records, 500)
	began := time.Now()
	await(t, 20*time.Second, "the flow to pause itself", func() (bool, string) {
		f := r.flow("partner")
		return f.State == api.StateAutoPaused && f.Reason != "", fmt.Sprintf("%s %q, problem %q", f.State, f.Reason, f.Problem)
	})
	for time.Since(began) < down {
		if f := r.flow("partner"); keptOf(f) != 0 || f.Queue.Entries != 0 {
			t.Fatalf("%d kept and %d filed while the partner is down", keptOf(f), f.Queue.Entries)
		}
		pass(t.Context(), 200*time.Millisecond)
	}
	f := r.flow("partner")
	t.Logf("down: %s, %s", f.State, f.Reason)
	if f.State != api.StateAutoPaused {
		t.Errorf("the flow is %s while its partner is down", f.State)
	}

	p.SetOutage(false, 0)
	up := time.Now()
	await(t, probe+4*time.Second, "the flow to resume", func() (bool, string) {
		f := r.flow("partner")
		return f.State == api.StateRunning, fmt.Sprintf("%s %s", f.State, f.Reason)
	})
	resumed := time.Since(up)
	if resumed > probe+time.Second {
		t.Errorf("the flow resumed %s after its partner was back; a probe is made every %s", resumed, probe)
	}
	// Ten seconds in the middle of the backlog.
	pass(t.Context(), 2*time.Second)
	from, before := time.Now(), p.count()
	pass(t.Context(), 10*time.Second)
	perSecond := float64(p.count()-before) / time.Since(from).Seconds()
	t.Logf("resumed after %s; %.1f requests a second of %d allowed", resumed.Round(time.Millisecond), perSecond, rate)
	if perSecond < 0.9*rate || perSecond > 1.1*rate {
		t.Errorf("%.1f requests a second; %d are configured", perSecond, rate)
	}
	r.connect(partnerConnection(p.addr, ", concurrent: 32"))
	r.quiet("partner", time.Minute)
	p.judgePlain(t, records, nil)
}

// count is how many requests came so far.
func (p *partner) count() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.requests)
}

// judgePlain judges where those that would be rejected are dropped too.
func (p *partner) judgePlain(t *testing.T, records int, kills []death) {
	t.Helper()
	var filed []failure
	p.mu.Lock()
	for n := range records {
		if kindOf(n) == toReject && p.orders[n].times == 0 {
			filed = append(filed, failure{number: n})
		}
	}
	p.mu.Unlock()
	p.judge(filed, kills).check(t)
}

// One key whose records the partner does not take: the others are not held up,
// and its own arrive in order once it heals, over a restart.
func TestOneBadKey(t *testing.T) {
	const records, shops, bad = 12_000, 1000, "shop-7"
	r := newRig(t, true)
	r.makeTopics(r.source, "orders")
	p := newPartner(t, fmt.Sprintf(plainPartner, "1ms", `{ when: 'value.shop == "`+bad+`"', status: 503 }, `), records)
	r.run()
	r.connectKafka()
	r.connect(partnerConnection(p.addr, ", concurrent: 32"))
	r.apply(strings.ReplaceAll(plainFlow("{ first: 50ms, max: 1s, spill: 500ms }"), "PAID\"", "PAID\" && value.amount > 0"), nil)
	r.produceOrders("orders", 0, records, shops)
	await(t, 2*time.Minute, "all others to be delivered", func() (bool, string) {
		arrived := p.arrived(func(a *arrival) bool { return a.times > 0 })
		return arrived >= p.toArrive(records, shops, bad), fmt.Sprintf("%d arrived", arrived)
	})
	f := r.flow("partner")
	if keptOf(f) == 0 || f.State != api.StateRunning {
		t.Errorf("%d are kept, and the flow is %s %s", keptOf(f), f.State, f.Reason)
	}
	r.settled("partner", "orders", 30*time.Second)
	killed := r.die()
	p.SetCalm(true) // every item is accepted from now on
	r.rise(&killed)
	r.quiet("partner", time.Minute)
	p.judgePlain(t, records, []death{killed})
}

// arrived counts orders.
func (p *partner) arrived(is func(*arrival) bool) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := 0
	for i := range p.orders {
		if is(&p.orders[i]) {
			n++
		}
	}
	return n
}

// toArrive is how many orders of other shops are to arrive.
func (p *partner) toArrive(records, shops int, but string) int {
	n := 0
	for i := range records {
		if kindOf(i) == toArrive && fmt.Sprint("shop-", i%shops) != but {
			n++
		}
	}
	return n
}

// One record of which a stage makes three. The partner refuses two of them at
// first and knows what it has applied; the node is killed in between: each
// arrives once.
func TestThreeOfOneRecord(t *testing.T) {
	r := newRig(t, true)
	r.makeTopics(r.source, "orders")
	p := newPartner(t, `twin: v1
routes:
  - match: POST /v2/orders
    idempotency: { header: Idempotency-Key, mismatch: 422 }
    items: { id: raw }
    answers: [{ when: 'raw != "0" && attempt < 4', status: 503 }, { body: { ok: true } }]
`, 3)
	r.run()
	r.connectKafka()
	r.connect(partnerConnection(p.addr, ""))
	wasm, err := os.ReadFile("../../../plugins/plugintest/guests/conformance/conformance.wasm")
	if err != nil {
		t.Fatal(err)
	}
	split := r.upload("conformance.wasm", wasm)
	r.apply(`flow: v1
name: partner
source: kafka://main/orders
order: none
stages:
  - id: split
    map: ./conformance.wasm
    with: { do: emit 3 }
  - id: deliver
    push: { http: { connection: partner, post: /v2/orders, timeout: 2s } }
    retry: { first: 300ms, max: 600ms, spill: 100ms }
`, map[string]string{"./conformance.wasm": split.Digest})
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := r.source.client.ProduceSync(ctx, &kgo.Record{Topic: "orders", Value: []byte("one")}).FirstErr(); err != nil {
		t.Fatal(err)
	}
	await(t, 20*time.Second, "the first and refusals of the others", func() (bool, string) {
		n := p.count()
		return n >= 3 && p.arrived(func(a *arrival) bool { return a.times > 0 }) == 1, fmt.Sprintf("%d requests", n)
	})
	r.node.kill()
	r.run()
	r.quiet("partner", time.Minute)
	if f := r.flow("partner"); f.Receipt == nil || f.Receipt.Unaccounted != 0 {
		t.Errorf("the receipt: %+v", f.Receipt)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if i := slices.IndexFunc(p.orders, func(a arrival) bool { return a.times != 1 }); i >= 0 {
		t.Errorf("emission %d was applied %d times", i, p.orders[i].times)
	}
	if len(p.strange) > 0 {
		t.Errorf("strange requests: %q", p.strange)
	}
}

// keptOf is how many records of a flow wait in the state.
func keptOf(f *api.Flow) int {
	if f.Retries == nil {
		return 0
	}
	return int(f.Retries.Entries)
}
