package kafka

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// Check connects to the brokers, asks for the cluster's members and returns
// an error that ends with what to do. It blocks until they answer, or until
// ctx or the dial timeout ends.
func Check(ctx context.Context, cfg Config) error {
	if err := cfg.Validate(); err != nil {
		return err
	}
	cfg = cfg.defaults()
	h := newHealth()
	cl, err := kgo.NewClient(append(cfg.options(h), kgo.RequestRetries(0))...)
	if err != nil {
		return fmt.Errorf("kafka: %w", err)
	}
	defer cl.Close()
	ctx, cancel := context.WithTimeout(ctx, cfg.DialTimeout)
	defer cancel()

	var errs []error
	for _, seed := range cl.SeedBrokers() {
		req := kmsg.NewPtrMetadataRequest()
		req.Topics = []kmsg.MetadataRequestTopic{}
		_, err := req.RequestWith(ctx, seed)
		if err == nil {
			return nil
		}
		errs = append(errs, err)
	}
	where := strings.Join(cfg.Brokers, ", ")
	err = errors.Join(errs...)
	if isForbidden(err) {
		return fmt.Errorf("kafka at %s: %w: correct the connection's user and password", where, err)
	}
	return fmt.Errorf("kafka at %s: %w: start the broker, or correct the connection's `brokers`", where, err)
}
