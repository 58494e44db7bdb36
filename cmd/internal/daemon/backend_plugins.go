package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/millrace-io/millrace/cluster/state"
	"github.com/millrace-io/millrace/cmd/internal/api"
	"github.com/millrace-io/millrace/plugins/registry"
	"github.com/millrace-io/millrace/plugins/sandbox"
	"github.com/millrace-io/millrace/runtime/flow"
	"github.com/millrace-io/millrace/runtime/pipeline"
)

// maxPlugin is the largest plugin that is stored.
const maxPlugin = 64 << 20

// UploadPlugin implements api.Backend. The plugin is judged and compiled
// before it is made known, so what is stored can run.
func (d *Daemon) UploadPlugin(ctx context.Context, file string, wasm io.Reader) (*api.Plugin, error) {
	b, err := io.ReadAll(io.LimitReader(wasm, maxPlugin+1))
	if err != nil {
		return nil, invalid("read plugin %s: %v", file, err)
	}
	if len(b) > maxPlugin {
		return nil, &api.Error{Code: api.CodeTooLarge, Detail: fmt.Sprintf("plugin %s is larger than %d MiB", file, maxPlugin>>20)}
	}
	info, err := sandbox.Inspect(b)
	if err == nil {
		err = info.Err()
	}
	if err != nil {
		return nil, refusedPlugin(file, err)
	}
	m := info.Named(file)
	// One at a time: a file that is refused under one name is not removed
	// while it is stored under another.
	if err := d.uploading.acquire(ctx); err != nil {
		return nil, d.apiError(err)
	}
	defer d.uploading.release()
	digest, err := d.blobs.Put(ctx, strings.NewReader(string(b)), maxPlugin)
	if err != nil {
		return nil, d.apiError(err)
	}
	lease, err := d.modules.Acquire(ctx, digest, "")
	if err != nil {
		_ = d.forgetBlob(digest)
		return nil, refusedPlugin(file, err)
	}
	defer lease.Release(context.WithoutCancel(ctx))
	dg, err := state.ParseDigest(digest)
	if err != nil {
		return nil, d.apiError(err)
	}
	space, name := splitName(m.Name)
	before, err := d.store.PluginByDigest(dg)
	if err != nil {
		return nil, d.apiError(err)
	}
	put := &state.PluginPut{Digest: dg, Namespace: space, Name: name, Version: m.Version, Size: int64(len(b)), ABI: strconv.Itoa(info.ABI), Mode: info.Mode}
	res, err := d.node.Propose(ctx, put)
	if err != nil {
		if _, refused := errors.AsType[*state.Refusal](err); refused { // else it may be stored yet
			_ = d.forgetBlob(digest)
		}
		return nil, d.apiError(err)
	}
	p := d.apiPlugin(res.Value.(*state.Plugin))
	p.Existed = slices.ContainsFunc(before, func(x state.Plugin) bool {
		return x.Namespace == put.Namespace && x.Name == put.Name && x.Version == put.Version
	})
	return p, nil
}

// forgetBlob removes a file that no plugin is known by.
func (d *Daemon) forgetBlob(digest string) error {
	dg, err := state.ParseDigest(digest)
	if err != nil {
		return err
	}
	if known, err := d.store.PluginByDigest(dg); err != nil || len(known) > 0 {
		return err
	}
	return d.blobs.Delete(digest)
}

// splitName takes [namespace/]name apart.
func splitName(s string) (space, name string) {
	if space, name, ok := strings.Cut(s, "/"); ok {
		return space, name
	}
	return flow.DefaultNamespace, s
}

func refusedPlugin(file string, err error) *api.Error {
	return &api.Error{Code: api.CodeRefused, Detail: fmt.Sprintf("plugin %s cannot run: %v", file, err), Next: "`flowctl plugin inspect " + file + "` shows all that is known about it"}
}

func (d *Daemon) apiPlugin(p *state.Plugin) *api.Plugin {
	return &api.Plugin{Namespace: p.Namespace, Name: p.Name, Version: p.Version, Digest: p.Digest.String(), Size: p.Size, Mode: p.Mode, Stored: p.At}
}

// Plugins implements api.Backend.
func (d *Daemon) Plugins(context.Context) ([]*api.Plugin, error) {
	ps, err := d.store.Plugins()
	if err != nil {
		return nil, d.apiError(err)
	}
	used, err := d.pluginUsers()
	if err != nil {
		return nil, err
	}
	out := make([]*api.Plugin, len(ps))
	for i := range ps {
		out[i] = d.apiPlugin(&ps[i])
		out[i].UsedBy = used[ps[i].Digest]
	}
	return out, nil
}

