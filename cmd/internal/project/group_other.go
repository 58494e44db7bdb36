//go:build !unix

package project

import "os/exec"

// inGroup ends cmd with its context, and does not wait for what it has started.
func inGroup(cmd *exec.Cmd) { cmd.WaitDelay = waitDelay }
