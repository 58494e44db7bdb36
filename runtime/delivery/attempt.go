package delivery

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/millrace-io/millrace/runtime/delivery/sign"
	"github.com/millrace-io/millrace/runtime/delivery/verdict"
	"github.com/millrace-io/millrace/runtime/expr"
	"github.com/millrace-io/millrace/runtime/record"
)

// result is what became of an attempt.
type result struct {
	// all is the error of all items, each those of single ones; both nil: the
	// partner has taken them.
	all  *record.Error
	each []*record.Error
	// exchange is what was sent and answered, if something failed.
	exchange *record.Exchange
	canceled bool
}

// of is the error of an item. The first one of all has the call that they
// failed in; its input is as large as the batch, so the others only name it.
func (r *result) of(i int) *record.Error {
	if r.each != nil {
		return r.each[i]
	}
	if i == 0 || r.all == nil || r.all.Call == nil {
		return r.all
	}
	e := *r.all
	e.Call = named(e.Call)
	return &e
}

// attempt shapes, signs and sends the request of a unit and judges the answer.
// It holds no lock.
func (e *Engine) attempt(u *unit, pa *pass) result {
	var req *sign.Request
	var err error
	if u.batch != nil {
		req, err = e.cfg.Build.batch(u.batch, e.identity(u))
	} else {
		req, err = e.cfg.Build.request(u.items[0].rec, e.identity(u).Key(u.items[0].rec), nil, nil)
	}
	if err != nil {
		return result{all: e.cfg.Redact.of(nil).error(record.AsError(err))}
	}
	var (
		sent *sign.Request // the last one
		resp *verdict.Response
		each []*record.Error
	)
	send := func(ctx context.Context, signed *sign.Request) (int, error) {
		sent, each = signed, nil
		var err error
		var v verdict.Verdicts
		works := func(resp *verdict.Response) bool { // a rule has decided on it
			v = e.judge(u, signed, resp)
			return final(v)
		}
		resp, err = e.cfg.Conn.send(ctx, pa, signed, e.cfg.Build.Timeout(), works)
		e.observe(ctx, pa, req, signed, resp, v, err)
		if err != nil {
			return 0, err
		}
		if each = v.Items; each != nil || v.All == nil {
			return resp.Status, nil
		}
		return resp.Status, v.All
	}
	if e.cfg.Signer != nil {
		err = e.cfg.Signer.Do(e.hard, req, send)
		if err != nil && sent == nil && e.hard.Err() == nil && record.AsError(err).Class.Transient() {
			e.cfg.Conn.failed(pa, err.Error(), false) // an access token cannot be had
		}
	} else {
		_, err = send(e.hard, req)
	}
	switch {
	case err == nil && each == nil:
		return result{}
	case err != nil && e.hard.Err() != nil:
		return result{canceled: true}
	case err != nil && errors.Is(err, context.Canceled):
		err = record.Errorf(record.Retryable, "the request was cut off: %w", err)
	}
	shown := sent
	if shown == nil {
		shown = req // what was to be signed
	}
	red := e.cfg.Redact.of(shown)
	r := result{exchange: red.exchange(sent, resp)}
	if err != nil {
		r.all = red.error(record.AsError(err))
		return r
	}
	r.each = make([]*record.Error, len(each))
	for i := range each {
		r.each[i] = red.error(each[i])
	}
	return r
}

// identity is that of the generation in which the records of a unit were read,
// the last one: an attempt before an offset reset that did not name their
// partition may have got through.
func (e *Engine) identity(u *unit) Identity {
	id := e.cfg.Build.id
	if u.kept {
		id.Generation = 0
		for _, it := range u.items {
			id.Generation = max(id.Generation, it.retry.Generation)
		}
	}
	return id
}

// itemID is what answers call the records of a unit by; "" where that cannot be
// computed.
func (e *Engine) itemID(u *unit) func(i int) string {
	if e.cfg.ItemID == nil {
		return func(i int) string { return u.items[i].rec.ID() }
	}
	env := expr.NewEnv()
	return func(i int) string {
		env.Reset(u.items[i].rec)
		id, err := e.cfg.ItemID.Key(env)
		if err != nil {
			return ""
		}
		return string(id)
	}
}

// final reports whether nothing is to be tried again.
func final(v verdict.Verdicts) bool {
	again := func(e *record.Error) bool { return e != nil && e.Class.Transient() }
	return !again(v.All) && !slices.ContainsFunc(v.Items, again)
}

// judge asks what an answer means.
func (e *Engine) judge(u *unit, sent *sign.Request, resp *verdict.Response) verdict.Verdicts {
	if e.cfg.Judge == nil && resp.Status >= 200 && resp.Status <= 299 {
		return verdict.Verdicts{} // as verdict.Default has it
	}
	x := &verdict.Exchange{
		What:     sent.Method + " " + target(sent.URL),
		Request:  verdict.Request{Method: sent.Method, URL: sent.URL.String(), Header: sent.Header, Body: sent.Body},
		Response: *resp, Items: len(u.items), Now: time.Now(),
		Redact: e.cfg.Redact.Redactor(sent),
	}
	if e.cfg.Judge == nil {
		return verdict.Default(x)
	}
	x.ID = e.itemID(u)
	v := e.cfg.Judge.Judge(x)
	if v.Items != nil && len(v.Items) != len(u.items) {
		return verdict.Verdicts{All: record.Errorf(record.Internal, "%s: %d verdicts on %d items", x.What, len(v.Items), len(u.items))}
	}
	return v
}
