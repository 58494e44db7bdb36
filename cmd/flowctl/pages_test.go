package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/millrace-io/millrace/cmd/internal/api"
	"github.com/millrace-io/millrace/cmd/internal/page"
	"github.com/millrace-io/millrace/cmd/internal/twin"
)

const pages = "../../docs/reference/verbs"

// twinAddr stands in pages for the address of the twin beside them.
const twinAddr = "127.0.0.1:8088"

// Every verb has a page, and what a page shows is what happens: its files are
// written, its twin is served, its commands are run; their output, and what the
// partner saw, is as it stands there.
func TestPages(t *testing.T) {
	for _, verb := range []string{"filter", "map", "branch", "cleanup", "batch", "sign", "push", "validate", "retry", "otherwise", "exceptions"} {
		t.Run(verb, func(t *testing.T) { runPage(t, filepath.Join(pages, verb+".md")) })
	}
	all, err := filepath.Glob(filepath.Join(pages, "*.md"))
	if err != nil || len(all) != 12 {
		t.Errorf("%d pages, %v: each has to be tested, and the list of them is the twelfth", len(all), err)
	}
}

func runPage(t *testing.T, path string) {
	dir := t.TempDir()
	addr, ran, rewritten := "", 0, map[string]string{}
	var partner *twin.Twin
	src, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	path, err = filepath.Abs(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Chdir(dir) // a flow's files are relative to the folder of the process
	for _, b := range page.Blocks(t, string(src)) {
		switch {
		case b.Name == "partner.yaml":
			file, err := twin.Parse("partner.yaml", []byte(b.Text))
			if err != nil {
				t.Fatalf("%s:%d: %v", path, b.Line, err)
			}
			if partner, err = twin.New(file, twin.Options{}); err != nil {
				t.Fatal(err)
			}
			s, err := partner.Listen("127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			addr = s.Addr()
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan error, 1)
			go func() { done <- s.Run(ctx) }()
			t.Cleanup(func() {
				cancel()
				if err := <-done; err != nil {
					t.Error(err)
				}
			})
		case b.Name == "seen.ndjson":
			if partner == nil {
				t.Fatalf("%s:%d: there is no partner", path, b.Line)
			}
			if err := partner.Wait(t.Context()); err != nil {
				t.Fatal(err)
			}
			checkSeen(t, fmt.Sprintf("%s:%d", path, b.Line), b.Text, partner.Observations())
			ran++
		case b.Name != "":
			path := filepath.Join(dir, b.Name)
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				t.Fatal(err)
			}
			text := b.Text
			if addr != "" {
				text = strings.ReplaceAll(text, twinAddr, addr)
			}
			if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		case b.Kind == "console":
			ran++
			if said := runConsole(t, dir, b.Text); said != b.Text && *rewrite {
				rewritten[b.Text] = said
			} else if said != b.Text {
				t.Errorf("%s:%d: what happens is\n%s\nthe page says\n%s", path, b.Line, said, b.Text)
			}
		}
	}
	if len(rewritten) > 0 {
		text := string(src)
		for old, new := range rewritten {
			text = strings.Replace(text, "```console\n"+old, "```console\n"+new, 1)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if ran == 0 {
		t.Errorf("%s shows nothing that runs", path)
	}
}

// runConsole runs the commands of flowctl in a block and returns it with what
// each says on STDOUT and then STDERR.
func runConsole(t *testing.T, dir, text string) string {
	t.Helper()
	var said strings.Builder
	for line := range strings.Lines(text) {
		command, ok := strings.CutPrefix(strings.TrimSuffix(line, "\n"), "$ ")
		if !ok {
			continue
		}
		said.WriteString(line)
		words := strings.Fields(command)
		var stdin []byte
		var err error
		switch n := len(words); {
		case strings.HasPrefix(command, "flowctl twin serve"): // it is served
		case words[0] == "mkdir":
			err = os.MkdirAll(filepath.Join(dir, words[n-1]), 0o755)
		case words[0] == "printf" && n == 4 && words[2] == ">": // a secret
			err = os.WriteFile(filepath.Join(dir, words[3]), []byte(words[1]), 0o600)
		case words[0] == "cat":
			b, e := os.ReadFile(filepath.Join(dir, words[1]))
			said.Write(b)
			err = e
		case words[0] == "flowctl":
			if n > 2 && words[n-2] == "<" {
				stdin, err = os.ReadFile(filepath.Join(dir, words[n-1]))
				words = words[:n-2]
			}
			var stdout, stderr bytes.Buffer
			a := &app{getenv: os.Getenv, environ: os.Environ(), stdin: bytes.NewReader(stdin), stdout: &stdout, stderr: &stderr,
				dir: dir, now: time.Now, program: "flowctl", connect: func(base string) api.Backend { return api.NewClient(base) }}
			a.run(t.Context(), words[1:])
			said.WriteString(stdout.String() + stderr.String())
		default:
			t.Fatalf("%s is no command that a page may show", command)
		}
		if err != nil {
			t.Fatalf("%s: %v", command, err)
		}
	}
	return said.String()
}

// checkSeen holds lines of a page against what the partner saw: each field of
// a line has the value that stands there; those that are not there may be any.
func checkSeen(t *testing.T, at, text string, seen []twin.Observation) {
	t.Helper()
	lines := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
	if len(lines) != len(seen) {
		t.Fatalf("%s: the partner saw %d requests, the page has %d: %+v", at, len(seen), len(lines), seen)
	}
	for i, line := range lines {
		var want, got map[string]any
		if err := json.Unmarshal([]byte(line), &want); err != nil {
			t.Fatalf("%s: %v", at, err)
		}
		b, err := json.Marshal(seen[i])
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(b, &got); err != nil {
			t.Fatal(err)
		}
		for k, v := range want {
			if !reflect.DeepEqual(got[k], v) {
				t.Errorf("%s: request %d: %s is %v, the page says %v", at, i+1, k, got[k], v)
			}
		}
	}
}