// pluginUsers lists the stages that run a digest now.
func (d *Daemon) pluginUsers() (map[state.Digest][]string, error) {
	flows, err := d.store.Flows()
	if err != nil {
		return nil, d.apiError(err)
	}
	used := map[state.Digest][]string{}
	for _, f := range flows {
		rev, err := d.store.FlowRevision(f.ID, f.Revision)
		if err != nil {
			return nil, d.apiError(err)
		}
		if rev == nil {
			continue
		}
		for _, p := range rev.Pins {
			used[p.Digest] = append(used[p.Digest], f.FullName()+"/"+p.Stage)
		}
	}
	return used, nil
}

// Plugin implements api.Backend.
func (d *Daemon) Plugin(_ context.Context, ref string) (*api.Plugin, error) {
	p, err := d.findPlugin(ref)
	if err != nil {
		return nil, err
	}
	used, err := d.pluginUsers()
	if err != nil {
		return nil, err
	}
	out := d.apiPlugin(p)
	out.UsedBy = used[p.Digest]
	b, err := d.blobs.Load(p.Digest.String())
	if err != nil {
		return nil, d.apiError(err)
	}
	info, err := sandbox.Inspect(b)
	if err != nil {
		return nil, d.apiError(err)
	}
	out.Inspect = info
	return out, nil
}

// Blob implements api.Backend.
func (d *Daemon) Blob(_ context.Context, digest string) ([]byte, error) {
	if err := registry.CheckDigest(digest); err != nil {
		return nil, invalid("%v", err)
	}
	b, err := d.blobs.Load(digest)
	if errors.Is(err, registry.ErrNotFound) {
		return nil, &api.Error{Code: api.CodeNotFound, Detail: "there is no plugin " + digest, Next: "`flowctl plugin list -o wide` shows the digests of those that are stored"}
	}
	if err != nil {
		return nil, d.apiError(err)
	}
	return b, nil
}

func (d *Daemon) findPlugin(ref string) (*state.Plugin, error) {
	ps, err := d.store.Plugins() // in the order in which they were last put
	if err != nil {
		return nil, d.apiError(err)
	}
	none := &api.Error{Code: api.CodeNotFound, Detail: fmt.Sprintf("there is no plugin %s", ref), Next: "`flowctl plugin list` shows those that are stored; `flowctl deploy FILE` stores one"}
	if hex, ok := strings.CutPrefix(ref, "sha256:"); ok {
		if len(hex) < 8 {
			return nil, &api.Error{Code: api.CodeInvalid, Detail: fmt.Sprintf("plugin %s: give at least 8 digits of the digest", ref), Next: "`flowctl plugin list -o wide` shows digests"}
		}
		var found *state.Plugin
		for i := range ps {
			if !strings.HasPrefix(ps[i].Digest.String(), ref) {
				continue
			}
			if found != nil && found.Digest != ps[i].Digest {
				return nil, invalid("plugin %s: several digests begin so", ref)
			}
			found = &ps[i]
		}
		if found == nil {
			return nil, none
		}
		return found, nil
	}
	name, version, _ := strings.Cut(ref, "@")
	space, name := splitName(name)
	for _, p := range slices.Backward(ps) {
		if p.Namespace == space && p.Name == name && (version == "" || p.Version == version) {
			return &p, nil
		}
	}
	return nil, none
}

// resolvePlugin finds the bytes that a stage's range means now.
func (d *Daemon) resolvePlugin(ref flow.PluginRef) (*state.Plugin, error) {
	ps, err := d.store.Plugins()
	if err != nil {
		return nil, d.apiError(err)
	}
	space := ref.Namespace
	if space == "" {
		space = flow.DefaultNamespace
	}
	var candidates []registry.Version
	for i := range ps {
		if ps[i].Namespace == space && ps[i].Name == ref.Name {
			candidates = append(candidates, registry.Version{Version: ps[i].Version, Digest: ps[i].Digest.String(), Deployed: ps[i].Index})
		}
	}
	if len(candidates) == 0 {
		return nil, fmt.Errorf("plugin %s: %w; `flowctl deploy --store-only FILE` stores one", ref, flow.ErrPluginNotFound)
	}
	v, err := registry.Resolve(ref.Range, candidates)
	if err != nil {
		return nil, fmt.Errorf("plugin %s: %w: %w", ref, flow.ErrPluginNotFound, err)
	}
	at := slices.IndexFunc(ps, func(p state.Plugin) bool {
		return p.Namespace == space && p.Name == ref.Name && p.Version == v.Version && p.Digest.String() == v.Digest
	})
	return &ps[at], nil
}

