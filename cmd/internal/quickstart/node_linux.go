package quickstart

import (
	"os"
	"os/exec"
	"syscall"
)

// apart keeps the terminal's signals from the child, and ends it when the
// thread that starts it ends.
func apart(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}

func terminate(p *os.Process) error { return p.Signal(syscall.SIGTERM) }
