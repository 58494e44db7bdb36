package brokers

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
	"sync"
	"syscall"
	"time"
)

// startLimit is how long a broker has until it answers. A RocketMQ broker
// that misses its first registration comes 10 s later.
const startLimit = 90 * time.Second

// Process is one program of a broker, started by its script. It dies with the
// process that started it. Its methods are not for use at the same time,
// except Alive, Pid and Log.
type Process struct {
	name  string
	argv  []string
	env   []string
	log   string // path; all lives write to it
	ready func() error

	mu     sync.Mutex
	cmd    *exec.Cmd     // guarded by mu; nil before the first start
	exited chan struct{} // guarded by mu; closed when the life is gone and reaped
}

// Start starts a life on what is there, and returns when it answers.
func (p *Process) Start() error {
	if p.Alive() {
		return fmt.Errorf("start %s: it runs", p.name)
	}
	out, err := os.OpenFile(p.log, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644)
	if err != nil {
		return err
	}
	cmd := exec.Command(p.argv[0], p.argv[1:]...)
	cmd.Stdout, cmd.Stderr = out, out
	cmd.Dir = filepath.Dir(p.log)
	cmd.Env = append(os.Environ(), p.env...)
	setDeath(cmd)
	started := make(chan error, 1) // the one answer
	exited := make(chan struct{})
	go func() {
		// The system ends the child with the thread that started it.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		defer close(exited)
		defer out.Close()
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait()
		}
	}()
	if err := <-started; err != nil {
		return fmt.Errorf("start %s: %w", p.name, err)
	}
	p.mu.Lock()
	p.cmd, p.exited = cmd, exited
	p.mu.Unlock()
	return p.await(startLimit)
}

// await polls until the program answers.
func (p *Process) await(limit time.Duration) error {
	deadline := time.NewTimer(limit)
	defer deadline.Stop()
	tick := time.NewTicker(30 * time.Millisecond)
	defer tick.Stop()
	for {
		err := p.ready()
		if err == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-p.gone():
			return fmt.Errorf("%s ended at its start: %s", p.name, p.Log())
		case <-deadline.C:
			p.Kill()
			return fmt.Errorf("%s did not answer in %s: %w: %s", p.name, limit, err, p.Log())
		}
	}
}

// gone is closed while no life runs.
func (p *Process) gone() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.exited == nil {
		c := make(chan struct{})
		close(c)
		return c
	}
	return p.exited
}

// Alive is false before the first start and once the life is gone.
func (p *Process) Alive() bool {
	select {
	case <-p.gone():
		return false
	default:
		return true
	}
}

// Pid is that of the last life; 0 before the first.
func (p *Process) Pid() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd == nil {
		return 0
	}
	return p.cmd.Process.Pid
}

// Signal sends a signal to the life.
func (p *Process) Signal(s os.Signal) error {
	if !p.Alive() {
		return fmt.Errorf("signal %v to %s: %w", s, p.name, os.ErrProcessDone)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.cmd.Process.Signal(s)
}

// Kill ends the life without warning and waits until it is gone.
func (p *Process) Kill() {
	_ = p.Signal(os.Kill)
	<-p.gone()
}

// Stop ends the life as an operator does and waits; after a minute it kills.
func (p *Process) Stop() error {
	if err := p.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	limit := time.NewTimer(time.Minute)
	defer limit.Stop()
	select {
	case <-p.gone():
		return nil
	case <-limit.C:
		p.Kill()
		return fmt.Errorf("stop %s: it had to be killed after a minute: %s", p.name, p.Log())
	}
}

// Log is the end of what the lives have written, with the path.
func (p *Process) Log() string {
	b, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	lines := bytes.Split(bytes.TrimRight(b, "\n"), []byte("\n"))
	return p.log + ":\n" + string(bytes.Join(lines[max(0, len(lines)-40):], []byte("\n")))
}

// freePorts are ports of the loopback interface that nothing listens on; a
// group of several lies at the given distances from its first. They are
// outside of the range that the system gives to clients: a client that tries
// such a port again and again while its broker is away can be connected to
// itself.
func freePorts(distances ...int) (int, error) {
	for range 500 {
		first := 12000 + rand.IntN(20000)
		if allFree(first, distances) {
			return first, nil
		}
	}
	return 0, errors.New("no free port from 12000 to 32000")
}

func allFree(first int, distances []int) bool {
	for _, d := range distances {
		// On all addresses: RocketMQ's replication listens there.
		l, err := net.Listen("tcp4", fmt.Sprintf(":%d", first+d))
		if err != nil {
			return false
		}
		_ = l.Close()
	}
	return true
}

// root is the repository's folder, above the working folder.
func root() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "examples", "brokers", "jars.sh")); err == nil {
			return dir, nil
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return "", errors.New("no examples/brokers above the working folder: run this inside the repository")
		}
		dir = parent
	}
}