// Deploy implements api.Backend. Every stage concerned is started with the new
// plugin before anything is changed, so that one that does not take it refuses
// the deployment.
func (d *Daemon) Deploy(ctx context.Context, req *api.Deploy) (*api.Deployment, error) {
	p, err := d.findPlugin(req.Digest)
	if err != nil {
		return nil, err
	}
	dep := &api.Deployment{Plugin: d.apiPlugin(p), DryRun: req.DryRun}
	flows, err := d.store.Flows()
	if err != nil {
		return nil, d.apiError(err)
	}
	if req.Flow != "" {
		project, name, ok := strings.Cut(req.Flow, "/")
		if !ok {
			project, name = flow.DefaultProject, req.Flow
		}
		f, err := d.findFlow(project, name)
		if err != nil {
			return nil, err
		}
		flows = []*state.Flow{f}
	}
	var activations []*state.Activate
	var planned []*state.Flow
	for _, f := range flows {
		a, df, err := d.planDeploy(ctx, f, p, req, dep)
		if err != nil {
			return nil, err
		}
		if a != nil {
			activations, planned = append(activations, a), append(planned, f)
			dep.Flows = append(dep.Flows, *df)
		}
	}
	if req.Stage != "" && len(activations) == 0 && len(dep.Skipped) == 0 {
		return nil, &api.Error{Code: api.CodeNotFound, Detail: fmt.Sprintf("no flow has a stage %s that runs plugin %s", req.Stage, p.Name), Next: "`flowctl flow get FLOW` shows a flow's stages"}
	}
	if req.DryRun {
		return dep, d.preflights(ctx, planned, activations, req, dep)
	}
	if err := checkPlanned(req, planned); err != nil {
		return nil, err
	}
	if len(activations) == 0 {
		dep.Done = true
		return dep, nil
	}
	var ids []string
	for i, a := range activations {
		f := planned[i]
		if a.Preflight, err = preflightSeen(req.Seen, f.FullName()); err != nil {
			return nil, err
		}
		r, err := d.proposeChange(ctx, f.Project, f.Name, f.Revision, a)
		if errors.Is(err, errMeanwhile) {
			err = &api.Error{Code: api.CodeConflict, Detail: fmt.Sprintf("flow %s was changed while the plugin was tried in it", f.FullName()), Next: "deploy again"}
		}
		if err != nil {
			e := d.apiError(err)
			if i > 0 {
				return nil, fmt.Errorf("activated in %d of %d flows, then: %w; deploy again to go on", i, len(activations), e)
			}
			return nil, e
		}
		ids = append(ids, fmt.Sprintf("%d.%d", r.Flow, r.Deploy))
	}
	dep.ID = strings.Join(ids, "-")
	now, err := d.Deployment(ctx, dep.ID)
	if err != nil {
		return nil, err
	}
	dep.Flows, dep.Done = now.Flows, now.Done
	return dep, nil
}

// planDeploy finds the stages of f that the plugin changes, and tries it in
// each. It returns nil when there are none.
func (d *Daemon) planDeploy(ctx context.Context, f *state.Flow, p *state.Plugin, req *api.Deploy, dep *api.Deployment) (*state.Activate, *api.DeploymentFlow, error) {
	rev, err := d.store.FlowRevision(f.ID, f.Revision)
	if err != nil {
		return nil, nil, d.apiError(err)
	}
	if rev == nil {
		return nil, nil, nil
	}
	doc, err := decodeFlow(rev.Resolved)
	if err != nil {
		return nil, nil, d.apiError(err)
	}
	a := &state.Activate{Flow: f.ID}
	df := &api.DeploymentFlow{Flow: f.FullName(), State: f.State.String(), Revision: f.Revision, Slots: int(f.Slots), Nodes: 1}
	for _, s := range doc.Plugins() {
		ref := s.Plugin.Ref
		space := ref.Namespace
		if space == "" {
			space = flow.DefaultNamespace
		}
		if ref.Name != p.Name || space != p.Namespace || req.Stage != "" && req.Stage != s.ID {
			continue
		}
		where := f.FullName() + "/" + s.ID
		ok, err := registry.Admits(ref.Range, p.Version)
		if err != nil {
			return nil, nil, d.apiError(err)
		}
		if !ok {
			dep.Skipped = append(dep.Skipped, fmt.Sprintf("%s: its range %s does not admit %s", where, ref.Range, p.Version))
			continue
		}
		at := slices.IndexFunc(rev.Pins, func(pin state.Pin) bool { return pin.Stage == s.ID })
		if at < 0 {
			continue
		}
		old := rev.Pins[at]
		if old.Digest == p.Digest {
			dep.Skipped = append(dep.Skipped, fmt.Sprintf("%s: it runs this digest already", where))
			continue
		}
		b, err := d.bindPlugin(ctx, doc, s, f.UID, pipeline.StageInfo{ID: s.ID, Plugin: pluginName(ref, p.Version), Digest: p.Digest.String()}, nil)
		if err != nil {
			return nil, nil, &api.Error{Code: api.CodeRefused, Detail: fmt.Sprintf("flow %s: %v; nothing was changed", f.FullName(), err), Next: "correct what it names in the stage, or mend the plugin, then deploy again"}
		}
		if err := errors.Join(b.st.Close(ctx), b.lease.Release(ctx)); err != nil {
			return nil, nil, d.apiError(err)
		}
		a.Pins = append(a.Pins, state.Pin{Stage: s.ID, Digest: p.Digest, Version: p.Version})
		df.Stages = append(df.Stages, api.DeploymentStage{Stage: s.ID, OldVersion: old.Version, OldDigest: old.Digest.String(), NewVersion: p.Version, NewDigest: p.Digest.String()})
	}
	if len(a.Pins) == 0 {
		return nil, nil, nil
	}
	return a, df, nil
}

