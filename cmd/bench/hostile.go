package main

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/millrace-io/millrace/examples"
	"github.com/millrace-io/millrace/plugins/plugintest/hostile"
	"github.com/millrace-io/millrace/plugins/sandbox"
)

// benchHostile measures what hostile guests in one lane do to the batches of
// another one, in the same process and with two processors. What the machine
// does besides only adds, so that a guest that misses its bar is measured
// again, and its best round counts. Then each guest does what it does hostileRounds
// times, and the process must hold no more than before.
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
	hunt := hunt{before: hostile.Measure()}
	for _, g := range hostile.Guests() {
		if g.Refused != "" {
			continue
		}
		d, err := disturb(ctx, rt, n, &g, quiet, o.rounds, &hunt)
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
	return append(rows, hunt.rows()...), nil
}

// hostileRounds is how often each guest does its harm in the hunt for leaks.
const hostileRounds = 1000

// hunt counts the rounds of all guests.
type hunt struct {
	before                hostile.Resources
	guests, rounds, fewer int
	took                  time.Duration
}

// run lets g, compiled as m, do its rounds in two goroutines.
func (h *hunt) run(ctx context.Context, g *hostile.Guest, m *sandbox.Module) error {
	began := time.Now()
	all := g.RoundsOf(m, hostileRounds, false)
	var wg sync.WaitGroup
	halves := [2]int{all / 2, all - all/2}
	var done [2]int
	var errs [2]error
	for i, rounds := range halves {
		wg.Go(func() { done[i], errs[i] = g.Rounds(ctx, m, rounds) })
	}
	wg.Wait()
	h.guests++
	h.rounds += done[0] + done[1]
	if all < hostileRounds {
		h.fewer++
	}
	h.took += time.Since(began)
	return errors.Join(errs[:]...)
}

func (h *hunt) rows() []row {
	leaks := hostile.Measure().Leaks(h.before)
	r := atMost(fmt.Sprintf("leaks of %d hostile guests in %d rounds", h.guests, h.rounds), float64(len(leaks)), 0, "")
	if len(leaks) > 0 {
		r.value += ": " + strings.Join(leaks, ", ")
	}
	return []row{r,
		{figure: fmt.Sprintf("  guests with %d rounds; with 3: 100,000 functions", hostileRounds), value: fmt.Sprintf("%d; %d", h.guests-h.fewer, h.fewer)},
		{figure: "  time of all rounds", value: fmt.Sprintf("%.3g s", h.took.Seconds())},
	}
}

// disturbance is by how many ms a guest raises its neighbour's tail.
type disturbance struct {
	name string
	rise float64
}

func disturb(ctx context.Context, rt *sandbox.Runtime, n *hostile.Neighbour, g *hostile.Guest, quiet float64, rounds int, hunt *hunt) (disturbance, error) {
	d := disturbance{name: g.Name}
	m, err := rt.Compile(ctx, g.Wasm())
	if err != nil {
		return d, err
	}
	defer m.Close(ctx)
	if err := beside(ctx, n, g, m, quiet, rounds, &d); err != nil {
		return d, err
	}
	return d, hunt.run(ctx, g, m)
}

// beside measures n beside a lane of g and notes in d by how much its tail
// rises.
func beside(ctx context.Context, n *hostile.Neighbour, g *hostile.Guest, m *sandbox.Module, quiet float64, rounds int, d *disturbance) error {
	run, closeLane, err := g.Lane(ctx, m)
	if err != nil {
		return err
	}
	defer closeLane(ctx)
	bar := ms(hostile.TailBar)
	if g.Measured {
		bar = ms(hostile.MeasuredTailBar)
	}
	for i := range max(1, rounds) {
		tail, err := n.Tail(ctx, run)
		if err != nil {
			return err
		}
		if rise := ms(tail) - quiet; i == 0 || rise < d.rise {
			d.rise = rise
		}
		if d.rise <= bar {
			break
		}
	}
	return nil
}

func ms(d time.Duration) float64 { return d.Seconds() * 1e3 }
