package stage

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/millrace-io/millrace/runtime/expr"
	"github.com/millrace-io/millrace/runtime/expr/jsondoc"
	"github.com/millrace-io/millrace/runtime/flow"
	"github.com/millrace-io/millrace/runtime/record"
)

// Map edits the JSON object in a record's value: set, then rename, then drop,
// then keep.
//
// Set gives the value at a path that of an expression; all its expressions see
// the record as it came in. What stands in the place of an object on the way
// is a failure, unless it is missing or null: then the object is made. A new
// member comes last in its object, one that exists keeps its place.
//
// Rename moves a value to another path; in the same object it keeps its place.
// What was at the new path is gone. Drop removes paths. Keep removes all but
// its paths. A path that does not exist is no failure in these three.
//
// Members that are not touched keep their bytes and their order, so that
// numbers stay exact; white space between the members of an object that
// changes is lost. A record that does not change keeps its value byte for
// byte. Of a key that repeats in an object that changes, the last one counts
// where it is set or renamed, and all go where it is dropped.
//
// A value that is no JSON object, also a null one, fails its record.
type Map struct {
	set    []assignment
	rename []renaming
	drop   []expr.Path
	keep   *kept
	envs   envs
}

type assignment struct {
	path expr.Path
	prog *expr.Program
}

type renaming struct{ from, to expr.Path }

// kept is a tree of the paths to keep; all is set where one ends.
type kept struct {
	all  bool
	keys map[string]*kept
}

func (k *kept) add(p expr.Path) {
	for _, key := range p {
		if k.keys == nil {
			k.keys = make(map[string]*kept)
		}
		next := k.keys[key]
		if next == nil {
			next = &kept{}
			k.keys[key] = next
		}
		k = next
	}
	k.all = true
}

// NewMap compiles the map's expressions and paths.
func NewMap(m *flow.MapStage, scope expr.Scope) (*Map, error) {
	out := &Map{}
	var errs []error
	path := func(s string) expr.Path {
		p, err := expr.ParsePath(s)
		if err != nil {
			errs = append(errs, err)
		}
		return p
	}
	for _, a := range m.Set {
		prog, err := expr.Compile(a.Expr, scope)
		if err != nil {
			errs = append(errs, fmt.Errorf("set %s: %w", a.Path, err))
		}
		out.set = append(out.set, assignment{path(a.Path), prog})
	}
	for _, r := range m.Rename {
		out.rename = append(out.rename, renaming{path(r.From), path(r.To)})
	}
	for _, d := range m.Drop {
		out.drop = append(out.drop, path(d))
	}
	for _, k := range m.Keep {
		if out.keep == nil {
			out.keep = &kept{}
		}
		out.keep.add(path(k))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return out, nil
}

// Process is as Stage says.
func (m *Map) Process(ctx context.Context, b *record.Batch, out *record.Results) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	env := m.envs.take()
	defer m.envs.give(env)
	for i := range b.Records {
		env.Reset(&b.Records[i])
		value, err := m.edit(env, b.Records[i].Value)
		if err != nil {
			fail(out, i, err)
			continue
		}
		r := b.Records[i]
		r.Value = value
		out.Emits = append(out.Emits, record.Emit{In: int32(i), Record: r})
	}
	return nil
}

// edit returns the new value, or value itself if nothing changes.
func (m *Map) edit(env *expr.Env, value []byte) ([]byte, error) {
	doc, err := env.JSON()
	if err != nil {
		return nil, err
	}
	if doc == nil {
		return nil, record.Errorf(record.Schema, "map takes a JSON object, and the value is null; a filter `value != nil` leaves such records out")
	}
	if doc.Kind(doc.Root()) != jsondoc.Object {
		return nil, record.Errorf(record.Schema, "map takes a JSON object, and the value is %s", kindName(doc.Kind(doc.Root())))
	}
	e := &editor{doc: doc}
	root := e.open(doc.Root())
	for _, a := range m.set {
		raw, err := a.prog.AppendJSON(nil, env)
		if err != nil {
			return nil, err
		}
		if err := e.set(root, a.path, &item{raw: raw, node: jsondoc.None}); err != nil {
			return nil, err
		}
	}
	for _, r := range m.rename {
		if err := e.rename(root, r.from, r.to); err != nil {
			return nil, err
		}
	}
	for _, p := range m.drop {
		e.take(root, p)
	}
	if m.keep != nil {
		e.keep(root, m.keep)
	}
	if !e.changed {
		return value, nil
	}
	return e.append(make([]byte, 0, len(value)+64), root), nil
}

func kindName(k jsondoc.Kind) string {
	switch k {
	case jsondoc.Null:
		return "null"
	case jsondoc.String:
		return "a string"
	case jsondoc.Array:
		return "a list"
	case jsondoc.Object:
		return "an object"
	case jsondoc.Number:
		return "a number"
	}
	return "true or false"
}

// item is a value: text, or an object that was opened for editing.
type item struct {
	raw []byte
	// node is what raw is the text of in the document, None for new values.
	node   jsondoc.Node
	opened bool
	list   []member
}

type member struct {
	key string
	// rawKey is the key with its quotes as it stood in the document; nil for
	// a new one.
	rawKey []byte
	value  *item
}

type editor struct {
	doc     *jsondoc.Doc
	changed bool
}

