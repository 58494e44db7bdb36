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
	// Rack is where this node stands, as the brokers name racks; records are
	// then fetched from a replica there. Default: from the leaders.
	Rack string
	// TLS, if not nil, says what connections are secured with. It is asked for
	// each new connection, so that renewed files take effect without a restart;
	// without a ServerName the broker's host is taken.
	TLS func() (*tls.Config, error)
	// SASL, if not nil, says who we are.
	SASL *SASL
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
	if c.SASL != nil {
		errs = append(errs, c.SASL.validate())
	}
	return errors.Join(errs...)
}

// Warning says what is doubtful about settings that work, or is empty.
func (c Config) Warning() string {
	if c.SASL != nil && c.SASL.Mechanism == Plain && c.TLS == nil {
		return "the password crosses the network as it is: give the connection `tls`, or take scram-sha-512"
	}
	return ""
}

// options are the client options that source, sink and Check share.
func (c Config) options(h *health) []kgo.Opt {
	h.cfg = c
	opts := []kgo.Opt{
		kgo.SeedBrokers(slices.Clone(c.Brokers)...),
		kgo.ClientID(c.ClientID),
		kgo.Dialer(c.dial),
		kgo.MetadataMinAge(c.MetadataMinAge),
		kgo.AlwaysRetryEOF(),
		kgo.DisableClientMetrics(),
		kgo.WithLogger(logger{c.Logger}),
		kgo.WithHooks(h),
	}
	if c.Rack != "" {
		opts = append(opts, kgo.Rack(c.Rack))
	}
	if c.SASL != nil {
		opts = append(opts, kgo.SASL(c.SASL.mechanism()))
	}
	if c.RetryBackoff != nil {
		opts = append(opts, kgo.RetryBackoffFn(c.RetryBackoff))
	}
	return opts
}
