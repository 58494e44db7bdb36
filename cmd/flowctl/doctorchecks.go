package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/millrace-io/millrace/cmd/internal/cli"
	"github.com/millrace-io/millrace/cmd/internal/flowd"
	"github.com/millrace-io/millrace/cmd/internal/project"
	"github.com/millrace-io/millrace/plugins/sandbox"
)

func (a *app) checkVersions(context.Context) []checked {
	return []checked{{Name: "flowctl", Outcome: checkOK, Detail: fmt.Sprintf("%s, %s %s/%s", flowd.Version, runtime.Version(), runtime.GOOS, runtime.GOARCH)}}
}

// checkTools are the toolchains. One that is missing or too old fails where
// the working folder is a project that needs it.
func (a *app) checkTools(ctx context.Context) []checked {
	var lang string
	if p, err := project.Find(a.dir); err == nil {
		lang = string(p.Lang)
		if p.Lang == project.Lines {
			lang = "lines in Go"
			if strings.HasSuffix(p.Source(), ".rs") {
				lang = "lines in Rust"
			}
		}
	}
	var out []checked
	for _, t := range project.Tools(ctx, a.environ) {
		c := checked{Name: t.Name, Outcome: checkOK, Detail: cmp.Or(strings.TrimSpace(t.Version+" "+t.Path), "for "+t.For)}
		if !t.OK {
			c.Outcome, c.Detail, c.Next = checkWarn, fmt.Sprintf("%s (for %s)", t.Problem, t.For), t.Install
			for need := range strings.FieldsFuncSeq(t.For, func(r rune) bool { return r == ',' || r == ';' }) {
				if strings.TrimSpace(need) == lang {
					c.Outcome = checkFail
				}
			}
		}
		out = append(out, c)
	}
	return out
}

// checkEngine asks whether plugins can be compiled here, which needs memory
// that may be executed.
func (a *app) checkEngine(ctx context.Context) []checked {
	c := checked{Name: "executable memory", Outcome: checkOK, Detail: "plugins are compiled"}
	rt, err := sandbox.New(ctx, sandbox.Config{})
	if err != nil {
		return []checked{{Name: c.Name, Outcome: checkFail, Detail: err.Error()}}
	}
	defer rt.Close(context.WithoutCancel(ctx))
	if rt.Engine() == sandbox.EngineInterpreter {
		c.Outcome, c.Detail = checkWarn, "plugins run in an interpreter, 10 to 30 times slower"
		c.Next = "allow executable memory (systemd: MemoryDenyWriteExecute=no), or use amd64 or arm64"
	}
	return []checked{c}
}

// Bounds of a clock that is believed.
var (
	clockFrom = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	clockTo   = clockFrom.AddDate(30, 0, 0)
)

// clockSamples are taken to see whether time goes back.
const clockSamples = 10_000

func (a *app) checkClock(context.Context) []checked {
	now := a.now()
	c := checked{Name: "clock", Outcome: checkOK, Detail: now.UTC().Format(time.RFC3339)}
	if now.Before(clockFrom) || now.After(clockTo) {
		c.Outcome, c.Detail = checkFail, c.Detail+": this is not the present time"
		c.Next = "set the clock (timedatectl set-ntp true): due times, signatures and certificates depend on it"
		return []checked{c}
	}
	last := time.Now()
	for range clockSamples {
		t := time.Now()
		if t.Before(last) || t.Round(0).Before(last.Round(0)) {
			c.Outcome, c.Detail = checkWarn, fmt.Sprintf("%s: it went back by %s while it was looked at", c.Detail, last.Round(0).Sub(t.Round(0)))
			c.Next = "let the time be slewed, not stepped (chrony: makestep only at the start)"
			break
		}
		last = t
	}
	return []checked{c}
}

// Bounds of the disk.
const (
	syncWarn  = 20 * time.Millisecond
	syncTries = 9
	diskWarn  = 5 << 30
	diskFail  = 256 << 20
)

// checkDisk measures how long the disk takes to keep something, and how much
// room there is, where a node would keep its data.
func (a *app) checkDisk(ctx context.Context) []checked {
	dir := a.dataDir()
	sync := checked{Name: "disk sync", Outcome: checkOK}
	took, err := measureSync(ctx, dir)
	switch {
	case err != nil:
		sync.Outcome, sync.Detail, sync.Next = checkFail, err.Error(), "make the folder writable, or choose another (flowd --data)"
	default:
		sync.Detail = fmt.Sprintf("%s (p50 of %d) in %s", took.Round(10*time.Microsecond), syncTries, dir)
		if took > syncWarn {
			sync.Outcome, sync.Next = checkWarn, "commits wait for the disk ten times a second: use an SSD, or a volume without a slow journal"
		}
	}
	room := checked{Name: "disk space", Outcome: checkOK}
	free, err := freeBytes(dir)
	switch {
	case errors.Is(err, errors.ErrUnsupported):
		room.Detail = "not measured on this system"
	case err != nil:
		room.Outcome, room.Detail, room.Next = checkWarn, err.Error(), "see how much room there is"
	default:
		room.Detail = fmt.Sprintf("%s free in %s", cli.Bytes(free), dir)
		if free < diskWarn {
			room.Outcome, room.Next = checkWarn, "make room: a node keeps failed and waiting records, 1 GiB of each by default"
		}
		if free < diskFail {
			room.Outcome = checkFail
		}
	}
	return []checked{sync, room}
}

