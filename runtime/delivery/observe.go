package delivery

import (
	"context"
	"net/url"
	"time"

	"github.com/millrace-io/millrace/runtime/delivery/sign"
	"github.com/millrace-io/millrace/runtime/delivery/verdict"
	"github.com/millrace-io/millrace/runtime/record"
)

// Observer looks at what goes over a connection. Requests wait for its methods,
// which must not block. Many goroutines call it at once.
type Observer interface {
	// Wants reports whether Observe is to be called.
	Wants() bool
	// Observe gets each request with what came of it. The Observed is the
	// Observer's; what it refers to is read-only.
	Observe(*Observed)
}

// What an answer meant, as Observed says it.
const (
	VerdictOK     = "ok"
	VerdictRetry  = "retry"
	VerdictReject = "reject"
	// VerdictItems: some items one thing, others another.
	VerdictItems = "items"
)

// Observed is a request and its answer.
type Observed struct {
	// Time is when it began, Took how long the answer took.
	Time time.Time
	Took time.Duration
	// Verdict is one of the above, "" if there was no answer.
	Verdict string
	// Err is why there was none, nil if there was.
	Err error

	request, sent *sign.Request // before and after it was signed
	response      *verdict.Response
	cfg           *RedactConfig
}

// Size is about what it refers to, in bytes.
func (o *Observed) Size() int {
	n := len(o.request.Body) + 1024
	if o.response != nil {
		n += len(o.response.Body)
	}
	return n
}

// Exchange is the request as it was before it was signed, and the answer,
// without what a signature or an access token adds and without credentials; of
// each body at most so many bytes. It takes its time: an Observer asks for it
// later.
func (o *Observed) Exchange(most int) *record.Exchange {
	red := o.cfg.of(o.sent)
	known := map[string]bool{}
	for _, h := range o.request.Header {
		known[h.Key+"\x00"+string(h.Value)] = true
	}
	for _, h := range o.sent.Header { // an answer may repeat a signature
		if !known[h.Key+"\x00"+string(h.Value)] {
			red.hideHeader(string(h.Value))
		}
	}
	own := map[string]bool{}
	for name, v := range params(o.request.URL.RawQuery) {
		own[name+"\x00"+v] = true
	}
	for name, v := range params(o.sent.URL.RawQuery) {
		if plain, err := url.QueryUnescape(v); !own[name+"\x00"+v] && err == nil {
			red.values = append(red.values, v, plain)
		}
	}
	return red.shown(o.request, o.response, most)
}

// observe shows a request to who looks.
func (e *Engine) observe(ctx context.Context, pa *pass, req, sent *sign.Request, resp *verdict.Response, v verdict.Verdicts, err error) {
	o := e.cfg.Conn.cfg.Observer
	if o == nil || ctx.Err() != nil || !o.Wants() {
		return
	}
	x := &Observed{Time: pa.began, Took: pa.took, Err: err, request: req, sent: sent, cfg: &e.cfg.Redact}
	if err == nil {
		x.response, x.Verdict = resp, verdictOf(v)
	}
	o.Observe(x)
}

func verdictOf(v verdict.Verdicts) string {
	all := v.Items
	if all == nil {
		all = []*record.Error{v.All}
	}
	said := ""
	for _, e := range all {
		one := VerdictOK
		switch {
		case e == nil:
		case e.Class.Transient():
			one = VerdictRetry
		default:
			one = VerdictReject
		}
		if said != "" && said != one {
			return VerdictItems
		}
		said = one
	}
	return said
}
