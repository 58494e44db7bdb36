//go:build linux

package faulttest

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/millrace-io/millrace/cmd/internal/api"
)

// realLoad is the rate of the load, records a second. With the race detector
// the node is several times as slow, and all have two cores.
func realLoad() int {
	if raceEnabled {
		return 1000
	}
	return 3000
}

// realCourse is a node under load with its troubles.
type realCourse struct {
	*realRig
	rng  *rand.Rand
	load *load
	out  *follower
	cuts []cut

	topics int // that were made for single faults
}

// fault does something and lets the cause of it go by; what it says is logged.
type fault struct {
	name string
	do   func(c *realCourse) string
}

func realFaults(disk bool) []fault {
	faults := []fault{
		{"kill the source's broker", func(c *realCourse) string { return c.killBrokers(atSource) }},
		{"kill the output's broker", func(c *realCourse) string { return c.killBrokers(atOutput) }},
		{"kill both brokers", func(c *realCourse) string { return c.killBrokers(atSource, atOutput) }},
		{"cut in a fetch", func(c *realCourse) string { return c.cut(atSource, fromBroker) }},
		{"cut in a produce request", func(c *realCourse) string { return c.cut(atOutput, toBroker) }},
		{"cut in a produce answer", func(c *realCourse) string { return c.cut(atOutput, fromBroker) }},
		{"stall the source's broker", func(c *realCourse) string { return c.stall(atSource) }},
		{"stall the output's broker", func(c *realCourse) string { return c.stall(atOutput) }},
		{"kill the node", (*realCourse).killNode},
		{"kill the node while the output stalls", (*realCourse).killNodeInStall},
		{"delete records before a flow reads them", (*realCourse).recordsDeleted},
		{"make a flow's topic anew", (*realCourse).topicMadeAnew},
	}
	if disk {
		faults = append(faults, fault{"fill the output's disk", (*realCourse).fillDisk})
	}
	return faults
}

// killBrokers kills brokers and starts them again after a while.
func (c *realCourse) killBrokers(which ...int) string {
	for _, w := range which {
		c.kafkas[w].Kill()
	}
	away := between(c.rng, 10*time.Millisecond, 1500*time.Millisecond)
	pass(c.t.Context(), away)
	for _, w := range which {
		c.kafkas[w].Start()
	}
	return fmt.Sprintf("away for %s and a start", away.Round(time.Millisecond))
}

// cut ends all connections of the node to a broker within the next bytes.
func (c *realCourse) cut(which, direction int) string {
	// Requests are of some ten bytes to some hundred KiB, so are answers.
	bytes := 1 + c.rng.Int64N(1<<(4+c.rng.IntN(16)))
	c.proxies[which].cutAfter(direction, bytes)
	await(c.t, 20*time.Second, "the cut", func() (bool, string) { return c.proxies[which].done(), "" })
	return fmt.Sprintf("after %d bytes", bytes)
}

func (c *realCourse) stall(which int) string {
	c.kafkas[which].Pause()
	pass(c.t.Context(), time.Second)
	c.kafkas[which].Continue()
	return "for 1s"
}

func (c *realCourse) before() offsets {
	if len(c.cuts) == 0 {
		return offsets{}
	}
	return c.cuts[len(c.cuts)-1].ends
}

func (c *realCourse) killNode() string {
	k := c.cutNow(c.out, c.before(), 0)
	c.cuts = append(c.cuts, k)
	c.launch()
	return fmt.Sprintf("%d may be repeated", k.explained)
}

func (c *realCourse) killNodeInStall() string {
	k := c.cutNow(c.out, c.before(), between(c.rng, 120*time.Millisecond, 400*time.Millisecond))
	c.cuts = append(c.cuts, k)
	c.launch()
	return fmt.Sprintf("%d may be repeated", k.explained)
}

