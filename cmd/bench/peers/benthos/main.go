// Command benthos is the order stage on Redpanda Connect's engine, with an
// input and an output of our own on franz-go: the module with its own Kafka
// components is not to be had. The bench starts it: see package contract.
//
// It is tuned as far as we could find out: see config.go.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	_ "github.com/redpanda-data/benthos/v4/public/components/pure"
	"github.com/redpanda-data/benthos/v4/public/service"

	"github.com/millrace-io/millrace/cmd/bench/contract"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx); err != nil && !errors.Is(err, context.Canceled) {
		fmt.Fprintln(os.Stderr, "benthos:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	task, err := contract.FromEnviron()
	if err != nil {
		return err
	}
	env := service.NewEnvironment()
	if err := env.RegisterBatchInput("franz_in", service.NewConfigSpec(), func(*service.ParsedConfig, *service.Resources) (service.BatchInput, error) {
		return service.AutoRetryNacksBatched(&input{task: task}), nil
	}); err != nil {
		return err
	}
	if err := env.RegisterBatchOutput("franz_out", service.NewConfigSpec(), func(*service.ParsedConfig, *service.Resources) (service.BatchOutput, service.BatchPolicy, int, error) {
		return &output{task: task}, service.BatchPolicy{}, inFlight, nil
	}); err != nil {
		return err
	}
	b := env.NewStreamBuilder()
	if err := b.SetYAML(config); err != nil {
		return err
	}
	s, err := b.Build()
	if err != nil {
		return err
	}
	return s.Run(ctx)
}
