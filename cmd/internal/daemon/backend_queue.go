package daemon

import (
	"context"
	"fmt"
	"slices"

	"github.com/millrace-io/millrace/cluster/state"
	"github.com/millrace-io/millrace/cmd/internal/api"
	"github.com/millrace-io/millrace/runtime/delivery"
	"github.com/millrace-io/millrace/runtime/flow"
	"github.com/millrace-io/millrace/runtime/record"
)

const (
	// queuePage is how many entries are read, and changed by one command, at
	// once.
	queuePage = 256
	// queuePageBytes is the size of stored entries and their values above which
	// a page ends.
	queuePageBytes = 8 << 20
	// maxProblems is how many entries that were passed over are named.
	maxProblems = 100
	// importLine is the longest line of an import: an entry with a value of
	// 1 MiB in base64, and what stands beside it.
	importLine = 8 << 20
	// importBytes is about what one command files.
	importBytes = 512 << 10
)

// selected calls each with the entries that are chosen, oldest first.
func (d *Daemon) selected(f *state.Flow, sel *api.Selection, each func([]*record.Entry) error) error {
	if err := sel.Check(); err != nil {
		return err
	}
	left := sel.Limit
	if left == 0 {
		left = -1
	}
	take := func(page []*record.Entry) (more bool, err error) {
		if at := slices.IndexFunc(page, func(e *record.Entry) bool { return sel.UpTo != 0 && e.Seq > sel.UpTo }); at >= 0 {
			page = page[:at]
		}
		if left >= 0 && len(page) > left {
			page = page[:left]
		}
		if left > 0 {
			left -= len(page)
		}
		if len(page) == 0 {
			return false, nil
		}
		return left != 0, each(page)
	}
	if len(sel.Seqs) > 0 {
		return d.selectedSeqs(f, sel.Seqs, take)
	}
	filter, err := entryFilter(sel.Filter)
	if err != nil {
		return err
	}
	for after := uint64(0); ; {
		page, more, err := d.store.FailurePage(f.ID, after, queuePage, queuePageBytes, filter)
		if err != nil {
			return d.apiError(err)
		}
		if len(page) == 0 {
			return nil
		}
		after = page[len(page)-1].Seq
		if wanted, err := take(page); err != nil || !wanted || !more {
			return err
		}
	}
}

func (d *Daemon) selectedSeqs(f *state.Flow, seqs []uint64, take func([]*record.Entry) (bool, error)) error {
	seqs = slices.Clone(seqs)
	slices.Sort(seqs)
	seqs = slices.Compact(seqs)
	for len(seqs) > 0 {
		var page []*record.Entry
		for size := 0; len(page) < min(queuePage, len(seqs)) && size < queuePageBytes; {
			seq := seqs[len(page)]
			e, err := d.store.Failure(f.ID, seq)
			if err != nil {
				return d.apiError(err)
			}
			if e == nil {
				e = &record.Entry{Seq: seq} // told as missing by who uses it
			}
			size += len(e.Input.Value)
			page = append(page, e)
		}
		seqs = seqs[len(page):]
		if more, err := take(page); err != nil || !more {
			return err
		}
	}
	return nil
}

// missing reports whether e stands for a number without an entry.
func missing(e *record.Entry) bool { return e.Stage == "" }

