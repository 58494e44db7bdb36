package main

import (
	"fmt"
	"runtime"
	"syscall"
	"time"
)

// slice is how much CPU time a contestant takes in a round.
const slice = 40 * time.Millisecond

// contestant is one side of a comparison.
type contestant struct {
	name string
	// per is how many records a run has; figures are by record.
	per int
	run func() error

	n       int       // runs in a round
	samples []float64 // ns by record, one a round
}

// race measures the contestants in turn, round for round, so that what
// disturbs the machine disturbs all of them.
func race(rounds int, all ...*contestant) error {
	for _, c := range all {
		if err := c.calibrate(); err != nil {
			return fmt.Errorf("%s: %w", c.name, err)
		}
	}
	for range rounds {
		for _, c := range all {
			runtime.GC()
			used, err := c.measure(c.n)
			if err != nil {
				return fmt.Errorf("%s: %w", c.name, err)
			}
			c.samples = append(c.samples, float64(used.Nanoseconds())/float64(c.n)/float64(c.per))
		}
	}
	return nil
}

// calibrate warms the contestant up, whose first runs may take a hundred times
// as long as later ones, and finds out how many runs fill a slice.
func (c *contestant) calibrate() error {
	for _, enough := range []time.Duration{slice, slice / 4} {
		for c.n = 1; ; c.n *= 2 {
			used, err := c.measure(c.n)
			if err != nil {
				return err
			}
			if used >= enough {
				c.n = max(1, int(float64(c.n)*float64(slice)/float64(used)))
				break
			}
		}
	}
	return nil
}

// measure is the CPU time of n runs, the garbage collector's included.
func (c *contestant) measure(n int) (time.Duration, error) {
	from, err := cpuTime()
	if err != nil {
		return 0, err
	}
	for range n {
		if err := c.run(); err != nil {
			return 0, err
		}
	}
	to, err := cpuTime()
	return to - from, err
}

// cpuTime is what this process used so far.
func cpuTime() (time.Duration, error) {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0, fmt.Errorf("read the CPU time: %w", err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()), nil
}

// ns is the median of the rounds.
func (c *contestant) ns() float64 { return median(c.samples) }

// over is the median of the ratios of the rounds.
func (c *contestant) over(base *contestant) float64 {
	return c.against(base, func(a, b float64) float64 { return a / b })
}

// beyond is the median of the differences of the rounds, by run.
func (c *contestant) beyond(base *contestant) float64 {
	return c.against(base, func(a, b float64) float64 { return a*float64(c.per) - b*float64(base.per) })
}

func (c *contestant) against(base *contestant, f func(a, b float64) float64) float64 {
	var v []float64
	for i := range c.samples {
		v = append(v, f(c.samples[i], base.samples[i]))
	}
	return median(v)
}

// throughput is how many runs a second that many goroutines make together, by
// the clock.
func throughput(workers, runs int, worker func() func() error) (float64, error) {
	errs := make(chan error, workers) // one for each
	began := time.Now()
	for range workers {
		go func() {
			run := worker()
			for range runs {
				if err := run(); err != nil {
					errs <- err
					return
				}
			}
			errs <- nil
		}()
	}
	var failed error
	for range workers {
		if err := <-errs; err != nil {
			failed = err
		}
	}
	return float64(workers*runs) / time.Since(began).Seconds(), failed
}
