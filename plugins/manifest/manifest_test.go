package manifest

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"reflect"
	"strings"
	"testing"
)

const full = `{"abi":1,"name":"acme/orders","version":"1.2.3-dev","mode":"call","lines":"each","outputs":["default","audit"],
"sample":[{"key":"k","value":{"a":1}}],"config":{"type":"object","properties":{"min":{"type":"integer"}},"required":["min"],"additionalProperties":false},
"memory_mb":64,"fuel_per_record":200000,"deterministic":false,"capabilities":{"x":1},"from_the_future":[1]}`

func TestParse(t *testing.T) {
	m, err := Parse([]byte(full + "\n"))
	if err != nil {
		t.Fatal(err)
	}
	if m.ABI != 1 || m.Name != "acme/orders" || m.Version != "1.2.3-dev" || m.Mode != ModeCall || m.MemoryMB != 64 || m.FuelPerRecord != 200000 || m.Deterministic {
		t.Errorf("got %+v", m)
	}
	if len(m.Sample) != 1 || string(m.Sample[0].Key) != "k" || string(m.Sample[0].Value) != `{"a":1}` {
		t.Errorf("got sample %+v", m.Sample)
	}
	b, err := m.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	again, err := Parse(b)
	if err != nil {
		t.Fatal(err)
	}
	m.Config, again.Config = compact(t, m.Config), compact(t, again.Config)
	if !reflect.DeepEqual(m, again) {
		t.Errorf("written and read again: got %+v\nwant %+v", again, m)
	}
	if m, err := Parse([]byte("{}")); err != nil || !m.Deterministic || !reflect.DeepEqual(m.OutputNames(), []string{"default"}) {
		t.Errorf("empty manifest: got %+v, %v", m, err)
	}
}

func compact(t *testing.T, b []byte) json.RawMessage {
	t.Helper()
	var buf bytes.Buffer
	if err := json.Compact(&buf, b); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func TestParseFaults(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{``, "read manifest"},
		{`[]`, "read manifest"},
		{`{} {}`, "there is more behind the JSON object, from byte 2"},
		{`{"abi":"1"}`, `"abi" is a string, expected an integer`},
		{`{"name":7}`, `"name" is a number, expected a string`},
		{`{"outputs":"x"}`, `"outputs" is a string, expected a list`},
		{`{"deterministic":1}`, `"deterministic" is a number, expected true or false`},
		{`{"memory_mb":1.5}`, `"memory_mb" is a number 1.5, expected an integer`},
		{`{"name":"Orders"}`, `"Orders" is no plugin name`},
		{`{"name":"a/b/c"}`, `is no plugin name`},
		{`{"version":"v1.0.0"}`, `"v1.0.0" is no semantic version`},
		{`{"version":"1.0"}`, `"1.0" is no semantic version`},
		{`{"mode":"wasm"}`, `mode: "wasm" is unknown`},
		{`{"lines":"all"}`, `lines: "all" is unknown`},
		{`{"outputs":["main"]}`, `the first is "main"`},
		{`{"outputs":["default","a","a"]}`, `"a" is listed twice`},
		{`{"memory_mb":-1}`, `memory_mb: -1`},
		{`{"memory_mb":5000}`, `memory_mb: 5000`},
		{`{"fuel_per_record":-1}`, `fuel_per_record: -1`},
		{`{"sample":[{"vlaue":1}]}`, `sample 0: read envelope`},
		{`{"config":{"type":"objekt"}}`, `config: compile JSON Schema`},
		{`{"config":{"$ref":"file:///etc/passwd"}}`, `may refer only to itself`},
		{`{"config":{"$ref":"https://example.com/x.json"}}`, `may refer only to itself`},
	} {
		_, err := Parse([]byte(c.in))
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q", c.in, err, c.want)
		}
	}
	_, err := Parse([]byte(`{"name":"A","version":"x","mode":"y"}`))
	for _, want := range []string{"name:", "version:", "mode:"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("all faults at once: got %v, want %q in it", err, want)
		}
	}
}

func TestSchema(t *testing.T) {
	m, err := Parse([]byte(full))
	if err != nil {
		t.Fatal(err)
	}
	s, err := CompileSchema(m.Config)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Validate(json.RawMessage(`{"min":3}`)); err != nil {
		t.Errorf("a fitting configuration: %v", err)
	}
	err = s.Validate(json.RawMessage(`{"min":"3","max":4}`))
	e, ok := errors.AsType[*ConfigError](err)
	if !ok || len(e.Faults) != 2 {
		t.Fatalf("got %v, want two faults", err)
	}
	text := err.Error()
	for _, want := range []string{"min: got string, want integer", "additional properties 'max' not allowed"} {
		if !strings.Contains(text, want) {
			t.Errorf("got %q, want %q in it", text, want)
		}
	}
	if err := s.Validate(nil); err == nil || !strings.Contains(err.Error(), "min") {
		t.Errorf("no configuration: got %v, want that min is missing", err)
	}
	if err := s.Validate(json.RawMessage(`{`)); err == nil {
		t.Error("broken JSON was taken")
	}
}

