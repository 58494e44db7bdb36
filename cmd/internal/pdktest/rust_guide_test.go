package pdktest

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/millrace-io/millrace/cmd/internal/plugtest"
	"github.com/millrace-io/millrace/cmd/internal/project"
	"github.com/millrace-io/millrace/plugins/sandbox"
)

// block is what stands between the n-th "```kind" of a page and its end.
func block(t *testing.T, page, kind string, n int) string {
	t.Helper()
	parts := strings.Split(page, "\n```"+kind+"\n")
	if len(parts) <= n {
		t.Fatalf("the page has %d blocks of %s, not %d", len(parts)-1, kind, n)
	}
	text, _, _ := strings.Cut(parts[n], "\n```")
	return text + "\n"
}

// What the guide shows compiles, passes its tests of both kinds, and does what
// it says.
func TestRustGuide(t *testing.T) {
	c := findCargo(t)
	page := readFile(t, filepath.Join(repo, "docs", "guides", "rust.md"))
	p, _, err := project.Create(filepath.Join(t.TempDir(), "redact"), "redact", project.Rust)
	if err != nil {
		t.Fatal(err)
	}
	packed(t, filepath.Join(p.Dir, ".millrace", "pdk"))
	write(t, filepath.Join(p.Dir, "src", "lib.rs"), block(t, page, "rust", 1)+block(t, page, "rust", 3))
	file := filepath.Join(p.Dir, "redact.test.yaml")
	write(t, file, block(t, page, "yaml", 1))
	if out, err := c.run(t, p.Dir, filepath.Join(p.Dir, "target"), "test"); err != nil || !strings.Contains(out, "2 passed") {
		t.Fatalf("cargo test: %v\n%s", err, out)
	}
	var words strings.Builder
	built, err := p.Build(t.Context(), project.BuildOptions{Dev: true, Log: &words, Env: append(os.Environ(), "PATH="+c.bin+string(os.PathListSeparator)+os.Getenv("PATH"))})
	if err != nil {
		t.Fatalf("%v\n%s", err, &words)
	}
	report, err := plugtest.Run(t.Context(), plugtest.Options{Dir: p.Dir, Files: []string{file}, Plugin: built.Path})
	if err != nil || !report.OK() || report.Passed != 2 {
		t.Fatalf("%v, report %+v", err, report)
	}
	s := stageOf(t, newRuntime(t), built.Wasm, sandbox.StageConfig{Config: []byte(`{"remove":["note"]}`)})
	answers := process(t, s, []byte(`{"id":7,"email":"jane@example.com","note":"x"}`), []byte(`{"email":1}`))
	if answers[0].value != `{"id":7,"email":"***"}` {
		t.Errorf("got %+v", answers[0])
	}
	if err := answers[1].err; err == nil || err.Code != 7 || err.Message != "an event without id" {
		t.Errorf("got %v", err)
	}
}
