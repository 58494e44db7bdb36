package daemon

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/millrace-io/millrace/runtime/delivery"
	"github.com/millrace-io/millrace/runtime/delivery/sign"
	"github.com/millrace-io/millrace/runtime/delivery/verdict"
	"github.com/millrace-io/millrace/runtime/expr"
	"github.com/millrace-io/millrace/runtime/flow"
	"github.com/millrace-io/millrace/runtime/record"
)

// teller runs a flow's `exceptions`. It is safe for concurrent use; the
// pipeline bounds how many records it is told of at once, and for how long.
type teller struct {
	list []exception
	hard context.Context
	stop context.CancelFunc
	wg   sync.WaitGroup

	mu     sync.Mutex
	closed bool // guarded by mu
}

// exception is one of a flow's exceptions.
type exception struct {
	id   string
	when *expr.Program // nil: every record
	push func(ctx context.Context, e *record.Entry) error
}

func newTeller(list []exception) *teller {
	t := &teller{list: list}
	t.hard, t.stop = context.WithCancel(context.Background())
	return t
}

// tell is a pipeline's Tell: done gets what went wrong, "" if nothing did.
func (t *teller) tell(ctx context.Context, e *record.Entry, done func(told string)) {
	t.mu.Lock()
	if t.closed {
		t.mu.Unlock()
		done("skipped: the flow is closing")
		return
	}
	t.wg.Add(1)
	t.mu.Unlock()
	go func() {
		defer t.wg.Done()
		done(t.all(ctx, e))
	}()
}

// all runs the exceptions whose condition holds, one after the other.
func (t *teller) all(ctx context.Context, e *record.Entry) string {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(t.hard, cancel)()
	env := expr.NewEnv()
	var wrong []string
	for i := range t.list {
		x := &t.list[i]
		err := x.run(ctx, env, e)
		if err != nil {
			wrong = append(wrong, fmt.Sprintf("%s: %s", x.id, messageOf(record.AsError(err))))
		}
	}
	return strings.Join(wrong, "; ")
}

func (x *exception) run(ctx context.Context, env *expr.Env, e *record.Entry) error {
	if x.when != nil {
		env.Reset(&e.Input)
		bindFailure(e)(env)
		ok, err := x.when.Bool(env)
		env.Reset(nil)
		if err != nil || !ok {
			return err
		}
	}
	return x.push(ctx, e)
}

func bindFailure(e *record.Entry) func(*expr.Env) {
	return func(env *expr.Env) { env.Bind(expr.Failure, failureFields(e)) }
}

// close cuts off what is under way and waits for it.
func (t *teller) close() {
	t.mu.Lock()
	t.closed = true
	t.mu.Unlock()
	t.stop()
	t.wg.Wait()
}

var errCutOff = errors.New("cut off: it took too long, or the flow is closing")

// httpException is the push of an exception to HTTP: one attempt, within the
// connection's limits.
type httpException struct{ httpPush }

func (x *httpException) push(ctx context.Context, e *record.Entry) error {
	req, err := x.build.Request(&e.Input, bindFailure(e))
	if err != nil {
		return err
	}
	for i := range req.Header {
		if h := &req.Header[i]; h.Key == "Idempotency-Key" { // the record's own is its delivery's
			h.Value = []byte(string(h.Value) + "/failed/" + e.Stage)
		}
	}
	send := func(ctx context.Context, r *sign.Request) (int, error) {
		resp, err := x.partner.Do(ctx, r, x.build.Timeout())
		if err != nil {
			return 0, err
		}
		what := r.Method + " " + r.URL.Scheme + "://" + r.URL.Host + r.URL.EscapedPath()
		if v := verdict.Default(&verdict.Exchange{What: what, Response: *resp, Items: 1, Now: time.Now(), Redact: x.hidden.Redactor(r)}); v.All != nil {
			return resp.Status, v.All
		}
		return resp.Status, nil
	}
	if x.signer == nil {
		_, err = send(ctx, req)
	} else {
		err = x.signer.Do(ctx, req, send)
	}
	if err == nil {
		return nil
	}
	if errors.Is(err, context.Canceled) {
		return errCutOff
	}
	return errors.New(x.hidden.Text(messageOf(record.AsError(err))))
}

// exceptions makes the exceptions of a flow, whose connections o closes.
func (p *parts) exceptions(o *outlets, f *flow.Flow, id delivery.Identity) ([]exception, error) {
	var out []exception
	for i := range f.Exceptions {
		in := &f.Exceptions[i]
		x := exception{id: in.Push.ID}
		if in.When != "" {
			var err error
			if x.when, err = expr.CompileBool(in.When, f.ExceptionScope()); err != nil {
				return nil, fmt.Errorf("compile condition of %s: %w", x.id, err)
			}
		}
		switch push := &in.Push; {
		case push.HTTP != nil:
			h, err := p.httpPush(o, f, push, id, f.ExceptionScope(), nil)
			if err != nil {
				return nil, err
			}
			x.push = (&httpException{h}).push
		case push.Kafka != nil || push.RocketMQ != nil:
			t, err := p.topicException(o, f, push)
			if err != nil {
				return nil, err
			}
			x.push = t.push
		default:
			return nil, record.Errorf(record.Config, "%s: it pushes to neither HTTP nor a topic", x.id)
		}
		out = append(out, x)
	}
	return out, nil
}
