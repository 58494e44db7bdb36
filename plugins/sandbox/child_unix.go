//go:build linux || darwin

package sandbox

import (
	"bytes"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// limitProcess lets the process have so much more address space than it has
// now, and gives way to others. What the system does not support is left out:
// watchMemory remains.
func limitProcess(memory int64) {
	_ = unix.Setpriority(unix.PRIO_PROCESS, 0, 10)
	b, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return
	}
	_, rest, _ := bytes.Cut(b, []byte("VmSize:"))
	var kb uint64
	if _, err := fmt.Sscan(string(rest), &kb); err != nil {
		return
	}
	// Heap and stacks of threads are reserved ahead of use.
	most := kb<<10 + uint64(memory)/2*3 + 512<<20
	_ = unix.Setrlimit(unix.RLIMIT_AS, &unix.Rlimit{Cur: most, Max: most})
}
