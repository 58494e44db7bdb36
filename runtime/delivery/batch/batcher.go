package batch

import (
	"container/heap"
	"errors"
	"fmt"
	"time"

	"github.com/millrace-io/millrace/runtime/expr"
	"github.com/millrace-io/millrace/runtime/expr/jsondoc"
	"github.com/millrace-io/millrace/runtime/record"
)

// Defaults of a Config.
const (
	DefaultRecords = 100
	DefaultBytes   = 1 << 20
	DefaultWait    = time.Second
)

// As is the form of a body.
type As uint8

const (
	// JSONArray is the values as a JSON array. A value that is null is null.
	JSONArray As = iota
	// NDJSON is a value a line, each with a line end behind.
	NDJSON
	// Text is what Config.Item makes of each record, between Head and Tail.
	Text
)

// Config says how records are gathered. The zero value works.
type Config struct {
	// Records is the most items of a batch; 0 is DefaultRecords.
	Records int
	// Bytes is the most bytes of a body before it is compressed; 0 is
	// DefaultBytes. It has no exception.
	Bytes int
	// Wait is how long the first record of a batch waits for more; 0 is
	// DefaultWait.
	Wait time.Duration
	// By gives the key that the records of one batch have in common; nil: all
	// records go together.
	By *expr.Program
	As As
	// Item, Head, Between and Tail are for Text. Between stands between two
	// items.
	Item                *expr.Template
	Head, Between, Tail string
	// ContentType replaces the form's own: application/json,
	// application/x-ndjson, none for Text.
	ContentType string
	// Gzip compresses the body.
	Gzip bool
	// ID is the identity of a record, which the batch's is made of; nil is
	// the record's ID.
	ID func(*record.Record) string
}

func (c Config) defaults() Config {
	if c.Records == 0 {
		c.Records = DefaultRecords
	}
	if c.Bytes == 0 {
		c.Bytes = DefaultBytes
	}
	if c.Wait == 0 {
		c.Wait = DefaultWait
	}
	if c.ID == nil {
		c.ID = (*record.Record).ID
	}
	return c
}

// Validate reports every fault of the configuration.
func (c Config) Validate() error {
	var errs []error
	fail := func(format string, args ...any) { errs = append(errs, fmt.Errorf("batch: "+format, args...)) }
	if c.Records < 0 {
		fail("%d records: give it at least one", c.Records)
	}
	if c.Bytes < 0 {
		fail("%d bytes: give it more than none", c.Bytes)
	}
	if c.Wait < 0 {
		fail("wait %s is negative", c.Wait)
	}
	switch {
	case c.As > Text:
		fail("form %d is unknown", c.As)
	case c.As == Text && c.Item == nil:
		fail("a text needs a template for each item")
	case c.As != Text && (c.Item != nil || c.Head != "" || c.Between != "" || c.Tail != ""):
		fail("templates are for texts only")
	}
	return errors.Join(errs...)
}

// Batcher gathers records. It serves one goroutine, or its callers take turns.
//
// The records of one key stay in the order in which they were added, within a
// batch and from batch to batch; so do the batches that one call returns.
// There are as many batches waiting as there are keys among the records that
// wait: its caller bounds both.
type Batcher struct {
	cfg    Config
	format format
	env    *expr.Env
	doc    jsondoc.Doc
	groups map[string]*group
	queue  queue // by due time
	serial uint64
	items  int
	bytes  int
}

// group is a batch that waits.
type group struct {
	name   string
	by     []byte
	items  []Item
	size   int
	due    time.Time
	serial uint64
	index  int // in the queue
}

// New makes a Batcher.
func New(cfg Config) (*Batcher, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	b := &Batcher{cfg: cfg.defaults(), env: expr.NewEnv(), groups: map[string]*group{}}
	switch cfg.As {
	case JSONArray:
		b.format = format{head: "[", between: ",", tail: "]", contentType: "application/json"}
	case NDJSON:
		b.format = format{between: "\n", tail: "\n", contentType: "application/x-ndjson"}
	case Text:
		b.format = format{head: cfg.Head, between: cfg.Between, tail: cfg.Tail}
	}
	if cfg.ContentType != "" {
		b.format.contentType = cfg.ContentType
	}
	b.format.gzip = cfg.Gzip
	b.format.overhead = len(b.format.head) + len(b.format.tail)
	return b, nil
}

// Add puts a record, which must not change from here on, behind those of its
// key, and returns the batches that are complete: none, the one before it that
// it does not fit into, the one that it fills, or both, in this order.
//
// An error is the record's own, and the record is in no batch: a *record.Error
// of class schema (its value is not JSON; its key or its text cannot be made)
// or too_large (a body of it alone exceeds Config.Bytes).
func (b *Batcher) Add(r *record.Record, now time.Time) ([]*Batch, error) {
	by, item, err := b.item(r)
	if err != nil {
		return nil, err
	}
	name := groupName(by)
	var ready []*Batch
	g := b.groups[name]
	if g != nil && g.size+b.format.added(len(g.items), len(item.encoded)) > b.cfg.Bytes {
		ready = append(ready, b.take(g))
		g = nil
	}
	if g == nil {
		b.serial++
		g = &group{name: name, by: by, size: b.format.overhead, due: now.Add(b.cfg.Wait), serial: b.serial}
		b.groups[name] = g
		heap.Push(&b.queue, g)
	}
	added := b.format.added(len(g.items), len(item.encoded))
	g.size += added
	g.items = append(g.items, item)
	b.items++
	b.bytes += len(item.encoded)
	if len(g.items) >= b.cfg.Records || g.size >= b.cfg.Bytes {
		ready = append(ready, b.take(g))
	}
	return ready, nil
}

