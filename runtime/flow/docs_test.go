package flow

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/goccy/go-yaml/lexer"
	"github.com/goccy/go-yaml/token"
)

const reference = "../../docs/reference/flow-file.md"

// examplesOf are the YAML examples of a page. What begins with neither `flow`
// nor `connection` is a part of a flow.
func examplesOf(t *testing.T, page string) []string {
	t.Helper()
	b, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for i, part := range strings.Split(string(b), "\n```") {
		if src, ok := strings.CutPrefix(part, "yaml\n"); ok && i%2 == 1 {
			out = append(out, src+"\n")
		}
	}
	return out
}

// Every example of the reference, and of the pages of connectors, can be applied
// as it stands.
func TestReferenceExamplesAreLinted(t *testing.T) {
	examples := examplesOf(t, reference)
	if len(examples) < 10 {
		t.Fatalf("got %d examples", len(examples))
	}
	pages, err := filepath.Glob("../../docs/connectors/*.md")
	if err != nil || len(pages) == 0 {
		t.Fatalf("no pages of connectors: %v", err)
	}
	for _, page := range pages {
		more := examplesOf(t, page)
		if len(more) == 0 {
			t.Errorf("%s has no example", page)
		}
		examples = append(examples, more...)
	}
	for _, src := range examples {
		if !strings.HasPrefix(src, "flow: v1") && !strings.HasPrefix(src, "connection: v1") {
			head := "flow: v1\nname: example\n"
			if !strings.Contains(src, "source:") {
				head += "source: kafka://main/in\n"
			}
			if !strings.Contains(src, "stages:") {
				head += "stages: [ { push: kafka://main/out } ]\n"
			}
			src = head + src
		}
		docs, ps := Parse("flow-file.md", []byte(src), Options{})
		if len(ps) > 0 || len(docs) == 0 {
			t.Errorf("%s\n%s", src, ps.Render())
		}
	}
}

// Every key of the format stands in the reference, in an example or in a table.
func TestReferenceHasEveryKey(t *testing.T) {
	b, err := os.ReadFile(reference)
	if err != nil {
		t.Fatal(err)
	}
	var keys []string
	for _, src := range examplesOf(t, reference) {
		for _, tk := range lexer.Tokenize(src) {
			if tk.Type == token.StringType {
				keys = append(keys, tk.Value)
			}
		}
	}
	for name, set := range keySets {
		for _, key := range set.known {
			if !slices.Contains(keys, key) && !strings.Contains(string(b), "`"+key+"`") && !strings.Contains(string(b), "`"+key+":") {
				t.Errorf("%s: nothing says `%s`", name, key)
			}
		}
	}
}
