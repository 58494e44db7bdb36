package main

import (
	"bufio"
	"fmt"
	"strings"

	"github.com/millrace-io/millrace/cmd/internal/cli"
)

// codeCancelled: the user answered no.
const codeCancelled = "E_CANCELLED"

// confirm asks on STDERR whether to go on, and takes the answer from STDIN;
// yes answers it beforehand. Where nobody sits it is an error that says how to
// do without the question.
func (a *app) confirm(question string, yes bool) error {
	if yes {
		return nil
	}
	if !a.terminal() {
		return cli.Usage("add --yes to do it, or --dry-run to see only what it would do", "%s? There is no terminal to ask on", question)
	}
	fmt.Fprintf(a.stderr, "%s? [y/N] ", question)
	line, err := bufio.NewReader(a.stdin).ReadString('\n')
	switch strings.ToLower(strings.TrimSpace(line)) {
	case "y", "yes":
		return nil
	}
	if err != nil {
		fmt.Fprintln(a.stderr)
	}
	return &cli.Error{Exit: cli.ExitCancelled, Code: codeCancelled, Detail: "nothing was changed", Next: "answer y to do it"}
}
