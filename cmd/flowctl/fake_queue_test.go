package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/millrace-io/millrace/cmd/internal/api"
	"github.com/millrace-io/millrace/runtime/record"
)

func filterText(f *api.FailureFilter) string {
	if f == nil {
		return "-"
	}
	b, err := json.Marshal(f)
	if err != nil {
		panic(err)
	}
	return string(b)
}

func (m *memory) matches(e *record.Entry, f *api.FailureFilter) bool {
	return f == nil || (f.Class == "" || e.Class.String() == f.Class) && (f.Stage == "" || e.Stage == f.Stage) && (f.Key == nil || string(e.Input.Key) == *f.Key) &&
		e.Time >= f.Since && (f.Until == 0 || e.Time < f.Until) && strings.Contains(e.Message, f.Where)
}

func (m *memory) Failures(_ context.Context, q *api.FailureQuery) (*api.FailurePage, error) {
	defer m.call("failures after=%d limit=%d %s", q.After, q.Limit, filterText(&q.FailureFilter))()
	if _, err := m.flow(q.Project, q.Name); err != nil {
		return nil, err
	}
	all := m.failures[q.Project+"/"+q.Name]
	page := &api.FailurePage{Entries: []*record.Entry{}, Total: uint64(len(all))}
	for _, e := range all {
		if e.Seq <= q.After || !m.matches(e, &q.FailureFilter) {
			continue
		}
		// Pages are kept small, so that a client has to turn them.
		if len(page.Entries) == min(q.Limit, 2) {
			page.Next = page.Entries[len(page.Entries)-1].Seq
			break
		}
		page.Entries = append(page.Entries, e)
	}
	return page, nil
}

// chosen are the entries of a selection.
func (m *memory) chosen(project, name string, s *api.Selection) ([]*record.Entry, error) {
	if _, err := m.flow(project, name); err != nil {
		return nil, err
	}
	var out []*record.Entry
	for _, e := range m.failures[project+"/"+name] {
		if s.UpTo != 0 && e.Seq > s.UpTo || s.Limit > 0 && len(out) == s.Limit || len(s.Seqs) > 0 && !slices.Contains(s.Seqs, e.Seq) || !m.matches(e, s.Filter) {
			continue
		}
		out = append(out, e)
	}
	return out, nil
}

func (m *memory) remove(name string, entries []*record.Entry) {
	m.failures[name] = slices.DeleteFunc(slices.Clone(m.failures[name]), func(e *record.Entry) bool { return slices.Contains(entries, e) })
}

func selectionText(s *api.Selection) string {
	return fmt.Sprintf("seqs=%v filter=%s all=%v up_to=%d limit=%d", s.Seqs, filterText(s.Filter), s.All, s.UpTo, s.Limit)
}

func (m *memory) ReplayFailures(_ context.Context, req *api.ReplayFailures) (*api.ReplayReport, error) {
	defer m.call("replay %s/%s %s plugin=%q dry_run=%v", req.Project, req.Name, selectionText(&req.Selection), req.Plugin, req.DryRun)()
	entries, err := m.chosen(req.Project, req.Name, &req.Selection)
	if err != nil {
		return nil, err
	}
	r := &api.ReplayReport{DryRun: req.DryRun}
	var gone []*record.Entry
	for _, e := range entries {
		if e.InputOmitted {
			r.Skipped++
			r.Problems = append(r.Problems, api.EntryProblem{Seq: e.Seq, ID: e.ID(), Detail: "its value was too large to keep"})
			continue
		}
		r.Replayed, r.Last = r.Replayed+1, e.Seq
		gone = append(gone, e)
	}
	if !req.DryRun {
		m.remove(req.Project+"/"+req.Name, gone)
	}
	return r, nil
}

func (m *memory) DropFailures(_ context.Context, req *api.DropFailures) (*api.DropReport, error) {
	defer m.call("drop %s/%s %s dry_run=%v", req.Project, req.Name, selectionText(&req.Selection), req.DryRun)()
	entries, err := m.chosen(req.Project, req.Name, &req.Selection)
	if err != nil {
		return nil, err
	}
	r := &api.DropReport{Dropped: uint64(len(entries)), DryRun: req.DryRun}
	if len(entries) > 0 {
		r.Last = entries[len(entries)-1].Seq
	}
	if !req.DryRun {
		m.remove(req.Project+"/"+req.Name, entries)
	}
	return r, nil
}

func (m *memory) ImportFailures(_ context.Context, project, name string, r io.Reader) (*api.ImportReport, error) {
	defer m.call("import %s/%s", project, name)()
	if _, err := m.flow(project, name); err != nil {
		return nil, err
	}
	report := &api.ImportReport{}
	full := project + "/" + name
	for lines := bufio.NewScanner(r); lines.Scan(); {
		e := &record.Entry{}
		if err := json.Unmarshal(lines.Bytes(), e); err != nil {
			return nil, err
		}
		if slices.ContainsFunc(m.failures[full], func(o *record.Entry) bool { return o.ID() == e.ID() }) {
			report.Present++
			continue
		}
		e.Seq = uint64(len(m.failures[full]) + 1)
		m.failures[full] = append(m.failures[full], e)
		report.Filed++
	}
	return report, nil
}

