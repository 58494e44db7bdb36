package quickstart

import (
	"context"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/schollz/progressbar/v3"
)

// console tells what is going on, with a bar below it on a terminal.
type console struct {
	w        io.Writer
	terminal bool

	mu  sync.Mutex
	bar *progressbar.ProgressBar // guarded by mu, nil when there is none
}

// say writes a line.
func (c *console) say(format string, args ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.bar != nil {
		_ = c.bar.Clear()
	}
	fmt.Fprintf(c.w, format+"\n", args...)
}

// Progress bars.
const (
	barAfter = 500 * time.Millisecond
	barEvery = 100 * time.Millisecond
)

// progress shows a bar, after a while and on a terminal only, until the
// returned function is called. done is asked for how far the work is.
func (c *console) progress(ctx context.Context, total int, what string, done func() int) (stop func()) {
	if !c.terminal {
		return func() {}
	}
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		defer c.dropBar()
		if pause(ctx, barAfter) != nil {
			return
		}
		for {
			c.draw(total, what, done())
			if pause(ctx, barEvery) != nil {
				return
			}
		}
	}()
	return func() {
		cancel()
		<-ended
	}
}

func (c *console) draw(total int, what string, n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.bar == nil {
		c.bar = progressbar.NewOptions(total, progressbar.OptionSetWriter(c.w), progressbar.OptionSetDescription(what),
			progressbar.OptionShowCount(), progressbar.OptionSetWidth(30), progressbar.OptionSetPredictTime(false), progressbar.OptionSetElapsedTime(false))
	}
	_ = c.bar.Set(min(n, total))
}

func (c *console) dropBar() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.bar != nil {
		_ = c.bar.Clear()
		c.bar = nil
	}
}
