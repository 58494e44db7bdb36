package daemon

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/millrace-io/millrace/cluster/state"
	"github.com/millrace-io/millrace/cmd/internal/api"
	"github.com/millrace-io/millrace/runtime/connector/http"
	"github.com/millrace-io/millrace/runtime/connector/kafka"
	"github.com/millrace-io/millrace/runtime/connector/kafka/registry"
	"github.com/millrace-io/millrace/runtime/connector/rocketmq"
	"github.com/millrace-io/millrace/runtime/flow"
	"github.com/millrace-io/millrace/runtime/record"
)

// storedConnection is the form in which connections lie in the state.
type storedConnection struct {
	Version  int             `json:"stored"`
	Document string          `json:"document"` // YAML
	Resolved json.RawMessage `json:"resolved"`
}

const storedConnectionVersion = 1

// connectionKey is the name of a connection in the state and the API. Names
// and projects hold no colon.
func connectionKey(project, name string) string {
	if project == "" || project == flow.DefaultProject {
		return name
	}
	return project + ":" + name
}

func decodeConnection(c *state.Connection) (*flow.Connection, *storedConnection, error) {
	var s storedConnection
	if err := json.Unmarshal(c.Document, &s); err != nil {
		return nil, nil, fmt.Errorf("read connection %s: %w", c.Name, err)
	}
	if s.Version != storedConnectionVersion {
		return nil, nil, fmt.Errorf("read connection %s: form %d is unknown to this program; start a newer flowd", c.Name, s.Version)
	}
	doc, err := flow.DecodeResolved(s.Resolved)
	if err != nil {
		return nil, nil, fmt.Errorf("read connection %s: %w", c.Name, err)
	}
	return doc.Connection, &s, nil
}

// storedName finds the connection that a flow of a project means by a name:
// the project's own, else the default project's.
func (d *Daemon) storedName(project, name string) (*state.Connection, error) {
	for _, key := range []string{connectionKey(project, name), name} {
		c, err := d.store.Connection(key)
		if err != nil || c != nil {
			return c, err
		}
	}
	return nil, nil
}

// connection finds a connection for a flow; the error is of class config if
// there is none.
func (d *Daemon) connection(project, name string) (*flow.Connection, error) {
	c, err := d.storedName(project, name)
	if err != nil {
		return nil, err
	}
	if c == nil {
		return nil, record.Errorf(record.Config, "there is no connection %s; apply its document", name)
	}
	conn, _, err := decodeConnection(c)
	return conn, err
}

// PutConnection implements api.Backend.
func (d *Daemon) PutConnection(ctx context.Context, req *api.PutConnection) (*api.ConnectionPlan, error) {
	resolved, conn, err := resolveConnection(req.File, req.Document, req.Env)
	if err != nil {
		return nil, err
	}
	key := connectionKey(conn.Project, conn.Name)
	plan := &api.ConnectionPlan{Name: key, Action: "create", DryRun: req.DryRun}
	b, err := json.Marshal(storedConnection{storedConnectionVersion, req.Document, resolved})
	if err != nil {
		return nil, d.apiError(err)
	}
	old, err := d.store.Connection(key)
	if err != nil {
		return nil, d.apiError(err)
	}
	if old != nil {
		plan.Action = "update"
		if bytes.Equal(old.Document, b) {
			plan.Action = "unchanged"
			return plan, nil
		}
	}
	if req.DryRun {
		return plan, nil
	}
	if _, err := d.node.Propose(ctx, &state.ConPut{Name: key, Document: b}); err != nil {
		return nil, d.apiError(err)
	}
	d.reopenUsers(key)
	return plan, nil
}

func resolveConnection(file, document string, env map[string]string) ([]byte, *flow.Connection, error) {
	docs, ps := flow.Parse(file, []byte(document), flow.Options{})
	if ps.HasErrors() {
		return nil, nil, refusedDocument(file, ps)
	}
	if len(docs) != 1 || docs[0].Kind != flow.KindConnection {
		return nil, nil, invalid("one connection document is expected; `flowctl apply` splits files")
	}
	doc, ps := flow.Resolve(docs[0], flow.Inputs{Env: lookup(env)}, flow.Options{})
	if ps.HasErrors() {
		return nil, nil, refusedDocument(file, ps)
	}
	b, err := flow.EncodeResolved(doc)
	return b, doc.Connection, err
}

func lookup(m map[string]string) func(string) (string, bool) {
	return func(k string) (string, bool) { v, ok := m[k]; return v, ok }
}

// reopenUsers lets running flows take up a changed connection.
func (d *Daemon) reopenUsers(key string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, r := range d.runners {
		if slices.Contains(r.connections, key) {
			d.retire(r)
		}
	}
	signal(d.kick)
}

