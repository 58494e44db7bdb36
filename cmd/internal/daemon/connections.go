package daemon

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/millrace-io/millrace/cmd/internal/api"
	"github.com/millrace-io/millrace/runtime/connector"
	"github.com/millrace-io/millrace/runtime/connector/http"
	"github.com/millrace-io/millrace/runtime/delivery"
	"github.com/millrace-io/millrace/runtime/delivery/sign"
	"github.com/millrace-io/millrace/runtime/delivery/verdict"
	"github.com/millrace-io/millrace/runtime/flow"
	"github.com/millrace-io/millrace/runtime/record"
)

// connections are a node's connections of kind http: what all deliveries to
// one partner share, with its limits, its breaker and its access tokens. Two
// flows that name one connection share it as long as document and secrets are
// the same. It is safe for concurrent use.
type connections struct {
	mu   sync.Mutex
	open map[connectionID]*partner // guarded by mu
	seen map[string]*onlookers     // guarded by mu; by name, while it was ever in use
}

// connectionID tells connections apart: by name, and by a hash of what stands
// in the document and in the secrets.
type connectionID struct {
	name string
	hash [sha256.Size]byte
}

func newConnections() *connections {
	return &connections{open: map[connectionID]*partner{}, seen: map[string]*onlookers{}}
}

// partner is a connection in use.
type partner struct {
	*delivery.Connection
	name string
	base string
	// headers go with every request; auth are the ways to say who asks, in
	// turn.
	headers []record.Header
	auth    []*sign.Signing
	// hidden are the headers and parameters whose values are credentials.
	hidden delivery.RedactConfig
	// confidential are values that no message shows.
	confidential []string
	client       *http.Client
	tls          *tls.Config // nil: the default

	of    *connections
	id    connectionID
	users int // guarded by connections.mu
}

// acquire opens a connection, or joins those who use it. The error is one of
// class config that names what is missing.
func (cs *connections) acquire(s secrets, stored string, c *flow.Connection) (*partner, error) {
	fresh, err := newPartner(s, stored, c, cs.onlookers(stored))
	if err != nil {
		return nil, err
	}
	cs.mu.Lock()
	defer cs.mu.Unlock()
	p := cs.open[fresh.id]
	if p == nil {
		p = fresh
		p.of = cs
		cs.open[p.id] = p
	} else {
		_ = fresh.client.Close() // it has sent nothing
	}
	p.users++
	return p, nil
}

// release ends a use.
func (p *partner) release() error {
	p.of.mu.Lock()
	p.users--
	last := p.users == 0
	if last {
		delete(p.of.open, p.id)
	}
	p.of.mu.Unlock()
	if !last {
		return nil
	}
	return p.client.Close()
}

// all is what the connections in use do now, each name once.
func (cs *connections) all() []api.ConnectionUsage {
	cs.mu.Lock()
	names := map[string]bool{}
	for id := range cs.open {
		names[id.name] = true
	}
	cs.mu.Unlock()
	var out []api.ConnectionUsage
	for _, name := range slices.Sorted(maps.Keys(names)) {
		if u := cs.usage(name); u != nil {
			out = append(out, *u)
		}
	}
	return out
}

// usage is what a connection does now, of all its versions the one that is
// used most; nil if it is not in use.
func (cs *connections) usage(name string) *api.ConnectionUsage {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	var most *partner
	for id, p := range cs.open {
		if id.name == name && (most == nil || p.users > most.users) {
			most = p
		}
	}
	if most == nil {
		return nil
	}
	u := most.usage()
	return &u
}

func (p *partner) usage() api.ConnectionUsage {
	u := p.Usage()
	out := api.ConnectionUsage{
		Name: p.name, InFlight: u.UnderWay, Waiting: u.Waiting, Concurrent: u.Concurrent, Allowed: u.PerSecond, Used: float64(u.LastSecond),
		Breaker: api.Breaker{State: string(u.Breaker), Reason: u.Reason},
	}
	if u.Breaker != delivery.Closed {
		out.Breaker.Since = u.Since.UnixMilli()
	}
	return out
}

func newPartner(s secrets, name string, c *flow.Connection, seenBy delivery.Observer) (*partner, error) {
	in := c.HTTP
	p := &partner{name: name, base: in.Base}
	for _, name := range c.Secrets() {
		v, err := s.key(name)
		if err != nil {
			return nil, err
		}
		p.confidential = append(p.confidential, string(v))
	}
	var err error
	if p.id, err = p.identity(c); err != nil {
		return nil, err
	}
	if err := p.identify(s, in); err != nil {
		return nil, err
	}
	cfg := http.Config{Timeout: in.Timeout, Concurrent: in.Concurrent}
	if p.tls, err = s.tls(in.TLS); err != nil {
		return nil, err
	}
	cfg.TLS = p.tls
	if p.client, err = http.NewClient(cfg); err != nil {
		return nil, record.Errorf(record.Config, "connection %s: %w", name, err)
	}
	p.Connection = delivery.NewConnection(delivery.ConnectionConfig{
		Name: name, Concurrent: in.Concurrent, RequestsPerSecond: in.Requests, Breaker: breaker(in.Breaker), Send: p.send, Redact: p.redact, Observer: seenBy,
	})
	return p, nil
}

