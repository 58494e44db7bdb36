package flowd

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/millrace-io/millrace/cmd/internal/api"
)

// asProgram makes the test binary the program itself.
const asProgram = "MILLRACE_TEST_FLOWD"

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		os.Exit(Run(context.Background(), os.Args[1:], os.Environ(), os.Stdout, os.Stderr))
	}
	os.Exit(m.Run())
}

// process is flowd in a process of its own.
type process struct {
	cmd    *exec.Cmd
	stderr *safeBuffer
}

func start(t *testing.T, args ...string) *process {
	t.Helper()
	p := &process{cmd: exec.Command(os.Args[0], args...), stderr: awaiting(`"msg":"node ready"`)}
	p.cmd.Env = append(os.Environ(), asProgram+"=1")
	p.cmd.Stderr = p.stderr
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.cmd.Process.Kill() })
	return p
}

// ready waits for the node and is the address of its API.
func (p *process) ready(t *testing.T) string {
	t.Helper()
	select {
	case <-p.stderr.came:
	case <-time.After(10 * time.Second):
		t.Fatalf("the node is not ready: %s", p.stderr)
	}
	for line := range strings.Lines(p.stderr.String()) {
		var entry struct{ Msg, Addr string }
		if json.Unmarshal([]byte(line), &entry) == nil && entry.Msg == "node ready" {
			return entry.Addr
		}
	}
	t.Fatalf("no address in %s", p.stderr)
	return ""
}

func (p *process) wait(t *testing.T) int {
	t.Helper()
	ended := make(chan error, 1) // the one answer
	go func() { ended <- p.cmd.Wait() }()
	select {
	case <-ended:
		return p.cmd.ProcessState.ExitCode()
	case <-time.After(15 * time.Second):
		t.Fatalf("the program does not end: %s", p.stderr)
		return 0
	}
}

func TestNodeInAProcess(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	first := start(t, "run", "--data", dir, "--listen", "127.0.0.1:0", "--log-format", "json")
	addr := first.ready(t)
	n, err := api.NewClient(addr).Node(t.Context())
	if err != nil || n.Address != addr || n.Data != dir || n.PID != first.cmd.Process.Pid || n.Version != Version {
		t.Errorf("node %+v, %v", n, err)
	}
	resp, err := http.Get("http://" + addr + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != 200 {
		t.Errorf("metrics: %s", resp.Status)
	}

	second := start(t, "run", "--data", dir, "--listen", "127.0.0.1:0")
	if code := second.wait(t); code != 3 || !strings.Contains(second.stderr.String(), fmt.Sprintf("locked by pid %d", first.cmd.Process.Pid)) {
		t.Errorf("a second node on the folder: exit code %d, %s", code, second.stderr)
	}
	third := start(t, "run", "--data", t.TempDir(), "--listen", addr)
	if code := third.wait(t); code != 3 || !strings.Contains(third.stderr.String(), "E_LISTEN: ") {
		t.Errorf("a second node on the port: exit code %d, %s", code, third.stderr)
	}

	if err := first.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if code := first.wait(t); code != 0 {
		t.Errorf("after SIGTERM: exit code %d, %s", code, first.stderr)
	}
	again := start(t, "run", "--data", dir, "--listen", "127.0.0.1:0", "--log-format", "json")
	again.ready(t)
	if err := again.cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if code := again.wait(t); code != 0 {
		t.Errorf("after SIGINT: exit code %d, %s", code, again.stderr)
	}
}
