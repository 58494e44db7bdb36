//go:build unix

package project

import (
	"os/exec"
	"syscall"
)

// inGroup lets the end of cmd's context end all that cmd has started, too: a
// compiler is a family of processes.
func inGroup(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = waitDelay
}
