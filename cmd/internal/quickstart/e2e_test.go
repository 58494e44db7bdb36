package quickstart_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"
)

// The whole quickstart, as a user calls it, twice in one folder.
func TestTwiceInOneFolder(t *testing.T) {
	if testing.Short() {
		t.Skip("it builds the program and runs it for 10 s")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	program := filepath.Join(t.TempDir(), "flowctl")
	if runtime.GOOS == "windows" {
		program += ".exe"
	}
	build := exec.CommandContext(ctx, "go", "build", "-o", program, "github.com/millrace-io/millrace/cmd/flowctl")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build flowctl: %v\n%s", err, out)
	}
	const records = 12_000
	dir := t.TempDir()
	for _, run := range []string{"first", "second"} {
		var stdout, stderr bytes.Buffer
		cmd := exec.CommandContext(ctx, program, "quickstart", "--once", "-o", "json", "--records", strconv.Itoa(records), "--dir", dir)
		cmd.Stdout, cmd.Stderr = &stdout, &stderr
		if err := cmd.Run(); err != nil {
			t.Fatalf("%s run: %v\n%s%s", run, err, &stdout, &stderr)
		}
		t.Logf("%s run: %s%s", run, &stdout, &stderr)
		dec := json.NewDecoder(&stdout)
		got := map[string]float64{}
		if err := dec.Decode(&got); err != nil {
			t.Fatalf("%s run: %v", run, err)
		}
		if _, err := dec.Token(); err != io.EOF {
			t.Errorf("%s run: more than one object on standard output", run)
		}
		for _, name := range []string{"lost", "duplicated", "out_of_order"} {
			if n, ok := got[name]; !ok || n != 0 {
				t.Errorf("%s run: %s is %v (%t), want 0", run, name, n, ok)
			}
		}
		if got["in"] != records || got["emitted"]+got["dropped"]+got["failed"] != records || got["emitted"] < records*8/10 || got["dropped"] == 0 || got["failed"] == 0 {
			t.Errorf("%s run: %v do not add up", run, got)
		}
		for _, name := range []string{"seconds", "records_per_second", "p50_ms", "p99_ms"} {
			if got[name] <= 0 {
				t.Errorf("%s run: %s is %v", run, name, got[name])
			}
		}
		if !strings.Contains(stderr.String(), "killed the node (SIGKILL)") {
			t.Errorf("%s run: the node was not killed", run)
		}
	}
}
