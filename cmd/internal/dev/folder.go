package dev

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/millrace-io/millrace/cluster/state"
	"github.com/millrace-io/millrace/cmd/internal/cli"
)

// Names below a project's folder.
const (
	stateDir   = ".millrace"
	nodeFile   = "node"     // address of the node's admin API, and its process
	brokerFile = "broker"   // HOST:PORT of the broker
	lockFile   = "dev.lock" // held while a development node runs
	dataDir    = "dev"      // what the node and the broker keep
)

// CodeRunning is the code of the error of a second development node in a
// folder.
const CodeRunning = "E_DEV_RUNNING"

// folder is where a development node keeps what it keeps.
type folder struct {
	dir       string // .millrace of the project
	data      string // of node, broker and cache
	temporary bool
	lock      io.Closer
	written   []string // addresses
}

// NodeCache is where the development node of a project keeps its compiled
// plugins, unless its state is temporary.
func NodeCache(project string) string {
	return filepath.Join(project, stateDir, dataDir, "node", "cache", "wazero")
}

// openFolder takes the folder of a project for this process. With temporary
// the data goes to a folder that is removed by close.
func openFolder(project string, temporary bool) (_ *folder, err error) {
	f := &folder{dir: filepath.Join(project, stateDir), temporary: temporary}
	if err := os.MkdirAll(f.dir, 0o755); err != nil {
		return nil, surroundings(fmt.Errorf("make the folder of the development node: %w", err), "make the folder writable, or work on a copy of the project")
	}
	if f.lock, err = state.DiskFS().Lock(filepath.Join(f.dir, lockFile)); err != nil {
		return nil, f.running(err)
	}
	f.data = filepath.Join(f.dir, dataDir)
	if temporary {
		f.data, err = os.MkdirTemp("", "millrace-dev-")
	} else {
		err = os.MkdirAll(f.data, 0o755)
	}
	if err != nil {
		return nil, errors.Join(surroundings(fmt.Errorf("make the data folder of the development node: %w", err), ""), f.lock.Close())
	}
	return f, nil
}

// running is the error of a folder that another development node has.
func (f *folder) running(cause error) error {
	e := &cli.Error{Exit: cli.ExitUnreachable, Code: CodeRunning, Err: cause,
		Detail: fmt.Sprintf("another `flowctl dev` is starting or running in %s", filepath.Dir(f.dir)), Next: "use that one, or stop it first (Ctrl-C in its terminal)"}
	b, err := os.ReadFile(filepath.Join(f.dir, nodeFile))
	if err != nil {
		return e
	}
	addr, rest, _ := strings.Cut(strings.TrimSpace(string(b)), "\n")
	e.Detail = fmt.Sprintf("`flowctl dev` runs in %s already: node %s", filepath.Dir(f.dir), addr)
	if pid, ok := strings.CutPrefix(rest, "pid "); ok {
		e.Detail += ", process " + pid
		e.Next = fmt.Sprintf("use that one, or stop it first (Ctrl-C in its terminal, or kill %s)", pid)
	}
	return e
}

// announce writes where node and broker can be reached, for whoever works
// below the project's folder.
func (f *folder) announce(node, broker string) error {
	for name, content := range map[string]string{nodeFile: fmt.Sprintf("%s\npid %d\n", node, os.Getpid()), brokerFile: broker + "\n"} {
		path := filepath.Join(f.dir, name)
		if err := os.WriteFile(path+".new", []byte(content), 0o644); err != nil {
			return surroundings(fmt.Errorf("write the node's address: %w", err), "")
		}
		if err := os.Rename(path+".new", path); err != nil {
			return surroundings(fmt.Errorf("write the node's address: %w", err), "")
		}
		f.written = append(f.written, path)
	}
	return nil
}

// close removes the addresses and what is temporary, and lets go of the
// folder.
func (f *folder) close() error {
	var errs []error
	for _, path := range f.written {
		if err := os.Remove(path); !errors.Is(err, os.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	if f.temporary {
		errs = append(errs, os.RemoveAll(f.data))
	}
	errs = append(errs, f.lock.Close())
	return errors.Join(errs...)
}

// surroundings is an error that says that a node cannot be started here.
func surroundings(err error, next string) *cli.Error {
	return &cli.Error{Exit: cli.ExitUnreachable, Code: cli.CodeFailed, Detail: err.Error(), Next: next, Err: err}
}
