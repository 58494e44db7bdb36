package flow

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Change is one difference between two revisions of a flow.
type Change struct {
	// Op is "+" (added), "-" (removed) or "~" (changed).
	Op string `json:"op"`
	// What is the part: a stage's id, "source", "order", "vars.currency".
	What string `json:"what"`
	// Old and New say what it was and is, "" where it was not or is not.
	Old string `json:"old,omitempty"`
	New string `json:"new,omitempty"`
}

// String is the change as a line of a plan.
func (c Change) String() string {
	switch {
	case c.Old != "" && c.New != "" && c.Old != c.New:
		return fmt.Sprintf("%s %s: %s -> %s", c.Op, c.What, c.Old, c.New)
	case c.New != "":
		return fmt.Sprintf("%s %s: %s", c.Op, c.What, c.New)
	case c.Old != "":
		return fmt.Sprintf("%s %s: %s", c.Op, c.What, c.Old)
	}
	return c.Op + " " + c.What
}

// Diff lists what changes when the flow old becomes the flow new, in the order
// of the document; old may be nil. Digests of plugins are not part of it.
func Diff(old, new *Flow) []Change {
	var cs []Change
	part := func(what, was, is string) {
		if was != is {
			cs = append(cs, Change{Op: op(was, is), What: what, Old: was, New: is})
		}
	}
	if old == nil {
		old = &Flow{}
	}
	part("description", old.Description, new.Description)
	eachName(old.Labels, new.Labels, func(k string) { part("labels."+k, old.Labels[k], new.Labels[k]) })
	named := func(key, was, is string) {
		if was != is {
			was, is = shown(key, was, is, false)
			cs = append(cs, Change{Op: op(was, is), What: key, Old: was, New: is})
		}
	}
	eachName(old.Vars, new.Vars, func(k string) { named("vars."+k, varText(old.Vars, k), varText(new.Vars, k)) })
	eachName(old.Env, new.Env, func(k string) { named("env."+k, old.Env[k], new.Env[k]) })
	compare := func(what, was, is string, old, new any) {
		if was != is {
			part(what, was, is)
		}
		if was != "" && is != "" {
			cs = append(cs, details(what, was == is, old, new)...)
		}
	}
	compare("source", old.Source.describe(), new.Source.describe(), old.Source.part(), new.Source.part())
	part("order", string(old.Order), string(new.Order))
	part("slots", number(old.Slots), number(new.Slots))
	part("limits.in_flight", number(old.InFlight), number(new.InFlight))
	part("limits.records", rateText(old.Limits.Records), rateText(new.Limits.Records))
	part("limits.pause_at", number(old.Limits.PauseAt), number(new.Limits.PauseAt))
	part("limits.resume_at", number(old.Limits.ResumeAt), number(new.Limits.ResumeAt))
	part("otherwise", old.Otherwise.describe(old.Aside), new.Otherwise.describe(new.Aside))
	part("queue.keep", durationText(old.Queue.Keep), durationText(new.Queue.Keep))
	part("queue.entries", number(old.Queue.Entries), number(new.Queue.Entries))
	part("queue.bytes", bytesText(old.Queue.Bytes), bytesText(new.Queue.Bytes))
	part("queue.when_full", string(old.Queue.WhenFull), string(new.Queue.WhenFull))
	part("requeue", old.Requeue.describe(), new.Requeue.describe())
	cs = append(cs, diffSteps(steps(old), steps(new))...)
	for i := range max(len(old.Exceptions), len(new.Exceptions)) {
		var was, is string
		var before, after Exception
		if i < len(old.Exceptions) {
			before = old.Exceptions[i]
			was = before.describe()
		}
		if i < len(new.Exceptions) {
			after = new.Exceptions[i]
			is = after.describe()
		}
		compare("exceptions."+number(i+1), was, is, before, after)
	}
	return cs
}

// op is that of a change from was to is.
func op(was, is string) string {
	switch {
	case was == "":
		return "+"
	case is == "":
		return "-"
	}
	return "~"
}

// step is a stage or delivery in a flow, wherever it stands.
type step struct {
	id, describe string
	// place is the case that it stands in, "" outside of all.
	place string
	// shape is what it is, without the stages that a branch holds.
	shape any
}

