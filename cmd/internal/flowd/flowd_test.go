package flowd

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/millrace-io/millrace/cluster/node"
	"github.com/millrace-io/millrace/cmd/internal/api"
	"github.com/millrace-io/millrace/cmd/internal/daemon"
)

// fakeNode runs until its context ends; with hang set it goes on then.
type fakeNode struct {
	hang   chan struct{}
	err    error
	closed bool
}

func (n *fakeNode) Addr() string { return "127.0.0.1:4711" }

func (n *fakeNode) Run(ctx context.Context) error {
	if n.err != nil {
		return n.err
	}
	<-ctx.Done()
	if n.hang != nil {
		<-n.hang
	}
	return nil
}

func (n *fakeNode) Close() error { n.closed = true; return nil }

// safeBuffer is written by a node that a test may have left behind, and tells
// when a text came.
type safeBuffer struct {
	mu    sync.Mutex
	b     bytes.Buffer
	await string        // guarded by mu
	came  chan struct{} // closed once await was written
}

func (b *safeBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	n, err := b.b.Write(p)
	if b.await != "" && strings.Contains(b.b.String(), b.await) {
		b.await = ""
		close(b.came)
	}
	return n, err
}

func (b *safeBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

func awaiting(text string) *safeBuffer { return &safeBuffer{await: text, came: make(chan struct{})} }

type harness struct {
	program
	out     bytes.Buffer
	err     *safeBuffer
	got     daemon.Config
	signals chan os.Signal
}

func newHarness(node daemonNode, openErr error, environ ...string) *harness {
	h := &harness{err: awaiting("node ready"), signals: make(chan os.Signal, 2)}
	h.program = program{
		name: "flowd", environ: environ, stdout: &h.out, stderr: h.err,
		open: func(_ context.Context, cfg daemon.Config) (daemonNode, error) {
			h.got = cfg
			if openErr != nil {
				return nil, openErr
			}
			return node, nil
		},
		notify: func() (<-chan os.Signal, func()) { return h.signals, func() {} },
	}
	return h
}

func TestFirstSignalStopsSoftly(t *testing.T) {
	for _, sig := range []os.Signal{os.Interrupt, syscall.SIGTERM} {
		n := &fakeNode{}
		h := newHarness(n, nil)
		go func() { <-h.err.came; h.signals <- sig }()
		if code := h.run(t.Context(), []string{"run", "--data", "d", "--log-format", "json"}); code != 0 || !n.closed {
			t.Errorf("%v: exit code %d, closed %v, %s", sig, code, n.closed, h.err)
		}
		if !strings.Contains(h.err.String(), `"msg":"node stopped"`) {
			t.Errorf("%v: log %s", sig, h.err)
		}
	}
}

func TestSecondSignalEndsAtOnce(t *testing.T) {
	for sig, want := range map[os.Signal]int{os.Interrupt: 130, syscall.SIGTERM: 143} {
		n := &fakeNode{hang: make(chan struct{})}
		h := newHarness(n, nil)
		go func() { <-h.err.came; h.signals <- syscall.SIGTERM; h.signals <- sig }()
		if code := h.run(t.Context(), []string{"run"}); code != want {
			t.Errorf("%v: exit code %d, want %d", sig, code, want)
		}
		close(n.hang)
	}
}

func TestEndOfContextStops(t *testing.T) {
	h := newHarness(&fakeNode{}, nil)
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-h.err.came; cancel() }()
	if code := h.run(ctx, []string{"run"}); code != 0 {
		t.Errorf("exit code %d: %s", code, h.err)
	}
	h = newHarness(nil, fmt.Errorf("open: %w", context.Canceled))
	if code := h.run(ctx, []string{"run"}); code != 0 {
		t.Errorf("before it was ready: exit code %d: %s", code, h.err)
	}
}

// Programs that start a node wait for this line.
func TestReadyLine(t *testing.T) {
	h := newHarness(&fakeNode{err: errors.New("disk on fire")}, nil)
	if code := h.run(t.Context(), []string{"run", "--data", "d", "--log-format", "json"}); code != 1 {
		t.Errorf("exit code %d", code)
	}
	line, rest, _ := strings.Cut(h.err.String(), "\n")
	var ready struct {
		Level, Msg, Addr, Data string
		PID                    int
		MS                     *int64
	}
	if err := json.Unmarshal([]byte(line), &ready); err != nil {
		t.Fatalf("%v in %s", err, line)
	}
	data, err := filepath.Abs("d")
	if err != nil {
		t.Fatal(err)
	}
	if ready.Level != "INFO" || ready.Msg != "node ready" || ready.Addr != "127.0.0.1:4711" || ready.Data != data || ready.PID != os.Getpid() || ready.MS == nil {
		t.Errorf("got %s", line)
	}
	if !strings.Contains(rest, "E_FAILED: disk on fire") {
		t.Errorf("then %s", rest)
	}
}

