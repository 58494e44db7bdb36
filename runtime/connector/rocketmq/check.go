package rocketmq

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
)

// Check asks the name servers for their brokers, connects to the master of
// each and asks it for a sign of life. Its error is one line that ends with what
// to do. It blocks until they answer, for at most askTimeout each, or ctx ends.
func Check(ctx context.Context, cfg Config) error {
	if err := cfg.Validate(); err != nil {
		return err
	}
	cl := newClient(cfg.defaults())
	defer cl.close()
	where := "rocketmq at " + cl.nameServers()
	f, err := cl.askNameServer(ctx, frame{Code: reqClusterInfo})
	if err != nil {
		return fmt.Errorf("%s: %w: start the name server, or correct the connection's `name_servers`", where, err)
	}
	if f.Code != respSuccess {
		return fmt.Errorf("%s: %w: %s", where, &answerError{f.Code, f.Remark}, nextStep(f.Code))
	}
	var body struct {
		Brokers map[string]struct {
			Addrs map[string]string `json:"brokerAddrs"`
		} `json:"brokerAddrTable"`
	}
	if err := unmarshal(f.body, &body); err != nil {
		return fmt.Errorf("%s: cluster info: %w: is this a name server?", where, err)
	}
	if len(body.Brokers) == 0 {
		return fmt.Errorf("%s: %w: start a broker, or wait half a minute", where, errNoBroker)
	}
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(body.Brokers)) {
		b := body.Brokers[name]
		if addr := b.Addrs["0"]; addr == "" {
			errs = append(errs, fmt.Errorf("broker %s has no master", name))
		} else if err := cl.checkBroker(ctx, addr); err != nil {
			errs = append(errs, fmt.Errorf("broker %s: %w", name, err))
		}
	}
	if err := oneLine(errs); err != nil {
		step := "start the broker, or let it be reached from here at the address that it tells the name server (brokerIP1)"
		if a, ok := errors.AsType[*answerError](err); ok {
			step = nextStep(a.code)
		}
		return fmt.Errorf("%s: %w: %s", where, err, step)
	}
	return nil
}

// checkBroker asks a broker for a sign of life.
func (cl *client) checkBroker(ctx context.Context, addr string) error {
	f, err := cl.askOnce(ctx, addr, frame{Code: reqHeartbeat, body: heartbeat.body})
	if err != nil {
		return err
	}
	if f.Code != respSuccess {
		return &answerError{f.Code, f.Remark}
	}
	return nil
}

func nextStep(code int) string {
	if code == respNoPermission {
		return "correct the connection's access_key and secret_key, or give the key the right"
	}
	return "look into the log of the name server or broker"
}
