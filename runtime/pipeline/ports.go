// Package pipeline is the way of a record through a flow: it polls a source,
// keeps a bounded window of records in flight for each partition, passes them
// through stages and a delivery, and knows what is settled.
//
// A Flow owns the lanes of the partitions that this node owns. A lane is the
// serial path of one partition, so order needs no locks. The package owns the
// ports it needs; it knows neither Kafka nor Wasm nor Raft, and commits nothing
// itself: its owner collects progress and tells it what became durable.
package pipeline

import (
	"context"

	"github.com/millrace-io/millrace/runtime/ledger"
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

// Stage transforms batches. Process is called by many lanes at once. What
// befalls single records is in out; the error says that the stage itself
// cannot work, or that ctx ended.
type Stage interface {
	Process(ctx context.Context, b *record.Batch, out *record.Results) error
}

// Delivery is the end of a flow, the only part with effects.
type Delivery interface {
	// Deliver takes over recs in order and may block while it cannot take
	// more; it may set their Attempt to what it made. done is called exactly once for each index, by any goroutine,
	// perhaps before Deliver returns: with nil once the sink has
	// acknowledged the record, with a *record.Error when it cannot be
	// delivered, or with an error that is context.Canceled when it was
	// abandoned because ctx ended or the delivery was closed.
	Deliver(ctx context.Context, recs []record.Record, done func(i int, err error))
	// Problem says why records are not getting through just now, or is empty.
	Problem() string
}

// Order says which order a flow keeps.
type Order uint8

const (
	// OrderPartition keeps the order of each partition.
	OrderPartition Order = iota
	// OrderNone keeps none: while a record waits, others go on.
	OrderNone
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
)

// StageInfo describes a stage or the delivery, for failure entries and figures.
type StageInfo struct {
	ID string
	// Plugin is name@version and Digest "sha256:..." of a plugin's stage.
	Plugin, Digest string
	Otherwise      Otherwise
	// Retry applies to what the stage itself asks to be tried again. (A
	// delivery retries by itself.)
	Retry retry.Policy
}

// BoundStage is a stage at its place in a flow.
type BoundStage struct {
	Stage
	StageInfo
}

// Set is the stages of a flow as one deployment has them.
type Set struct {
	// Generation rises with every deployment.
	Generation uint32
	Stages     []BoundStage
}

// Ownership is what the cluster knows a lane by. The pipeline passes it
// through.
type Ownership struct {
	Slot, Part uint32
	Epoch      uint64
}

// FiledKey names an emission that lies in the failure queue already.
type FiledKey struct {
	Offset int64
	Path   record.Path
}

// LaneConfig opens a lane.
type LaneConfig struct {
	Partition record.Partition
	Ownership Ownership
	// Low is where to begin; Ranges above it are settled already.
	Low    int64
	Ranges []ledger.Range
	// Filed emissions at or above Low are not delivered again.
	Filed []FiledKey
	// MayRepeat is how many records from Low on an earlier owner may have
	// processed; they are marked as redelivered.
	MayRepeat int
}

// Progress is what became of a partition since its last commit. It is to be
// committed as one: failures and watermark together, or neither.
type Progress struct {
	Partition  record.Partition
	Ownership  Ownership
	Low        int64
	Ranges     []ledger.Range
	Failures   []*record.Entry
	Generation uint32 // of the Set that the lane works with
	// Bytes is about the size of the failures.
	Bytes int

	lane *lane
}
