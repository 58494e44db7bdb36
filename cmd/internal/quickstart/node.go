package quickstart

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"time"
)

// Time limits of the node.
const (
	startLimit = 20 * time.Second
	stopLimit  = 10 * time.Second
)

// node is a node in a process of its own.
type node struct {
	addr string // HOST:PORT
	cmd  *exec.Cmd
	// ready gets the address once, exited is closed when the process is gone.
	ready  chan string
	exited chan struct{}
	last   lastLines
}

// startNode starts a node and returns when it is ready. The node ends with
// this process, also if this process is killed, where the system can do that.
func startNode(ctx context.Context, command []string, data, listen, logFile string) (*node, error) {
	log, err := os.OpenFile(logFile, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644)
	if err != nil {
		return nil, fmt.Errorf("open the node's log: %w", err)
	}
	n := &node{ready: make(chan string, 1), exited: make(chan struct{})} // room for the one address
	n.cmd = exec.Command(command[0], append(command[1:len(command):len(command)], "--data", data, "--listen", listen)...)
	n.cmd.Env = nodeEnv(os.Environ())
	apart(n.cmd)
	stderr, err := n.cmd.StderrPipe()
	if err != nil {
		_ = log.Close()
		return nil, fmt.Errorf("start the node: %w", err)
	}
	n.cmd.Stdout = log
	started := make(chan error, 1) // room for the one answer
	go func() {
		// The system ends the child with the thread that started it.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		defer close(n.exited)
		defer log.Close()
		err := n.cmd.Start()
		started <- err
		if err != nil {
			return
		}
		n.follow(stderr, log)
		_ = n.cmd.Wait()
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start the node: %s: %w", strings.Join(command, " "), err)
	}
	limit := time.NewTimer(startLimit)
	defer limit.Stop()
	select {
	case n.addr = <-n.ready:
		return n, nil
	case <-n.exited:
		return nil, fmt.Errorf("the node ended as it started (%s): %s", n.cmd.ProcessState, n.last.text())
	case <-limit.C:
		n.kill()
		return nil, fmt.Errorf("the node is not ready after %s: %s", startLimit, n.last.text())
	case <-ctx.Done():
		n.kill()
		return nil, ctx.Err()
	}
}

// nodeEnv is the environment without settings meant for other nodes, and with
// a log that can be read here.
func nodeEnv(env []string) []string {
	var out []string
	for _, kv := range env {
		if !strings.HasPrefix(kv, "FLOWD_") && !strings.HasPrefix(kv, "FLOWCTL_") {
			out = append(out, kv)
		}
	}
	return append(out, "FLOWD_LOG__FORMAT=json")
}

// readyMessage is what a node logs when it can be asked; addr says where.
const readyMessage = "node ready"

// follow copies the node's log to the file until the node closes it, and
// finds the address in it.
func (n *node) follow(r io.Reader, log io.Writer) {
	in := bufio.NewReader(r)
	for {
		line, err := in.ReadBytes('\n')
		if len(line) > 0 {
			_, _ = log.Write(line)
			n.last.add(string(bytes.TrimSpace(line)))
			if addr := readyAddress(line); addr != "" {
				select {
				case n.ready <- addr:
				default:
				}
			}
		}
		if err != nil {
			return
		}
	}
}

func readyAddress(line []byte) string {
	if !bytes.Contains(line, []byte(readyMessage)) {
		return ""
	}
	var entry struct {
		Message string `json:"msg"`
		Addr    string `json:"addr"`
	}
	if json.Unmarshal(line, &entry) != nil || entry.Message != readyMessage {
		return ""
	}
	return entry.Addr
}

// kill ends the node at once, with SIGKILL where there are signals, and waits
// until it is gone.
func (n *node) kill() {
	_ = n.cmd.Process.Kill()
	<-n.exited
}

// stop ends the node as an operator does, and after stopLimit kills it.
func (n *node) stop() {
	if terminate(n.cmd.Process) == nil {
		limit := time.NewTimer(stopLimit)
		defer limit.Stop()
		select {
		case <-n.exited:
			return
		case <-limit.C:
		}
	}
	n.kill()
}

// alive is nil, or an error that says how the node ended.
func (n *node) alive() error {
	select {
	case <-n.exited:
		return fmt.Errorf("the node ended by itself (%s): %s", n.cmd.ProcessState, n.last.text())
	default:
		return nil
	}
}

// thisProgram is the command line of a node: this program itself.
func thisProgram() ([]string, error) {
	exe, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find this program, to start the node: %w", err)
	}
	if _, err := os.Stat(exe); errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("start the node: this program is gone from %s: build it again", filepath.Clean(exe))
	}
	return []string{exe, "node", "run"}, nil
}

// lastLines keeps the newest lines of a log.
type lastLines struct {
	mu    sync.Mutex
	lines []string // guarded by mu
}

const keepLines = 3

func (l *lastLines) add(line string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines = append(l.lines, line)
	l.lines = l.lines[max(0, len(l.lines)-keepLines):]
}

func (l *lastLines) text() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.lines) == 0 {
		return "it said nothing"
	}
	return strings.Join(l.lines, " | ")
}
