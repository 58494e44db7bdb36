package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/millrace-io/millrace/cmd/internal/cli"
)

func diagnose(t *testing.T, h *harness, args ...string) (int, map[string]checked) {
	t.Helper()
	code, stdout, stderr := h.call("", append([]string{"doctor", "-o", "json"}, args...)...)
	var d diagnosis
	if err := json.Unmarshal([]byte(stdout), &d); err != nil {
		t.Fatalf("%v: %s%s", err, stdout, stderr)
	}
	if (d.Fail > 0) != (code == cli.ExitUnreachable) || d.OK+d.Warn+d.Fail != len(d.Checks) {
		t.Errorf("exit %d with %d of %d failed", code, d.Fail, len(d.Checks))
	}
	found := map[string]checked{}
	for _, c := range d.Checks {
		if (c.Outcome == checkOK) != (c.Next == "") && c.Outcome != checkFail || c.Detail == "" {
			t.Errorf("%+v: a check that is not ok says the next step, and each says what it found", c)
		}
		if old, ok := found[c.Name]; !ok || old.Outcome == checkOK {
			found[c.Name] = c
		}
	}
	return code, found
}

func TestDoctor(t *testing.T) {
	h := newHarness(t)
	code, found := diagnose(t, h)
	if code != cli.ExitOK {
		t.Errorf("exit %d: %v", code, found)
	}
	for _, name := range []string{"flowctl", "cargo", "tinygo", "executable memory", "clock", "disk sync", "disk space", "open files", "port 7070", "port 19092", "node"} {
		if _, ok := found[name]; !ok {
			t.Errorf("%s is not looked at", name)
		}
	}
	code, stdout, _ := h.call("", "doctor")
	if code != cli.ExitOK || !strings.Contains(stdout, "\nok    clock") || !strings.HasSuffix(stdout, " 0 failed\n") {
		t.Errorf("exit %d: %s", code, stdout)
	}
	entries, err := os.ReadDir(h.dir)
	if err != nil || len(entries) != 0 {
		t.Errorf("%v are left in the folder, %v", entries, err)
	}
}

// TestDoctorOfLines: a toolchain that a program of lines needs is needed, that
// of another language is not.
func TestDoctorOfLines(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	for _, variable := range []string{"GO", "CARGO", "RUSTC"} {
		t.Setenv(variable, "")
	}
	for file, want := range map[string]string{"go.mod": "go", "Cargo.toml": "cargo"} {
		h := newHarness(t)
		h.write(".millrace/project.json", `{"format":1,"name":"a","lang":"lines"}`)
		h.write(file, "")
		code, found := diagnose(t, h)
		for _, name := range []string{"go", "cargo", "tinygo"} {
			if c := found[name]; (c.Outcome == checkFail) != (name == want) {
				t.Errorf("%s, %s: %+v", file, name, c)
			}
		}
		if code != cli.ExitUnreachable {
			t.Errorf("%s: exit %d", file, code)
		}
	}
}

// TestDoctorOfNodes: one that somebody named must be there and well.
func TestDoctorOfNodes(t *testing.T) {
	h := newHarness(t)
	h.server.Close()
	code, found := diagnose(t, h)
	if c := found["node"]; code != cli.ExitUnreachable || c.Outcome != checkFail || !strings.Contains(c.Detail, "(from FLOWCTL_SERVER)") {
		t.Errorf("exit %d, %+v", code, c)
	}
	delete(h.env, "FLOWCTL_SERVER")
	h.write(".millrace/node", strings.TrimPrefix(h.server.URL, "http://")+"\npid 1\n")
	if err := os.MkdirAll(filepath.Join(h.dir, ".millrace", "dev"), 0o755); err != nil {
		t.Fatal(err)
	}
	code, found = diagnose(t, h)
	if c := found["node"]; code != cli.ExitUnreachable || c.Outcome != checkFail || !strings.Contains(c.Detail, filepath.Join(".millrace", "node")) {
		t.Errorf("exit %d, %+v", code, c)
	}
	if c := found["disk sync"]; !strings.HasSuffix(c.Detail, filepath.Join(".millrace", "dev")) {
		t.Errorf("the disk is looked at elsewhere: %+v", c)
	}
}

// TestDoctorOfProjects: a toolchain that is missing is a failure where the
// folder needs it.
func TestDoctorOfProjects(t *testing.T) {
	h := newHarness(t)
	t.Setenv("PATH", t.TempDir())
	if code, found := diagnose(t, h); code != cli.ExitOK || found["tinygo"].Outcome != checkWarn {
		t.Errorf("exit %d, %+v", code, found["tinygo"])
	}
	h.write(".millrace/project.json", `{"format":1,"lang":"tinygo"}`)
	if code, found := diagnose(t, h); code != cli.ExitUnreachable || found["tinygo"].Outcome != checkFail || found["cargo"].Outcome != checkWarn {
		t.Errorf("exit %d, %+v, %+v", code, found["tinygo"], found["cargo"])
	}
}

func TestDoctorOfClocks(t *testing.T) {
	for want, at := range map[string]time.Time{
		checkOK:   now,
		checkFail: time.Unix(0, 0),
	} {
		a := &app{now: func() time.Time { return at }}
		if got := a.checkClock(t.Context()); len(got) != 1 || got[0].Outcome != want {
			t.Errorf("%s: %+v, want %s", at, got, want)
		}
	}
}

func TestDoctorOfReadOnlyFolders(t *testing.T) {
	if os.Geteuid() == 0 {
		if _, err := measureSync(t.Context(), filepath.Join(t.TempDir(), "missing")); err == nil {
			t.Error("a folder that is not there was measured")
		}
		return
	}
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o500); err != nil {
		t.Fatal(err)
	}
	if _, err := measureSync(t.Context(), dir); err == nil {
		t.Error("a folder that may not be written was measured")
	}
}
