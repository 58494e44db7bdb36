package flow

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
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
		switch {
		case was == is:
		case was == "":
			cs = append(cs, Change{Op: "+", What: what, New: is})
		case is == "":
			cs = append(cs, Change{Op: "-", What: what, Old: was})
		default:
			cs = append(cs, Change{Op: "~", What: what, Old: was, New: is})
		}
	}
	if old == nil {
		old = &Flow{}
	}
	part("description", old.Description, new.Description)
	eachName(old.Labels, new.Labels, func(k string) { part("labels."+k, old.Labels[k], new.Labels[k]) })
	eachName(old.Vars, new.Vars, func(k string) { part("vars."+k, varText(old.Vars, k), varText(new.Vars, k)) })
	eachName(old.Env, new.Env, func(k string) { part("env."+k, old.Env[k], new.Env[k]) })
	part("source", old.Source.describe(), new.Source.describe())
	part("order", string(old.Order), string(new.Order))
	part("slots", number(old.Slots), number(new.Slots))
	part("limits.in_flight", number(old.InFlight), number(new.InFlight))
	part("otherwise", string(old.Otherwise), string(new.Otherwise))
	cs = append(cs, diffStages(old.Stages, new.Stages)...)
	switch was, is := old.Delivery, new.Delivery; {
	case was.ID == "":
		part(is.ID, "", is.Describe())
	case was.ID != is.ID:
		part(was.ID, was.Describe(), "")
		part(is.ID, "", is.Describe())
	case !sameJSON(was, is):
		cs = append(cs, changed(is.ID, was.Describe(), is.Describe(), was, is))
	}
	return cs
}

func diffStages(old, new []Stage) []Change {
	var cs []Change
	find := func(ss []Stage, id string) int {
		return slices.IndexFunc(ss, func(s Stage) bool { return s.ID == id })
	}
	for i := range old {
		if find(new, old[i].ID) < 0 {
			cs = append(cs, Change{Op: "-", What: old[i].ID, Old: old[i].Describe()})
		}
	}
	var kept []string
	for i := range old {
		if find(new, old[i].ID) >= 0 {
			kept = append(kept, old[i].ID)
		}
	}
	k := 0
	for i := range new {
		s := &new[i]
		j := find(old, s.ID)
		if j < 0 {
			cs = append(cs, Change{Op: "+", What: s.ID, New: s.Describe()})
			continue
		}
		if !sameJSON(old[j], *s) {
			cs = append(cs, changed(s.ID, old[j].Describe(), s.Describe(), old[j], *s))
		} else if kept[k] != s.ID {
			cs = append(cs, Change{Op: "~", What: s.ID, New: "moved"})
		}
		k++
	}
	return cs
}

// changed is the change of a stage; it names the fields if its description
// stayed the same.
func changed(id, was, is string, old, new any) Change {
	if was == is {
		is = is + " (" + strings.Join(fields("", reflect.ValueOf(old), reflect.ValueOf(new)), ", ") + ")"
	}
	return Change{Op: "~", What: id, Old: was, New: is}
}

// fields names the fields that differ, by their names in JSON.
func fields(prefix string, a, b reflect.Value) []string {
	if a.Kind() == reflect.Pointer {
		if a.IsNil() || b.IsNil() {
			return []string{strings.TrimSuffix(prefix, ".")}
		}
		a, b = a.Elem(), b.Elem()
	}
	if a.Kind() != reflect.Struct {
		return []string{strings.TrimSuffix(prefix, ".")}
	}
	var out []string
	for i := range a.NumField() {
		name, _, _ := strings.Cut(a.Type().Field(i).Tag.Get("json"), ",")
		if name == "-" || sameJSON(a.Field(i).Interface(), b.Field(i).Interface()) {
			continue
		}
		out = append(out, fields(prefix+strings.TrimSuffix(strings.TrimSuffix(name, "_ns"), "_bytes")+".", a.Field(i), b.Field(i))...)
	}
	return out
}

func sameJSON(a, b any) bool {
	x, err1 := json.Marshal(a)
	y, err2 := json.Marshal(b)
	return err1 == nil && err2 == nil && string(x) == string(y)
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

func (s Source) describe() string {
	switch {
	case s.Kafka != nil:
		conn := s.Kafka.Connection
		if !strings.HasPrefix(conn, kafkaScheme) {
			conn = kafkaScheme + conn
		}
		return conn + "/" + strings.Join(s.Kafka.Topics, ",") + " from " + string(s.Kafka.Start)
	case s.File != nil:
		return "file " + s.File.Path
	case s.Stream != nil:
		return "stream"
	}
	return ""
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
