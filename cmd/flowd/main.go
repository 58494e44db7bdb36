// Command flowd is the node of Millrace.
package main

import (
	"context"
	"os"

	"github.com/millrace-io/millrace/cmd/internal/flowd"
)

func main() {
	os.Exit(flowd.Run(context.Background(), os.Args[1:], os.Environ(), os.Stdout, os.Stderr))
}
