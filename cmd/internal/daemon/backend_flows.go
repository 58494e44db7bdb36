package daemon

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/millrace-io/millrace/cluster/state"
	"github.com/millrace-io/millrace/cmd/internal/api"
	"github.com/millrace-io/millrace/plugins/sandbox"
	"github.com/millrace-io/millrace/runtime/flow"
	"github.com/millrace-io/millrace/runtime/pipeline"
	"github.com/millrace-io/millrace/runtime/record"
)

// defaultSlots is how many slots a flow gets at most unless it says otherwise.
const defaultSlots = 8

// resolver answers the linter out of the state.
type resolver struct {
	d *Daemon
	// files are the digests of uploaded local plugins by path.
	files map[string]string
	// pending are connections that are applied together with the flow.
	pending map[string]*flow.Connection
	// pinned collects what each reference meant.
	pinned map[flow.PluginRef]*state.Plugin
}

// Connection implements flow.Resolver.
func (r *resolver) Connection(project, name string) (*flow.Connection, bool) {
	if c := r.pending[connectionKey(project, name)]; c != nil {
		return c, true
	}
	c, err := r.d.connection(project, name)
	return c, err == nil
}

// Plugin implements flow.Resolver.
func (r *resolver) Plugin(ref flow.PluginRef) (flow.PluginInfo, error) {
	p, err := r.find(ref)
	if err != nil {
		return flow.PluginInfo{}, err
	}
	r.pinned[ref] = p
	b, err := r.d.blobs.Load(p.Digest.String())
	if err != nil {
		return flow.PluginInfo{}, err
	}
	info, err := sandbox.Inspect(b)
	if err != nil {
		return flow.PluginInfo{}, err
	}
	out := flow.PluginInfo{Namespace: p.Namespace, Name: p.Name, Version: p.Version, Digest: p.Digest.String(), Mode: info.Mode, Functions: info.Callable, UsesHTTP: info.UsesHTTP, Signs: info.Signs,
		Outputs: info.Outputs(), TakesNoConfig: !info.Configurable}
	if info.Manifest != nil {
		out.Config, out.Function = info.Manifest.Config, info.Manifest.Function
	}
	return out, nil
}

func (r *resolver) find(ref flow.PluginRef) (*state.Plugin, error) {
	if ref.Path == "" {
		return r.d.resolvePlugin(ref)
	}
	digest, ok := r.files[ref.Path]
	if !ok {
		return nil, fmt.Errorf("plugin %s: %w on the node; `flowctl apply` uploads it", ref.Path, flow.ErrPluginNotFound)
	}
	return r.d.findPlugin(digest)
}

// errMeanwhile: a flow changed after a change of it was checked.
var errMeanwhile = errors.New("the flow was changed meanwhile")

// proposeChange proposes a change that was checked against a revision of a
// flow, 0 if there was none. The error is errMeanwhile if it has another now.
func (d *Daemon) proposeChange(ctx context.Context, project, name string, revision uint32, c state.Command) (*state.FlowPutResult, error) {
	if err := d.changing.acquire(ctx); err != nil {
		return nil, err
	}
	defer d.changing.release()
	head, err := d.store.Flow(project, name)
	if err != nil {
		return nil, err
	}
	if head == nil && revision != 0 || head != nil && head.Revision != revision {
		return nil, errMeanwhile
	}
	res, err := d.node.Propose(ctx, c)
	if err != nil {
		return nil, err
	}
	return res.Value.(*state.FlowPutResult), nil
}

// PutFlow implements api.Backend. A document is checked again when the flow
// changed before it could be put.
func (d *Daemon) PutFlow(ctx context.Context, req *api.PutFlow) (*api.FlowPlan, error) {
	for range 5 {
		plan, err := d.putFlow(ctx, req)
		if !errors.Is(err, errMeanwhile) {
			return plan, err
		}
	}
	return nil, &api.Error{Code: api.CodeConflict, Detail: "the flow is being changed by others", Next: "read it again (`flowctl flow get`), then apply to its present revision"}
}

