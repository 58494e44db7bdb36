package sandbox

import (
	"bytes"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/millrace-io/millrace/plugins/internal/testkit"
)

// TestWithoutExecutableMemory runs a plugin in a process that may not make
// memory executable, as systemd's MemoryDenyWriteExecute has it: it works, and
// says that it is slow and what to do.
func TestWithoutExecutableMemory(t *testing.T) {
	const in = "MILLRACE_TEST_NO_EXECUTABLE_MEMORY"
	if os.Getenv(in) == "" {
		cmd := exec.Command(os.Args[0], "-test.run=^TestWithoutExecutableMemory$", "-test.v")
		cmd.Env = append(os.Environ(), in+"=1")
		out, err := cmd.CombinedOutput()
		if bytes.Contains(out, []byte("--- SKIP")) {
			t.Skipf("%s", out)
		}
		if err != nil || !bytes.Contains(out, []byte("engine interpreter")) {
			t.Fatalf("%v\n%s", err, out)
		}
		return
	}
	if err := unix.Prctl(unix.PR_SET_MDWE, unix.PR_MDWE_REFUSE_EXEC_GAIN, 0, 0, 0); err != nil {
		t.Skipf("this kernel cannot deny executable memory: %v", err)
	}
	var log strings.Builder
	rt := open(t, Config{Logger: slog.New(slog.NewTextHandler(&log, nil))})
	s := stageOf(t, rt, upperWasm, StageConfig{Stage: "s"})
	out := testkit.Process(t, s, testkit.Batch("abc"))
	if len(out.Emits) != 1 || string(out.Emits[0].Record.Value) != "ABC" {
		t.Errorf("got %+v", out)
	}
	for _, want := range []string{"level=WARN", "plugins run in an interpreter, 10 to 30 times slower than compiled", "MemoryDenyWriteExecute=no"} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("the log lacks %q: %s", want, log.String())
		}
	}
	fmt.Println("engine", rt.Engine())
}
