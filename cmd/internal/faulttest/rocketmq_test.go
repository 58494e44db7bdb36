//go:build linux

package faulttest

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	mq "github.com/apache/rocketmq-client-go/v2"
	"github.com/apache/rocketmq-client-go/v2/admin"
	"github.com/apache/rocketmq-client-go/v2/consumer"
	"github.com/apache/rocketmq-client-go/v2/primitive"
	"github.com/apache/rocketmq-client-go/v2/producer"
	"github.com/apache/rocketmq-client-go/v2/rlog"

	"github.com/millrace-io/millrace/runtime/connector/connectortest/brokers"
	"github.com/millrace-io/millrace/runtime/connector/rocketmq"
	"github.com/millrace-io/millrace/runtime/record"
)

// backWithin is how long a broker may be back before messages are pulled again.
const backWithin = 5 * time.Second

// mqCourse is a node with a RocketMQ and a Kafka, under load. Apache's client
// writes and reads: it knows nothing of Millrace.
type mqCourse struct {
	*rig
	mq   *brokers.RocketMQ
	rng  *rand.Rand
	back []time.Duration // how long it took to pull again
}

// mqLane is what was sent to one queue: messages numbered from 0, of one key.
type mqLane struct {
	queue int
	sent  int
}

// message is number n of a lane.
func (l *mqLane) message(n int) *primitive.Message {
	m := primitive.NewMessage("in", fmt.Appendf(nil, "%d %d", l.queue, n)).WithKeys([]string{l.key()}).WithTag(fmt.Sprint("tag", n%3))
	m.WithProperty("number", strconv.Itoa(n))
	m.WithProperty("a", "é")
	m.Queue = &primitive.MessageQueue{Topic: "in", BrokerName: "broker-a", QueueId: l.queue}
	return m
}

func (l *mqLane) key() string { return fmt.Sprint("lane-", l.queue) }

// load sends to a queue until ctx ends; what fails is sent again.
func (l *mqLane) load(ctx context.Context, t *testing.T, p mq.Producer) {
	const batch = 5
	for ; ctx.Err() == nil; l.sent += batch {
		msgs := make([]*primitive.Message, batch)
		for {
			for i := range msgs {
				msgs[i] = l.message(l.sent + i)
			}
			res, err := p.SendSync(context.Background(), msgs...)
			if err == nil && res.Status == primitive.SendOK {
				break
			}
			pass(t.Context(), 100*time.Millisecond)
			if t.Context().Err() != nil {
				return
			}
		}
		pass(ctx, 20*time.Millisecond)
	}
}

func mqFaults() []struct {
	name string
	do   func(*mqCourse) string
} {
	return []struct {
		name string
		do   func(*mqCourse) string
	}{
		{"kill the broker", (*mqCourse).killBroker},
		{"kill the name server", (*mqCourse).killNameServer},
		{"stall the broker", func(c *mqCourse) string { return c.stall("broker") }},
		{"stall the name server", func(c *mqCourse) string { return c.stall("ns") }},
		{"kill the node", (*mqCourse).killNode},
		{"cut all connections to the broker", (*mqCourse).cutAll},
		{"kill the node while the broker stalls", (*mqCourse).killNodeInStall},
		{"kill the broker and the node", (*mqCourse).killBoth},
	}
}

func (c *mqCourse) killBroker() string {
	c.mq.Kill("broker")
	pass(c.t.Context(), between(c.rng, 10*time.Millisecond, 1500*time.Millisecond))
	c.mq.Start("broker")
	return c.pullsAgain()
}

// pullsAgain waits until the flow goes on, and says how long that took.
func (c *mqCourse) pullsAgain() string {
	c.t.Helper()
	since := time.Now()
	first := c.committed("direct")
	await(c.t, 30*time.Second, "the flow to pull again", func() (bool, string) {
		f := c.flow("direct")
		return c.committed("direct") > first, f.Problem
	})
	took := time.Since(since)
	c.back = append(c.back, took)
	if took > backWithin {
		c.t.Errorf("it took %s to pull again, and may take %s", took, backWithin)
	}
	return fmt.Sprintf("pulled again after %s", took.Round(time.Millisecond))
}

func (c *mqCourse) committed(flow string) (sum int64) {
	for _, p := range c.flow(flow).Partitions {
		sum += max(p.Committed, 0)
	}
	return sum
}

func (c *mqCourse) killNameServer() string {
	c.mq.Kill("ns")
	pass(c.t.Context(), between(c.rng, 10*time.Millisecond, time.Second))
	goesOn := c.pullsAgain()
	c.mq.Start("ns")
	return goesOn + " without it"
}

func (c *mqCourse) stall(which string) string {
	c.mq.Pause(which)
	pass(c.t.Context(), time.Second)
	c.mq.Continue(which)
	return "for 1s"
}

func (c *mqCourse) killNode() string {
	pass(c.t.Context(), between(c.rng, 0, time.Second))
	c.node.kill()
	return fmt.Sprintf("ready again after %s", c.run().Round(time.Millisecond))
}

