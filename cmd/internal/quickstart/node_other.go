//go:build !unix

package quickstart

import (
	"errors"
	"os"
	"os/exec"
)

// apart does nothing: this system has no process groups that keep signals
// from the child.
func apart(*exec.Cmd) {}

var errNoSignals = errors.New("this system has no signals")

func terminate(*os.Process) error { return errNoSignals }
