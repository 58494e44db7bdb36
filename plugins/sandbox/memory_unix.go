//go:build linux || darwin

package sandbox

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// reserve takes address space of n bytes that cannot be used yet and counts
// nowhere, not even where the system does not overcommit.
func reserve(n int) ([]byte, error) {
	b, err := unix.Mmap(-1, 0, n, unix.PROT_NONE, unix.MAP_PRIVATE|unix.MAP_ANON|unix.MAP_NORESERVE)
	if err != nil {
		return nil, fmt.Errorf("reserve %d bytes of guest memory: %w", n, err)
	}
	return b, nil
}

// commit makes a part usable; its pages are zero and come on first use.
func commit(b []byte) bool {
	return len(b) == 0 || unix.Mprotect(b, unix.PROT_READ|unix.PROT_WRITE) == nil
}

// release gives back what reserve took.
func release(b []byte) {
	if err := unix.Munmap(b); err != nil {
		panic(fmt.Sprintf("sandbox: unmap guest memory: %v", err))
	}
}
