package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/millrace-io/millrace/cluster/node"
	"github.com/millrace-io/millrace/cluster/state"
	"github.com/millrace-io/millrace/cmd/bench/arena"
	"github.com/millrace-io/millrace/cmd/internal/api"
)

// benchCommit measures commits as a node with one flow of 8 partitions makes
// them.
func benchCommit(ctx context.Context, _ options) ([]row, error) {
	dir, err := os.MkdirTemp("", "millrace-bench-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	n, err := node.Open(ctx, node.Config{Dir: dir})
	if err != nil {
		return nil, err
	}
	defer n.Close()
	res, err := n.Propose(ctx, &state.FlowPut{Project: "default", Name: "bench", UID: 1, Document: []byte("x"), Resolved: []byte("x"), Slots: 8})
	if err != nil {
		return nil, err
	}
	id := res.Value.(*state.FlowPutResult).Flow
	var keys []state.PartitionKey
	for i := range int32(8) {
		keys = append(keys, state.PartitionKey{Kind: "kafka", Topic: "t", Source: i})
	}
	if _, err := n.Propose(ctx, &state.PartitionsAdd{Flow: id, Partitions: keys}); err != nil {
		return nil, err
	}
	var slots []state.Slot
	err = attempt(ctx, "slots", func() error {
		if slots, err = n.State().Slots(id); err != nil {
			return err
		}
		for _, s := range slots {
			if s.Owner != n.ID() {
				return fmt.Errorf("slot %d has no owner", s.Slot)
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	var took []float64
	for i := range int64(2000) {
		c := &state.Commit{Node: n.ID(), Incarnation: n.Incarnation()}
		for p := range uint32(8) {
			c.Items = append(c.Items, state.CommitItem{Flow: id, Slot: uint16(p), Epoch: slots[p].Epoch, Part: p, Low: i * 100, Ranges: []state.Range{{From: i*100 + 3, To: i*100 + 9}}})
		}
		began := time.Now()
		if _, err := n.Propose(ctx, c); err != nil {
			return nil, err
		}
		took = append(took, time.Since(began).Seconds()*1e3)
	}
	return []row{atMost("commit, p50", quantile(took, 0.5), 2, " ms"), {figure: "commit, p99", value: fmt.Sprintf("%.3g ms", quantile(took, 0.99))}}, nil
}

func quantile(v []float64, q float64) float64 {
	s := slices.Sorted(slices.Values(v))
	return s[min(len(s)-1, int(q*float64(len(s))))]
}

// benchStart measures a node's start and memory.
func benchStart(ctx context.Context, o options) ([]row, error) {
	under := o // the load on the real broker
	o.partitions, o.n = 64, 20_000
	w, err := newWorld(ctx, o)
	if w != nil {
		defer w.close()
	}
	if err != nil {
		return nil, err
	}
	dir := filepath.Join(w.dir, "node")
	var fresh, kept, rss []float64
	for i := range 5 {
		d, c, err := timedStart(ctx, fmt.Sprintf("%s-%d", dir, i))
		if err != nil {
			return nil, err
		}
		fresh = append(fresh, d)
		m, err := residentMiB(c)
		if err != nil {
			return nil, err
		}
		rss = append(rss, m)
		if _, err := c.end(); err != nil {
			return nil, err
		}
	}
	c, err := w.startNode(ctx, "sixtyfour")
	if err != nil {
		return nil, err
	}
	err = attempt(ctx, "the flow", func() error {
		n, err := w.count(ctx, "sixtyfour")
		if err == nil && n < w.expect {
			err = fmt.Errorf("%d of %d records", n, w.expect)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	busy, err := residentMiB(c)
	if err != nil {
		return nil, err
	}
	if _, err := c.end(); err != nil {
		return nil, err
	}
	for range 5 {
		d, c, err := timedStart(ctx, filepath.Join(w.dir, "sixtyfour"))
		if err != nil {
			return nil, err
		}
		kept = append(kept, d)
		if _, err := c.end(); err != nil {
			return nil, err
		}
	}
	rows := []row{
		{figure: "start on an empty folder to ready, median of 5", value: fmt.Sprintf("%.0f ms", median(fresh))},
		atMost("start on kept data to ready, median of 5", median(kept), 1500, " ms"),
		{figure: "RSS idle", value: fmt.Sprintf("%.0f MiB", median(rss))},
		atMost("RSS after 20,000 records through 64 partitions", busy, 250, " MiB"),
	}
	loaded, err := benchMemory(ctx, under)
	if errors.Is(err, arena.ErrNoBroker) {
		return append(rows, row{figure: "RSS under load", value: "left out: " + err.Error()}), nil
	}
	return append(rows, loaded...), err
}

// benchMemory is the most memory that a node takes while the order flow works
// through 64 partitions of the real broker, as fast as it can.
func benchMemory(ctx context.Context, o options) ([]row, error) {
	o.contestants, o.partitions = "node-rust", 64
	picked, w, done, err := meet(ctx, arena.Kafka, o)
	if err != nil {
		return nil, err
	}
	defer done()
	f, err := w.Run(ctx, picked[0], nil)
	if err != nil {
		return nil, err
	}
	return []row{atMost(fmt.Sprintf("RSS at its highest, %d records through 64 partitions of the real broker", o.n), f.PeakMiB, 250, " MiB")}, nil
}

// timedStart starts a node and returns the ms until it was ready.
func timedStart(ctx context.Context, dir string) (float64, *child, error) {
	addr, err := freeAddr()
	if err != nil {
		return 0, nil, err
	}
	began := time.Now()
	c, err := self(ctx, "node", addr, dir)
	if err != nil {
		return 0, nil, err
	}
	if err := waitReady(ctx, addr); err != nil {
		_, _ = c.end()
		return 0, nil, err
	}
	took := time.Since(began).Seconds() * 1e3
	_, err = api.NewClient("http://" + addr).Node(ctx)
	return took, c, err
}

func residentMiB(c *child) (float64, error) {
	f, err := os.Open(fmt.Sprintf("/proc/%d/status", c.cmd.Process.Pid))
	if err != nil {
		return 0, err
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		if rest, ok := strings.CutPrefix(s.Text(), "VmRSS:"); ok {
			var kib float64
			_, err := fmt.Sscan(rest, &kib)
			return kib / 1024, err
		}
	}
	return 0, fmt.Errorf("no VmRSS of pid %d", c.cmd.Process.Pid)
}