// send is the connection's Sender.
func (p *partner) send(ctx context.Context, r *sign.Request, timeout time.Duration) (*verdict.Response, error) {
	resp, err := p.client.Send(ctx, (*http.Request)(r), timeout)
	return (*verdict.Response)(resp), err
}

// identity hashes the document, the secrets and the files that it names.
func (p *partner) identity(c *flow.Connection) (id connectionID, err error) {
	h := sha256.New()
	doc, err := json.Marshal(c)
	if err != nil {
		return id, fmt.Errorf("connection %s: %w", p.name, err)
	}
	texts := append([]string{string(doc)}, p.confidential...)
	if t := c.HTTP.TLS; t != nil {
		for _, name := range []string{t.CA, t.Cert} {
			b, err := pemOf(name)
			if err != nil {
				return id, err
			}
			texts = append(texts, string(b))
		}
	}
	for _, text := range texts {
		fmt.Fprintf(h, "%d %s\n", len(text), text)
	}
	id.name = p.name
	h.Sum(id.hash[:0])
	return id, nil
}

// identify makes what says who asks.
func (p *partner) identify(s secrets, in *flow.HTTPConnection) error {
	add := func(cfg sign.Config, err error) error {
		if err != nil {
			return err
		}
		signing, err := sign.New(cfg)
		if err == nil {
			p.auth = append(p.auth, signing)
		}
		return err
	}
	for _, h := range in.Headers {
		if h.Secret == nil {
			p.headers = append(p.headers, record.Header{Key: h.Name, Value: []byte(h.Value)})
			continue
		}
		p.hidden.Headers = append(p.hidden.Headers, h.Name)
		key, err := s.secret(h.Secret.Name)
		if err := add(sign.Config{APIKey: &sign.APIKey{Key: key, Header: h.Name}}, err); err != nil {
			return err
		}
	}
	switch {
	case in.Bearer != nil:
		key, err := s.secret(in.Bearer.Name)
		return add(sign.Config{APIKey: &sign.APIKey{Key: key, Header: "Authorization", Prefix: "Bearer "}}, err)
	case in.Basic != nil:
		basic, err := s.basic(in.Basic)
		return add(sign.Config{Basic: basic}, err)
	case in.OAuth2 != nil:
		if in.OAuth2.Header != "" {
			p.hidden.Headers = append(p.hidden.Headers, in.OAuth2.Header)
		}
		oauth2, err := s.oauth2(in.OAuth2)
		return add(sign.Config{OAuth2: oauth2}, err)
	case in.APIKey != nil:
		hide(&p.hidden, in.APIKey)
		key, err := s.apiKey(in.APIKey)
		return add(sign.Config{APIKey: key}, err)
	}
	return nil
}

// hide keeps the value of an API key out of what is shown.
func hide(c *delivery.RedactConfig, key *flow.APIKey) {
	if key.Header != "" {
		c.Headers = append(c.Headers, key.Header)
	}
	if key.Query != "" {
		c.Query = append(c.Query, key.Query)
	}
}

// redact takes the connection's secrets out of a text.
func (p *partner) redact(text string) string {
	for _, a := range p.auth {
		text = a.Redact(text, nil)
	}
	return text
}

func breaker(b *flow.Breaker) delivery.BreakerConfig {
	if b == nil {
		return delivery.BreakerConfig{}
	}
	return delivery.BreakerConfig{Failures: b.Failures, Probe: b.Probe}
}

// tls makes the settings of a secure connection; nil for the default.
func (s secrets) tls(in *flow.TLS) (*tls.Config, error) {
	if in == nil {
		return nil, nil
	}
	ca, err := pemOf(in.CA)
	if err != nil {
		return nil, err
	}
	cert, err := pemOf(in.Cert)
	if err != nil {
		return nil, err
	}
	var key []byte
	if in.Key != nil {
		if key, err = s.key(in.Key.Name); err != nil {
			return nil, err
		}
	}
	cfg, err := connector.NewTLS(ca, cert, key)
	if err == nil {
		cfg.ServerName = in.ServerName
	}
	return cfg, err
}

// pemOf is PEM that stands in a document, or in a file that it names.
func pemOf(text string) ([]byte, error) {
	if text == "" || flow.IsPEM(text) {
		return []byte(text), nil
	}
	b, err := os.ReadFile(text)
	if err != nil {
		return nil, record.Errorf(record.Config, "tls: %w: put the file on the node, or its PEM into the connection", err)
	}
	return b, nil
}
