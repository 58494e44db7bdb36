package daemon

import (
	"bytes"
	"os"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestNodeWithoutExecutableMemory: a node that may not make memory executable
// says so in its description and its metrics.
func TestNodeWithoutExecutableMemory(t *testing.T) {
	const in = "MILLRACE_TEST_NO_EXECUTABLE_MEMORY"
	if os.Getenv(in) == "" {
		cmd := exec.Command(os.Args[0], "-test.run=^TestNodeWithoutExecutableMemory$", "-test.v")
		cmd.Env = append(os.Environ(), in+"=1")
		out, err := cmd.CombinedOutput()
		if bytes.Contains(out, []byte("--- SKIP")) {
			t.Skipf("%s", out)
		}
		if err != nil || !bytes.Contains(out, []byte("--- PASS")) {
			t.Fatalf("%v\n%s", err, out)
		}
		return
	}
	if err := unix.Prctl(unix.PR_SET_MDWE, unix.PR_MDWE_REFUSE_EXEC_GAIN, 0, 0, 0); err != nil {
		t.Skipf("this kernel cannot deny executable memory: %v", err)
	}
	d, _ := life(t, t.TempDir())
	node, err := d.Node(t.Context())
	if err != nil || !node.Interpreted {
		t.Errorf("got %+v, %v, want interpreted", node, err)
	}
	for _, want := range []string{"\nmillrace_engine_interpreted 1\n", `engine="interpreter"`, "MemoryDenyWriteExecute=no"} {
		if text := metricsText(t, d); !strings.Contains(text, want) {
			t.Errorf("the metrics lack %q", want)
		}
	}
}
