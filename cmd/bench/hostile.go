package main

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"time"

	"github.com/millrace-io/millrace/examples"
	"github.com/millrace-io/millrace/plugins/plugintest/hostile"
	"github.com/millrace-io/millrace/plugins/sandbox"
)

// benchHostile measures what hostile guests in one lane do to the batches of
// another one, in the same process and with two processors. What the machine
// does besides only adds, so that a guest that misses its bar is measured
// again, and its best round counts.
func benchHostile(ctx context.Context, o options) ([]row, error) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(2))
	rt, err := sandbox.New(ctx, sandbox.Config{})
	if err != nil {
		return nil, err
	}
	defer rt.Close(ctx)
	wasm, err := examples.Files.ReadFile("orders/orders.wasm")
	if err != nil {
		return nil, err
	}
	m, err := rt.Compile(ctx, wasm)
	if err != nil {
		return nil, err
	}
	defer m.Close(ctx)
	orders, err := m.NewStage(ctx, sandbox.StageConfig{Flow: "bench", Stage: "orders"})
	if err != nil {
		return nil, err
	}
	defer orders.Close(ctx)
	n := &hostile.Neighbour{Stage: orders, Batch: eventBatch(128), Every: 2 * time.Millisecond, Batches: 200}
	var alone []float64
	for range 5 {
		tail, err := n.Tail(ctx, nil)
		if err != nil {
			return nil, err
		}
		alone = append(alone, ms(tail))
	}
	quiet := median(alone)
	classes := map[bool][]disturbance{}
	for _, g := range hostile.Guests() {
		if g.Refused != "" {
			continue
		}
		d, err := disturb(ctx, rt, n, &g, quiet, o.rounds)
		if err != nil {
			return nil, fmt.Errorf("beside %q: %w", g.Name, err)
		}
		classes[g.Measured] = append(classes[g.Measured], d)
	}
	rows := []row{{figure: "p99 of a batch of 128 orders, alone", value: fmt.Sprintf("%.3g ms", quiet)}}
	for _, measured := range []bool{false, true} {
		class, bar, what := classes[measured], ms(hostile.TailBar), "ordinary hostile guests"
		if measured {
			bar, what = ms(hostile.MeasuredTailBar), "hostile guests built against the measure"
		}
		slices.SortFunc(class, func(a, b disturbance) int { return int(1e6 * (b.rise - a.rise)) })
		rows = append(rows, atMost(fmt.Sprintf("its rise beside %d %s, the worst", len(class), what), class[0].rise, bar, " ms"))
		for _, d := range class[:min(3, len(class))] {
			rows = append(rows, row{figure: "  beside " + d.name, value: fmt.Sprintf("%.3g ms", d.rise)})
		}
	}
	return rows, nil
}

// disturbance is by how many ms a guest raises its neighbour's tail.
type disturbance struct {
	name string
	rise float64
}

func disturb(ctx context.Context, rt *sandbox.Runtime, n *hostile.Neighbour, g *hostile.Guest, quiet float64, rounds int) (disturbance, error) {
	d := disturbance{name: g.Name}
	m, err := rt.Compile(ctx, g.Wasm())
	if err != nil {
		return d, err
	}
	defer m.Close(ctx)
	run, closeLane, err := g.Lane(ctx, m)
	if err != nil {
		return d, err
	}
	defer closeLane(ctx)
	bar := ms(hostile.TailBar)
	if g.Measured {
		bar = ms(hostile.MeasuredTailBar)
	}
	for i := range max(1, rounds) {
		tail, err := n.Tail(ctx, run)
		if err != nil {
			return d, err
		}
		if rise := ms(tail) - quiet; i == 0 || rise < d.rise {
			d.rise = rise
		}
		if d.rise <= bar {
			break
		}
	}
	return d, nil
}

func ms(d time.Duration) float64 { return d.Seconds() * 1e3 }