// fillDisk leaves the output's broker no space: Kafka ends itself. It is
// started again once there is space.
func (c *realCourse) fillDisk() string {
	free := c.fill()
	began := time.Now()
	await(c.t, 30*time.Second, "the broker to end with its disk full", func() (bool, string) { return !c.kafkas[atOutput].Alive(), c.kafkas[atOutput].Log() })
	took := time.Since(began)
	free()
	c.kafkas[atOutput].Start()
	return fmt.Sprintf("the broker ended after %s", took.Round(time.Millisecond))
}

// drawn is an order of faults with each of them at least once, if there are
// as many.
func drawn(rng *rand.Rand, faults []fault, n int) []fault {
	var order []fault
	for len(order) < n {
		for _, i := range rng.Perm(len(faults)) {
			order = append(order, faults[i])
		}
	}
	return order[:n]
}

// Real Kafkas in trouble, one fault after the other under load: nothing is
// lost, the order holds, nothing comes twice without a kill of the node that
// explains it, and a client that is not ours reads the same.
func TestRealKafka(t *testing.T) {
	n := 15
	if raceEnabled { // everything takes several times as long
		n = 6
	}
	if s := os.Getenv("MILLRACE_FAULT_KAFKA"); s != "" {
		var err error
		if n, err = strconv.Atoi(s); err != nil {
			t.Fatalf("MILLRACE_FAULT_KAFKA: %v", err)
		}
	}
	rng := seeded(t)
	c := &realCourse{realRig: newRealRig(t, 256+10*n), rng: rng}
	c.makeTopics(c.source, "orders")
	c.makeTopics(c.output, "orders-out")
	p := c.upload("orders.wasm", readPlugin(t))
	c.apply(ordersFlow, map[string]string{"./orders.wasm": p.Digest})
	c.watch("orders")
	c.out = follow(t, c.output.addr, "orders-out", partitions)
	c.load = startLoad(t, c.source.addr, "orders", rng.Uint64(), realLoad())
	c.flowing("records to flow")
	for i, f := range drawn(rng, realFaults(c.disk != ""), n) {
		said := f.do(c)
		began := time.Now()
		c.flowing("records to flow after: " + f.name)
		t.Logf("fault %d: %s, %s; records flow again after %s", i+1, f.name, said, time.Since(began).Round(time.Millisecond))
		pass(t.Context(), between(rng, 0, 500*time.Millisecond))
	}
	c.ready()
	if fl := c.flow("orders"); fl.State != api.StateRunning {
		t.Errorf("the flow is %s: %s", fl.State, fl.Reason)
	}
	events := c.load.end()
	c.settled("orders", "orders", 3*time.Minute)
	c.judge(events, c.out, c.cuts, rules{})
	c.readBack("orders-out")
	c.stopNode()
}

// flowing waits until more is produced and more arrives.
func (c *realCourse) flowing(what string) {
	c.t.Helper()
	produced, arrived := c.load.count(), c.out.count()
	await(c.t, 60*time.Second, what, func() (bool, string) {
		if c.out.count() > arrived+realLoad()/10 && c.load.count() > produced+realLoad()/10 {
			return true, ""
		}
		said := fmt.Sprintf("%d produced, %d arrived", c.load.count(), c.out.count())
		if f, err := c.client.Flow(c.t.Context(), "", "orders"); err == nil {
			said += fmt.Sprintf("; flow %s %s, problem %q, lag %d", f.State, f.Reason, f.Problem, f.Lag)
		}
		return false, said
	})
}

// readBack compares what was read with what kcat reads.
func (c *realCourse) readBack(topic string) {
	c.t.Helper()
	ours := map[readBack]bool{}
	for _, o := range c.out.all() {
		ours[readBack{o.number, o.sum, o.partition, o.offset}] = true
	}
	theirs := c.kcatRead(topic)
	for _, o := range theirs {
		if !ours[o] {
			c.t.Fatalf("kcat reads record %d/%d as event %d, we do not", o.partition, o.offset, o.number)
		}
	}
	if len(theirs) != len(ours) {
		c.t.Errorf("kcat reads %d records, we read %d", len(theirs), len(ours))
	}
	c.t.Logf("kcat reads the same %d records", len(theirs))
}