// Deployment implements api.Backend. A deployment's id is its flows' numbers
// and generations, so any node can tell how far it is.
func (d *Daemon) Deployment(_ context.Context, id string) (*api.Deployment, error) {
	dep := &api.Deployment{ID: id, Done: true}
	for part := range strings.SplitSeq(id, "-") {
		a, b, ok := strings.Cut(part, ".")
		fid, err1 := strconv.ParseUint(a, 10, 32)
		gen, err2 := strconv.ParseUint(b, 10, 32)
		if !ok || err1 != nil || err2 != nil {
			return nil, notFound("there is no deployment %s", id)
		}
		df, err := d.deploymentOf(state.FlowID(fid), uint32(gen))
		if err != nil {
			return nil, err
		}
		if df == nil {
			return nil, notFound("there is no deployment %s: flow %d is gone, or its deployment %d is", id, fid, gen)
		}
		dep.Done = dep.Done && (df.Switched == df.Slots || df.State != api.StateRunning)
		dep.Flows = append(dep.Flows, *df)
		if dep.Plugin == nil && len(df.Stages) > 0 {
			if p, err := d.findPlugin(df.Stages[0].NewDigest); err == nil {
				dep.Plugin = d.apiPlugin(p)
			}
		}
	}
	return dep, nil
}

// changedStages are the stages whose plugin is another one.
func changedStages(old, now []state.Pin) []api.DeploymentStage {
	var out []api.DeploymentStage
	for _, p := range now {
		at := slices.IndexFunc(old, func(o state.Pin) bool { return o.Stage == p.Stage })
		if at < 0 || old[at].Digest == p.Digest {
			continue
		}
		out = append(out, api.DeploymentStage{Stage: p.Stage, OldVersion: old[at].Version, OldDigest: old[at].Digest.String(), NewVersion: p.Version, NewDigest: p.Digest.String()})
	}
	return out
}

// deploymentOf tells how many of a flow's slots report a generation. A slot
// without partitions has nothing to switch.
func (d *Daemon) deploymentOf(id state.FlowID, gen uint32) (*api.DeploymentFlow, error) {
	f, err := d.store.FlowByID(id)
	if err != nil || f == nil {
		return nil, d.apiError(err)
	}
	df := &api.DeploymentFlow{Flow: f.FullName(), State: f.State.String(), Generation: gen, Slots: int(f.Slots), Nodes: 1}
	deployments, err := d.store.Deployments(id)
	if err != nil {
		return nil, d.apiError(err)
	}
	at := slices.IndexFunc(deployments, func(v *state.Deployment) bool { return v.Generation == gen })
	if at < 0 {
		return nil, nil
	}
	df.Revision = deployments[at].Revision
	if at > 0 {
		df.Stages = changedStages(deployments[at-1].Pins, deployments[at].Pins)
	}
	partitions, err := d.store.Partitions(id)
	if err != nil {
		return nil, d.apiError(err)
	}
	marks, err := d.store.Watermarks(id)
	if err != nil {
		return nil, d.apiError(err)
	}
	reported := map[uint32]uint32{}
	for _, w := range marks {
		reported[w.Part] = w.Deploy
	}
	waiting := map[uint16]bool{}
	for _, p := range partitions {
		if reported[p.Part] < gen {
			waiting[p.Slot] = true
		}
	}
	df.Switched = df.Slots - len(waiting)
	if r := d.runner(id); r != nil {
		df.Problem = r.problem()
	}
	return df, nil
}
