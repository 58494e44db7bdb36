package main

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// Every code that a user may see has a line in the page of errors, and the page
// has no other.
func TestEveryErrorHasItsLine(t *testing.T) {
	code := regexp.MustCompile(`"(E_[A-Z_]+)"`)
	inCode := map[string]string{}
	for _, dir := range []string{"cmd", "runtime", "plugins", "cluster"} {
		err := filepath.WalkDir(filepath.Join("..", "..", dir), func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
				return err
			}
			b, err := os.ReadFile(path)
			for _, m := range code.FindAllSubmatch(b, -1) {
				inCode[string(m[1])] = path
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	page, err := os.ReadFile("../../docs/reference/errors.md")
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for _, m := range regexp.MustCompile("(?m)^\\| `(E_[A-Z_]+)` \\|").FindAllSubmatch(page, -1) {
		lines = append(lines, string(m[1]))
	}
	for c, path := range inCode {
		if !slices.Contains(lines, c) {
			t.Errorf("%s of %s has no line", c, path)
		}
	}
	for i, c := range lines {
		if inCode[c] == "" || slices.Index(lines, c) != i {
			t.Errorf("line of %s: no such code, or twice", c)
		}
	}
}
