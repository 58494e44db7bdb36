package pdktest

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/millrace-io/millrace/plugins/sandbox"
)

// What the guide shows compiles, passes its tests and does what it says.
func TestGoGuide(t *testing.T) {
	if testing.Short() {
		t.Skip("builds with Go and TinyGo")
	}
	data, err := os.ReadFile(filepath.Join(repo, "docs", "guides", "go.md"))
	if err != nil {
		t.Fatal(err)
	}
	kit, err := filepath.Abs(goKit)
	if err != nil {
		t.Fatal(err)
	}
	page, dir := string(data), t.TempDir()
	write(t, filepath.Join(dir, "go.mod"), "module redact\n\ngo 1.24\n\nrequire "+goModule+" v0.0.0\n\nreplace "+goModule+" => "+kit+"\n")
	write(t, filepath.Join(dir, "main.go"), block(t, page, "go", 1))
	write(t, filepath.Join(dir, "main_test.go"), block(t, page, "go", 2))
	if out, err := goTool(t, dir, nil, "gofmt", "-l", "."); err != nil || out != "" {
		t.Errorf("gofmt: %v\n%s", err, out)
	}
	out, err := goTool(t, dir, nil, "go", "test", "-v", ".")
	if err != nil || strings.Count(out, "--- PASS") != 2 {
		t.Fatalf("go test: %v\n%s", err, out)
	}
	// The lines of the guide are those that the tests build with.
	for _, args := range []string{
		"tinygo build -o redact.wasm -target=wasip1 -buildmode=c-shared -scheduler=none -opt=2 -no-debug .",
		"GOOS=wasip1 GOARCH=wasm go build -o redact.wasm -buildmode=c-shared -ldflags='-s -w' -trimpath .",
		tinygoUnknown,
	} {
		if !strings.Contains(page, args) {
			t.Errorf("the guide does not say %s", args)
		}
	}
	rt := newRuntime(t)
	bare := compile(t, dir, byTinyGo)
	wasm := described(t, rt, bare)
	s := open(t, rt, wasm, sandbox.StageConfig{Config: []byte(`{"remove":["note"]}`)})
	answers := process(t, s, []byte(`{"id":7,"email":"jane@example.com","note":"x"}`), []byte(`{"email":1}`))
	if answers[0].value != `{"id":7,"email":"***"}` {
		t.Errorf("got %+v", answers[0])
	}
	if err := answers[1].err; err == nil || err.Code != 7 || err.Message != "an event without id" {
		t.Errorf("got %v", err)
	}
	// The schema refuses it before the guest sees it.
	if _, err := tryOpen(t, rt, wasm, sandbox.StageConfig{Config: []byte(`{"removes":["note"]}`)}); err == nil || !strings.Contains(err.Error(), "removes") {
		t.Errorf("a wrong setting: %v", err)
	}
	// Without the schema the kit refuses it.
	_, err = tryOpen(t, rt, bare, sandbox.StageConfig{Config: []byte(`{"removes":["note"]}`)})
	if err == nil || !strings.Contains(err.Error(), `with: there is no setting "removes"; there are remove, email`) {
		t.Errorf("a wrong setting, without a manifest: %v", err)
	}
}