func (c *mqCourse) killNodeInStall() string {
	c.mq.Pause("broker")
	pass(c.t.Context(), between(c.rng, 100*time.Millisecond, 400*time.Millisecond))
	c.node.kill()
	c.mq.Continue("broker")
	return fmt.Sprintf("ready again after %s", c.run().Round(time.Millisecond))
}

func (c *mqCourse) killBoth() string {
	c.mq.Kill("broker")
	c.node.kill()
	c.launch()
	c.mq.Start("broker")
	c.ready()
	return c.pullsAgain()
}

// cutAll resets every connection to the broker, wherever it is in a frame.
func (c *mqCourse) cutAll() string {
	_, port, _ := strings.Cut(c.mq.Broker(), ":")
	out, err := exec.Command("ss", "-K", "-H", "-t", "dst", "127.0.0.1", "dport", "=", ":"+port).CombinedOutput()
	cut := strings.Count(string(out), "ESTAB")
	if err != nil || cut == 0 {
		return fmt.Sprintf("not possible here: ss: %v: %s", err, out)
	}
	return fmt.Sprintf("%d connections; %s", cut, c.pullsAgain())
}

// TestRocketMQ drives two flows, RocketMQ to RocketMQ and RocketMQ to Kafka and
// back, through faults of all of them, and looks at what Apache's client
// finds in the end.
func TestRocketMQ(t *testing.T) {
	n := 8
	if s := os.Getenv("MILLRACE_FAULT_ROCKETMQ"); s != "" {
		var err error
		if n, err = strconv.Atoi(s); err != nil {
			t.Fatalf("MILLRACE_FAULT_ROCKETMQ: %v", err)
		}
	}
	rlog.SetLogLevel("fatal")
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	c := &mqCourse{rig: newNode(t, false), rng: rand.New(rand.NewPCG(seed, 0))}
	c.mq = brokers.StartRocketMQ(t, brokers.RocketMQOptions{})
	c.source = c.newBroker("source")
	c.makeTopics(c.source, "mid")
	for _, topic := range []string{"in", "direct", "round"} {
		c.makeQueues(topic)
	}
	c.run()
	c.connect("connection: v1\nname: mq\nrocketmq: { name_servers: [" + c.mq.NameServer() + "] }\n")
	c.connect("connection: v1\nname: main\nkafka: { brokers: [" + c.source.addr + "] }\n")
	for name, way := range map[string][2]string{
		"direct": {"rocketmq://mq/in", "rocketmq://mq/direct"}, "there": {"rocketmq://mq/in", "kafka://main/mid"}, "andback": {"kafka://main/mid", "rocketmq://mq/round"},
	} {
		c.apply(fmt.Sprintf("flow: v1\nname: %s\norder: partition\nsource: %s\nstages:\n  - push: %s\n", name, way[0], way[1]), nil)
	}

	p, err := mq.NewProducer(producer.WithNameServer([]string{c.mq.NameServer()}), producer.WithGroupName("load"), producer.WithInstanceName(t.Name()),
		producer.WithQueueSelector(producer.NewManualQueueSelector()), producer.WithRetry(0))
	if err == nil {
		err = p.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var loading sync.WaitGroup
	lanes := make([]*mqLane, partitions)
	for i := range lanes {
		lanes[i] = &mqLane{queue: i}
		loading.Go(func() { lanes[i].load(ctx, t, p) })
	}
	c.pullsAgain()

	order := c.rng.Perm(len(mqFaults()))
	for i := range n {
		f := mqFaults()[order[i%len(order)]]
		t.Logf("fault %d: %s: %s", i+1, f.name, f.do(c))
		if t.Failed() {
			return
		}
		pass(t.Context(), between(c.rng, 100*time.Millisecond, time.Second))
	}
	stop()
	loading.Wait()
	_ = p.Shutdown()
	for _, topic := range []string{"direct", "round"} {
		c.judgeQueues(topic, lanes)
	}
	t.Logf("pulled again after %v", c.back)
}

// makeQueues makes a topic with as many queues as Kafka's have partitions.
func (c *mqCourse) makeQueues(topic string) {
	c.t.Helper()
	a, err := admin.NewAdmin(admin.WithResolver(primitive.NewPassthroughResolver([]string{c.mq.NameServer()})))
	if err != nil {
		c.t.Fatal(err)
	}
	defer a.Close()
	if err := a.CreateTopic(c.t.Context(), admin.WithTopicCreate(topic), admin.WithBrokerAddrCreate(c.mq.Broker()), admin.WithReadQueueNums(partitions), admin.WithWriteQueueNums(partitions)); err != nil {
		c.t.Fatal(err)
	}
}

// mqSeen is what was found of the lanes in a topic.
type mqSeen struct {
	mu     sync.Mutex
	next   map[int]int // of each lane, the number that comes next; guarded by mu
	twice  int         // guarded by mu
	faults []string    // guarded by mu
}

// judgeQueues reads a topic until everything is there.
func (c *mqCourse) judgeQueues(topic string, lanes []*mqLane) {
	c.t.Helper()
	s := &mqSeen{next: map[int]int{}}
	ctx, cancel := context.WithTimeout(c.t.Context(), 90*time.Second)
	defer cancel()
	complete := func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		for _, l := range lanes {
			if s.next[l.queue] < l.sent {
				return len(s.faults) > 0
			}
		}
		return true
	}
	if raceEnabled { // Apache's pull consumer has data races of its own
		c.readByOurs(ctx, topic, s, complete)
	} else {
		c.readByApache(ctx, topic, s, complete)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	total := 0
	for _, l := range lanes {
		total += l.sent
		if s.next[l.queue] != l.sent {
			s.faults = append(s.faults, fmt.Sprintf("lane %d: %d of %d messages", l.queue, s.next[l.queue], l.sent))
		}
	}
	c.t.Logf("topic %s: %d messages, %d came twice", topic, total, s.twice)
	for _, f := range s.faults[:min(len(s.faults), 5)] {
		c.t.Errorf("topic %s: %s", topic, f)
	}
}

func (c *mqCourse) readByApache(ctx context.Context, topic string, s *mqSeen, complete func() bool) {
	var wg sync.WaitGroup
	for queue := range partitions {
		pc, err := mq.NewPullConsumer(consumer.WithNameServer([]string{c.mq.NameServer()}), consumer.WithGroupName("judge"), consumer.WithInstance(fmt.Sprint(topic, queue)),
			consumer.WithStrategy(func(string, string, []*primitive.MessageQueue, []string) []*primitive.MessageQueue { return nil }))
		if err == nil {
			err = pc.Subscribe(topic, consumer.MessageSelector{Type: consumer.TAG, Expression: "*"})
		}
		if err == nil {
			err = pc.Start()
		}
		if err != nil {
			c.t.Fatal(err)
		}
		wg.Go(func() {
			defer pc.Shutdown()
			at := int64(0)
			for ctx.Err() == nil && !complete() {
				// From the last message that is known: a pull at the end is held for
				// 20 seconds, and nothing ends it.
				res, err := pc.PullFrom(ctx, &primitive.MessageQueue{Topic: topic, BrokerName: "broker-a", QueueId: queue}, max(at-1, 0), 32)
				if err != nil || res.MaxOffset == at {
					pass(ctx, 100*time.Millisecond)
					continue
				}
				for _, m := range res.GetMessageExts() {
					if m.QueueOffset == at {
						s.add(string(m.Body), m.GetProperty)
						at++
					}
				}
			}
		})
	}
	wg.Wait()
}

func (c *mqCourse) readByOurs(ctx context.Context, topic string, s *mqSeen, complete func() bool) {
	src, err := rocketmq.NewSource(rocketmq.SourceConfig{Config: rocketmq.Config{NameServers: []string{c.mq.NameServer()}}, Topic: topic})
	if err != nil {
		c.t.Fatal(err)
	}
	defer src.Close()
	for queue := range int32(partitions) {
		src.Assign(record.Partition{Topic: topic, Broker: "broker-a", Num: queue}, 0)
	}
	for !complete() {
		b, err := src.Poll(ctx)
		if err != nil {
			c.t.Errorf("topic %s: %v", topic, err)
			return
		}
		for i := range b.Records {
			props := map[string]string{"KEYS": string(b.Records[i].Key)}
			for _, h := range b.Records[i].Headers {
				props[h.Key] = string(h.Value)
			}
			props["TAGS"] = props[rocketmq.TagHeader]
			s.add(string(b.Records[i].Value), func(name string) string { return props[name] })
		}
	}
}

// add looks at one message that came out.
func (s *mqSeen) add(body string, property func(string) string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := &mqLane{}
	var n int
	if _, err := fmt.Sscanf(body, "%d %d", &l.queue, &n); err != nil {
		s.faults = append(s.faults, fmt.Sprintf("body %q: %v", body, err))
		return
	}
	want := l.message(n)
	for _, name := range []string{"TAGS", "number", "a"} {
		if got := property(name); got != want.GetProperty(name) {
			s.faults = append(s.faults, fmt.Sprintf("message %q: property %s is %q, want %q", body, name, got, want.GetProperty(name)))
		}
	}
	if keys := property("KEYS"); keys != l.key() && !strings.HasPrefix(keys, l.key()+" ") {
		s.faults = append(s.faults, fmt.Sprintf("message %q: keys are %q, want %q first", body, keys, l.key()))
	}
	switch next := s.next[l.queue]; {
	case n == next:
		s.next[l.queue]++
	case n < next:
		s.twice++
	default:
		s.faults = append(s.faults, fmt.Sprintf("lane %d: %d came where %d was to come", l.queue, n, next))
	}
}
