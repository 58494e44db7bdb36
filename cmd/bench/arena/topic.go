package arena

import (
	"context"
	"encoding/json"

	"github.com/millrace-io/millrace/cmd/internal/jsonvalue"
	"github.com/millrace-io/millrace/examples/orders/gen"
	"github.com/millrace-io/millrace/examples/orders/orderstage"
)

// Work is what a contestant must do with a record.
type Work int

const (
	Order Work = iota // the order stage
	Pass              // nothing: it goes on as it came
)

// input is the name of the topic that all read.
const input = "orders"

// fill writes n order events of seed 42 to the input topic and returns how many
// the order stage must emit.
func fill(ctx context.Context, m medium, n int64) (emits int64, err error) {
	g := gen.New(42)
	sent := int64(0)
	err = m.fill(ctx, input, func() (key, value []byte, ok bool) {
		if sent == n {
			return nil, nil, false
		}
		sent++
		e := g.Next()
		if e.Mark == gen.Emit {
			emits++
		}
		return e.Key, e.Value, true
	})
	return emits, err
}

// sums reads a topic of n records into sums by partition; with canonical the
// values are compared as JSON.
func (w *World) sums(ctx context.Context, topic string, n int64, canonical bool) ([][]gen.Sum, error) {
	all := make([][]gen.Sum, w.Partitions)
	err := w.medium.read(ctx, topic, n, func(p int, key, value []byte) { all[p] = append(all[p], sumOf(key, value, canonical)) })
	return all, err
}

// expected is what must come out of the input topic.
func (w *World) expected(ctx context.Context, work Work, canonical bool) ([][]gen.Sum, error) {
	if work == Pass {
		return w.sums(ctx, input, w.N, canonical)
	}
	all := make([][]gen.Sum, w.Partitions)
	var buf []byte
	err := w.medium.read(ctx, input, w.N, func(p int, key, value []byte) {
		var o orderstage.Outcome
		if buf, o = orderstage.Order(buf[:0], value); o == orderstage.Emit {
			all[p] = append(all[p], sumOf(key, buf, canonical))
		}
	})
	return all, err
}

// sumOf stands for a record. As JSON the order of members and white space do
// not count; numbers are the texts that they are written as.
func sumOf(key, value []byte, canonical bool) gen.Sum {
	if canonical {
		if v, ok := jsonvalue.Decode(value); ok {
			if b, err := json.Marshal(v); err == nil {
				value = b
			}
		}
	}
	return gen.SumOf(key, value)
}
