// Command flowctl is the tool of plugin authors and operators: it talks to a
// node's admin API, and holds the whole engine, so that linting flows and
// running plugins need no node.
package main

import (
	"context"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/millrace-io/millrace/cmd/internal/api"
	"github.com/millrace-io/millrace/cmd/internal/cli"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second interrupt ends the process at once
	code := run(ctx, os.Args[1:], os.Getenv, os.Stdin, os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// run is the whole program; it returns the exit code. An end of ctx is an
// interrupt.
func run(ctx context.Context, args []string, getenv func(string) string, stdin io.Reader, stdout, stderr io.Writer) int {
	dir, _ := os.Getwd()
	a := &app{
		getenv: getenv, environ: os.Environ(), stdin: stdin, stdout: stdout, stderr: stderr,
		dir: dir, now: time.Now,
		terminal: func() bool { return readsTerminal(stdin) && onTerminal(stderr) },
		program:  cli.Program(filepath.ToSlash(os.Args[0]), "flowctl"),
		flowd:    cli.Sibling(os.Args[0], "flowd", isFile),
		connect:  func(base string) api.Backend { return api.NewClient(base) },
	}
	return a.run(ctx, args)
}

func isFile(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular()
}
