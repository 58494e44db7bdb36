//go:build !(darwin || dragonfly || freebsd || linux || netbsd || openbsd)

package node

import (
	"errors"
	"io"
	"os"
	"strconv"
	"strings"

	"github.com/millrace-io/millrace/cluster/state"
)

// lockFile takes the lock of a data folder. The pid lies beside it, since the
// lock itself cannot be read by others here.
func lockFile(dir, path string) (io.Closer, error) {
	pidPath := path + ".pid"
	lock, err := state.DiskFS().Lock(path)
	if err != nil {
		b, _ := os.ReadFile(pidPath)
		pid, _ := strconv.Atoi(strings.TrimSpace(string(b)))
		return nil, &LockedError{dir, pid}
	}
	if err := os.WriteFile(pidPath, []byte(strconv.Itoa(os.Getpid())+"\n"), 0o644); err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	return lock, nil
}
