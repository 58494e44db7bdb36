package quickstart

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/millrace-io/millrace/cmd/internal/api"
	"github.com/millrace-io/millrace/examples"
)

// The flow of the example, and the broker that its connection names.
const (
	flowProject   = "default"
	flowName      = "orders"
	exampleBroker = "127.0.0.1:19092"
)

// deployOrders stores the example's plugin and applies its connection, with
// the address of another broker, and its flow: what `deploy --store-only` and
// `apply` do.
func deployOrders(ctx context.Context, node api.Backend, broker string) (*api.Plugin, error) {
	wasm, err := examples.Files.ReadFile("orders/orders.wasm")
	if err != nil {
		return nil, err
	}
	connection, err := examples.Files.ReadFile("orders/connection.yaml")
	if err != nil {
		return nil, err
	}
	flow, err := examples.Files.ReadFile("orders/flow.yaml")
	if err != nil {
		return nil, err
	}
	document := strings.Replace(string(connection), exampleBroker, broker, 1)
	if document == string(connection) && broker != exampleBroker {
		return nil, fmt.Errorf("the example's connection does not name the broker %s", exampleBroker)
	}
	plugin, err := node.UploadPlugin(ctx, "orders.wasm", bytes.NewReader(wasm))
	if err != nil {
		return nil, fmt.Errorf("store the plugin of the example: %w", err)
	}
	if _, err := node.PutConnection(ctx, &api.PutConnection{Document: document, File: "examples/orders/connection.yaml"}); err != nil {
		return nil, fmt.Errorf("apply the connection of the example: %w", err)
	}
	_, err = node.PutFlow(ctx, &api.PutFlow{Document: string(flow), File: "examples/orders/flow.yaml", Files: map[string]string{"./orders.wasm": plugin.Digest}})
	if err != nil {
		return nil, fmt.Errorf("apply the flow of the example: %w", err)
	}
	f, err := node.Flow(ctx, flowProject, flowName)
	if err != nil {
		return nil, fmt.Errorf("look at flow %s: %w", flowName, err)
	}
	if f.State != api.StateRunning {
		if _, err := node.SetFlow(ctx, flowProject, flowName, api.StateRunning); err != nil {
			return nil, fmt.Errorf("start flow %s: %w", flowName, err)
		}
	}
	return plugin, nil
}

// Waiting for a flow.
const (
	askEvery = 20 * time.Millisecond
	// stallLimit is how long nothing at all may move.
	stallLimit = 30 * time.Second
)

// settle returns the flow once every partition is committed up to ends, of
// which 0 is an empty one. moved
// is any other measure of progress. It gives up when nothing moved for
// stallLimit, or when alive says that the node is gone.
func settle(ctx context.Context, node api.Backend, ends positions, moved func() int, alive func() error) (*api.Flow, error) {
	var last string
	since := time.Now()
	for {
		f, err := node.Flow(ctx, flowProject, flowName)
		if err == nil && committed(f, ends) {
			return f, nil
		}
		if err := alive(); err != nil {
			return nil, err
		}
		state := progress(f) + fmt.Sprint(moved())
		if state != last {
			last, since = state, time.Now()
		}
		if time.Since(since) > stallLimit {
			return nil, stuck(f, ends, err)
		}
		if err := pause(ctx, askEvery); err != nil {
			return nil, err
		}
	}
}

func committed(f *api.Flow, ends positions) bool {
	at := positions{}
	for _, p := range f.Partitions {
		at[p.Partition] = p.Committed
	}
	for p, end := range ends {
		if end > 0 && at[p] < end {
			return false
		}
	}
	return true
}

func progress(f *api.Flow) string {
	var b strings.Builder
	if f != nil {
		for _, p := range f.Partitions {
			fmt.Fprintf(&b, "%d:%d ", p.Partition, p.Committed)
		}
	}
	return b.String()
}

// stuck says what a flow that does not move is short of.
func stuck(f *api.Flow, ends positions, err error) error {
	if f == nil {
		return fmt.Errorf("flow %s did not move for %s: %w", flowName, stallLimit, err)
	}
	at := positions{}
	for _, p := range f.Partitions {
		at[p.Partition] = p.Committed
	}
	var missing []string
	for _, p := range slices.Sorted(maps.Keys(ends)) {
		if at[p] < ends[p] {
			missing = append(missing, fmt.Sprintf("%s/%d is committed up to %d of %d", sourceTopic, p, at[p], ends[p]))
		}
	}
	text := fmt.Sprintf("flow %s (%s) did not move for %s", flowName, f.State, stallLimit)
	for _, why := range []string{strings.Join(missing, ", "), f.Reason, f.Problem} {
		if why != "" {
			text += ": " + why
		}
	}
	return errors.New(text)
}

// failures reads the flow's failure queue from the given positions on: the
// entries of this run.
func failures(ctx context.Context, node api.Backend, from positions) ([]failure, []poison, error) {
	var all []failure
	var first []poison
	q := &api.FailureQuery{Project: flowProject, Name: flowName, Limit: 1000}
	for {
		page, err := node.Failures(ctx, q)
		if err != nil {
			return nil, nil, fmt.Errorf("read the failure queue of flow %s: %w", flowName, err)
		}
		for _, e := range page.Entries {
			if e.Input.Topic != sourceTopic || e.Input.Offset < from[e.Input.Partition] {
				continue
			}
			all = append(all, failure{e.Input.Partition, e.Input.Offset, e.Message})
			if len(first) < maxPoison {
				first = append(first, poison{seq: e.Seq, id: e.ID(), stage: e.Stage, plugin: e.Plugin, class: e.Class.String(), message: e.Message, input: string(e.Input.Value)})
			}
		}
		if page.Next == 0 {
			return all, first, nil
		}
		q.After = page.Next
	}
}

func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}
