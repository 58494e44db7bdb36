package delivery

import (
	"context"
	"io"

	"github.com/millrace-io/millrace/runtime/expr"
	"github.com/millrace-io/millrace/runtime/record"
)

// Sink is a delivery that takes many records at once, as pipeline.Delivery
// describes.
type Sink interface {
	Deliver(ctx context.Context, recs []record.Record, done func(i int, err error))
	Problem() string
	io.Closer
}

// Keyed gives records a key by an expression before a sink gets them.
type Keyed struct {
	Sink
	key *expr.Program
}

// NewKeyed wraps a sink.
func NewKeyed(s Sink, key *expr.Program) *Keyed { return &Keyed{Sink: s, key: key} }

// Deliver implements pipeline.Delivery. A record whose key cannot be evaluated
// fails with class schema; the others go on.
func (k *Keyed) Deliver(ctx context.Context, recs []record.Record, done func(i int, err error)) {
	env := expr.NewEnv()
	keyed := make([]record.Record, 0, len(recs))
	at := make([]int, 0, len(recs))
	for i := range recs {
		env.Reset(&recs[i])
		key, err := k.key.Key(env)
		if err != nil {
			done(i, err)
			continue
		}
		r := recs[i]
		r.Key = key
		keyed, at = append(keyed, r), append(at, i)
	}
	if len(keyed) > 0 {
		k.Sink.Deliver(ctx, keyed, func(i int, err error) { done(at[i], err) })
	}
}
