// Package kafka reads from and writes to Kafka.
//
// The source takes partitions directly, without a consumer group: who owns a
// partition and where it stands is the cluster's to say, not the broker's. The
// sink is an idempotent producer that waits for all in-sync replicas and tries
// again for as long as the broker is away. It does not decode values and does
// not take part in transactions.
package kafka

import (
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// Config says how to reach the brokers.
type Config struct {
	// Brokers are HOST:PORT addresses to begin with; at least one.
	Brokers []string
	// ClientID is the name the brokers see. Default "millrace".
	ClientID string
	// TLS, if not nil, is what connections are secured with.
	TLS *tls.Config
	// DialTimeout bounds one attempt to connect. Default 10 s.
	DialTimeout time.Duration
	// MetadataMinAge is how long answers about topics are kept at least,
	// which paces the recovery from a moved leader. Default 500 ms.
	MetadataMinAge time.Duration
	// RetryBackoff is how long to wait before the n-th attempt in a row, n
	// from 1. Default: 250 ms, doubled up to 5 s, with jitter.
	RetryBackoff func(n int) time.Duration
	// Logger gets life-cycle messages; nil discards them.
	Logger *slog.Logger
}

func (c Config) defaults() Config {
	if c.ClientID == "" {
		c.ClientID = "millrace"
	}
	if c.DialTimeout == 0 {
		c.DialTimeout = 10 * time.Second
	}
	if c.MetadataMinAge == 0 {
		c.MetadataMinAge = 500 * time.Millisecond
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c
}

// Validate reports every fault of the configuration.
func (c Config) Validate() error {
	var errs []error
	if len(c.Brokers) == 0 {
		errs = append(errs, errors.New("kafka: no brokers: name at least one as host:port"))
	}
	for _, b := range c.Brokers {
		if _, port, err := net.SplitHostPort(b); err != nil || port == "" {
			errs = append(errs, fmt.Errorf("kafka: broker %q is not host:port", b))
		}
	}
	return errors.Join(errs...)
}

// options are the client options that source, sink and Check share.
func (c Config) options(h *health) []kgo.Opt {
	opts := []kgo.Opt{
		kgo.SeedBrokers(slices.Clone(c.Brokers)...),
		kgo.ClientID(c.ClientID),
		kgo.DialTimeout(c.DialTimeout),
		kgo.MetadataMinAge(c.MetadataMinAge),
		kgo.DisableClientMetrics(),
		kgo.WithLogger(logger{c.Logger}),
		kgo.WithHooks(h),
	}
	if c.TLS != nil {
		opts = append(opts, kgo.DialTLSConfig(c.TLS))
	}
	if c.RetryBackoff != nil {
		opts = append(opts, kgo.RetryBackoffFn(c.RetryBackoff))
	}
	return opts
}
