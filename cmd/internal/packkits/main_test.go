package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestPackChecksWithoutWriting(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) {
		path := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("packed/.keep", "")
	write("kit/.pack", "a.txt\n")
	write("kit/a.txt", "1")
	zip := filepath.Join(dir, "packed", "kit.zip")
	stale := func(what string) {
		t.Helper()
		before, _ := os.ReadFile(zip)
		if err := pack(dir, "kit", true); err == nil || !strings.Contains(err.Error(), "run make generate") {
			t.Errorf("%s: got %v", what, err)
		}
		if after, _ := os.ReadFile(zip); string(after) != string(before) {
			t.Errorf("%s: -check wrote the file", what)
		}
	}
	stale("nothing packed")
	if err := pack(dir, "kit", false); err != nil {
		t.Fatal(err)
	}
	if err := pack(dir, "kit", true); err != nil {
		t.Errorf("packed just now: %v", err)
	}
	write("kit/a.txt", "2")
	stale("a changed file")
}
