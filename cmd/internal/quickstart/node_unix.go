//go:build unix && !linux

package quickstart

import (
	"os"
	"os/exec"
	"syscall"
)

// apart keeps the terminal's signals from the child. A kill of this process
// leaves the child behind on this system.
func apart(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
}

func terminate(p *os.Process) error { return p.Signal(syscall.SIGTERM) }