// open makes the object at a node editable.
func (e *editor) open(n jsondoc.Node) *item {
	it := &item{node: n, opened: true, list: make([]member, 0, e.doc.Len(n)+2)}
	values := make([]item, e.doc.Len(n))
	i := 0
	for k, v := range e.doc.Members(n) {
		values[i] = item{raw: e.doc.Raw(v), node: v}
		it.list = append(it.list, member{key: e.doc.Text(k), rawKey: e.doc.Raw(k), value: &values[i]})
		i++
	}
	return it
}

// object opens it if it is an object; false if it is something else.
func (e *editor) object(it *item) bool {
	switch {
	case it.opened:
		return true
	case it.raw == nil || it.raw[0] != '{':
		return false
	case it.node != jsondoc.None:
		*it = *e.open(it.node)
	default:
		// A new value: its text is ours, and so is its index.
		var d jsondoc.Doc
		if d.Parse(it.raw) != nil {
			return false
		}
		sub := editor{doc: &d}
		*it = *sub.open(d.Root())
		for i := range it.list {
			it.list[i].value.node = jsondoc.None
		}
	}
	return true
}

// find is the index of the last member with a key, -1 if there is none.
func (it *item) find(key string) int {
	for i := len(it.list) - 1; i >= 0; i-- {
		if it.list[i].key == key {
			return i
		}
	}
	return -1
}

// remove takes all members with a key away, but for the one at index but.
func (it *item) remove(key string, but int) bool {
	n := 0
	for i := range it.list {
		if it.list[i].key != key || i == but {
			it.list[n] = it.list[i]
			n++
		}
	}
	removed := n < len(it.list)
	it.list = it.list[:n]
	return removed
}

func (e *editor) set(root *item, p expr.Path, v *item) error {
	at := root
	for i, key := range p[:len(p)-1] {
		j := at.find(key)
		if j < 0 {
			next := &item{opened: true, node: jsondoc.None}
			at.list = append(at.list, member{key: key, value: next})
			e.changed = true
			at = next
			continue
		}
		next := at.list[j].value
		if !e.object(next) {
			if !bytes.Equal(next.raw, []byte("null")) {
				return record.Errorf(record.Schema, "set %s: `%s` is not an object", p, p[:i+1])
			}
			*next = item{opened: true, node: jsondoc.None}
			e.changed = true
		}
		at = next
	}
	e.put(at, p[len(p)-1], v)
	return nil
}

// put sets a member of an opened object.
func (e *editor) put(at *item, key string, v *item) {
	j := at.find(key)
	if j < 0 {
		at.list = append(at.list, member{key: key, value: v})
		e.changed = true
		return
	}
	old := at.list[j].value
	if old.opened || v.opened || !bytes.Equal(old.raw, v.raw) {
		at.list[j].value = v
		e.changed = true
	}
	if at.remove(key, j) {
		e.changed = true
	}
}

// parent is the opened object that holds the last key of p, nil if there is
// none.
func (e *editor) parent(root *item, p expr.Path) *item {
	at := root
	for _, key := range p[:len(p)-1] {
		j := at.find(key)
		if j < 0 || !e.object(at.list[j].value) {
			return nil
		}
		at = at.list[j].value
	}
	return at
}

// take removes the value at a path and returns it, nil if there is none.
func (e *editor) take(root *item, p expr.Path) *item {
	at := e.parent(root, p)
	if at == nil {
		return nil
	}
	key := p[len(p)-1]
	j := at.find(key)
	if j < 0 {
		return nil
	}
	v := at.list[j].value
	at.remove(key, -1)
	e.changed = true
	return v
}

func (e *editor) rename(root *item, from, to expr.Path) error {
	if slices.Equal(from, to) {
		return nil
	}
	at := e.parent(root, from)
	old, key := from[len(from)-1], to[len(to)-1]
	if at == nil || at.find(old) < 0 {
		return nil
	}
	if !slices.Equal(from[:len(from)-1], to[:len(to)-1]) {
		if err := e.set(root, to, e.take(root, from)); err != nil {
			return record.Errorf(record.Schema, "rename %s: %s", from, record.AsError(err).Message)
		}
		return nil
	}
	at.remove(old, at.find(old))
	at.remove(key, -1)
	m := &at.list[at.find(old)]
	m.key, m.rawKey = key, nil
	e.changed = true
	return nil
}

// keep removes what is not in the tree; it reports whether anything is left.
func (e *editor) keep(at *item, k *kept) bool {
	n := 0
	for _, m := range at.list {
		next := k.keys[m.key]
		if next != nil && (next.all || e.object(m.value) && e.keep(m.value, next)) {
			at.list[n] = m
			n++
		}
	}
	if n < len(at.list) {
		e.changed = true
	}
	at.list = at.list[:n]
	return n > 0
}

func (e *editor) append(b []byte, it *item) []byte {
	if !it.opened {
		return append(b, it.raw...)
	}
	b = append(b, '{')
	for i := range it.list {
		if i > 0 {
			b = append(b, ',')
		}
		m := &it.list[i]
		if m.rawKey != nil {
			b = append(b, m.rawKey...)
		} else {
			b = jsondoc.AppendString(b, m.key)
		}
		b = e.append(append(b, ':'), m.value)
	}
	return append(b, '}')
}
