//go:build !linux

package brokers

import (
	"os"
	"os/exec"
)

// setDeath does nothing: only Linux ends a child with its parent, and the
// harness is skipped elsewhere.
func setDeath(*exec.Cmd) {}

const (
	stopSignal     = noSignal("stop")
	continueSignal = noSignal("continue")
)

// noSignal is a signal that no system knows.
type noSignal string

func (s noSignal) Signal()        {}
func (s noSignal) String() string { return string(s) }

var _ os.Signal = noSignal("")