func (d *Daemon) putFlow(ctx context.Context, req *api.PutFlow) (*api.FlowPlan, error) {
	res := &resolver{d: d, files: req.Files, pending: map[string]*flow.Connection{}, pinned: map[flow.PluginRef]*state.Plugin{}}
	for _, text := range req.Connections {
		_, c, err := resolveConnection("", text, req.Env)
		if err != nil {
			return nil, err
		}
		res.pending[connectionKey(c.Project, c.Name)] = c
	}
	opts := flow.Options{Resolver: res}
	docs, ps := flow.Parse(req.File, []byte(req.Document), flow.Options{})
	if ps.HasErrors() {
		return nil, refusedDocument(req.File, ps)
	}
	if len(docs) != 1 || docs[0].Kind != flow.KindFlow {
		return nil, invalid("one flow document is expected; `flowctl apply` splits files")
	}
	doc, ps := flow.Resolve(docs[0], flow.Inputs{Vars: req.Vars, Env: lookup(req.Env)}, opts)
	if ps.HasErrors() {
		return nil, refusedDocument(req.File, ps)
	}
	f := doc.Flow
	plan := &api.FlowPlan{Project: f.Project, Name: f.Name, Action: "create", Warnings: problems(ps), DryRun: req.DryRun}
	put := &state.FlowPut{Project: f.Project, Name: f.Name, UID: randomUID(), Document: []byte(req.Document), IfMatch: req.IfMatch}
	var err error
	if put.Resolved, err = flow.EncodeResolved(doc); err != nil {
		return nil, d.apiError(err)
	}
	if put.Pins, err = d.pins(f, res); err != nil {
		return nil, err
	}
	if put.Connections, err = d.usedConnections(f, res); err != nil {
		return nil, err
	}
	head, err := d.store.Flow(f.Project, f.Name)
	if err != nil {
		return nil, d.apiError(err)
	}
	if head != nil && req.New {
		return nil, &api.Error{Code: api.CodeConflict, Detail: fmt.Sprintf("there is a flow %s already", head.FullName()), Next: "give another name"}
	}
	if head == nil {
		put.Slots = d.slots(ctx, f, !req.DryRun)
		plan.Changes = describe(f, put.Pins)
	} else if err := d.planUpdate(head, f, put, plan); err != nil {
		return nil, err
	}
	if err := d.tryPlugins(ctx, f, put.Pins, head); err != nil {
		return nil, err
	}
	if req.DryRun || plan.Action == "unchanged" {
		return plan, d.preflightDocument(ctx, req, f, head, put, plan)
	}
	if put.Preflight, err = seenOf(req.Seen); err != nil {
		return nil, err
	}
	r, err := d.proposeChange(ctx, f.Project, f.Name, plan.Revision, put)
	if errors.Is(err, errMeanwhile) {
		return nil, err
	}
	if err != nil {
		return nil, d.apiError(err)
	}
	plan.Revision = r.Revision
	if r.Unchanged {
		plan.Action = "unchanged"
	}
	return plan, nil
}

// planUpdate compares with the present revision.
func (d *Daemon) planUpdate(head *state.Flow, f *flow.Flow, put *state.FlowPut, plan *api.FlowPlan) error {
	plan.Action, plan.Revision = "update", head.Revision
	if put.IfMatch != 0 && put.IfMatch != head.Revision {
		return &api.Error{Code: api.CodeConflict, Detail: fmt.Sprintf("flow %s is at revision %d, not %d", head.FullName(), head.Revision, put.IfMatch), Next: "read the flow again, then apply to its present revision"}
	}
	rev, err := d.store.FlowRevision(head.ID, head.Revision)
	if err != nil || rev == nil {
		return d.apiError(cmp.Or(err, fmt.Errorf("revision %d of flow %s is missing", head.Revision, head.FullName())))
	}
	old, err := decodeFlow(rev.Resolved)
	if err != nil {
		return d.apiError(err)
	}
	if err := flow.CheckUpdate(old, f); err != nil {
		return &api.Error{Code: api.CodeConflict, Detail: err.Error(), Next: "give the flow another name, or delete it first"}
	}
	if f.Slots != 0 && f.Slots != int(head.Slots) {
		return &api.Error{Code: api.CodeConflict, Detail: fmt.Sprintf("flow %s has %d slots, the document says %d: slots are fixed when a flow is made", head.FullName(), head.Slots, f.Slots), Next: "leave `slots` as it is"}
	}
	if bytes.Equal(rev.Resolved, put.Resolved) && slices.Equal(rev.Pins, put.Pins) && bytes.Equal(rev.Document, put.Document) {
		plan.Action = "unchanged"
		return nil
	}
	for _, c := range flow.Diff(old, f) {
		plan.Changes = append(plan.Changes, c.String())
	}
	for _, p := range put.Pins {
		at := slices.IndexFunc(rev.Pins, func(o state.Pin) bool { return o.Stage == p.Stage })
		if at >= 0 && rev.Pins[at].Digest != p.Digest {
			plan.Changes = append(plan.Changes, fmt.Sprintf("stage %s: plugin %s %s -> %s %s", p.Stage, rev.Pins[at].Version, short(rev.Pins[at].Digest), p.Version, short(p.Digest)))
		}
	}
	return nil
}

