// Package devbroker is a Kafka broker inside the program, for trying things
// out and for tests: one node, kept in a folder, without replication.
//
// It is not for production data. What clients were told is written survives
// the death of the process (SIGKILL), since it has been handed to the
// operating system; it does not survive a power cut. A client that sends a
// batch again because the broker died before it could answer may find the
// batch in the log twice: who had written what is saved by Close only.
package devbroker

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strings"
	"sync"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// Config configures a Broker.
type Config struct {
	// Listen is the HOST:PORT to listen on; port 0 picks a free one.
	// Default 127.0.0.1:0. Clients are told the same host, so it must be one
	// address, not all of them.
	Listen string
	// Dir keeps topics and records; it is made if missing. Empty: they are
	// kept in memory and end with the broker.
	Dir string
	// Partitions of a topic that is made on demand. Default 4. It counts for
	// topics that are made from now on.
	Partitions int
	// Logger gets life-cycle messages and the broker's faults; nil discards
	// them.
	Logger *slog.Logger
}

// Broker is a running broker. Topics that clients name and that do not exist
// are made.
type Broker struct {
	cluster *kfake.Cluster
	lock    *os.File
	addr    string
	logger  *slog.Logger
	close   sync.Once
}

// Start starts a broker. It returns once clients can connect.
func Start(cfg Config) (*Broker, error) {
	if cfg.Listen == "" {
		cfg.Listen = "127.0.0.1:0"
	}
	if cfg.Partitions == 0 {
		cfg.Partitions = 4
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	lock, err := lockDir(cfg.Dir)
	if err != nil {
		return nil, err
	}
	opts := []kfake.Opt{
		kfake.NumBrokers(1),
		kfake.ClusterID("millrace-dev"),
		kfake.DefaultNumPartitions(cfg.Partitions),
		kfake.ListenFn(func(network, _ string) (net.Listener, error) { return net.Listen(network, cfg.Listen) }),
		kfake.WithLogger(brokerLog{cfg.Logger}),
	}
	if cfg.Dir != "" {
		opts = append(opts, kfake.DataDir(cfg.Dir))
	}
	cluster, err := kfake.NewCluster(opts...)
	if err != nil {
		unlock(lock)
		if inUse(err) {
			return nil, fmt.Errorf("broker: listen on %s: the port is in use: stop the other program, or choose another --listen: %w", cfg.Listen, err)
		}
		return nil, fmt.Errorf("broker: start on %s: %w", cfg.Listen, err)
	}
	cluster.ControlKey(int16(kmsg.Metadata), func(req kmsg.Request) (kmsg.Response, error, bool) {
		cluster.KeepControl()
		makeTopics(cluster, req.(*kmsg.MetadataRequest), cfg.Logger)
		return nil, nil, false
	})
	b := &Broker{cluster: cluster, lock: lock, addr: cluster.ListenAddrs()[0], logger: cfg.Logger}
	cfg.Logger.Info("embedded broker listens", "addr", b.addr, "dir", cfg.Dir)
	return b, nil
}

// makeTopics makes the topics that a client asks about and that do not exist,
// if it allows that. The cluster's own option for it forgets those topics, and
// with them their records, when the process is killed.
func makeTopics(cluster *kfake.Cluster, req *kmsg.MetadataRequest, logger *slog.Logger) {
	if !req.AllowAutoTopicCreation {
		return
	}
	for _, t := range req.Topics {
		if t.Topic == nil || t.TopicID != [16]byte{} || cluster.TopicInfo(*t.Topic) != nil {
			continue
		}
		const byDefault = -1
		if err := cluster.CreateTopic(*t.Topic, byDefault, nil); err != nil {
			logger.Warn("embedded broker cannot make a topic", "topic", *t.Topic, "err", err)
		}
	}
}

func (c Config) validate() error {
	var errs []error
	if host, port, err := net.SplitHostPort(c.Listen); err != nil || port == "" {
		errs = append(errs, fmt.Errorf("broker: listen address %q is not host:port", c.Listen))
	} else if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		errs = append(errs, fmt.Errorf("broker: listen address %q names no host: clients are told where to connect, so name one address, for example 127.0.0.1:%s", c.Listen, port))
	}
	if c.Partitions < 0 {
		errs = append(errs, fmt.Errorf("broker: %d partitions", c.Partitions))
	}
	return errors.Join(errs...)
}

// Addr is the HOST:PORT that clients connect to.
func (b *Broker) Addr() string { return b.addr }

// Close stops the broker and saves its state. It may be called twice.
func (b *Broker) Close() error {
	b.close.Do(func() {
		b.cluster.Close()
		unlock(b.lock)
		b.logger.Info("embedded broker stopped", "addr", b.addr)
	})
	return nil
}

// brokerLog passes on the warnings and errors of the broker.
type brokerLog struct{ l *slog.Logger }

// Logf implements kfake.Logger.
func (l brokerLog) Logf(level kfake.LogLevel, format string, args ...any) {
	switch level {
	case kfake.LogLevelError:
		l.l.Warn("embedded broker", "err", strings.TrimSpace(fmt.Sprintf(format, args...)))
	case kfake.LogLevelWarn:
		l.l.Debug("embedded broker", "msg", strings.TrimSpace(fmt.Sprintf(format, args...)))
	}
}