func (m *memory) Retries(_ context.Context, q *api.RetryQuery) (*api.RetryPage, error) {
	defer m.call("retries after=%q limit=%d stage=%q", q.After, q.Limit, q.Stage)()
	if _, err := m.flow(q.Project, q.Name); err != nil {
		return nil, err
	}
	all := m.retries[q.Project+"/"+q.Name]
	page := &api.RetryPage{Entries: []*api.Retry{}, Total: uint64(len(all))}
	from := 0
	if q.After != "" {
		from, _ = strconv.Atoi(q.After)
	}
	for i := from; i < len(all); i++ {
		if q.Stage != "" && all[i].Stage != q.Stage {
			continue
		}
		if len(page.Entries) == min(q.Limit, 1) {
			page.Next = strconv.Itoa(i)
			break
		}
		page.Entries = append(page.Entries, all[i])
	}
	return page, nil
}

func (m *memory) Offsets(_ context.Context, project, name string) (*api.Offsets, error) {
	defer m.call("offsets %s/%s", project, name)()
	f, err := m.flow(project, name)
	if err != nil {
		return nil, err
	}
	o := &api.Offsets{Flow: project + "/" + name, State: f.State, Generation: f.Generation}
	for _, p := range f.Partitions {
		o.Partitions = append(o.Partitions, api.PartitionOffset{Topic: p.Topic, Partition: p.Partition, Committed: p.Committed, Position: p.Position, Start: 0, End: p.End, Lag: p.Lag})
	}
	return o, nil
}

func (m *memory) ResetOffsets(_ context.Context, req *api.OffsetsReset) (*api.OffsetsPlan, error) {
	defer m.call("reset %s/%s to=%q positions=%v hash=%q dry_run=%v", req.Project, req.Name, req.To, req.Positions, req.Hash, req.DryRun)()
	f, err := m.flow(req.Project, req.Name)
	if err != nil {
		return nil, err
	}
	plan := &api.OffsetsPlan{Flow: req.Project + "/" + req.Name, State: f.State, Generation: f.Generation + 1, Hash: fmt.Sprint("plan-", f.Generation), DryRun: req.DryRun,
		Warnings: []string{"3 entries of the failure queue stay there: they are of the generation before"}}
	if !req.DryRun && req.Hash != plan.Hash {
		return nil, &api.Error{Code: api.CodeConflict, Detail: "the plan would be another now", Next: "ask for the plan again"}
	}
	for i := range f.Partitions {
		p := &f.Partitions[i]
		move := api.OffsetsMove{Topic: p.Topic, Partition: p.Partition, From: p.Committed, To: p.Committed}
		switch {
		case req.To == api.OffsetsEarliest:
			move.To = 0
		case req.To == api.OffsetsLatest && p.End < 0:
			move.Note = "its end is not known"
		case req.To == api.OffsetsLatest:
			move.To = p.End
		case strings.HasPrefix(req.To, "-"):
			n, err := strconv.ParseInt(req.To, 10, 64)
			if err != nil {
				return nil, err
			}
			move.To = p.Committed + n
		}
		for _, t := range req.Positions {
			if t.Partition == p.Partition {
				move.To = t.Offset
			}
		}
		move.Repeated, move.Skipped = max(0, move.From-move.To), max(0, move.To-move.From)
		plan.Repeated, plan.Skipped = plan.Repeated+move.Repeated, plan.Skipped+move.Skipped
		plan.Partitions = append(plan.Partitions, move)
		if !req.DryRun {
			p.Committed = move.To
		}
	}
	if !req.DryRun {
		f.Generation++
	}
	return plan, nil
}

func (m *memory) Revisions(_ context.Context, project, name string) ([]*api.Revision, error) {
	defer m.call("revisions %s/%s", project, name)()
	if _, err := m.flow(project, name); err != nil {
		return nil, err
	}
	return m.revisions[project+"/"+name], nil
}

func (m *memory) Rollback(_ context.Context, req *api.Rollback) (*api.FlowPlan, error) {
	defer m.call("rollback %s/%s to=%d if_match=%d dry_run=%v", req.Project, req.Name, req.Revision, req.IfMatch, req.DryRun)()
	full := req.Project + "/" + req.Name
	f, err := m.flow(req.Project, req.Name)
	if err != nil {
		return nil, err
	}
	for _, r := range m.revisions[full] {
		if r.Revision != req.Revision {
			continue
		}
		plan := &api.FlowPlan{Project: req.Project, Name: req.Name, Action: "update", Revision: f.Revision + 1, From: r.Revision, Changes: []string{"delivery: retry first 1s -> 5s"}, DryRun: req.DryRun}
		if !req.DryRun {
			f.Revision = plan.Revision
			m.revisions[full] = append([]*api.Revision{{Revision: f.Revision, At: now.UnixMilli(), Document: r.Document, Pinned: r.Pinned}}, m.revisions[full]...)
		}
		return plan, nil
	}
	return nil, notFound("revision", strconv.Itoa(int(req.Revision)))
}
