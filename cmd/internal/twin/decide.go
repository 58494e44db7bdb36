package twin

import (
	"net/http"
	"time"

	"github.com/millrace-io/millrace/runtime/expr"
	"github.com/millrace-io/millrace/runtime/record"
)

func (r *rate) client(x *exchange, e *expr.Env) string {
	if r.by == nil {
		return ""
	}
	return x.text(r.by, e)
}

// gates lets a request through or gives its answer. Called with Twin.mu held.
func (x *exchange) gates(since time.Duration) (plan, bool) {
	t, r, c := x.t, x.route, x.route.config
	refuse := func(outcome string, p plan) (plan, bool) {
		x.obs.Outcome = outcome
		return p, false
	}
	if t.outage != nil {
		return refuse(OutcomeOutage, x.render(t.outage, nil))
	}
	for i := range t.file.outages {
		if s := &t.file.outages[i]; !t.calm && s.on(since, 1) {
			return refuse(OutcomeOutage, x.render(&s.answer, nil))
		}
	}
	now := time.Now()
	e := x.show(&record.Record{Value: x.body, Attempt: 1})
	if c.rate != nil {
		x.obs.Client = c.rate.client(x, e)
		w, ok := r.windows.get(x.obs.Client)
		if !ok {
			w = new(window)
			r.windows.set(x.obs.Client, w)
		}
		if wait, ok := w.admit(c.rate, since); !ok {
			p := plain(c.rate.status)
			if v := c.rate.retryAfter(now, wait); v != "" {
				p.header.Set("Retry-After", v)
			}
			return refuse(OutcomeLimited, p)
		}
	}
	if c.concurrent > 0 && r.inFlight > c.concurrent {
		return refuse(OutcomeBusy, plain(c.tooMany))
	}
	if !t.authorized(r, x.req, now) {
		p := plain(http.StatusUnauthorized)
		scheme := `Bearer error="invalid_token"`
		if c.auth.kind == "basic" {
			scheme = `Basic realm="twin"`
		}
		if c.auth.kind != "header" {
			p.header.Set("Www-Authenticate", scheme)
		}
		return refuse(OutcomeUnauthorized, p)
	}
	if s := c.signature; s != nil {
		result, nonce, err := s.verify(r.key, x.req, e, now)
		x.trouble(err)
		if result == signatureOK && nonce != "" {
			if _, seen := r.nonces.get(idOf(nonce)); seen {
				result = signatureNonce
			}
			r.nonces.set(idOf(nonce), struct{}{})
		}
		if x.obs.Signature = result; result != signatureOK {
			p := plain(http.StatusUnauthorized)
			p.body, _ = simple(map[string]any{"error": "signature " + result})
			return refuse(OutcomeSignature, p)
		}
	}
	r.passed++
	for i := range c.bursts {
		if s := &c.bursts[i]; !t.calm && s.on(since, r.passed) {
			return refuse(OutcomeBurst, x.render(&s.answer, nil))
		}
	}
	return plan{}, true
}

// badRequest is the answer to a request that says too little or too much.
func (x *exchange) badRequest(cause string) plan {
	x.obs.Outcome = OutcomeBadRequest
	p := plain(http.StatusBadRequest)
	p.body, _ = simple(map[string]any{"error": cause})
	return p
}

// decide is the whole of what the partner does: it changes what the twin
// knows, and says what is answered. Called with Twin.mu held.
func (x *exchange) decide() plan {
	t, r, c := x.t, x.route, x.route.config
	idem := c.idempotency
	if idem != nil {
		x.obs.IdempotencyKey = x.req.Header.Get(idem.header)
	}
	p, ok := x.gates(time.Since(t.started))
	if !ok {
		return p
	}
	if err := x.split(); err != nil {
		return x.badRequest(err.Error())
	}
	key := x.obs.IdempotencyKey
	if idem != nil && idem.required && key == "" {
		return x.badRequest("missing header " + idem.header)
	}
	whole := record.Record{Value: x.body, Attempt: 1}
	switch {
	case c.items != nil && c.items.in == "body":
		whole.Attempt = x.items[0].rec.Attempt
	case key != "":
		n, _ := r.attempts.get(idOf("key " + key))
		whole.Attempt = n + 1
		r.attempts.set(idOf("key "+key), n+1)
	}
	a := x.pick(&whole)
	if a.trouble() != "" {
		x.obs.Trouble = a.trouble()
	}
	if key != "" {
		first, known := r.keys.get(idOf(key))
		if known && (idem.forget == 0 || time.Since(t.started)-first.at <= idem.forget) {
			return x.again(first, a)
		}
	}
	x.obs.Outcome = OutcomeAnswered
	x.obs.Applied = a.applies()
	var done []judged
	if x.obs.Applied {
		done = x.judge(nil)
	}
	p = x.renderFor(a, done, &whole)
	if x.obs.Applied && key != "" {
		first := &stored{seq: x.obs.Seq, at: time.Since(t.started), sum: idOf(x.obs.BodySHA256), answer: a}
		first.keep(p, done)
		r.keys.set(idOf(key), first)
	}
	return x.spoil(p, a)
}

// again answers a key that is known. Items that were to come again are judged
// anew; all else is as it was. What happens to the answer on its way is not
// remembered: that is a's.
func (x *exchange) again(first *stored, a *answer) plan {
	idem := x.route.config.idempotency
	x.obs.Outcome, x.obs.Duplicate, x.obs.First = OutcomeDuplicate, true, first.seq
	x.obs.Mismatch = first.sum != idOf(x.obs.BodySHA256)
	if x.obs.Mismatch && idem.mismatch != 0 {
		x.obs.Outcome, x.obs.Trouble = OutcomeMismatch, ""
		return plain(idem.mismatch)
	}
	p := first.plan()
	if first.judged != nil && !x.obs.Mismatch && a.applies() {
		done := x.judge(first.judged)
		p = x.renderFor(first.answer, done, &record.Record{Value: x.body, Attempt: 1})
		first.keep(p, done)
	}
	p.latency = x.latency(a)
	return x.spoil(p, a)
}
