package quickstart

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	switch os.Getenv("QUICKSTART_CHILD") {
	case "node":
		childNode()
	case "parent":
		childParent()
	}
	goleak.VerifyTestMain(m)
}

// childNode is a process that behaves like a node, as the arguments say.
func childNode() {
	term := make(chan os.Signal, 1)
	signal.Notify(term, syscall.SIGTERM)
	switch mode := os.Args[1]; mode {
	case "fails":
		fmt.Fprintln(os.Stderr, `{"msg":"data folder is on fire"}`)
		os.Exit(3)
	case "ready":
		if slices.ContainsFunc(os.Environ(), func(kv string) bool { return strings.HasPrefix(kv, "FLOWD_LISTEN") }) || os.Getenv("FLOWD_LOG__FORMAT") != "json" {
			fmt.Fprintln(os.Stderr, "settings of another node arrived")
			os.Exit(4)
		}
		listen := os.Args[slices.Index(os.Args, "--listen")+1]
		entry, _ := json.Marshal(map[string]any{"msg": readyMessage, "addr": listen, "pid": os.Getpid()})
		fmt.Fprintf(os.Stderr, "{\"msg\":\"starting\"}\n%s\n", entry)
	}
	<-term
	fmt.Fprintln(os.Stderr, `{"msg":"drained"}`)
	os.Exit(0)
}

// childParent starts a node, says its pid, and waits to be killed.
func childParent() {
	_ = os.Setenv("QUICKSTART_CHILD", "node")
	n, err := startNode(context.Background(), nodeCommand("ready"), os.Args[1], "127.0.0.1:1", filepath.Join(os.Args[1], "log"))
	if err != nil {
		fmt.Println("error:", err)
		os.Exit(1)
	}
	fmt.Println(n.cmd.Process.Pid)
	select {}
}

func nodeCommand(mode string) []string { return []string{os.Args[0], mode} }

func testNode(t *testing.T, mode string) (*node, string, error) {
	t.Helper()
	t.Setenv("QUICKSTART_CHILD", "node")
	t.Setenv("FLOWD_LISTEN", "0.0.0.0:7070")
	log := filepath.Join(t.TempDir(), "node.log")
	n, err := startNode(t.Context(), nodeCommand(mode), t.TempDir(), "127.0.0.1:4711", log)
	return n, log, err
}

func TestNodeStops(t *testing.T) {
	n, log, err := testNode(t, "ready")
	if err != nil {
		t.Fatal(err)
	}
	if n.addr != "127.0.0.1:4711" {
		t.Errorf("address %q, want the one that the node logged", n.addr)
	}
	if err := n.alive(); err != nil {
		t.Errorf("alive: %v", err)
	}
	n.stop()
	if state := n.cmd.ProcessState.String(); state != "exit status 0" {
		t.Errorf("stopped node: %s, want a clean end", state)
	}
	if err := n.alive(); err == nil || !strings.Contains(err.Error(), "drained") {
		t.Errorf("alive after the end: %v, want its last words", err)
	}
	text, err := os.ReadFile(log)
	if err != nil || !strings.Contains(string(text), "starting") || !strings.Contains(string(text), "drained") {
		t.Errorf("log %q, %v: want all that the node said", text, err)
	}
	n.stop()
}

func TestNodeIsKilled(t *testing.T) {
	n, _, err := testNode(t, "ready")
	if err != nil {
		t.Fatal(err)
	}
	n.kill()
	if state := n.cmd.ProcessState.String(); state != "signal: killed" && runtime.GOOS != "windows" {
		t.Errorf("killed node: %s", state)
	}
}

func TestNodeThatFails(t *testing.T) {
	_, _, err := testNode(t, "fails")
	if err == nil || !strings.Contains(err.Error(), "exit status 3") || !strings.Contains(err.Error(), "data folder is on fire") {
		t.Errorf("got %v, want the exit code and the last words", err)
	}
	_, err = startNode(t.Context(), []string{filepath.Join(t.TempDir(), "missing")}, "", "", filepath.Join(t.TempDir(), "log"))
	if !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v, want that the program does not exist", err)
	}
}

func TestNodeThatIsNeverReady(t *testing.T) {
	t.Setenv("QUICKSTART_CHILD", "node")
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(100*time.Millisecond, cancel)
	_, err := startNode(ctx, nodeCommand("silent"), t.TempDir(), "127.0.0.1:1", filepath.Join(t.TempDir(), "log"))
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want the end of the context", err)
	}
}

func TestNodeEndsWithItsParent(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("this system has no signal for the parent's death")
	}
	dir := t.TempDir()
	parent := exec.Command(os.Args[0], dir)
	parent.Env = append(os.Environ(), "QUICKSTART_CHILD=parent")
	out, err := parent.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := parent.Start(); err != nil {
		t.Fatal(err)
	}
	line, _ := bufio.NewReader(out).ReadString('\n')
	pid, err := strconv.Atoi(strings.TrimSpace(line))
	if err != nil {
		t.Fatalf("the parent said %q", line)
	}
	if err := parent.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = parent.Wait()
	deadline := time.Now().Add(5 * time.Second)
	for gone := false; !gone; gone = !running(pid) {
		if time.Now().After(deadline) {
			t.Fatalf("node %d outlives its parent", pid)
		}
		runtime.Gosched()
	}
}

// running reports whether a process runs; one that is dead and not yet
// collected does not.
func running(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	_, rest, _ := strings.Cut(string(stat), ") ")
	return !strings.HasPrefix(rest, "Z") && !strings.HasPrefix(rest, "X")
}
