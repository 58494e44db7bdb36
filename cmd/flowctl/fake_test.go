package main

import (
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/millrace-io/millrace/cmd/internal/api"
	"github.com/millrace-io/millrace/cmd/internal/twin/capture"
	"github.com/millrace-io/millrace/plugins/sandbox"
	"github.com/millrace-io/millrace/runtime/flow"
	"github.com/millrace-io/millrace/runtime/record"
)

// memory is a node's Backend without a node: it keeps what it is given.
type memory struct {
	mu          sync.Mutex
	calls       []string
	flows       map[string]*api.Flow
	failures    map[string][]*record.Entry
	retries     map[string][]*api.Retry
	revisions   map[string][]*api.Revision // newest first
	connections map[string]*api.Connection
	plugins     []*api.Plugin
	inspected   map[string]*sandbox.Info
	blobs       map[string][]byte
	exchanges   []capture.Exchange
	// deployment is the progress of the last one, and nothing more.
	deployment *api.Deployment
	// polls is how often a deployment is asked for until it is done; below 0
	// it never is.
	polls int
	puts  []*api.PutFlow
	// preflight is what a plan finds, by stage; deploys are those that were
	// carried out.
	preflight map[string]*api.Preflight
	deploys   []*api.Deploy
	// logs are pages of the log of a flow, one a question.
	logs map[string][]*api.LogPage
}

func notFound(kind, name string) error {
	return &api.Error{Code: api.CodeNotFound, Detail: fmt.Sprintf("%s %s does not exist", kind, name)}
}

func (m *memory) call(format string, args ...any) func() {
	m.mu.Lock()
	m.calls = append(m.calls, fmt.Sprintf(format, args...))
	return m.mu.Unlock
}

func (m *memory) Node(context.Context) (*api.Node, error) {
	defer m.call("node")()
	return &api.Node{ID: "1", Ready: true}, nil
}

func (m *memory) PutFlow(_ context.Context, req *api.PutFlow) (*api.FlowPlan, error) {
	defer m.call("put flow dry_run=%v", req.DryRun)()
	docs, problems := flow.Parse(req.File, []byte(req.Document), flow.Options{})
	if problems.HasErrors() || len(docs) != 1 || docs[0].Flow == nil {
		return nil, &api.Error{Code: api.CodeInvalid, Detail: "the document is refused", Problems: rendered(problems)}
	}
	f := docs[0].Flow
	for _, name := range f.Connections() {
		if _, ok := flow.Anonymous(name); ok || m.connections[name] != nil {
			continue
		}
		if !slices.ContainsFunc(req.Connections, func(doc string) bool { return strings.Contains(doc, "name: "+name+"\n") }) {
			p := flow.Problem{Code: flow.CodeConnectionNotFound, Level: flow.LevelError, File: req.File, Line: 3, Column: 9, EndColumn: 13,
				Source: strings.Split(req.Document, "\n")[2], Message: "there is no connection " + name, Help: "apply it first"}
			return nil, &api.Error{Code: api.CodeInvalid, Detail: "flow " + f.FullName() + " is refused", Next: "correct what is said above", Problems: rendered(flow.Problems{p})}
		}
	}
	for _, s := range f.Plugins() {
		if p := s.Plugin.Ref.Path; p != "" && req.Files[p] == "" {
			return nil, &api.Error{Code: api.CodeInvalid, Detail: "plugin " + p + " was not uploaded"}
		}
	}
	plan := &api.FlowPlan{Project: f.Project, Name: f.Name, Action: "create", Revision: 1, DryRun: req.DryRun}
	if old := m.flows[f.FullName()]; old != nil {
		plan.Action, plan.Revision, plan.Changes = "update", old.Revision+1, []string{"delivery: " + old.Delivery + " -> " + f.Delivery.Describe()}
		if old.Document == req.Document {
			plan.Action, plan.Revision, plan.Changes = "unchanged", old.Revision, nil
		}
	} else {
		for i := range f.Stages {
			plan.Changes = append(plan.Changes, "+ "+f.Stages[i].Describe())
		}
	}
	for i := range f.Stages {
		if found := m.preflight[f.Stages[i].ID]; found != nil && req.DryRun && req.Preflight > 0 {
			plan.Stages = append(plan.Stages, api.DeploymentStage{Stage: f.Stages[i].ID, Preflight: found})
		}
	}
	if !req.DryRun {
		m.puts = append(m.puts, req)
		m.flows[f.FullName()] = &api.Flow{Project: f.Project, Name: f.Name, Revision: plan.Revision, State: api.StateRunning, Document: req.Document, Delivery: f.Delivery.Describe()}
	}
	return plan, nil
}

