package main

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/millrace-io/millrace/cmd/internal/cli"
)

// Outcomes of a check.
const (
	checkOK   = "ok"
	checkWarn = "warn"
	checkFail = "fail"
)

// checked is one line of `doctor`.
type checked struct {
	Name    string `json:"name"`
	Outcome string `json:"outcome"`
	Detail  string `json:"detail"`
	// Next is the next step where the outcome is not ok.
	Next string `json:"next,omitempty"`
}

// diagnosis is what `doctor` found.
type diagnosis struct {
	OK     int       `json:"ok"`
	Warn   int       `json:"warn"`
	Fail   int       `json:"fail"`
	Checks []checked `json:"checks"`
}

// codeDoctor is the code of the error when a check has failed.
const codeDoctor = "E_DOCTOR"

func (a *app) doctorCommand() *cobra.Command {
	return &cobra.Command{
		Use: "doctor", Short: "Look at everything that flowctl and a node need here",
		Long: "Look at everything that flowctl and a node need here: toolchains, executable memory, clock,\n" +
			"disk, limits, ports, and the node if there is one. Each line is ok, warn or fail; behind the\n" +
			"last two stands the next step. The exit code is 3 if something that is needed fails: missing\n" +
			"toolchains count where the working folder is a project of their language, the node where\n" +
			"--server, FLOWCTL_SERVER or a .millrace/node names one.",
		Example: a.example("doctor", "doctor -o json", "doctor --server 127.0.0.1:7070"),
		Args:    a.args(0, 0),
		RunE:    func(cmd *cobra.Command, _ []string) error { return a.doctor(cmd.Context()) },
	}
}

func (a *app) doctor(ctx context.Context) error {
	d := &diagnosis{}
	for _, check := range []func(context.Context) []checked{a.checkVersions, a.checkTools, a.checkEngine, a.checkClock, a.checkDisk, a.checkLimits, a.checkPorts, a.checkNode} {
		d.Checks = append(d.Checks, check(ctx)...)
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	for _, c := range d.Checks {
		switch c.Outcome {
		case checkFail:
			d.Fail++
		case checkWarn:
			d.Warn++
		default:
			d.OK++
		}
	}
	err := cli.View[*diagnosis]{
		Name: func(d *diagnosis) string {
			var names []string
			for _, c := range d.Checks {
				if c.Outcome == checkFail {
					names = append(names, c.Name)
				}
			}
			return strings.Join(names, "\n")
		},
		Detail: func(w io.Writer, _ cli.Format, d *diagnosis) error {
			width := 0
			for _, c := range d.Checks {
				width = max(width, len(c.Name))
			}
			for _, c := range d.Checks {
				if _, err := fmt.Fprintf(w, "%-4s  %-*s  %s\n", c.Outcome, width, c.Name, cli.Safe(c.Detail)); err != nil {
					return err
				}
				if c.Next != "" {
					fmt.Fprintf(w, "      %-*s  next: %s\n", width, "", cli.Safe(c.Next))
				}
			}
			_, err := fmt.Fprintf(w, "%d ok, %d to know, %d failed\n", d.OK, d.Warn, d.Fail)
			return err
		},
	}.One(a.stdout, a.format, d)
	if err == nil && d.Fail > 0 {
		return &cli.Error{Exit: cli.ExitUnreachable, Code: codeDoctor, Detail: cli.Plural(d.Fail, "check") + " failed", Next: "do what stands behind each"}
	}
	return err
}
