package arena

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/millrace-io/millrace/cmd/bench/contract"
)

const (
	pollEvery = 50 * time.Millisecond // of the output's end offsets
	patience  = time.Minute           // without a new record in the output
)

// Kind is one of the brokers.
type Kind string

const (
	Kafka    Kind = "kafka"
	RocketMQ Kind = "rocketmq"
)

// World is a real broker with a filled topic.
type World struct {
	Addr       string // HOST:PORT of the broker, or of the name server
	N          int64
	Partitions int
	// Compression of what the contestants write: one of contract.Task's.
	Compression string
	Dir         string // scratch, for contestants as well

	medium medium
	emits  int64 // of the order stage
	runs   int
}

// NewWorld starts a broker of the repository at root and fills a topic with n
// order events, on Kafka with LZ4. Its data lie in a new folder below dir, ""
// for the system's.
func NewWorld(ctx context.Context, kind Kind, root, dir string, n, partitions int) (*World, error) {
	dir, err := os.MkdirTemp(dir, "millrace-bench-")
	if err != nil {
		return nil, err
	}
	w := &World{N: int64(n), Partitions: partitions, Compression: "lz4", Dir: dir}
	if err := w.open(ctx, kind, root); err != nil {
		w.Close()
		return nil, err
	}
	return w, nil
}

func (w *World) open(ctx context.Context, kind Kind, root string) error {
	start := func() (medium, error) { return startKafka(root, w.Dir) }
	if kind == RocketMQ {
		start = func() (medium, error) { return startRocketMQ(root, w.Dir) }
	}
	m, err := start()
	if err != nil {
		return err
	}
	w.medium, w.Addr = m, m.addr()
	if err := m.create(ctx, input, w.Partitions); err != nil {
		return err
	}
	w.emits, err = fill(ctx, m, w.N)
	return err
}

// CreateTopic makes a topic with the world's number of partitions; only Kafka
// takes settings.
func (w *World) CreateTopic(ctx context.Context, topic string, configs map[string]*string) error {
	if k, ok := w.medium.(*kafka); ok {
		return k.createWith(ctx, topic, w.Partitions, configs)
	}
	return w.medium.create(ctx, topic, w.Partitions)
}

// Close kills the broker and removes what it wrote.
func (w *World) Close() {
	if w.medium != nil {
		w.medium.close()
	}
	_ = os.RemoveAll(w.Dir)
}

// Expect is how many records come out of the input topic.
func (w *World) Expect(work Work) int64 {
	if work == Pass {
		return w.N
	}
	return w.emits
}

// Task is a new task on this world, with no topic yet.
func (w *World) Task(name string) contract.Task {
	w.runs++
	out := fmt.Sprintf("%s-%d", name, w.runs)
	return contract.Task{Brokers: []string{w.Addr}, In: input, Out: out, Group: out, Compression: w.Compression, N: w.N, Partitions: w.Partitions}
}

// Figures are what one run gave.
type Figures struct {
	Rate      float64 // records read a second, over the middle 90 % of the output
	CPU       float64 // us a record read, of the contestant's group from its start to the last record
	BrokerCPU float64 // us a record read
	PeakMiB   float64 // resident memory of the group, the highest
}

// Start starts c on a task whose topics exist. stop ends it and removes what it
// kept.
func (w *World) Start(c Contestant, t contract.Task) (g *Group, stop func() error, err error) {
	home := filepath.Join(w.Dir, t.Out)
	if err := os.Mkdir(home, 0o700); err != nil {
		return nil, nil, err
	}
	g, err = StartGroup(c.Command, append(append(t.Environ(), contract.Home+"="+home), c.Env...))
	if err != nil {
		return nil, nil, err
	}
	return g, func() error { return errors.Join(g.Stop(), os.RemoveAll(home)) }, nil
}

// Run lets c do its work once. check, if it is not nil, gets the name of the
// complete output topic; the topic is removed afterwards.
func (w *World) Run(ctx context.Context, c Contestant, check func(topic string) error) (Figures, error) {
	t := w.Task(c.Name)
	if err := w.CreateTopic(ctx, t.Out, nil); err != nil {
		return Figures{}, err
	}
	defer func() { w.medium.remove(context.WithoutCancel(ctx), t.Out) }()
	f, err := w.race(ctx, c, t)
	if err != nil {
		return f, fmt.Errorf("%s: %w", c.Name, err)
	}
	if check != nil {
		err = check(t.Out)
	}
	return f, err
}

// race runs c until its output is complete.
func (w *World) race(ctx context.Context, c Contestant, t contract.Task) (Figures, error) {
	before, err := readStat(w.medium.pid())
	if err != nil {
		return Figures{}, err
	}
	g, stop, err := w.Start(c, t)
	if err != nil {
		return Figures{}, err
	}
	m := middle{expect: w.Expect(c.Work)}
	cpu, err := w.watch(ctx, g, t.Out, &m)
	after, statErr := readStat(w.medium.pid())
	if err := errors.Join(err, stop(), statErr); err != nil {
		return Figures{}, err
	}
	if n, err := w.medium.ended(ctx, t.Out); err != nil || n != m.expect {
		return Figures{}, fmt.Errorf("the output holds %d records, want exactly %d (%v)", n, m.expect, err)
	}
	us := 1e6 / float64(w.N)
	// Records written stand for the records read.
	return Figures{Rate: m.rate() * float64(w.N) / float64(m.expect), CPU: cpu.Seconds() * us, BrokerCPU: (after.cpu - before.cpu).Seconds() * us, PeakMiB: g.PeakMiB()}, nil
}

// watch polls the output until it is complete and returns the group's CPU time
// then.
func (w *World) watch(ctx context.Context, g *Group, topic string, m *middle) (time.Duration, error) {
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	last := time.Now() // when the output grew
	for seen := int64(-1); ; {
		n, err := w.medium.ended(ctx, topic)
		if err != nil {
			return 0, err
		}
		now := time.Now()
		m.add(now, n)
		cpu := g.Sample()
		if n >= m.expect {
			return cpu, nil
		}
		if n > seen {
			seen, last = n, now
		}
		if now.Sub(last) > patience {
			return 0, fmt.Errorf("the output holds %d of %d records, and no more for %v", n, m.expect, patience)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return 0, ctx.Err()
		case <-g.Exited():
			return 0, g.Failure()
		}
	}
}
