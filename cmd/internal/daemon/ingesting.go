package daemon

import (
	"cmp"
	"context"
	"fmt"
	"net/http"

	"github.com/millrace-io/millrace/cluster/state"
	"github.com/millrace-io/millrace/cmd/internal/api"
	"github.com/millrace-io/millrace/runtime/connector/ingest"
	"github.com/millrace-io/millrace/runtime/delivery/sign"
	"github.com/millrace-io/millrace/runtime/flow"
)

// ingest makes the source of a flow that takes requests in. A flow that was
// stored when larger bodies were allowed takes those that are now.
func (r *runner) ingest(f *flow.Flow) (source, error) {
	in := f.Source.Ingest
	cfg := ingest.Config{
		Body: min(in.Body, ingest.MaxBody), Wait: in.Wait, Key: in.Idempotency, InFlight: f.InFlight, Durable: true, Logger: r.log,
		Held: func() string { now, _ := r.hold.current(); return now.reason },
	}
	if in.Body > ingest.MaxBody {
		r.log.Warn("bodies above the bound are refused, although the flow's document says otherwise", "body_bytes", in.Body, "bound_bytes", int64(ingest.MaxBody))
	}
	if in.Sender != nil {
		signature, err := secrets(r.d.cfg.Secrets).signature(in.Sender)
		if err != nil {
			return nil, err
		}
		verifier, err := sign.NewVerifier(sign.Config{Signature: signature, Vars: f.Vars, Env: f.Env})
		if err != nil {
			return nil, err
		}
		cfg.Check = func(req *http.Request, body []byte) error { return verifier.Verify(req.Context(), req, body) }
		cfg.Hide = []string{verifier.Header()}
	}
	return ingest.New(cfg)
}

// ingestHandler finds the source of a flow for a request.
func (d *Daemon) ingestHandler(_ context.Context, project, name string) (http.Handler, error) {
	f, err := d.findFlow(project, name)
	if err != nil {
		return nil, err
	}
	r := d.runner(f.ID)
	if r != nil && r.pipe.Load() != nil && !r.ended() {
		if r.requests == nil {
			return nil, &api.Error{Code: api.CodeConflict, Detail: fmt.Sprintf("flow %s takes no requests in: its source is of kind %s", f.FullName(), r.doc.Load().Source.Kind())}
		}
		return r.requests, nil
	}
	if f.State != state.Running {
		return nil, &api.Error{Code: api.CodeUnavailable, Detail: fmt.Sprintf("flow %s is %s: %s", f.FullName(), f.State, cmp.Or(f.Reason, "no reason is known")), Next: "`flowctl flow resume " + f.Name + "`"}
	}
	return nil, &api.Error{Code: api.CodeUnavailable, Detail: fmt.Sprintf("flow %s is not open yet", f.FullName()), Next: "try again in a moment"}
}
