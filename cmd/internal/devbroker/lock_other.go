//go:build !unix

package devbroker

import (
	"errors"
	"fmt"
	"os"
	"syscall"
)

// lockDir makes dir. Two brokers on one folder are not noticed on this system.
func lockDir(dir string) (*os.File, error) {
	if dir == "" {
		return nil, nil
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("broker: make its folder: %w", err)
	}
	return nil, nil
}

func unlock(*os.File) {}

func inUse(err error) bool {
	const wsaEADDRINUSE = syscall.Errno(10048)
	return errors.Is(err, wsaEADDRINUSE)
}
