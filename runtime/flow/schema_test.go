package flow

import (
	"encoding/json"
	"maps"
	"os"
	"slices"
	"testing"

	"github.com/goccy/go-yaml"
	"github.com/santhosh-tekuri/jsonschema/v6"
)

type object struct {
	Properties map[string]json.RawMessage `json:"properties"`
	Defs       map[string]object          `json:"$defs"`
}

// The schema has the keys that the parser knows, and no others.
func TestSchemaHasTheKeysOfTheParser(t *testing.T) {
	seen := map[string]bool{}
	for _, kind := range []string{KindFlow, KindConnection} {
		b, err := Schema(kind)
		if err != nil {
			t.Fatal(err)
		}
		var root object
		if err := json.Unmarshal(b, &root); err != nil {
			t.Fatal(err)
		}
		check := func(name string, o object) {
			got, want := slices.Sorted(maps.Keys(o.Properties)), slices.Sorted(slices.Values(keySets[name].known))
			if !slices.Equal(got, want) {
				t.Errorf("%s: the schema has %v, the parser %v", name, got, want)
			}
			seen[name] = true
		}
		check(kind, root)
		for name, o := range root.Defs {
			if name != "name" {
				check(name, o)
			}
		}
	}
	for name := range keySets {
		if !seen[name] {
			t.Errorf("%s: the schema has no such object", name)
		}
	}
	if _, err := Schema("cluster"); err == nil {
		t.Error("a schema of an unknown kind")
	}
}

func TestSchemaAgreesWithParser(t *testing.T) {
	compiled := map[string]*jsonschema.Schema{}
	for _, kind := range []string{KindFlow, KindConnection} {
		b, err := Schema(kind)
		if err != nil {
			t.Fatal(err)
		}
		s, err := compileSchema(b)
		if err != nil {
			t.Fatal(err)
		}
		compiled[kind] = s
	}
	validate := func(d *Document) error {
		b, err := yaml.YAMLToJSON(d.Source)
		if err != nil {
			t.Fatal(err)
		}
		var v any
		if err := json.Unmarshal(b, &v); err != nil {
			t.Fatal(err)
		}
		return compiled[d.Kind].Validate(v)
	}
	for _, name := range []string{"short", "full", "delivery", "brokers"} {
		src, err := os.ReadFile("testdata/valid/" + name + ".yaml")
		if err != nil {
			t.Fatal(err)
		}
		docs, _ := Parse(name, src, Options{})
		for _, d := range docs {
			if err := validate(d); err != nil {
				t.Errorf("%s, line %d: %v", name, d.Line, err)
			}
		}
	}
	for _, name := range []string{"wrong-verb", "unknown-key", "two-verbs", "missing-topic-push", "wrong-version", "kafka-source", "rocketmq", "kafka-connections"} {
		src, err := os.ReadFile("testdata/lint/" + name + ".yaml")
		if err != nil {
			t.Fatal(err)
		}
		docs, _ := Parse(name, src, Options{})
		if err := validate(docs[0]); err == nil {
			t.Errorf("%s: the schema lets it pass", name)
		}
	}
}

// A file that is made to cost time or memory is refused, or read, at once.
func TestHostileFilesEnd(t *testing.T) {
	repeat := func(s string, n int) []byte {
		var b []byte
		for range n {
			b = append(b, s...)
		}
		return b
	}
	for name, src := range map[string][]byte{
		"long":          repeat("# comment\n", 20_000),
		"lines":         repeat("\n", 10_001),
		"wide":          append([]byte("a: "), repeat("x", 10_000)...),
		"deep brackets": repeat("[", 8000),
		"deep list":     repeat("- ", 4000),
		"deep map":      repeat("? ", 4000),
		"tags":          repeat("!a ", 2000),
		"no UTF-8":      []byte("flow: v1\nname: \xff\n"),
		"control":       []byte("flow: v1\nname: \x00\n"),
	} {
		docs, ps := Parse(name, src, Options{})
		if !ps.HasErrors() {
			t.Errorf("%s: got %d documents and no error", name, len(docs))
		}
	}
	// More problems than are noted: nothing of the file counts as good.
	src := repeat("nonsense: v1\n---\n", 150)
	src = append(src, "flow: v1\nname: a\nsource: { stream: {} }\nstages: [ { push: { stream: {} }, bad: 1 } ]\n"...)
	docs, ps := Parse("many", src, Options{})
	if len(ps) != maxProblems || docs[len(docs)-1].Flow != nil {
		t.Errorf("got %d problems, model %v", len(ps), docs[len(docs)-1].Flow)
	}
}
