// Package rocketmq reads from and writes to RocketMQ by its remoting protocol.
//
// The source takes queues directly: who owns a queue and where it stands is
// the cluster's to say, not the broker's. The sink sends batches and waits for
// the broker's answer. Both speak the few requests that they need over a client
// of their own; decision 0027 says why. It does not take part in transactions,
// in retry topics or in the rebalancing of consumer groups.
package rocketmq

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
)

// Config says how to reach a cluster.
type Config struct {
	// NameServers are HOST:PORT addresses; at least one. They know the same;
	// the first that answers is asked.
	NameServers []string
	// AccessKey is the name that requests are signed for; empty: they are not
	// signed.
	AccessKey string
	// SecretKey is asked at each request, so that a new secret takes effect
	// without a restart.
	SecretKey func() (string, error)
	// Logger gets life-cycle messages; nil discards them.
	Logger *slog.Logger
}

func (c Config) defaults() Config {
	c.NameServers = slices.Clone(c.NameServers)
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c
}

// Validate reports every fault of the configuration.
func (c Config) Validate() error {
	var errs []error
	if len(c.NameServers) == 0 {
		errs = append(errs, errors.New("rocketmq: no name servers: name at least one as host:port"))
	}
	for _, s := range c.NameServers {
		if _, port, err := net.SplitHostPort(s); err != nil || port == "" {
			errs = append(errs, fmt.Errorf("rocketmq: name server %q is not host:port", s))
		}
	}
	if (c.AccessKey == "") != (c.SecretKey == nil) {
		errs = append(errs, errors.New("rocketmq: an access key needs a secret key, and a secret key an access key"))
	}
	return errors.Join(errs...)
}

// consumerGroup and producerGroup are the names that the brokers see.
const (
	consumerGroup = "millrace"
	producerGroup = "millrace"
)

// checkTopic reports why a name cannot be a topic's.
func checkTopic(what, name string) error {
	if name == "" {
		return fmt.Errorf("rocketmq %s: no topic", what)
	}
	if len(name) > 127 {
		return fmt.Errorf("rocketmq %s: the topic's name has %d bytes, and may have 127", what, len(name))
	}
	for _, c := range name {
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '%', c == '|', c == '-', c == '_':
		default:
			return fmt.Errorf("rocketmq %s: topic %q: a topic's name has letters, digits, %%, |, - and _", what, name)
		}
	}
	return nil
}