func short(d state.Digest) string { return d.String()[:len("sha256:")+8] }

func describe(f *flow.Flow, pins []state.Pin) []string {
	lines := []string{"source " + f.Source.String()}
	pinned := func(line, id string) string {
		if at := slices.IndexFunc(pins, func(p state.Pin) bool { return p.Stage == id }); at >= 0 {
			line += fmt.Sprintf(" (%s %s)", pins[at].Version, short(pins[at].Digest))
		}
		return line
	}
	eachPlace(f, func(p place) {
		what, id, text := "stage", "", ""
		if p.delivery != nil {
			what, id, text = "delivery", p.delivery.ID, p.delivery.Describe()
		} else {
			id, text = p.stage.ID, p.stage.Describe()
		}
		if p.branch != "" {
			text += ", in " + p.branch
		}
		lines = append(lines, pinned(fmt.Sprintf("%s %s: %s", what, id, text), id))
	})
	for _, part := range []string{".sign", ".validate"} {
		for _, dl := range f.Deliveries() {
			if at := slices.IndexFunc(pins, func(p state.Pin) bool { return p.Stage == dl.ID+part }); at >= 0 {
				lines = append(lines, pinned("plugin "+dl.ID+part, dl.ID+part))
			}
		}
	}
	return lines
}

// tryPlugins starts every plugin that is new to the flow once, so that one that
// does not take its configuration refuses the document.
func (d *Daemon) tryPlugins(ctx context.Context, f *flow.Flow, pins []state.Pin, head *state.Flow) error {
	var uid uint64
	if head != nil {
		uid = head.UID
	}
	for _, s := range f.Plugins() {
		at := slices.IndexFunc(pins, func(p state.Pin) bool { return p.Stage == s.ID })
		b, err := d.bindPlugin(ctx, f, s, uid, pipeline.StageInfo{ID: s.ID, Plugin: pluginName(s.Plugin.Ref, pins[at].Version), Digest: pins[at].Digest.String()}, nil)
		if err != nil {
			e := record.AsError(err)
			return &api.Error{Code: api.CodeRefused, Detail: fmt.Sprintf("flow %s: %s; nothing was changed", f.FullName(), e.Message), Next: "correct what it names in the stage, or mend the plugin, then apply again"}
		}
		if err := errors.Join(b.st.Close(ctx), b.lease.Release(ctx)); err != nil {
			return d.apiError(err)
		}
	}
	return nil
}

func (d *Daemon) pins(f *flow.Flow, res *resolver) ([]state.Pin, error) {
	var pins []state.Pin
	for _, s := range f.Plugins() {
		p, err := res.find(s.Plugin.Ref)
		if err != nil {
			return nil, d.apiError(err)
		}
		pins = append(pins, state.Pin{Stage: s.ID, Digest: p.Digest, Version: p.Version})
	}
	return pins, nil
}

// usedConnections are the stored names of the connections that f uses.
func (d *Daemon) usedConnections(f *flow.Flow, res *resolver) ([]string, error) {
	var names []string
	for _, name := range f.Connections() {
		if _, ok := flow.Anonymous(name); ok {
			continue
		}
		if key := connectionKey(f.Project, name); res.pending[key] != nil {
			names = append(names, key)
			continue
		}
		c, err := d.storedName(f.Project, name)
		if err != nil {
			return nil, d.apiError(err)
		}
		if c != nil {
			names = append(names, c.Name)
		}
	}
	return names, nil
}

// slots is the number of slots of a new flow: what it says, else one for each
// partition that its source has now, at most defaultSlots. create: brokers may
// make the topics that are missing.
func (d *Daemon) slots(ctx context.Context, f *flow.Flow, create bool) uint16 {
	if f.Slots > 0 {
		return uint16(f.Slots)
	}
	if f.Source.Connection() == "" {
		return 1
	}
	ctx, cancel := context.WithTimeout(ctx, probe/3)
	defer cancel()
	p := d.asking()
	p.createTopics = create
	src, err := p.source(f)
	if err != nil {
		return defaultSlots
	}
	defer src.Close()
	found, err := src.Partitions(ctx)
	if err != nil && len(found) == 0 {
		return defaultSlots
	}
	return uint16(max(1, min(len(found), defaultSlots)))
}

func randomUID() uint64 {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails
	return binary.BigEndian.Uint64(b[:])
}

