package daemon

import (
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/millrace-io/millrace/cmd/internal/api"
	"github.com/millrace-io/millrace/plugins/registry"
	"github.com/millrace-io/millrace/runtime/connector/file"
	"github.com/millrace-io/millrace/runtime/connector/stream"
	"github.com/millrace-io/millrace/runtime/delivery"
	"github.com/millrace-io/millrace/runtime/delivery/verdict"
	"github.com/millrace-io/millrace/runtime/expr"
	"github.com/millrace-io/millrace/runtime/flow"
	"github.com/millrace-io/millrace/runtime/pipeline"
	"github.com/millrace-io/millrace/runtime/record"
)

// outlets are the ends of a flow: its deliveries, the topics that its
// `otherwise` names, what its `exceptions` push to, and all that is to be
// closed with them.
type outlets struct {
	list []outlet
	tell *teller // nil: the flow has no exceptions
	// decode is the stage in front of the others, nil if there is none.
	decode pipeline.Stage

	id       delivery.Identity
	partners []*partner
	closers  []func() error // in the order in which they were opened

	mu     sync.Mutex
	asides map[flow.Topic]pipeline.Sink // guarded by mu

	closing sync.Once
	err     error
}

// outlet is a delivery of a flow.
type outlet struct {
	pipeline.Delivery
	id string
	// partner and engine are nil but for HTTP.
	partner *partner
	engine  *delivery.Engine
}

// place is where a delivery stands, -1 if there is none of that id.
func (o *outlets) place(id string) int {
	return slices.IndexFunc(o.list, func(l outlet) bool { return l.id == id })
}

func (o *outlets) deliveries() []pipeline.Delivery {
	out := make([]pipeline.Delivery, len(o.list))
	for i := range o.list {
		out[i] = o.list[i].Delivery
	}
	return out
}

// held is why the first delivery that lets nothing through does not, "" if all
// do. shut: a partner is believed to be down, be there something to try it with
// or not.
func (o *outlets) held() (reason string, shut bool) {
	for _, l := range o.list {
		if why := l.Held(); why != "" && reason == "" {
			reason = why
		}
		shut = shut || l.partner != nil && l.partner.Usage().Breaker != delivery.Closed
	}
	return reason, shut
}

// room is how many requests may be made of kept entries, by the id of each
// delivery whose partner is believed to be down: none while something waits to
// try it with, else one.
func (o *outlets) room() map[string]int {
	var out map[string]int
	for _, l := range o.list {
		if l.partner == nil || l.partner.Usage().Breaker == delivery.Closed {
			continue
		}
		if out == nil {
			out = map[string]int{}
		}
		out[l.id] = 0
		if l.Held() == "" {
			out[l.id] = 1
		}
	}
	return out
}

// usage is what the flow's connections do now, each once.
func (o *outlets) usage() []api.ConnectionUsage {
	var out []api.ConnectionUsage
	for _, p := range o.partners {
		if !slices.ContainsFunc(out, func(u api.ConnectionUsage) bool { return u.Name == p.name }) {
			out = append(out, p.usage())
		}
	}
	return out
}

// Close cuts off what is under way and lets go of everything. It is idempotent.
func (o *outlets) Close() error {
	o.closing.Do(func() {
		var errs []error
		for _, c := range slices.Backward(o.closers) {
			errs = append(errs, c())
		}
		o.err = errors.Join(errs...)
	})
	return o.err
}

// bindExchange binds a plugin that signs or validates: s is its place as
// flow.Flow.Plugins has it. The stage is closed by whoever binds it, after the
// outlets.
type bindExchange func(s *flow.Stage, sign func(handle, alg uint32, message []byte) ([]byte, error)) (registry.Stage, pluginInfo, error)