func TestConfigurationReachesTheNode(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "flowd.yaml")
	text := "data: from-file\nsecrets: s\nlimits: { window: 1MiB, plugin_memory: 128KiB }\nkafka: { fetch_max_bytes: 64KiB }\nlisten: 127.0.0.1:1\nlog: { format: json }\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	h := newHarness(&fakeNode{err: errors.New("over")}, nil, "FLOWD_LIMITS__WINDOW=2MiB", "FLOWD_LISTEN=127.0.0.1:2")
	h.run(t.Context(), []string{"run", "-c", file, "--listen", "127.0.0.1:0"})
	h.got.Logger = nil
	want := daemon.Config{Dir: "from-file", Secrets: "s", Listen: "127.0.0.1:0", Version: Version, WindowBytes: 2 << 20, PluginMemoryBytes: 128 << 10, Fuel: 1_200_000, FetchMaxBytes: 64 << 10, SpillRate: 2000, SpillBytes: 1 << 30}
	if !reflect.DeepEqual(h.got, want) {
		t.Errorf("got %+v, want %+v", h.got, want)
	}

	h = newHarness(&fakeNode{err: errors.New("over")}, nil)
	h.run(t.Context(), []string{"run"})
	h.got.Logger = nil
	want = daemon.Config{Dir: "data", Listen: "127.0.0.1:7070", Version: Version, WindowBytes: 256 << 20, PluginMemoryBytes: 64 << 20, Fuel: 1_200_000, FetchMaxBytes: 2 << 20, SpillRate: 2000, SpillBytes: 1 << 30}
	if !reflect.DeepEqual(h.got, want) {
		t.Errorf("defaults: got %+v, want %+v", h.got, want)
	}
}

func TestExitCodesAndErrors(t *testing.T) {
	dir := t.TempDir()
	bad := filepath.Join(dir, "bad.yaml")
	if err := os.WriteFile(bad, []byte("lisen: x\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	good := filepath.Join(dir, "good.yaml")
	if err := os.WriteFile(good, []byte("limits: { window: 1GiB }\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	closed := errors.New("close: also broken")
	for _, c := range []struct {
		name string
		args []string
		env  []string
		open error
		code int
		out  string // part of stdout
		err  string // part of stderr
	}{
		{name: "nothing", code: 0, out: "flowd run -c /etc/millrace/flowd.yaml"},
		{name: "help", args: []string{"run", "--help"}, code: 0, out: "--log-format"},
		{name: "version", args: []string{"version"}, code: 0, out: "millrace flowd " + Version + "\n"},
		{name: "unknown command", args: []string{"rum"}, code: 2, err: "E_USAGE: flowd: unknown command \"rum\"\nnext: did you mean `flowd run`?\n"},
		{name: "unknown flag", args: []string{"run", "--lisen", "x"}, code: 2, err: "next: did you mean --listen?"},
		{name: "argument", args: []string{"run", "now"}, code: 2, err: `E_USAGE: flowd run: unexpected argument "now"`},
		{name: "empty file name", args: []string{"run", "-c", ""}, code: 2, err: "E_USAGE: flowd run: -c is empty"},
		{name: "world", args: []string{"run", "--listen", "0.0.0.0:7070"}, code: 2, err: "E_VALUE  --listen\n    listen cannot be \"0.0.0.0:7070\""},
		{name: "bad file", args: []string{"run", "-c", bad}, code: 2, err: "bad.yaml:1:1\n     1 | lisen: x\n       | ^^^^^ unknown key\n    help: did you mean `listen`?\n\nE_CONFIG: the configuration has 1 fault\nnext: mend what is named; `flowd check-config -c "},
		{name: "no file", args: []string{"run", "-c", filepath.Join(dir, "none.yaml")}, code: 2, err: "none.yaml: file does not exist: name an existing file with -c"},
		{name: "bad environment", args: []string{"run"}, env: []string{"FLOWD_LISEN=x"}, code: 2, err: "E_KEY_UNKNOWN  FLOWD_LISEN"},
		{name: "check of a bad file", args: []string{"check-config", "-c", bad}, code: 2, err: "E_CONFIG: the configuration has 1 fault"},
		{name: "check of the usual file, missing", args: []string{"check-config"}, code: 2, err: "E_CONFIG: configuration flowd.yaml: file does not exist"},
		{name: "check", args: []string{"check-config", "-c", good}, env: []string{"FLOWD_DATA=/d"}, code: 0, out: "limits.window          1GiB"},
		{name: "locked", args: []string{"run"}, open: errors.Join(fmt.Errorf("open: %w", &node.LockedError{Path: "data", PID: 4121}), closed), code: 3,
			err: "E_LOCKED: open data folder data: locked by pid 4121\nnext: a node runs there already; stop it first (kill 4121), or give this one a folder of its own with --data\n"},
		{name: "locked by who knows", args: []string{"run"}, open: &node.LockedError{Path: "data"}, code: 3, err: "next: a node runs there already; stop it first, or"},
		{name: "port", args: []string{"run"}, open: &api.ListenError{Address: "127.0.0.1:7070", Err: syscall.EADDRINUSE, Next: "take another"}, code: 3,
			err: "E_LISTEN: listen at 127.0.0.1:7070: address already in use\nnext: take another\n"},
		{name: "port, told otherwise", args: []string{"run"}, open: fmt.Errorf("listen: %w", syscall.EADDRINUSE), code: 3, err: "E_LISTEN: listen: address already in use\n"},
		{name: "disk", args: []string{"run"}, open: fmt.Errorf("open data folder: %w", syscall.ENOSPC), code: 3, err: "E_START: open data folder: no space left on device\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Chdir(dir)
			h := newHarness(&fakeNode{}, c.open, c.env...)
			code := h.run(t.Context(), c.args)
			if code != c.code || !strings.Contains(h.out.String(), c.out) || !strings.Contains(h.err.String(), c.err) {
				t.Errorf("exit code %d, want %d\nstdout %s\nstderr %s", code, c.code, h.out.String(), h.err)
			}
			if c.err == "" && h.err.String() != "" || c.out == "" && h.out.String() != "" {
				t.Errorf("more than expected: stdout %q, stderr %q", h.out.String(), h.err)
			}
		})
	}
}