// Connections implements api.Backend.
func (d *Daemon) Connections(context.Context) ([]*api.Connection, error) {
	cs, err := d.store.Connections()
	if err != nil {
		return nil, d.apiError(err)
	}
	out := make([]*api.Connection, 0, len(cs))
	for _, c := range cs {
		ac, err := d.apiConnection(c)
		if err != nil {
			return nil, err
		}
		ac.Document = ""
		out = append(out, ac)
	}
	return out, nil
}

func (d *Daemon) apiConnection(c *state.Connection) (*api.Connection, error) {
	conn, stored, err := decodeConnection(c)
	if err != nil {
		return nil, d.apiError(err)
	}
	out := &api.Connection{Name: c.Name, Kind: conn.Kind(), Target: target(conn), Updated: c.At, Document: stored.Document}
	out.Usage = d.connections.usage(c.Name)
	flows, err := d.store.Flows()
	if err != nil {
		return nil, d.apiError(err)
	}
	for _, f := range flows {
		if slices.Contains(f.Connections, c.Name) {
			out.UsedBy = append(out.UsedBy, f.FullName())
		}
	}
	return out, nil
}

func target(c *flow.Connection) string {
	switch {
	case c.Kafka != nil:
		return strings.Join(c.Kafka.Brokers, ",")
	case c.RocketMQ != nil:
		return strings.Join(c.RocketMQ.NameServers, ",")
	}
	return c.HTTP.Base
}

// Connection implements api.Backend.
func (d *Daemon) Connection(_ context.Context, name string) (*api.Connection, error) {
	c, err := d.store.Connection(name)
	if err != nil {
		return nil, d.apiError(err)
	}
	if c == nil {
		return nil, noConnection(name)
	}
	return d.apiConnection(c)
}

func noConnection(name string) *api.Error {
	return &api.Error{Code: api.CodeNotFound, Detail: "there is no connection " + name, Next: "`flowctl connection list` shows those that are there; `flowctl apply -f FILE` makes one"}
}

// DeleteConnection implements api.Backend.
func (d *Daemon) DeleteConnection(ctx context.Context, name string) error {
	_, err := d.node.Propose(ctx, &state.ConDel{Name: name})
	return d.apiError(err)
}

// TestConnection implements api.Backend.
func (d *Daemon) TestConnection(ctx context.Context, name string) (*api.ConnectionTest, error) {
	conn, ok := flow.Anonymous(name)
	if !ok {
		c, err := d.store.Connection(name)
		if err != nil {
			return nil, d.apiError(err)
		}
		if c == nil {
			return nil, noConnection(name)
		}
		if conn, _, err = decodeConnection(c); err != nil {
			return nil, d.apiError(err)
		}
	}
	p := d.asking()
	p.strict = true
	ctx, cancel := context.WithTimeout(ctx, probe)
	defer cancel()
	began := time.Now()
	detail, err := p.check(ctx, name, conn)
	t := &api.ConnectionTest{Name: name, OK: err == nil, Millis: time.Since(began).Milliseconds(), Detail: detail}
	if err != nil {
		t.Detail = err.Error()
		if e, ok := errors.AsType[*record.Error](err); ok && e.Message != "" {
			t.Detail = e.Message
		}
	}
	return t, nil
}

// check reaches for the other side of a connection. The detail says what was
// reached.
func (p *parts) check(ctx context.Context, name string, conn *flow.Connection) (detail string, err error) {
	detail = "reached " + target(conn)
	switch {
	case conn.RocketMQ != nil:
		return detail, rocketmq.Check(ctx, p.rocketmq(conn))
	case conn.HTTP != nil:
		return detail, checkHTTP(ctx, p.secrets, name, conn)
	}
	cfg := p.kafka(conn)
	if err := kafka.Check(ctx, cfg); err != nil {
		return "", err
	}
	if r := conn.Kafka.Registry; r != nil {
		if err := registry.Check(ctx, p.registry(conn)); err != nil {
			return "", fmt.Errorf("reached the brokers at %s, but not the registry: %s", target(conn), messageOf(record.AsError(err)))
		}
		detail += " and the registry at " + r.URL
	}
	if doubt := cfg.Warning(); doubt != "" {
		detail += "; " + doubt
	}
	return detail, nil
}

// checkHTTP reads the secrets of a connection and reaches for the other side.
func checkHTTP(ctx context.Context, s secrets, name string, c *flow.Connection) error {
	p, err := newPartner(s, name, c, nil)
	if err != nil {
		return err
	}
	defer p.client.Close()
	return http.Check(ctx, http.Config{Base: p.base, TLS: p.tls})
}