// outlets opens the ends of a flow. They connect to nothing yet.
func (p *parts) outlets(f *flow.Flow, id delivery.Identity) (_ *outlets, err error) {
	o := &outlets{id: id, asides: map[flow.Topic]pipeline.Sink{}}
	defer func() {
		if err != nil {
			err = errors.Join(err, o.Close())
		}
	}()
	plugins := map[string]*flow.Stage{}
	for _, s := range f.Plugins() {
		plugins[s.ID] = s
	}
	for _, d := range f.Deliveries() {
		out, err := p.outlet(o, f, d, id, plugins)
		if err != nil {
			return nil, err
		}
		out.id = d.ID
		o.list = append(o.list, out)
	}
	if o.decode, err = p.decoding(o, f); err != nil {
		return nil, err
	}
	list, err := p.exceptions(o, f, id)
	if err != nil {
		return nil, err
	}
	if len(list) > 0 {
		o.tell = newTeller(list)
		o.closers = append(o.closers, func() error { o.tell.close(); return nil })
	}
	return o, nil
}

func (p *parts) outlet(o *outlets, f *flow.Flow, d *flow.Delivery, id delivery.Identity, plugins map[string]*flow.Stage) (out outlet, err error) {
	var s delivery.Sink
	switch {
	case d.HTTP != nil:
		return p.httpOutlet(o, f, d, id, plugins)
	case d.Kafka != nil || d.RocketMQ != nil:
		if s, err = p.topicPush(o, f, d); err != nil {
			return out, err
		}
		return outlet{Delivery: pipeline.Plain(s)}, nil
	case p.mocks != nil:
		s = p.mocks.sink(d.ID)
	case d.File != nil:
		fs, err := file.NewSink(file.SinkConfig{Path: d.File.Path})
		if err != nil {
			return out, err
		}
		s = delivery.NewPatient(fs, policy(d.Retry))
	case p.out != nil:
		if s, err = stream.NewSink(stream.SinkConfig{Writer: p.out, Envelope: p.envelope}); err != nil {
			return out, err
		}
	default:
		return out, record.Errorf(record.Config, "a node has no STDOUT to write to; use `flowctl run`, or another delivery")
	}
	o.closers = append(o.closers, s.Close)
	return outlet{Delivery: pipeline.Plain(s)}, nil
}

// httpPush is what a push to HTTP is made of.
type httpPush struct {
	partner *partner
	build   *delivery.Builder
	signer  delivery.Signer // nil: nothing is signed
	hidden  delivery.RedactConfig
}

// httpPush opens a push to HTTP, whose connection o closes.
func (p *parts) httpPush(o *outlets, f *flow.Flow, d *flow.Delivery, id delivery.Identity, scope expr.Scope, plugins map[string]*flow.Stage) (h httpPush, err error) {
	c, err := p.connect(f.Project, d.HTTP.Connection)
	if err != nil {
		return h, err
	}
	if c.HTTP == nil {
		return h, record.Errorf(record.Config, "connection %q is of kind %s; delivery %s needs http", c.Name, c.Kind(), d.ID)
	}
	if h.partner, err = p.connections.acquire(p.secrets, connectionKey(c.Project, c.Name), c); err != nil {
		return h, err
	}
	o.partners = append(o.partners, h.partner)
	o.closers = append(o.closers, h.partner.release)
	if p.mocks != nil {
		h.partner = p.mocks.partner(h.partner, d.ID)
	}
	h.build, err = delivery.NewBuilder(delivery.BuilderConfig{
		ID: d.ID, Push: d.HTTP, Base: h.partner.base, Headers: h.partner.headers, Scope: scope, Identity: id,
	})
	if err != nil {
		return h, err
	}
	own, err := p.signer(f, d, plugins, &h)
	if err != nil {
		return h, err
	}
	chain := make([]delivery.Signer, 0, len(h.partner.auth)+1)
	for _, a := range h.partner.auth {
		chain = append(chain, a)
	}
	if plugin, ok := own.(*signPlugin); ok && len(chain) > 0 {
		h.signer = apart{delivery.Chain(chain...), plugin}
		return h, nil
	}
	h.signer = delivery.Chain(append(chain, own)...)
	return h, nil
}

