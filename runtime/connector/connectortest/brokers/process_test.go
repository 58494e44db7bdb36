//go:build linux

package brokers

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// asChild makes this test program start a process and wait to be killed.
const asChild = "BROKERS_TEST_CHILD"

// A broker does not outlive the process that started it, however that ends.
func TestDiesWithItsStarter(t *testing.T) {
	if os.Getenv(asChild) != "" {
		p := &Process{name: "sleep", argv: []string{"sleep", "600"}, log: filepath.Join(t.TempDir(), "log"), ready: func() error { return nil }}
		if err := p.Start(); err != nil {
			t.Fatal(err)
		}
		fmt.Printf("\npid %d\n", p.Pid())
		<-p.gone()
		return
	}
	cmd := exec.Command(os.Args[0], "-test.run=^TestDiesWithItsStarter$")
	cmd.Env = append(os.Environ(), asChild+"=1")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	pid := 0
	for lines := bufio.NewScanner(out); pid == 0 && lines.Scan(); {
		if s, ok := strings.CutPrefix(lines.Text(), "pid "); ok {
			if pid, err = strconv.Atoi(s); err != nil {
				t.Fatal(err)
			}
		}
	}
	if pid == 0 {
		t.Fatal("the child started nothing")
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	deadline := time.After(10 * time.Second)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) && !isZombie(pid) {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("process %d lives on after its starter was killed", pid)
		}
	}
}

// isZombie says whether nothing but the entry of a process is left.
func isZombie(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err == nil && strings.Contains(string(b), ") Z ")
}

// A start that cannot be says why, and what to do.
func TestScriptsSayWhatIsWrong(t *testing.T) {
	need(t, "kafka")
	need(t, "rocketmq")
	repo, err := root()
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	taken := l.Addr().(*net.TCPAddr).Port
	empty := t.TempDir()
	pom, err := exec.Command("sh", "-c", "cksum < "+filepath.Join(repo, "examples", "brokers", "kafka", "pom.xml")).Output()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(empty, ".done"), pom, 0o644); err != nil {
		t.Fatal(err)
	}
	free, err := freePorts(0, 1, 2, 3, 4)
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name, kind string
		args, env  []string
		code       int
		want       []string
	}{
		{"no verb", "kafka", nil, nil, 2, []string{"kafka.sh start", "kafka.sh wipe"}},
		{"no verb", "rocketmq", nil, nil, 2, []string{"rocketmq.sh start", "rocketmq.sh wipe"}},
		{"an unknown program", "rocketmq", []string{"run", "proxy"}, nil, 1, []string{"proxy: it is ns or broker"}},
		{"no jars in the folder", "kafka", []string{"start"}, []string{"KAFKA_LIB=" + empty}, 1, []string{"no jars in " + empty, "make brokers-fetch"}},
		{"a taken port", "kafka", []string{"start"}, []string{fmt.Sprintf("KAFKA_PORT=%d", taken)}, 1, []string{fmt.Sprintf("port %d is taken", taken), "KAFKA_PORT"}},
		{"a taken port", "rocketmq", []string{"start"}, []string{fmt.Sprintf("RMQ_NS_PORT=%d", taken)}, 1, []string{fmt.Sprintf("port %d is taken", taken), "RMQ_NS_PORT"}},
		{"a configuration that Kafka refuses", "kafka", []string{"start"}, []string{fmt.Sprintf("KAFKA_PORT=%d", free), "KAFKA_EXTRA=num.io.threads=none"}, 1, []string{"num.io.threads", "format.log"}},
		{"down", "kafka", []string{"status"}, []string{fmt.Sprintf("KAFKA_PORT=%d", free)}, 1, []string{"kafka down"}},
	} {
		t.Run(tc.kind+"/"+tc.name, func(t *testing.T) {
			cmd := exec.Command(filepath.Join(repo, "examples", "brokers", tc.kind, tc.kind+".sh"), tc.args...)
			dir := t.TempDir()
			cmd.Env = append(append(os.Environ(), "KAFKA_RUN="+dir, "RMQ_RUN="+dir), tc.env...)
			out, _ := cmd.CombinedOutput()
			if code := cmd.ProcessState.ExitCode(); code != tc.code {
				t.Errorf("exit code %d, want %d", code, tc.code)
			}
			for _, want := range tc.want {
				if !strings.Contains(string(out), want) {
					t.Errorf("the script says %q, without %q", out, want)
				}
			}
		})
	}
}
