package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime/pprof"
	"strings"

	"github.com/millrace-io/millrace/cmd/bench/arena"
	"github.com/millrace-io/millrace/cmd/bench/contract"
	"github.com/millrace-io/millrace/cmd/internal/api"
	"github.com/millrace-io/millrace/cmd/internal/daemon"
)

// What the roles are told beside the task.
const (
	kindVar    = "BROKER_KIND" // of contract.Task's brokers: rocketmq, else Kafka
	pluginVar  = "PLUGIN"      // file of the stage; empty: no stage
	profileVar = "CPU_PROFILE" // file to write a CPU profile to; empty: none
)

// runFlow is the role of a contestant: a node that puts one flow on itself, as
// flowctl would, and runs until it is stopped.
func runFlow(ctx context.Context, _ []string) (err error) {
	task, err := contract.FromEnviron()
	if err != nil {
		return err
	}
	stop, err := profile(os.Getenv(profileVar))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stop()) }()
	addr, err := freeAddr()
	if err != nil {
		return err
	}
	d, err := daemon.Open(ctx, daemon.Config{Dir: filepath.Join(os.Getenv(contract.Home), "data"), Listen: addr, Version: "bench"})
	if err != nil {
		return err
	}
	ran := make(chan error, 1) // the one result
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() { ran <- d.Run(ctx) }()
	if err = waitReady(ctx, addr); err == nil {
		err = putFlow(ctx, api.NewClient("http://"+addr), task, os.Getenv(pluginVar))
	}
	if err != nil {
		cancel()
	}
	return errors.Join(err, <-ran, d.Close())
}

// putFlow puts the flow of a task on a node: through the plugin of a file, or
// through none.
func putFlow(ctx context.Context, client api.Backend, task contract.Task, plugin string) error {
	kind, addresses := "kafka", "brokers"
	if os.Getenv(kindVar) == string(arena.RocketMQ) {
		kind, addresses = "rocketmq", "name_servers"
	}
	connection := fmt.Sprintf("connection: v1\nname: main\n%s: { %s: [%s] }\n", kind, addresses, strings.Join(task.Brokers, ", "))
	if _, err := client.PutConnection(ctx, &api.PutConnection{Document: connection}); err != nil {
		return err
	}
	put := &api.PutFlow{Document: fmt.Sprintf("flow: v1\nname: bench\nsource: %s://main/%s\norder: partition\nstages:\n", kind, task.In)}
	if plugin != "" {
		f, err := os.Open(plugin)
		if err != nil {
			return err
		}
		defer f.Close()
		p, err := client.UploadPlugin(ctx, filepath.Base(plugin), f)
		if err != nil {
			return err
		}
		put.Document += "  - map: ./stage.wasm\n"
		put.Files = map[string]string{"./stage.wasm": p.Digest}
	}
	if kind != "kafka" || task.Compression == "lz4" { // LZ4 is what a node writes unless it is told otherwise
		put.Document += fmt.Sprintf("  - push: %s://main/%s\n", kind, task.Out)
	} else {
		put.Document += fmt.Sprintf("  - push: { kafka: { connection: main, topic: %s, compression: %s } }\n", task.Out, task.Compression)
	}
	_, err := client.PutFlow(ctx, put)
	var refused *api.Error
	if errors.As(err, &refused) && len(refused.Problems) > 0 {
		return fmt.Errorf("%w: %s", err, refused.Problems[0].Rendered)
	}
	return err
}

// profile writes a CPU profile of this process to a file; stop ends it.
func profile(file string) (stop func() error, err error) {
	if file == "" {
		return func() error { return nil }, nil
	}
	f, err := os.Create(file)
	if err != nil {
		return nil, err
	}
	if err := pprof.StartCPUProfile(f); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return func() error {
		pprof.StopCPUProfile()
		return f.Close()
	}, nil
}