// signer makes what signs the requests of a delivery, nil if nothing does, and
// says in h what of it is not to be shown.
func (p *parts) signer(f *flow.Flow, d *flow.Delivery, plugins map[string]*flow.Stage, h *httpPush) (delivery.Signer, error) {
	h.hidden = h.partner.hidden
	h.hidden.Text = h.partner.redact
	switch {
	case d.Sign == nil:
		return nil, nil
	case d.Sign.Plugin != nil:
		place := plugins[d.ID+".sign"]
		if place == nil {
			return nil, record.Errorf(record.Config, "delivery %s: a plugin cannot sign here: sign with a key, or without", d.ID)
		}
		keys, err := p.secrets.signKeys(d.Sign.Keys)
		if err != nil {
			return nil, err
		}
		st, info, err := p.plugin(place, signingKeys(keys))
		if err != nil {
			return nil, err
		}
		return &signPlugin{st, info}, nil
	}
	signing, err := p.secrets.signing(f, d.Sign)
	if err != nil {
		return nil, err
	}
	partner := h.partner
	h.hidden.Text = func(text string) string { return signing.Redact(partner.redact(text), nil) }
	if key := d.Sign.APIKey; key != nil {
		h.hidden.Headers, h.hidden.Query = slices.Clone(h.hidden.Headers), slices.Clone(h.hidden.Query)
		hide(&h.hidden, key)
	}
	return signing, nil
}

func (p *parts) httpOutlet(o *outlets, f *flow.Flow, d *flow.Delivery, id delivery.Identity, plugins map[string]*flow.Stage) (out outlet, err error) {
	h, err := p.httpPush(o, f, d, id, f.Scope(), plugins)
	if err != nil {
		return out, err
	}
	cfg := delivery.Config{
		ID: d.ID, Order: f.Order, Build: h.build, Signer: h.signer, Conn: h.partner.Connection, Policy: policy(d.Retry),
		HoldBack: d.Otherwise == flow.OtherwisePause, Concurrent: d.HTTP.Concurrent, Redact: h.hidden, OnRetry: p.onRetry, Logger: p.logger,
	}
	if v := d.Validate; v != nil && v.RecordID != "" {
		if cfg.ItemID, err = expr.Compile(v.RecordID, f.Scope()); err != nil {
			return out, fmt.Errorf("compile record_id of delivery %s: %w", d.ID, err)
		}
	}
	cfg.OnePerKey = f.Order == flow.OrderKey && d.Validate != nil && d.Validate.Each != ""
	if d.Retry != nil {
		cfg.SpillAfter = d.Retry.Spill
	}
	if p.keepNothing {
		cfg.SpillAfter = -1
	}
	if cfg.Batch, err = batching(f, d); err != nil {
		return out, err
	}
	if cfg.Judge, err = p.judge(f, d, plugins); err != nil {
		return out, err
	}
	e, err := delivery.New(cfg)
	if err != nil {
		return out, err
	}
	o.closers = append(o.closers, e.Close)
	return outlet{Delivery: engineDelivery{e}, partner: h.partner, engine: e}, nil
}

// engineDelivery is an engine as a pipeline sees it.
type engineDelivery struct{ *delivery.Engine }

// Open implements pipeline.Delivery.
func (e engineDelivery) Open(p record.Partition, held []uint64) pipeline.Outlet {
	return e.Engine.Open(p, held)
}

// judge makes what says what an answer means.
func (p *parts) judge(f *flow.Flow, d *flow.Delivery, plugins map[string]*flow.Stage) (delivery.Judge, error) {
	v := d.Validate
	if v == nil {
		v = &flow.Validate{}
	}
	if v.Plugin != nil {
		st, info, err := p.plugin(plugins[d.ID+".validate"], nil)
		if err != nil {
			return nil, err
		}
		return &validatePlugin{st, info}, nil
	}
	rules, err := verdict.New(verdict.Config{OK: v.OK, Retry: v.Retry, Reject: v.Reject, Each: v.Each, ItemID: v.ItemID, Vars: f.Vars, Env: f.Env})
	if err != nil {
		return nil, fmt.Errorf("compile rules of delivery %s: %w", d.ID, err)
	}
	return rules, nil
}
