package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"

	"github.com/millrace-io/millrace/cmd/internal/daemon"
)

// runNode is the role of the node: ADDR DIR.
func runNode(ctx context.Context, args []string) error {
	d, err := daemon.Open(ctx, daemon.Config{Dir: args[1], Listen: args[0], Version: "bench"})
	if err != nil {
		return err
	}
	err = d.Run(ctx)
	if e := d.Close(); err == nil {
		err = e
	}
	return err
}

// child is this program in another role.
type child struct {
	cmd  *exec.Cmd
	once sync.Once
	used time.Duration
	err  error
}

func self(ctx context.Context, role string, args ...string) (*child, error) {
	exe, err := os.Executable()
	if err != nil {
		return nil, err
	}
	c := &child{cmd: exec.CommandContext(ctx, exe, append([]string{role}, args...)...)}
	c.cmd.Stderr = os.Stderr
	return c, c.cmd.Start()
}

// end stops the child and returns the CPU time that it used.
func (c *child) end() (time.Duration, error) {
	c.once.Do(func() {
		if c.err = c.cmd.Process.Signal(syscall.SIGTERM); c.err != nil {
			return
		}
		c.err = c.cmd.Wait()
		c.used = c.cmd.ProcessState.UserTime() + c.cmd.ProcessState.SystemTime()
	})
	return c.used, c.err
}

func freeAddr() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	return l.Addr().String(), nil
}

// attempt tries until f succeeds, for at most 20 s.
func attempt(ctx context.Context, what string, f func() error) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for {
		err := f()
		if err == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("wait for %s: %w", what, err)
		}
	}
}

func waitFor(ctx context.Context, addr string) error {
	return attempt(ctx, addr, func() error {
		c, err := net.DialTimeout("tcp", addr, time.Second)
		if err == nil {
			_ = c.Close()
		}
		return err
	})
}

func waitReady(ctx context.Context, addr string) error {
	return attempt(ctx, "the node at "+addr, func() error {
		resp, err := http.Get("http://" + addr + "/readyz")
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			return fmt.Errorf("readyz says %s", resp.Status)
		}
		return nil
	})
}