// DropFailures implements api.Backend.
func (d *Daemon) DropFailures(ctx context.Context, req *api.DropFailures) (*api.DropReport, error) {
	f, err := d.findFlow(req.Project, req.Name)
	if err != nil {
		return nil, err
	}
	out := &api.DropReport{DryRun: req.DryRun}
	err = d.selected(f, &req.Selection, func(page []*record.Entry) error {
		var seqs []uint64
		for _, e := range page {
			if !missing(e) {
				seqs = append(seqs, e.Seq)
			}
		}
		if len(seqs) == 0 {
			return nil
		}
		out.Last = seqs[len(seqs)-1]
		if req.DryRun {
			out.Dropped += uint64(len(seqs))
			return nil
		}
		res, err := d.queueOp(ctx, &state.QueueOp{Flow: f.ID, Action: state.QueueDrop, Seqs: seqs})
		if err == nil {
			out.Dropped += uint64(res.Done)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

func (d *Daemon) queueOp(ctx context.Context, c state.Command) (*state.QueueOpResult, error) {
	res, err := d.node.Propose(ctx, c)
	if err != nil {
		return nil, d.apiError(err)
	}
	return res.Value.(*state.QueueOpResult), nil
}

// replays is where entries of a flow go back to.
type replays struct {
	d      *Daemon
	flow   *state.Flow
	places map[string]string // id of each stage and delivery -> digest of its plugin, or ""
	calls  map[string]string // DELIVERY.sign and DELIVERY.validate -> digest of the plugin
	http   map[string]bool   // ids of deliveries that keep the order of keys
	want   string            // api.ReplayCurrent, api.ReplayFailed or a digest
	stored map[string]bool
}

func (d *Daemon) newReplays(f *state.Flow, want string) (*replays, error) {
	rev, doc, err := d.document(f)
	if err != nil {
		return nil, err
	}
	r := &replays{d: d, flow: f, places: map[string]string{}, calls: map[string]string{}, http: map[string]bool{}, want: want, stored: map[string]bool{}}
	if r.want == "" {
		r.want = api.ReplayCurrent
	}
	if s := doc.Decoding(); s != nil {
		r.places[s.ID] = ""
	}
	for _, s := range doc.AllStages() {
		r.places[s.ID] = ""
	}
	for _, p := range rev.Pins {
		if _, ok := r.places[p.Stage]; ok {
			r.places[p.Stage] = p.Digest.String()
		} else {
			r.calls[p.Stage] = p.Digest.String()
		}
	}
	for _, dl := range doc.Deliveries() {
		r.places[dl.ID] = ""
		r.http[dl.ID] = dl.HTTP != nil && doc.Order == flow.OrderKey
	}
	switch r.want {
	case api.ReplayCurrent, api.ReplayFailed:
		return r, nil
	}
	if ok, err := r.isStored(r.want); err != nil {
		return nil, err
	} else if !ok {
		return nil, &api.Error{Code: api.CodeNotFound, Detail: fmt.Sprintf("plugin %s is not stored", r.want), Next: "upload it: `flowctl deploy PLUGIN.wasm --store-only`"}
	}
	return r, nil
}

func (r *replays) isStored(digest string) (bool, error) {
	if ok, known := r.stored[digest]; known {
		return ok, nil
	}
	dg, err := state.ParseDigest(digest)
	if err != nil {
		return false, invalid("plugin %q: it is current, failed or sha256: and 64 hex digits", digest)
	}
	names, err := r.d.store.PluginByDigest(dg)
	if err != nil {
		return false, r.d.apiError(err)
	}
	r.stored[digest] = len(names) > 0
	return len(names) > 0, nil
}

// via is the plugin that an entry's stage is to run this once, "" for its own;
// problem says why the entry cannot go back.
func (r *replays) via(e *record.Entry) (digest, problem string, err error) {
	present, ok := r.places[e.Stage]
	switch {
	case missing(e):
		return "", "there is no such entry", nil
	case !ok:
		return "", fmt.Sprintf("the flow has no stage %s any more: put it back into the document, or drop the entry", e.Stage), nil
	case e.InputOmitted:
		return "", "its value is not in the entry, it was too large to keep", nil
	case r.want == api.ReplayCurrent:
		return "", "", nil
	case e.Call != nil:
		digest = r.want
		if r.want == api.ReplayFailed {
			digest = e.Call.Digest
		}
		if digest != r.calls[e.Call.Stage] {
			problem = fmt.Sprintf("only stages run a plugin for single records, and %s is none: deploy it there and replay with the present one, or try it with --dry-run", e.Call.Stage)
		}
		return "", problem, nil
	case r.want == api.ReplayFailed:
		digest = e.Digest
	default:
		digest = r.want
		if present == "" {
			return "", fmt.Sprintf("stage %s runs no plugin: replay it with the present one", e.Stage), nil
		}
	}
	if digest == "" || digest == present {
		return "", "", nil
	}
	stored, err := r.isStored(digest)
	if err == nil && !stored {
		problem = fmt.Sprintf("plugin %s %s is not stored any more: upload it, or replay with the present one", e.Plugin, digest)
	}
	return digest, problem, err
}

// hold is what later records of the entry's key wait behind; 0: none do.
func (r *replays) hold(e *record.Entry) uint64 {
	if !r.http[e.Stage] {
		return 0
	}
	return delivery.Hold(e.Stage, &e.Input)
}

// ReplayFailures implements api.Backend.
func (d *Daemon) ReplayFailures(ctx context.Context, req *api.ReplayFailures) (*api.ReplayReport, error) {
	f, err := d.findFlow(req.Project, req.Name)
	if err != nil {
		return nil, err
	}
	r, err := d.newReplays(f, req.Plugin)
	if err != nil {
		return nil, err
	}
	out := &api.ReplayReport{DryRun: req.DryRun}
	skip := func(seq uint64, id, why string) {
		out.Skipped++
		if len(out.Problems) < maxProblems {
			out.Problems = append(out.Problems, api.EntryProblem{Seq: seq, ID: id, Detail: why})
		}
	}
	err = d.selected(f, &req.Selection, func(page []*record.Entry) error {
		ops := map[string]*state.QueueOp{}
		ids := map[uint64]string{}
		var order []string
		for _, e := range page {
			via, problem, err := r.via(e)
			if err != nil {
				return err
			}
			id := ""
			if !missing(e) {
				id = e.ID()
			}
			if problem != "" {
				skip(e.Seq, id, problem)
				continue
			}
			op := ops[via]
			if op == nil {
				op = &state.QueueOp{Flow: f.ID, Action: state.QueueReplay, Via: via}
				ops[via], order = op, append(order, via)
			}
			op.Seqs, op.Holds = append(op.Seqs, e.Seq), append(op.Holds, r.hold(e))
			ids[e.Seq], out.Last = id, e.Seq
		}
		for _, via := range order {
			op := ops[via]
			if req.DryRun {
				out.Replayed += uint64(len(op.Seqs))
				continue
			}
			res, err := d.queueOp(ctx, op)
			if err != nil {
				return err
			}
			out.Replayed += uint64(res.Done)
			for _, s := range res.Skipped {
				skip(s.Seq, ids[s.Seq], s.Reason.String())
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	if !req.DryRun {
		d.dueNow(f.ID)
	}
	return out, nil
}

// dueNow lets the flow's runner look at what is due.
func (d *Daemon) dueNow(id state.FlowID) {
	if r := d.runner(id); r != nil {
		signal(r.due)
	}
}
