package brokers

import (
	"os/exec"
	"syscall"
)

// setDeath gives the child a process group of its own, and ends it with us.
func setDeath(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}

const (
	stopSignal     = syscall.SIGSTOP
	continueSignal = syscall.SIGCONT
)
