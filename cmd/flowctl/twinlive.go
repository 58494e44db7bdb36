package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/millrace-io/millrace/cmd/internal/api"
	"github.com/millrace-io/millrace/cmd/internal/cli"
	"github.com/millrace-io/millrace/cmd/internal/twin/capture"
)

// maxLive is how many exchanges are recorded of a connection at most.
const maxLive = 10_000

// liveOptions are the flags of `twin record` for a connection of a node.
type liveOptions struct {
	connection, save string
	look             time.Duration
	count            int
}

func (o *liveOptions) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&o.connection, "connection", "", "record what the node sends over this connection")
	cmd.Flags().DurationVar(&o.look, "for", time.Minute, "how long to look at the connection")
	cmd.Flags().IntVar(&o.count, "count", 1000, fmt.Sprintf("how many exchanges end it sooner, at most %d", maxLive))
	cmd.Flags().StringVar(&o.save, "save", "", "write the exchanges to this file too, which must not exist, one a line as JSON")
}

// recordLive makes a twin of what goes over a connection of the node.
func (a *app) recordLive(cmd *cobra.Command, o recordOptions) error {
	live := o.live
	switch {
	case live.look <= 0 || live.look > 24*time.Hour:
		return cli.Usage("give a time from 1ms to 24h, as 1m", "--for %v", live.look)
	case live.count < 1 || live.count > maxLive:
		return cli.Usage(fmt.Sprintf("give a number from 1 to %d", maxLive), "--count %d", live.count)
	}
	for _, path := range []string{live.save, o.out} {
		if path == "" {
			continue
		}
		if _, err := os.Lstat(a.path(path)); err == nil {
			return existsError(path)
		}
	}
	node, err := a.node()
	if err != nil {
		return err
	}
	fmt.Fprintf(a.stderr, "looking at connection %s for %v, until %s came\n", cli.Safe(live.connection), live.look, cli.Plural(live.count, "exchange"))
	var all []capture.Exchange
	missed := int64(0)
	for left := live.look.Milliseconds(); left > 0 && len(all) < live.count; {
		page, err := node.Exchanges(cmd.Context(), &api.ExchangeQuery{Connection: live.connection, Millis: min(left, api.MaxExchangeTime.Milliseconds()), Count: min(live.count-len(all), api.MaxExchanges)})
		if err != nil {
			return err
		}
		all, missed = append(all, page.Items...), missed+page.Missed
		left -= max(page.Millis, 1)
	}
	if len(all) == 0 {
		return &cli.Error{Exit: cli.ExitFailed, Code: cli.CodeFailed, Detail: fmt.Sprintf("nothing went over connection %s in %v", live.connection, live.look), Next: "look longer with --for, or see with `" + a.program + " flow list` whether its flows have something to deliver"}
	}
	if missed > 0 {
		fmt.Fprintf(a.stderr, "%s came too fast to be recorded\n", cli.Plural(missed, "exchange"))
	}
	if live.save != "" {
		var lines bytes.Buffer
		if err := writeLines(&lines, all); err != nil {
			return err
		}
		if err := a.writeNew(live.save, lines.Bytes()); err != nil {
			return err
		}
	}
	return a.writeTwin(live.connection, all, o)
}

// writeLines writes exchanges as a capture, one a line.
func writeLines(w io.Writer, all []capture.Exchange) error {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	for i := range all {
		if err := enc.Encode(&all[i]); err != nil {
			return err
		}
	}
	return nil
}