func (m *memory) Flows(_ context.Context, project string) ([]*api.Flow, error) {
	defer m.call("flows")()
	var out []*api.Flow
	for _, name := range slices.Sorted(maps.Keys(m.flows)) {
		if f := m.flows[name]; project == "" || f.Project == project {
			out = append(out, f)
		}
	}
	return out, nil
}

func (m *memory) flow(project, name string) (*api.Flow, error) {
	if f := m.flows[project+"/"+name]; f != nil {
		return f, nil
	}
	return nil, notFound("flow", project+"/"+name)
}

func (m *memory) Flow(_ context.Context, project, name string) (*api.Flow, error) {
	defer m.call("flow %s/%s", project, name)()
	return m.flow(project, name)
}

func (m *memory) SetFlow(_ context.Context, project, name, state string) (*api.Flow, error) {
	defer m.call("set %s/%s %s", project, name, state)()
	f, err := m.flow(project, name)
	if err == nil {
		f.State = state
	}
	return f, err
}

func (m *memory) DeleteFlow(_ context.Context, project, name string, purge bool) error {
	defer m.call("delete %s/%s purge=%v", project, name, purge)()
	f, err := m.flow(project, name)
	if err != nil {
		return err
	}
	if f.Queue.Entries > 0 && !purge {
		return &api.Error{Code: api.CodeQueueNotEmpty, Detail: fmt.Sprintf("flow %s/%s: its failure queue holds %d entries", project, name, f.Queue.Entries)}
	}
	delete(m.flows, project+"/"+name)
	return nil
}

func (m *memory) Failure(_ context.Context, project, name string, seq uint64) (*record.Entry, error) {
	defer m.call("failure %s/%s/%d", project, name, seq)()
	if _, err := m.flow(project, name); err != nil {
		return nil, err
	}
	for _, e := range m.failures[project+"/"+name] {
		if e.Seq == seq {
			return e, nil
		}
	}
	return nil, notFound("entry", fmt.Sprintf("%s/%s/%d", project, name, seq))
}

func (m *memory) Blob(_ context.Context, digest string) ([]byte, error) {
	defer m.call("blob %s", digest)()
	if b := m.blobs[digest]; b != nil {
		return b, nil
	}
	return nil, notFound("plugin", digest)
}

func (m *memory) PutConnection(_ context.Context, req *api.PutConnection) (*api.ConnectionPlan, error) {
	defer m.call("put connection dry_run=%v", req.DryRun)()
	docs, problems := flow.Parse(req.File, []byte(req.Document), flow.Options{})
	if problems.HasErrors() || len(docs) != 1 || docs[0].Connection == nil {
		return nil, &api.Error{Code: api.CodeInvalid, Detail: "the document is refused", Problems: rendered(problems)}
	}
	c := docs[0].Connection
	plan := &api.ConnectionPlan{Name: c.Name, Action: "create", DryRun: req.DryRun}
	if old := m.connections[c.Name]; old != nil {
		plan.Action = "update"
		if old.Document == req.Document {
			plan.Action = "unchanged"
		}
	}
	if !req.DryRun {
		m.connections[c.Name] = &api.Connection{Name: c.Name, Kind: c.Kind(), Document: req.Document}
	}
	return plan, nil
}

func (m *memory) Connections(context.Context) ([]*api.Connection, error) {
	defer m.call("connections")()
	return slices.SortedFunc(maps.Values(m.connections), func(a, b *api.Connection) int { return strings.Compare(a.Name, b.Name) }), nil
}

func (m *memory) Connection(_ context.Context, name string) (*api.Connection, error) {
	defer m.call("connection %s", name)()
	if c := m.connections[name]; c != nil {
		return c, nil
	}
	return nil, notFound("connection", name)
}

func (m *memory) DeleteConnection(context.Context, string) error { return nil }

func (m *memory) Exchanges(_ context.Context, q *api.ExchangeQuery) (*api.ExchangePage, error) {
	defer m.call("exchanges %s for=%d count=%d", q.Connection, q.Millis, q.Count)()
	if q.Connection != "partner" {
		return nil, &api.Error{Code: api.CodeNotFound, Detail: "there is no connection " + q.Connection}
	}
	n := min(len(m.exchanges), q.Count)
	page := &api.ExchangePage{Items: m.exchanges[:n], Missed: int64(n / 2), Millis: q.Millis}
	m.exchanges = m.exchanges[n:]
	return page, nil
}

