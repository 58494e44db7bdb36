package dev

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/millrace-io/millrace/cmd/internal/cli"
	"github.com/millrace-io/millrace/runtime/pipeline"
	"github.com/millrace-io/millrace/runtime/record"
)

// observer sees the records that stages get and what they answer, and shows
// both.
type observer struct {
	console *console

	mu     sync.Mutex
	flow   string                   // guarded by mu; project/name of the one that is shown
	stages map[string]bool          // guarded by mu; ids of the stages of all flows
	alone  bool                     // guarded by mu; it has one stage
	awaits map[string]chan struct{} // guarded by mu; by digest, who waits for its first record
}

func newObserver(c *console) *observer {
	return &observer{console: c, stages: map[string]bool{}, awaits: map[string]chan struct{}{}}
}

// show chooses the flow whose records are shown; alone says that it has one
// stage, which need not be named.
func (o *observer) show(flow string, alone bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.flow, o.alone = flow, alone
}

// await returns a channel that is closed once a record has gone through a
// plugin with the digest, and what ends the wait.
func (o *observer) await(digest string) (first <-chan struct{}, forget func()) {
	o.mu.Lock()
	defer o.mu.Unlock()
	c := make(chan struct{})
	o.awaits[digest] = c
	return c, func() {
		o.mu.Lock()
		defer o.mu.Unlock()
		if o.awaits[digest] == c {
			delete(o.awaits, digest)
		}
	}
}

// shown is the flow whose records are shown, "" before there is one.
func (o *observer) shown() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.flow
}

// has reports whether a stage's records are seen: those of deliveries are not.
func (o *observer) has(flow, stage string) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.stages[flow+"/"+stage]
}

// wrap is daemon.Config's Observe.
func (o *observer) wrap(flow string, info pipeline.StageInfo, s pipeline.Stage) pipeline.Stage {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.stages[flow+"/"+info.ID] = true
	return &observed{Stage: s, o: o, flow: flow, id: info.ID, digest: info.Digest}
}

// observed is a stage whose records are seen.
type observed struct {
	pipeline.Stage
	o                *observer
	flow, id, digest string
}

// Process implements pipeline.Stage.
func (s *observed) Process(ctx context.Context, b *record.Batch, out *record.Results) error {
	// Where the answers to this batch begin.
	emits, drops, failures := len(out.Emits), len(out.Drops), len(out.Failures)
	err := s.Stage.Process(ctx, b, out)
	if len(b.Records) == 0 {
		return err
	}
	shown, named := s.o.shows(s.flow)
	if err != nil {
		if shown && ctx.Err() == nil {
			s.o.console.say("stage %s does not work: %v", s.id, err)
		}
		return err
	}
	if shown {
		stage := ""
		if named {
			stage = s.id
		}
		s.o.tell(stage, b, &record.Results{Emits: out.Emits[emits:], Drops: out.Drops[drops:], Failures: out.Failures[failures:]})
	}
	s.o.passed(s.digest)
	return nil
}

// shows reports whether a flow's records are shown, and their stages named.
func (o *observer) shows(flow string) (shown, named bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return flow == o.flow, !o.alone
}

// passed wakes who waits for a record to have gone through the digest.
func (o *observer) passed(digest string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if c := o.awaits[digest]; c != nil {
		close(c)
		delete(o.awaits, digest)
	}
}

// tell shows the answers to a batch, record by record in its order. stage is
// empty where there is one only.
func (o *observer) tell(stage string, b *record.Batch, out *record.Results) {
	type answer struct {
		emits   []int
		dropped bool
		failed  *record.Error
		logs    []string // of the call that failed
	}
	answers := make([]answer, len(b.Records))
	for i := range out.Emits {
		a := &answers[out.Emits[i].In]
		a.emits = append(a.emits, i)
	}
	for _, i := range out.Drops {
		answers[i].dropped = true
	}
	for i := range out.Failures {
		a := &answers[out.Failures[i].In]
		a.failed = out.Failures[i].Err
		if r := out.Failures[i].Replay; r != nil {
			a.logs = r.Logs
		}
	}
	p := o.console.paint
	for i := range b.Records {
		in, a := &b.Records[i], &answers[i]
		head := func() string {
			if stage == "" {
				return fmt.Sprintf("%s  %s", place(in), p.dim(title(in)))
			}
			return fmt.Sprintf("%s  %s  %s", place(in), cli.Safe(stage), p.dim(title(in)))
		}
		if a.failed != nil {
			o.console.bounded(kindFailure, o.console.out, func() string { return head() + " " + p.failure(a.failed, in.Attempt) + p.logs(a.logs) })
			continue
		}
		o.console.bounded(kindRecord, o.console.out, func() string {
			switch {
			case a.dropped || len(a.emits) == 0:
				return head() + " " + p.yellow("dropped")
			case len(a.emits) == 1:
				e := &out.Emits[a.emits[0]]
				return head() + outputText(e.Output) + " " + p.emitted(in, &e.Record)
			}
			lines := []string{fmt.Sprintf("%s -> %s", head(), cli.Plural(len(a.emits), "record"))}
			for n, at := range a.emits {
				if n == maxEmitsShown {
					lines = append(lines, fmt.Sprintf("     and %d more", len(a.emits)-n))
					break
				}
				e := &out.Emits[at]
				lines = append(lines, fmt.Sprintf("     %d:%s %s", n, outputText(e.Output), p.emitted(in, &e.Record)))
			}
			return strings.Join(lines, "\n")
		})
	}
}

// outputText names an output other than the default one.
func outputText(output uint16) string {
	if output == 0 {
		return ""
	}
	return fmt.Sprintf(" [output %d]", output)
}

// failure shows why a record cannot go on, or not yet.
func (p paint) failure(e *record.Error, attempt uint32) string {
	if !e.Class.Transient() {
		return p.red("failed: " + cli.Safe(e.Error()))
	}
	s := fmt.Sprintf("later (attempt %d", max(attempt, 1))
	if e.RetryAfter > 0 {
		s += ", after " + e.RetryAfter.Round(time.Millisecond).String()
	}
	return p.yellow(s + "): " + cli.Safe(e.Error()))
}

// logs shows what a guest logged before it failed, a line each.
func (p paint) logs(lines []string) string {
	var b strings.Builder
	for i, l := range lines {
		if i == maxLogsShown {
			fmt.Fprintf(&b, "\n     %s", p.dim(fmt.Sprintf("and %s more", cli.Plural(len(lines)-i, "line"))))
			break
		}
		fmt.Fprintf(&b, "\n     %s %s", p.dim("log"), cli.Safe(l))
	}
	return b.String()
}