// SetFlow implements api.Backend.
func (d *Daemon) SetFlow(ctx context.Context, project, name, want string) (*api.Flow, error) {
	f, err := d.findFlow(project, name)
	if err != nil {
		return nil, err
	}
	c := &state.FlowState{Flow: f.ID}
	switch want {
	case api.StateRunning:
		c.State = state.Running
		if err := d.roomInQueue(f); err != nil {
			return nil, err
		}
	case api.StatePaused:
		c.State, c.Reason = state.Paused, "paused by hand"
	default:
		return nil, invalid("state %q: it is running or paused", want)
	}
	if _, err := d.node.Propose(ctx, c); err != nil {
		return nil, d.apiError(err)
	}
	return d.Flow(ctx, project, name)
}

// roomInQueue refuses to start a flow whose failure queue is full.
func (d *Daemon) roomInQueue(f *state.Flow) error {
	stats, err := d.store.QueueStats(f.ID)
	if err != nil {
		return d.apiError(err)
	}
	_, doc, err := d.document(f)
	if err != nil {
		return err
	}
	if r := retentionOf(doc); r.pauses(stats) {
		return &api.Error{Code: api.CodeConflict, Detail: "flow " + f.FullName() + " stays paused: " + queueFull(stats, r.entries, r.bytes)}
	}
	return nil
}

// DeleteFlow implements api.Backend.
func (d *Daemon) DeleteFlow(ctx context.Context, project, name string, purge bool) error {
	f, err := d.findFlow(project, name)
	if err != nil {
		return err
	}
	if purge {
		if err := d.purge(ctx, f); err != nil {
			return err
		}
	}
	_, err = d.node.Propose(ctx, &state.FlowDelete{Flow: f.ID, Purge: purge})
	return d.apiError(err)
}

// purge drops what a flow that is to be deleted has filed and kept, if that is
// more than one command should read. The flow is paused before; it stays so,
// with a receipt that says what went, when ctx ends before all is gone.
func (d *Daemon) purge(ctx context.Context, f *state.Flow) error {
	stats, err := d.store.QueueStats(f.ID)
	if err != nil {
		return d.apiError(err)
	}
	if stats.Entries+stats.Kept <= state.MaxExpire && stats.Bytes+stats.KeptBytes <= state.MaxExpireBytes {
		return nil
	}
	if f.State == state.Running {
		if _, err := d.node.Propose(ctx, &state.FlowState{Flow: f.ID, State: state.Paused, Reason: "it is being deleted"}); err != nil {
			return d.apiError(err)
		}
	}
	if err := d.awaitEnd(ctx, f); err != nil {
		return err
	}
	for gone := 0; ; {
		res, err := d.queueOp(ctx, &state.QueuePurge{Flow: f.ID})
		if err != nil {
			e := &api.Error{Code: api.CodeInternal, Detail: err.Error()}
			if known, ok := errors.AsType[*api.Error](err); ok {
				*e = *known
			}
			e.Detail = fmt.Sprintf("flow %s is not deleted yet, and %d of its entries are gone: %s", f.FullName(), gone, e.Detail)
			return e
		}
		if gone += res.Done; !res.More {
			return nil
		}
	}
}

// Revisions implements api.Backend.
func (d *Daemon) Revisions(_ context.Context, project, name string) ([]*api.Revision, error) {
	f, err := d.findFlow(project, name)
	if err != nil {
		return nil, err
	}
	revs, err := d.store.Revisions(f.ID)
	if err != nil {
		return nil, d.apiError(err)
	}
	out := make([]*api.Revision, 0, len(revs))
	for _, rev := range slices.Backward(revs) {
		a := &api.Revision{Revision: rev.Number, At: rev.At, Document: string(rev.Document)}
		for _, p := range rev.Pins {
			if a.Pinned == nil {
				a.Pinned = map[string]string{}
			}
			a.Pinned[p.Stage] = p.Version + " " + p.Digest.String()
		}
		if p := rev.Preflight; p != nil {
			a.Preflight = &api.Seen{Skipped: p.Skipped, Records: int64(p.Records), Differ: int64(p.Differ), NewFailures: int64(p.NewFailures), Accepted: p.Accepted}
		}
		out = append(out, a)
	}
	return out, nil
}

// decodeFlow reads the resolved form of a flow's document.
func decodeFlow(resolved []byte) (*flow.Flow, error) {
	doc, err := flow.DecodeResolved(resolved)
	if err != nil {
		return nil, err
	}
	if doc.Flow == nil {
		return nil, fmt.Errorf("read resolved document: it is a %s, not a flow", doc.Kind)
	}
	return doc.Flow, nil
}