func (m *memory) TestConnection(_ context.Context, name string) (*api.ConnectionTest, error) {
	defer m.call("test %s", name)()
	if _, ok := flow.Anonymous(name); !ok && m.connections[name] == nil {
		return nil, notFound("connection", name)
	}
	if name == "main" {
		return &api.ConnectionTest{Name: name, OK: true, Millis: 3, Detail: "1 broker, 2 topics"}, nil
	}
	return &api.ConnectionTest{Name: name, Millis: 1, Detail: "dial tcp 127.0.0.1:9: connect: connection refused"}, nil
}

func (m *memory) UploadPlugin(_ context.Context, file string, wasm io.Reader) (*api.Plugin, error) {
	b, err := io.ReadAll(wasm)
	if err != nil {
		return nil, err
	}
	defer m.call("upload %s", file)()
	info, err := sandbox.Inspect(b)
	if err != nil {
		return nil, &api.Error{Code: api.CodeRefused, Detail: err.Error()}
	}
	named := info.Named(file)
	for _, p := range m.plugins {
		if p.Digest == info.Digest {
			existed := *p
			existed.Existed = true
			return &existed, nil
		}
		if p.Name == named.Name && p.Version == named.Version {
			return nil, &api.Error{Code: api.CodeVersionTaken, Detail: fmt.Sprintf("plugin %s is stored with other bytes (%s)", p.Ref(), p.Digest)}
		}
	}
	p := &api.Plugin{Namespace: "default", Name: named.Name, Version: named.Version, Digest: info.Digest, Size: int64(info.Size), Mode: info.Mode}
	m.plugins, m.inspected[p.Digest], m.blobs[p.Digest] = append(m.plugins, p), info, b
	return p, nil
}

func (m *memory) Plugins(context.Context) ([]*api.Plugin, error) {
	defer m.call("plugins")()
	return m.plugins, nil
}

func (m *memory) Plugin(_ context.Context, ref string) (*api.Plugin, error) {
	defer m.call("plugin %s", ref)()
	for _, p := range m.plugins {
		if ref == p.Name || ref == p.Ref() || strings.HasPrefix(p.Digest, ref) {
			single := *p
			single.Inspect = m.inspected[p.Digest]
			return &single, nil
		}
	}
	return nil, notFound("plugin", ref)
}

func (m *memory) Deploy(_ context.Context, req *api.Deploy) (*api.Deployment, error) {
	defer m.call("deploy flow=%q stage=%q dry_run=%v", req.Flow, req.Stage, req.DryRun)()
	d := &api.Deployment{DryRun: req.DryRun, Done: true}
	for _, p := range m.plugins {
		if p.Digest == req.Digest {
			d.Plugin = p
		}
	}
	if d.Plugin == nil {
		return nil, notFound("plugin", req.Digest)
	}
	for _, name := range slices.Sorted(maps.Keys(m.flows)) {
		f := m.flows[name]
		if req.Flow != "" && req.Flow != name {
			continue
		}
		df := api.DeploymentFlow{Flow: name, State: f.State, Revision: f.Revision, Slots: f.Slots, Nodes: 1}
		for _, s := range f.Stages {
			if strings.HasPrefix(s.Plugin, d.Plugin.Name+"@") && (req.Stage == "" || req.Stage == s.ID) {
				old := strings.TrimPrefix(s.Plugin, d.Plugin.Name+"@")
				df.Stages = append(df.Stages, api.DeploymentStage{Stage: s.ID, OldVersion: old, OldDigest: s.Digest, NewVersion: d.Plugin.Version, NewDigest: d.Plugin.Digest})
				if req.DryRun && req.Preflight > 0 {
					df.Stages[len(df.Stages)-1].Preflight = m.preflight[s.ID]
				}
			}
		}
		if len(df.Stages) > 0 {
			d.Flows, d.Done = append(d.Flows, df), false
		}
	}
	if !req.DryRun && len(d.Flows) > 0 {
		m.deploys = append(m.deploys, req)
		d.ID = "d-1"
		m.deployment = &api.Deployment{ID: d.ID}
		for _, f := range d.Flows {
			f.Stages = nil
			m.deployment.Flows = append(m.deployment.Flows, f)
		}
	}
	return d, nil
}

func (m *memory) Deployment(_ context.Context, id string) (*api.Deployment, error) {
	defer m.call("deployment %s", id)()
	if m.polls--; m.polls == 0 {
		m.deployment.Done = true
		for i := range m.deployment.Flows {
			m.deployment.Flows[i].Switched = m.deployment.Flows[i].Slots
		}
	}
	return m.deployment, nil
}