// Group names those that Add would gather a record with. An error is Add's.
func (b *Batcher) Group(r *record.Record) (string, error) {
	if b.cfg.By == nil {
		return "", nil
	}
	b.env.Reset(r)
	defer b.env.Reset(nil)
	by, err := b.cfg.By.Key(b.env)
	return groupName(by), err
}

// groupName tells nil and empty keys apart.
func groupName(by []byte) string {
	if by == nil {
		return ""
	}
	return "=" + string(by)
}

// End returns the batch of the group of a name before it is complete or due,
// nil if none waits.
func (b *Batcher) End(group string) *Batch {
	if g := b.groups[group]; g != nil {
		return b.take(g)
	}
	return nil
}

// item encodes a record.
func (b *Batcher) item(r *record.Record) (by []byte, item Item, err error) {
	b.env.Reset(r)
	defer b.env.Reset(nil)
	if b.cfg.By != nil {
		if by, err = b.cfg.By.Key(b.env); err != nil {
			return nil, item, err
		}
	}
	item = Item{Record: r, ID: b.cfg.ID(r)}
	if b.cfg.As == Text {
		item.encoded, err = b.cfg.Item.Append(nil, b.env)
	} else {
		item.encoded, err = b.json(r.Value)
	}
	if err != nil {
		return nil, item, err
	}
	if n := b.format.overhead + len(item.encoded); n > b.cfg.Bytes {
		return by, item, record.Errorf(record.TooLarge, "batch: a body of this record alone is %d bytes, and at most %d are allowed", n, b.cfg.Bytes)
	}
	return by, item, nil
}

// json is a value as a batch has it: as it stands, without line ends in
// NDJSON.
func (b *Batcher) json(value []byte) ([]byte, error) {
	if value == nil {
		return []byte("null"), nil
	}
	if err := b.doc.Parse(value); err != nil {
		return nil, record.Errorf(record.Schema, "batch: the value is not JSON: %w", err)
	}
	if b.cfg.As == NDJSON {
		return oneLine(value), nil
	}
	return value, nil
}

// oneLine takes the line ends out of a JSON text: they stand between its
// tokens only.
func oneLine(value []byte) []byte {
	out := value[:0:0]
	from := 0
	for i, c := range value {
		if c == '\n' || c == '\r' {
			out = append(out, value[from:i]...)
			from = i + 1
		}
	}
	if from == 0 {
		return value
	}
	return append(out, value[from:]...)
}

// take ends a group.
func (b *Batcher) take(g *group) *Batch {
	heap.Remove(&b.queue, g.index)
	delete(b.groups, g.name)
	b.items -= len(g.items)
	for i := range g.items {
		b.bytes -= len(g.items[i].encoded)
	}
	return newBatch(&b.format, g.by, g.items)
}

// Due is when the batch that waits longest is due; false if none waits.
func (b *Batcher) Due() (time.Time, bool) {
	if len(b.queue) == 0 {
		return time.Time{}, false
	}
	return b.queue[0].due, true
}

// Ready returns the batches that are due at now, in the order in which they
// became due.
func (b *Batcher) Ready(now time.Time) []*Batch {
	var out []*Batch
	for len(b.queue) > 0 && !b.queue[0].due.After(now) {
		out = append(out, b.take(b.queue[0]))
	}
	return out
}

// Flush returns all that waits, in the order in which it would be due.
func (b *Batcher) Flush() []*Batch {
	var out []*Batch
	for len(b.queue) > 0 {
		out = append(out, b.take(b.queue[0]))
	}
	return out
}

// Waiting is how many records wait, and the bytes of their items.
func (b *Batcher) Waiting() (records, bytes int) { return b.items, b.bytes }

// Rebuild makes a batch of records that were one before, in their order: the
// same batch with the same ID, after it was stored. It takes no account of the
// bounds, which may have changed. The records must not change from here on.
// An error is one of Add's; it names the record.
func (b *Batcher) Rebuild(recs []*record.Record) (*Batch, error) {
	if len(recs) == 0 {
		return nil, errors.New("batch: no records to make one of")
	}
	items := make([]Item, len(recs))
	var by []byte
	for i, r := range recs {
		key, item, err := b.item(r)
		if e := record.AsError(err); e != nil && e.Class != record.TooLarge {
			named := *e
			named.Message = fmt.Sprintf("record %s: %s", r.ID(), e.Message)
			return nil, &named
		}
		if i == 0 {
			by = key
		}
		items[i] = item
	}
	return newBatch(&b.format, by, items), nil
}

// queue is a heap of groups by due time, then age.
type queue []*group

func (q queue) Len() int { return len(q) }
func (q queue) Less(i, j int) bool {
	if q[i].due.Equal(q[j].due) {
		return q[i].serial < q[j].serial
	}
	return q[i].due.Before(q[j].due)
}
func (q queue) Swap(i, j int) {
	q[i], q[j] = q[j], q[i]
	q[i].index, q[j].index = i, j
}
func (q *queue) Push(x any) {
	g := x.(*group)
	g.index = len(*q)
	*q = append(*q, g)
}
func (q *queue) Pop() any {
	old := *q
	g := old[len(old)-1]
	old[len(old)-1] = nil
	*q = old[:len(old)-1]
	return g
}