// steps are the stages and deliveries in the order of the document.
func steps(f *Flow) []step {
	var out []step
	var list func(place string, stages []Stage, d *Delivery)
	list = func(place string, stages []Stage, d *Delivery) {
		for i := range stages {
			s := stages[i]
			b := s.Branch
			if b != nil {
				bare := Branch{Every: b.Every, Else: BranchCase{Drop: b.Else.Drop, Reason: b.Else.Reason}}
				for _, c := range b.Cases {
					bare.Cases = append(bare.Cases, BranchCase{When: c.When})
				}
				s.Branch = &bare
			}
			out = append(out, step{s.ID, stages[i].Describe(), place, s})
			if b == nil {
				continue
			}
			for j := range b.Cases {
				list(s.ID+"."+number(j+1), b.Cases[j].Stages, b.Cases[j].Delivery)
			}
			list(s.ID+".else", b.Else.Stages, b.Else.Delivery)
		}
		if d != nil && d.ID != "" {
			out = append(out, step{d.ID, d.Describe(), place, *d})
		}
	}
	list("", f.Stages, &f.Delivery)
	return out
}

func diffSteps(old, new []step) []Change {
	var cs []Change
	find := func(ss []step, id string) int {
		return slices.IndexFunc(ss, func(s step) bool { return s.id == id })
	}
	var kept []string
	for i := range old {
		if find(new, old[i].id) < 0 {
			cs = append(cs, Change{Op: "-", What: old[i].id, Old: old[i].describe})
		} else {
			kept = append(kept, old[i].id)
		}
	}
	k := 0
	for _, s := range new {
		j := find(old, s.id)
		if j < 0 {
			cs = append(cs, Change{Op: "+", What: s.id, New: s.describe})
			continue
		}
		was := old[j]
		shape := details(s.id, was.describe == s.describe, was.shape, s.shape)
		if was.describe != s.describe {
			shape = append([]Change{{Op: "~", What: s.id, Old: was.describe, New: s.describe}}, shape...)
		}
		switch {
		case len(shape) > 0:
			cs = append(cs, shape...)
		case was.place != s.place:
			cs = append(cs, Change{Op: "~", What: s.id, New: strings.TrimSuffix("moved into "+s.place, " into ")})
		case kept[k] != s.id:
			cs = append(cs, Change{Op: "~", What: s.id, New: "moved"})
		}
		k++
	}
	return cs
}

func eachName[V any](a, b map[string]V, visit func(string)) {
	var names []string
	for k := range a {
		names = append(names, k)
	}
	for k := range b {
		names = append(names, k)
	}
	slices.Sort(names)
	for _, k := range slices.Compact(names) {
		visit(k)
	}
}

func varText(vars map[string]any, k string) string {
	if v, ok := vars[k]; ok {
		return fmt.Sprintf("%#v", v)
	}
	return ""
}

func number(n int) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprint(n)
}

func bytesText(n int64) string {
	switch {
	case n == 0:
		return ""
	case n%(1<<10) != 0:
		return strconv.FormatInt(n, 10)
	}
	return sizeText(n)
}

// describe names the owner of a record that cannot go on.
func (o Otherwise) describe(aside *Topic) string {
	if o == OtherwiseTopic && aside != nil {
		return "topic " + aside.String()
	}
	return string(o)
}

func (r *Requeue) describe() string {
	if r == nil {
		return ""
	}
	return fmt.Sprintf("every %s, at most %d times", durationText(r.Every), r.AtMost)
}

func (e *Exception) describe() string {
	if e.When == "" {
		return e.Push.Describe()
	}
	return "when " + e.When + ": " + e.Push.Describe()
}

// describe is the source with what cannot change while the flow lives, "" for
// none.
func (s Source) describe() string {
	switch {
	case s == Source{}:
		return ""
	case s.Start() != "":
		return s.String() + " from " + string(s.Start())
	}
	return s.String()
}

// part is the field of the source that is set.
func (s Source) part() any {
	switch {
	case s.Kafka != nil:
		return s.Kafka
	case s.RocketMQ != nil:
		return s.RocketMQ
	case s.File != nil:
		return s.File
	case s.Ingest != nil:
		return s.Ingest
	}
	return &Stream{}
}

// ErrSourceChange is what CheckUpdate's errors wrap.
var ErrSourceChange = errors.New("a live flow's source topics and start cannot change: delete the flow and apply it anew, or apply it under another name")

// CheckUpdate reports whether a live flow may become another document of its
// name. Its source, with topics and start, and its slots cannot change.
func CheckUpdate(old, new *Flow) error {
	var errs []error
	if was, is := old.Source.describe(), new.Source.describe(); was != is {
		errs = append(errs, fmt.Errorf("update flow %s: source %s -> %s: %w", new.FullName(), was, is, ErrSourceChange))
	}
	if old.Slots != new.Slots && new.Slots != 0 {
		errs = append(errs, fmt.Errorf("update flow %s: slots %s -> %d: the slots of a live flow cannot change", new.FullName(), cmp.Or(number(old.Slots), "not said"), new.Slots))
	}
	return errors.Join(errs...)
}