func TestWithDefaults(t *testing.T) {
	const digest = "sha256:0123456789abcdef"
	for _, c := range []struct{ file, name string }{
		{"/tmp/Order Filter.wasm", "order-filter"},
		{`C:\x\upper.WASM`, "upper"},
		{"./x.wasm", "x"},
		{"ünder.wasm", "nder"},
		{"", "plugin"},
		{".wasm", "plugin"},
		{strings.Repeat("a", 100), strings.Repeat("a", 64)},
	} {
		m := Manifest{}.WithDefaults(c.file, digest)
		if m.Name != c.name || m.Version != "0.0.0+01234567" {
			t.Errorf("%q: got %s@%s, want %s@0.0.0+01234567", c.file, m.Name, m.Version, c.name)
		}
		if err := m.Validate(); err != nil {
			t.Errorf("%q: %v", c.file, err)
		}
	}
	m := Manifest{Name: "a", Version: "1.0.0"}
	if got := m.WithDefaults("b.wasm", digest); got.Name != "a" || got.Version != "1.0.0" {
		t.Errorf("got %s@%s, want what the manifest says", got.Name, got.Version)
	}
}

func TestSections(t *testing.T) {
	wasm, err := os.ReadFile("../../examples/upper/upper.wasm")
	if err != nil {
		t.Fatal(err)
	}
	content, err := Find(wasm)
	if err != nil {
		t.Fatal(err)
	}
	m, err := Parse(content)
	if err != nil {
		t.Fatal(err)
	}
	if m.Name != "upper" {
		t.Errorf("got name %q, want upper", m.Name)
	}
	m.Version = "9.9.9"
	for range 2 {
		if wasm, err = Append(wasm, m); err != nil {
			t.Fatal(err)
		}
	}
	if n := bytes.Count(wasm, []byte(Section)); n != 1 {
		t.Errorf("%d manifest sections after two appends, want 1", n)
	}
	content, err = Find(wasm)
	if err != nil {
		t.Fatal(err)
	}
	if m, err = Parse(content); err != nil || m.Version != "9.9.9" {
		t.Errorf("got %+v, %v, want version 9.9.9", m, err)
	}
	if _, err := Append([]byte("#!/bin/sh"), m); !errors.Is(err, ErrNotWasm) {
		t.Errorf("append to a script: got %v, want ErrNotWasm", err)
	}
	if _, err := Find(wasm[:len(wasm)-3]); !errors.Is(err, ErrNotWasm) {
		t.Errorf("find in a cut file: got %v, want ErrNotWasm", err)
	}
}

func TestEmbed(t *testing.T) {
	wasm, err := os.ReadFile("../../examples/upper/upper.wasm")
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{`{"name":"a","version":"1.0.0"}`, full} {
		if wasm, err = Embed(wasm, []byte(text)); err != nil {
			t.Fatal(err)
		}
		content, err := Find(wasm)
		if err != nil {
			t.Fatal(err)
		}
		got, err := Parse(content)
		if err != nil {
			t.Fatal(err)
		}
		want, err := Parse([]byte(text))
		if err != nil {
			t.Fatal(err)
		}
		got.Config, want.Config = nil, nil // the same but for blanks
		if !reflect.DeepEqual(got, want) {
			t.Errorf("got %+v, want %+v", got, want)
		}
		if n := bytes.Count(wasm, []byte(Section)); n != 1 {
			t.Errorf("%d manifest sections, want 1", n)
		}
	}
	if got, err := Embed(wasm, []byte(`{"name":"A"}`)); err == nil || got != nil {
		t.Errorf("a wrong name: got %d bytes, %v", len(got), err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(full))
	f.Add([]byte(`{"config":{"$ref":"#/x"}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := Parse(b)
		if err != nil {
			return
		}
		b, err = m.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Parse(b); err != nil {
			t.Fatalf("what was written cannot be read: %v\n%s", err, b)
		}
	})
}

func FuzzFind(f *testing.F) {
	f.Add([]byte("\x00asm\x01\x00\x00\x00\x00\x03\x01aX"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, err := Find(b); err != nil && !errors.Is(err, ErrNotWasm) {
			t.Fatal(err)
		}
	})
}
