// Package pipeline is the way of a record through a flow: it polls a source,
// keeps a bounded window of records in flight for each partition, passes them
// through stages and branches to deliveries, and knows what is settled.
//
// A Flow owns the lanes of the partitions that this node owns. A lane is the
// serial path of one partition, so order needs no locks. The package owns the
// ports it needs; it knows neither Kafka nor Wasm nor Raft, and commits nothing
// itself: its owner collects progress and tells it what became durable.
package pipeline

import (
	"context"

	"github.com/millrace-io/millrace/runtime/record"
	"github.com/millrace-io/millrace/runtime/retry"
)

// Source yields batches of the partitions assigned to it.
type Source interface {
	// Poll blocks until a batch is ready or ctx ends. The batch holds records
	// of one partition and belongs to the caller. It returns io.EOF when
	// every partition has ended for good, and a *record.Error when the flow
	// cannot go on. One goroutine calls it; the other methods may be called
	// by any.
	Poll(ctx context.Context) (*record.Batch, error)
	// Assign begins delivery of p at an offset.
	Assign(p record.Partition, offset int64)
	// Unassign ends it: a later Poll returns no record of p.
	Unassign(p record.Partition)
	// Pause holds p back until Resume, without losing its position.
	Pause(p record.Partition)
	Resume(p record.Partition)
	// Problem says why nothing can be fetched just now, or is empty.
	Problem() string
}

// Recycler is a Source that uses the memory of batches again.
type Recycler interface {
	// Recycle gives back a batch that Poll returned and that nobody looks at any
	// more; what its records refer to is not the batch's. Any goroutine may
	// call it. A batch that is not given back is garbage, no more.
	Recycle(b *record.Batch)
}

// Acker is a Source that somebody waits behind, like one of requests.
type Acker interface {
	// Settled tells, once for each record that came from the source, that it
	// is safe: at once when all that came of it was delivered, dropped or put
	// aside; after the acknowledged commit when something of it was filed or
	// kept. A lane that is fenced tells nothing. Any goroutine may call it, and
	// no lock is held; it must not block.
	Settled(p record.Partition, offset int64, what record.Settlement)
}

// Stage transforms batches. Process is called by many lanes at once. What
// befalls single records is in out; the error says that the stage itself
// cannot work, or that ctx ended. The batch is the lane's again when Process
// returns; what its records refer to may be kept.
type Stage interface {
	Process(ctx context.Context, b *record.Batch, out *record.Results) error
}

// Delivery is an end of a flow, with effects.
type Delivery interface {
	// Open begins to deliver for a partition. held has the Hold of each entry
	// of it that is kept for this delivery, with repetition. It does not
	// block.
	Open(p record.Partition, held []uint64) Outlet
	// Problem says why records are not getting through just now, or is empty.
	Problem() string
	// Held is the reason while the delivery lets nothing through, until it
	// finds by itself that it can; empty otherwise.
	Held() string
}

// Outlet is one partition's own way into a delivery.
type Outlet interface {
	// Deliver takes over items in order; it may block while it can take no
	// more. The slice is the outlet's. done is called exactly once for each
	// index, by any goroutine, perhaps before Deliver returns, as
	// record.Outcome says; an outcome whose error is context.Canceled says that
	// the item was abandoned.
	//
	// An item with a Retry is a kept entry that is due; what has none and must
	// wait behind a kept one of its key is to be kept as well.
	Deliver(ctx context.Context, items []record.Item, done func(i int, o record.Outcome))
	// Forget tells that a kept entry with this Hold is gone from the state. It
	// is called once for each that was in held or that the outlet asked to
	// keep for an item without a Retry.
	Forget(hold uint64)
	// Close ends the outlet; what is under way may be abandoned.
	Close()
}

// Sink is a simple delivery: it keeps nothing for later, and what it cannot
// take for a passing reason it tries again by itself.
type Sink interface {
	// Deliver takes over recs in order and may block while it cannot take
	// more; it may set their Attempt to what it made. done is called exactly
	// once for each index, by any goroutine, perhaps before Deliver returns:
	// with nil once the sink has acknowledged the record, with a
	// *record.Error when it cannot be delivered, or with an error that is
	// context.Canceled when it was abandoned because ctx ended or the sink was
	// closed. recs is the lane's again once Deliver has returned and done was
	// called for all of it.
	Deliver(ctx context.Context, recs []record.Record, done func(i int, err error))
	// Problem says why records are not getting through just now, or is empty.
	Problem() string
}

// Plain is a delivery to a sink.
func Plain(s Sink) Delivery { return plain{s} }

type plain struct{ sink Sink }

func (p plain) Open(record.Partition, []uint64) Outlet { return plainOutlet(p) }
func (p plain) Problem() string                        { return p.sink.Problem() }
func (p plain) Held() string                           { return "" }

// plainOutlet is what lanes know: they give it records instead of items.
type plainOutlet struct{ sink Sink }

func (p plainOutlet) Deliver(ctx context.Context, items []record.Item, done func(int, record.Outcome)) {
	recs := make([]record.Record, len(items))
	for i := range items {
		recs[i] = items[i].Record
	}
	p.sink.Deliver(ctx, recs, func(i int, err error) { done(i, record.Outcome{Err: err, Attempts: recs[i].Attempt}) })
}
func (plainOutlet) Forget(uint64) {}
func (plainOutlet) Close()        {}

// Order says which order a flow keeps.
type Order uint8

const (
	// OrderPartition keeps the order of each partition.
	OrderPartition Order = iota
	// OrderNone keeps none: while a record waits, others go on.
	OrderNone
	// OrderKey keeps the order of the records of a key. It is the deliveries
	// that let other keys go on; in stages it is as OrderPartition.
	OrderKey
)

// Otherwise says who owns a record that cannot go on.
type Otherwise uint8

const (
	// ToQueue files it in the failure queue.
	ToQueue Otherwise = iota
	// ToNowhere drops it, counted as failed.
	ToNowhere
	// ToPause pauses the flow; the record stays where it is.
	ToPause
	// ToTopic gives it to the stage's Aside.
	ToTopic
)

// StageInfo describes a stage, a branch or a delivery, for failure entries and
// figures.
type StageInfo struct {
	// ID is unique in the flow.
	ID string
	// Plugin is name@version and Digest "sha256:..." of a plugin's stage.
	Plugin, Digest string
	Otherwise      Otherwise
	// Aside takes, with ToTopic, the records that cannot go on: as the stage
	// got them, with headers that say why. What it cannot take pauses the flow.
	Aside Sink
	// Retry applies to what the stage itself asks to be tried again. (A
	// delivery retries by itself.)
	Retry retry.Policy
}
