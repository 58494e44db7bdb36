package arena

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"github.com/millrace-io/millrace/runtime/connector"
	"github.com/millrace-io/millrace/runtime/connector/connectortest/brokers"
	connect "github.com/millrace-io/millrace/runtime/connector/rocketmq"
	"github.com/millrace-io/millrace/runtime/record"
)

// rocketMQ is the real RocketMQ of examples/brokers: a name server and a
// broker. A topic's queues are its partitions. The bench looks at it through
// the connector; a queue's end offset counts its messages.
type rocketMQ struct {
	process *brokers.RocketMQProcess
	looks   map[string]*look // by topic
}

// look is a topic that is looked at.
type look struct {
	source *connect.Source
	queues []connector.Found
}

// startRocketMQ starts both with their data below dir. They die with this
// process.
func startRocketMQ(root, dir string) (*rocketMQ, error) {
	if err := prepared(root, "rocketmq"); err != nil {
		return nil, err
	}
	p, err := brokers.NewRocketMQ(filepath.Join(dir, "rocketmq"), brokers.RocketMQOptions{Heap: "1g"})
	if err != nil {
		return nil, err
	}
	r := &rocketMQ{process: p, looks: map[string]*look{}}
	if err := p.Start(); err != nil {
		r.close()
		return nil, err
	}
	return r, nil
}

func (r *rocketMQ) addr() string { return r.process.NameServer() }
func (r *rocketMQ) pid() int     { return r.process.Node.Pid() }

func (r *rocketMQ) config() connect.Config {
	return connect.Config{NameServers: []string{r.addr()}}
}

func (r *rocketMQ) close() {
	for _, l := range r.looks {
		_ = l.source.Close()
	}
	r.process.Kill()
}

func (r *rocketMQ) create(_ context.Context, topic string, partitions int) error {
	n := fmt.Sprint(partitions)
	_, err := r.process.Tool("updateTopic", "-n", r.addr(), "-b", r.process.Broker(), "-t", topic, "-r", n, "-w", n)
	return err
}

// remove only ends the looking at the topic: the broker's data go with it.
func (r *rocketMQ) remove(_ context.Context, topic string) {
	if l := r.looks[topic]; l != nil {
		_ = l.source.Close()
		delete(r.looks, topic)
	}
}

// look opens what looks at a topic.
func (r *rocketMQ) look(ctx context.Context, topic string) (*look, error) {
	if l := r.looks[topic]; l != nil {
		return l, nil
	}
	s, err := connect.NewSource(connect.SourceConfig{Config: r.config(), Topic: topic})
	if err != nil {
		return nil, err
	}
	l := &look{source: s}
	if l.queues, err = s.Partitions(ctx); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	r.looks[topic] = l
	return l, nil
}

func (r *rocketMQ) fill(ctx context.Context, topic string, next func() (key, value []byte, ok bool)) error {
	s, err := connect.NewSink(connect.SinkConfig{Config: r.config(), Topic: topic})
	if err != nil {
		return err
	}
	defer s.Close()
	const window = 4096 // records of a call, all answered before the next
	for more := true; more; {
		var recs []record.Record
		for len(recs) < window && more {
			var e record.Record
			if e.Key, e.Value, more = next(); more {
				e.To = -1
				recs = append(recs, e)
			}
		}
		var wg sync.WaitGroup
		var failed atomic.Pointer[error]
		wg.Add(len(recs))
		s.Deliver(ctx, recs, func(_ int, err error) {
			if err != nil {
				failed.Store(&err)
			}
			wg.Done()
		})
		wg.Wait()
		if err := failed.Load(); err != nil {
			return *err
		}
	}
	return nil
}

func (r *rocketMQ) ended(ctx context.Context, topic string) (int64, error) {
	l, err := r.look(ctx, topic)
	if err != nil {
		return 0, err
	}
	var n atomic.Int64
	g, ctx := errgroup.WithContext(ctx)
	for _, q := range l.queues {
		g.Go(func() error {
			end, err := l.source.Start(ctx, q.Partition, connector.Start{Latest: true})
			n.Add(end)
			return err
		})
	}
	err = g.Wait()
	return n.Load(), err
}

func (r *rocketMQ) read(ctx context.Context, topic string, n int64, f func(partition int, key, value []byte)) error {
	s, err := connect.NewSource(connect.SourceConfig{Config: r.config(), Topic: topic})
	if err != nil {
		return err
	}
	defer s.Close()
	ctx, cancel := context.WithTimeout(ctx, readLimit)
	defer cancel()
	found, err := s.Partitions(ctx)
	if err != nil {
		return err
	}
	for _, p := range found {
		at, err := s.Start(ctx, p.Partition, connector.Start{})
		if err != nil {
			return err
		}
		s.Assign(p.Partition, at)
	}
	for seen := int64(0); seen < n; {
		b, err := s.Poll(ctx)
		if err != nil {
			return errors.Join(fmt.Errorf("read %s back, %d of %d records", topic, seen, n), err)
		}
		for _, rec := range b.Records {
			seen++
			f(int(b.Partition.Num), rec.Key, rec.Value)
		}
	}
	return nil
}
