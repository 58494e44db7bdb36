package kafka

import (
	"context"
	"errors"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// Check talks to the configuration's brokers, which tell the cluster's members,
// and to each of these at the address that it advertises. It is content when one
// of the former and all of the latter answer; else the error tells places,
// causes and what to do. It blocks until all have answered, or ctx or two dial
// timeouts have ended.
func Check(ctx context.Context, cfg Config) error {
	if err := cfg.Validate(); err != nil {
		return err
	}
	cfg = cfg.defaults()
	if end, ok := ctx.Deadline(); ok { // two rounds, and a rest to tell how they went
		cfg.DialTimeout = min(cfg.DialTimeout, time.Until(end)*2/5)
	}
	first := make([]target, len(cfg.Brokers))
	for i, addr := range cfg.Brokers {
		first[i] = target{-1, addr}
	}
	members, well, faults := cfg.askAll(ctx, first)
	if len(well) > 0 {
		members = slices.DeleteFunc(members, func(m target) bool { return slices.Contains(well, m.addr) })
		_, _, faults = cfg.askAll(ctx, members)
	}
	return oneLine(faults)
}

// target is a broker to talk to: its number, or -1, and its address.
type target struct {
	node int32
	addr string
}

// askAll asks all targets for the cluster's members at once: what the first to
// answer told, the addresses that answered, and what is wrong with the others.
func (c Config) askAll(ctx context.Context, targets []target) (members []target, well []string, faults []error) {
	told := make([][]target, len(targets))
	failed := make([]error, len(targets))
	var wg sync.WaitGroup
	for i, t := range targets {
		wg.Go(func() { told[i], failed[i] = c.ask(ctx, t) })
	}
	wg.Wait()
	for i, t := range targets {
		if failed[i] != nil {
			faults = append(faults, failed[i])
			continue
		}
		well = append(well, t.addr)
		if members == nil {
			members = told[i]
		}
	}
	return members, well, faults
}

// ask asks a broker for the cluster's members, which takes all that a flow's
// connection takes. The error is explained.
func (c Config) ask(ctx context.Context, t target) ([]target, error) {
	ctx, cancel := context.WithTimeout(ctx, c.DialTimeout)
	defer cancel()
	h := newHealth()
	req := kmsg.NewPtrMetadataRequest()
	req.Topics = []kmsg.MetadataRequestTopic{}
	answer, err := c.single(ctx, t.addr, h, req)
	if err != nil {
		return nil, c.explainConnect(t.node, t.addr, h.phase(), err)
	}
	var members []target
	for _, b := range answer.(*kmsg.MetadataResponse).Brokers {
		members = append(members, target{b.NodeID, net.JoinHostPort(b.Host, strconv.Itoa(int(b.Port)))})
	}
	return members, nil
}

// single sends one request to one address, once.
func (c Config) single(ctx context.Context, addr string, h *health, req kmsg.Request) (kmsg.Response, error) {
	c.Brokers = []string{addr}
	cl, err := kgo.NewClient(append(c.options(h), kgo.RequestRetries(0))...)
	if err != nil {
		return nil, err
	}
	defer cl.Close()
	return cl.SeedBrokers()[0].Request(ctx, req)
}

// oneLine joins errors; nil without any.
func oneLine(errs []error) error {
	if len(errs) == 0 {
		return nil
	}
	texts := make([]string, len(errs))
	for i, err := range errs {
		texts[i] = err.Error()
	}
	return &connectError{strings.Join(texts, "; "), errors.Join(errs...)}
}
