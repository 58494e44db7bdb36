package dev

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"syscall"

	"github.com/millrace-io/millrace/cmd/internal/api"
	"github.com/millrace-io/millrace/cmd/internal/cli"
	"github.com/millrace-io/millrace/cmd/internal/daemon"
	"github.com/millrace-io/millrace/cmd/internal/devbroker"
)

// Addresses that are tried first. The ports behind them follow.
const (
	nodeHost    = "127.0.0.1"
	nodePort    = 7070
	brokerPort  = 19092
	portsToTry  = 50
	onePerTopic = 1 // partitions: so records are shown in the order in which they were sent
)

// node is a node and a broker in this process.
type node struct {
	*daemon.Daemon
	broker *devbroker.Broker
}

// startNode starts a broker and a node. An address of "" is the first free one
// from the usual port on; any other one is taken or nothing is.
func startNode(ctx context.Context, cfg *Config, f *folder, log *slog.Logger, observe *observer) (_ *node, err error) {
	n := &node{}
	err = eachPort(cfg.Broker, brokerPort, func(addr string) (err error) {
		n.broker, err = devbroker.Start(devbroker.Config{Listen: addr, Dir: filepath.Join(f.data, "broker"), Partitions: onePerTopic, Logger: log})
		return err
	})
	if err != nil {
		return nil, surroundings(err, "choose another address with --broker, or stop what has it")
	}
	secrets := filepath.Join(cfg.Project.Folder(), "secrets")
	if info, err := os.Stat(secrets); err != nil || !info.IsDir() {
		secrets = ""
	}
	err = eachPort(cfg.Listen, nodePort, func(addr string) (err error) {
		n.Daemon, err = daemon.Open(ctx, daemon.Config{Dir: filepath.Join(f.data, "node"), Listen: addr, Secrets: secrets, Version: cfg.Version, Logger: log, Observe: observe.wrap})
		return err
	})
	if err != nil {
		err = errors.Join(err, n.broker.Close())
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		e := surroundings(err, "choose another address with --listen, or stop what has it")
		if listen, ok := errors.AsType[*api.ListenError](err); ok {
			e.Detail, e.Next = fmt.Sprintf("listen at %s: %v", listen.Address, listen.Err), listen.Next
			if errors.Is(err, api.ErrNotLoopback) {
				e.Exit = cli.ExitInvalid
			}
		}
		return nil, e
	}
	return n, nil
}

// eachPort calls open with the address; if that is "", with those of this host
// from a port on, as long as they are in use.
func eachPort(addr string, from int, open func(addr string) error) error {
	if addr != "" {
		return open(addr)
	}
	var err error
	for port := from; port < from+portsToTry; port++ {
		addr := net.JoinHostPort(nodeHost, strconv.Itoa(port))
		// Asked before anything is opened, which takes longer.
		if err = free(addr); err == nil {
			err = open(addr)
		}
		if !errors.Is(err, syscall.EADDRINUSE) {
			return err
		}
	}
	return err
}

// free reports why an address cannot be listened at.
func free(addr string) error {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	return l.Close()
}

func (n *node) Close() error { return errors.Join(n.Daemon.Close(), n.broker.Close()) }