// dataDir is the folder in which a node keeps its data here, or the nearest one
// above that exists.
func (a *app) dataDir() string {
	dir := filepath.Join(a.dir, "data")
	if _, path := nodeFile(a.dir); path != "" {
		dir = filepath.Join(filepath.Dir(path), "dev")
	}
	for {
		if info, err := os.Stat(dir); err == nil && info.IsDir() {
			return dir
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return dir
		}
		dir = parent
	}
}

// measureSync is the median of what it takes to write 4 KiB and have them
// kept.
func measureSync(ctx context.Context, dir string) (_ time.Duration, err error) {
	f, err := os.CreateTemp(dir, ".flowctl-doctor-")
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, f.Close(), os.Remove(f.Name())) }()
	block := make([]byte, 4<<10)
	var took []time.Duration
	for i := range syncTries {
		if ctx.Err() != nil {
			return 0, ctx.Err()
		}
		began := time.Now()
		if _, err := f.WriteAt(block, int64(i*len(block))); err != nil {
			return 0, err
		}
		if err := f.Sync(); err != nil {
			return 0, err
		}
		took = append(took, time.Since(began))
	}
	slices.Sort(took)
	return took[len(took)/2], nil
}

// Bounds of open files: each partition and connection takes some.
const (
	filesWarn = 4096
	filesFail = 256
)

func (a *app) checkLimits(context.Context) []checked {
	c := checked{Name: "open files", Outcome: checkOK}
	n, err := openFiles()
	switch {
	case errors.Is(err, errors.ErrUnsupported):
		c.Detail = "not limited on this system"
	case err != nil:
		c.Outcome, c.Detail, c.Next = checkWarn, err.Error(), "see the limit with `ulimit -n`"
	default:
		c.Detail = fmt.Sprintf("a process may open %d", n)
		if n < filesWarn {
			c.Outcome, c.Next = checkWarn, "raise it: `ulimit -n 65536` (systemd: LimitNOFILE=65536)"
		}
		if n < filesFail {
			c.Outcome = checkFail
		}
	}
	return []checked{c}
}

// usualPorts are those that node and dev broker take unless told otherwise.
var usualPorts = []struct{ port, of string }{{"7070", "node"}, {"19092", "dev broker"}}

// checkPorts tells whether the usual ports are free. One that is taken is no
// fault: a node may have it, and `flowctl dev` takes the next.
func (a *app) checkPorts(context.Context) []checked {
	var out []checked
	for _, p := range usualPorts {
		c := checked{Name: "port " + p.port, Outcome: checkOK, Detail: "free, for the " + p.of}
		l, err := net.Listen("tcp", "127.0.0.1:"+p.port)
		switch {
		case err == nil:
			_ = l.Close()
		case errors.Is(err, syscall.EADDRINUSE):
			c.Detail = "taken: by the " + p.of + ", or by another program"
		default:
			c.Outcome, c.Detail, c.Next = checkWarn, err.Error(), "choose another address with --listen"
		}
		out = append(out, c)
	}
	return out
}

// checkNode asks the node how it is. One that nobody named need not be there.
func (a *app) checkNode(ctx context.Context) []checked {
	c := checked{Name: "node", Outcome: checkOK}
	base, from, err := a.serverURL()
	if err != nil {
		e := cli.AsError(err)
		return []checked{{Name: c.Name, Outcome: checkFail, Detail: e.Detail, Next: e.Next}}
	}
	limit, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	n, err := a.connect(base).Node(limit)
	if err != nil {
		c.Outcome = checkWarn
		if from != fromDefaults {
			c.Outcome = checkFail
		}
		c.Detail = fmt.Sprintf("%s (from %s): %s", strings.TrimPrefix(base, "http://"), from, cli.AsError(err).Detail)
		c.Next = fmt.Sprintf("start one: `%s dev` for development, `%s run`; or name another with --server", a.program, a.flowd)
		return []checked{c}
	}
	c.Detail = fmt.Sprintf("%s at %s (from %s), process %d, %s", n.Version, n.Address, from, n.PID, cli.Plural(n.Flows, "flow"))
	out := []checked{c}
	found := func(outcome, detail, next string) {
		out = append(out, checked{Name: "node", Outcome: outcome, Detail: detail, Next: next})
	}
	if !n.Ready {
		found(checkFail, "it is not ready: it starts, or it stops", "look again in a moment, then at its log")
	}
	if n.Interpreted {
		found(checkWarn, "its plugins run in an interpreter, 10 to 30 times slower", "allow it executable memory (systemd: MemoryDenyWriteExecute=no)")
	}
	if n.Version != flowd.Version {
		found(checkWarn, fmt.Sprintf("it is version %s, this flowctl %s", n.Version, flowd.Version), "use the same version of both")
	}
	if ahead := time.UnixMilli(n.Started).Sub(a.now()); ahead > time.Minute {
		found(checkWarn, fmt.Sprintf("it started %s from now: the clocks differ, or one was set back", ahead.Round(time.Second)), "set both clocks by NTP")
	}
	return out
}
