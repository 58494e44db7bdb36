package dev

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/millrace-io/millrace/cmd/internal/api"
	"github.com/millrace-io/millrace/cmd/internal/cli"
)

// attendEvery is how often the flow and its failure queue are looked at.
const attendEvery = 500 * time.Millisecond

// oldFailures are the last entries of the failure queues that are there, by
// flow.
func (s *session) oldFailures(ctx context.Context) map[string]uint64 {
	last := map[string]uint64{}
	flows, err := s.node.Flows(ctx, "")
	if err != nil {
		return last // they are shown again
	}
	for _, f := range flows {
		last[f.Project+"/"+f.Name] = s.failures(ctx, f.Project, f.Name, 0, false)
	}
	return last
}

// attend shows what the stages do not tell, until ctx ends: why the flow
// stands still, and what fails in deliveries. Of each flow it has shown the
// entries up to told.
func (s *session) attend(ctx context.Context, told map[string]uint64) {
	tick := time.NewTicker(attendEvery)
	defer tick.Stop()
	flow, said := "", ""
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		now := s.observe.shown()
		if now == "" {
			continue
		}
		project, name, _ := strings.Cut(now, "/")
		if now != flow {
			flow, said = now, ""
		}
		if f, err := s.node.Flow(ctx, project, name); err == nil {
			if text := standing(f); text != said {
				if said = text; text != "" {
					s.console.say("%s", s.console.paint.red(fmt.Sprintf("flow %s %s", name, cli.Safe(text))))
				} else {
					s.console.say("flow %s goes on", name)
				}
			}
		}
		told[now] = s.failures(ctx, project, name, told[now], true)
	}
}

// standing says why a flow stands still, or is empty.
func standing(f *api.Flow) string {
	switch {
	case f.State != api.StateRunning && f.Reason != "":
		return "is " + f.State + ": " + f.Reason
	case f.State != api.StateRunning:
		return "is " + f.State
	case f.Problem != "":
		return "does not get on: " + f.Problem
	}
	return ""
}

// failures passes over the entries of a failure queue behind one, and shows
// those of deliveries. It returns the last one.
func (s *session) failures(ctx context.Context, project, name string, after uint64, show bool) uint64 {
	q := &api.FailureQuery{Project: project, Name: name, After: after, Limit: 1000}
	for {
		page, err := s.node.Failures(ctx, q)
		if err != nil {
			return q.After
		}
		for _, e := range page.Entries {
			q.After = max(q.After, e.Seq)
			if !show || s.observe.has(project+"/"+name, e.Stage) {
				continue
			}
			s.console.bounded(kindFailure, s.console.out, func() string {
				return fmt.Sprintf("%s  %s %s", place(&e.Input), s.console.paint.dim(title(&e.Input)),
					s.console.paint.red(fmt.Sprintf("failed in %s: %s", cli.Safe(e.Stage), cli.Safe(failureText(e.Class.String(), e.Code, e.Message)))))
			})
		}
		if page.Next == 0 {
			return q.After
		}
		q.After = page.Next
	}
}

func failureText(class string, code uint32, message string) string {
	if code != 0 {
		class += fmt.Sprintf(" (%d)", code)
	}
	return class + ": " + message
}
