//go:build linux

package faulttest

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// process is a program under test. It dies with the test.
type process struct {
	name    string
	log     string // path of what it wrote to STDOUT and STDERR
	from    int64  // where its part of the log begins
	started time.Time
	cmd     *exec.Cmd
	exited  chan struct{} // closed when it is gone
}

// start starts a program; what it writes is appended to the log.
func start(t *testing.T, name, log string, argv ...string) *process {
	t.Helper()
	out, err := os.OpenFile(log, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	from, err := out.Seek(0, 2)
	if err != nil {
		t.Fatal(err)
	}
	p := &process{name: name, log: log, from: from, cmd: exec.Command(argv[0], argv[1:]...), exited: make(chan struct{})}
	p.cmd.Stdout, p.cmd.Stderr = out, out
	p.cmd.Dir = filepath.Dir(log)
	for _, kv := range os.Environ() {
		if !strings.HasPrefix(kv, "FLOWD_") && !strings.HasPrefix(kv, "FLOWCTL_") {
			p.cmd.Env = append(p.cmd.Env, kv)
		}
	}
	// A program with the race detector would wait a second before it exits.
	p.cmd.Env = append(p.cmd.Env, "GORACE=atexit_sleep_ms=0")
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	p.started = time.Now()
	started := make(chan error, 1) // the one answer
	go func() {
		// The system ends the child with the thread that started it.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		defer close(p.exited)
		defer out.Close()
		err := p.cmd.Start()
		started <- err
		if err == nil {
			_ = p.cmd.Wait()
		}
	}()
	if err := <-started; err != nil {
		t.Fatalf("start %s: %v", name, err)
	}
	t.Cleanup(p.kill)
	return p
}

func (p *process) pid() int { return p.cmd.Process.Pid }

// kill ends the process without warning and waits until it is gone.
func (p *process) kill() {
	_ = p.cmd.Process.Signal(syscall.SIGKILL)
	<-p.exited
}

func (p *process) signal(t *testing.T, s syscall.Signal) {
	t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		t.Fatalf("signal %v to %s: %v; %s", s, p.name, err, p.tail())
	}
}

// ended waits for the exit code.
func (p *process) ended(t *testing.T, limit time.Duration) int {
	t.Helper()
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-p.exited:
	case <-timer.C:
		t.Fatalf("%s has not ended within %s; %s", p.name, limit, p.tail())
	}
	return p.cmd.ProcessState.ExitCode()
}

// alive is false once the process is gone.
func (p *process) alive() bool {
	select {
	case <-p.exited:
		return false
	default:
		return true
	}
}

// said is what this life of the program has written.
func (p *process) said() []byte {
	b, err := os.ReadFile(p.log)
	if err != nil || int64(len(b)) < p.from {
		return nil
	}
	return b[p.from:]
}

func (p *process) tail() string { return p.log + ":\n" + tailOf(p.said(), 30) }

func tailOf(b []byte, lines int) string {
	all := bytes.Split(bytes.TrimRight(b, "\n"), []byte("\n"))
	return string(bytes.Join(all[max(0, len(all)-lines):], []byte("\n")))
}

// faults are the lines of a log that no life may write.
func faults(log string) []string {
	b, err := os.ReadFile(log)
	if err != nil {
		return []string{err.Error()}
	}
	var found []string
	lines := bytes.Split(b, []byte("\n"))
	for i, line := range lines {
		for _, bad := range []string{"WARNING: DATA RACE", "panic: ", "fatal error: "} {
			if bytes.Contains(line, []byte(bad)) {
				found = append(found, string(bytes.Join(lines[i:min(len(lines), i+40)], []byte("\n"))))
			}
		}
	}
	return found
}

// memory is what the system says of the process's resident memory, now and at
// its highest.
func (p *process) memory() (now, highest int64, err error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.pid()))
	if err != nil {
		return 0, 0, err
	}
	for line := range strings.SplitSeq(string(b), "\n") {
		for name, to := range map[string]*int64{"VmRSS:": &now, "VmHWM:": &highest} {
			rest, ok := strings.CutPrefix(line, name)
			if !ok {
				continue
			}
			kib, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(rest, "kB")), 10, 64)
			if err != nil {
				return 0, 0, err
			}
			*to = kib << 10
		}
	}
	if now == 0 {
		return 0, 0, errors.New("the process has no memory: it is gone")
	}
	return now, highest, nil
}

// freeAddr is an address of the loopback interface that nothing listens on. It
// is outside of the range that the system gives to clients: a client that
// tries a port of that range again and again while its server is away can be
// connected to itself.
func freeAddr(t *testing.T) string {
	t.Helper()
	for range 200 {
		addr := fmt.Sprintf("127.0.0.1:%d", 16000+rand.IntN(16000))
		l, err := net.Listen("tcp", addr)
		if err != nil {
			continue
		}
		_ = l.Close()
		return addr
	}
	t.Fatal("no free port")
	return ""
}
