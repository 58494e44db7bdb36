package daemon

import (
	"fmt"

	"github.com/millrace-io/millrace/runtime/delivery/batch"
	"github.com/millrace-io/millrace/runtime/expr"
	"github.com/millrace-io/millrace/runtime/flow"
	"github.com/millrace-io/millrace/runtime/retry"
)

var batchForms = map[string]batch.As{flow.BatchJSONArray: batch.JSONArray, flow.BatchNDJSON: batch.NDJSON, flow.BatchText: batch.Text}

// batching is how a delivery joins records, nil if it does not.
func batching(f *flow.Flow, d *flow.Delivery) (*batch.Config, error) {
	b := d.Batch
	if b == nil {
		return nil, nil
	}
	cfg := &batch.Config{
		Records: b.Records, Bytes: int(b.Bytes), Wait: b.Wait, As: batchForms[b.As], Head: b.Head, Between: b.Between, Tail: b.Tail, ContentType: b.ContentType, Gzip: b.Gzip,
	}
	var err error
	if b.By != "" {
		if cfg.By, err = expr.Compile(b.By, f.Scope()); err != nil {
			return nil, fmt.Errorf("compile batch key of delivery %s: %w", d.ID, err)
		}
	}
	if cfg.As == batch.Text {
		if cfg.Item, err = expr.CompileTemplate(b.Item, f.Scope()); err != nil {
			return nil, fmt.Errorf("compile batch item of delivery %s: %w", d.ID, err)
		}
	}
	return cfg, nil
}

func policy(r *flow.Retry) retry.Policy {
	if r == nil {
		return retry.Policy{}
	}
	return retry.Policy{First: r.First, Max: r.Max, Attempts: uint32(max(r.Attempts, 0)), Within: r.Within}
}
