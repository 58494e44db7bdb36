package flow

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
)

var rewrite = flag.Bool("rewrite", false, "rewrite the golden files")

func golden(t *testing.T, path string, got []byte) {
	t.Helper()
	if *rewrite {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s differs; -rewrite rewrites it\ngot:\n%s\nwant:\n%s", path, got, want)
	}
}

type world struct {
	connections map[string]*Connection
	plugin      func(PluginRef) (PluginInfo, error)
}

func (w world) Connection(_, name string) (*Connection, bool) {
	c, ok := w.connections[name]
	return c, ok
}

func (w world) Plugin(ref PluginRef) (PluginInfo, error) { return w.plugin(ref) }

var testWorld = world{
	connections: map[string]*Connection{
		"main": {Kafka: &KafkaConnection{}}, "schemas": {Kafka: &KafkaConnection{Registry: &Registry{}}}, "mq": {RocketMQ: &RocketMQConnection{}}, "partner": {HTTP: &HTTPConnection{}},
	},
	plugin: func(ref PluginRef) (PluginInfo, error) {
		switch {
		case ref.Namespace == "acme" && ref.Name == "order-map":
			return PluginInfo{Namespace: "acme", Name: "order-map", Version: "1.2.3", Mode: "call", Outputs: []string{"default"},
				Config: json.RawMessage(`{"type":"object","properties":{"currency":{"type":"string"}},"required":["currency"],"additionalProperties":true}`)}, nil
		case ref.Name == "signer", ref.Name == "checker", ref.Path == "./check.wasm", ref.Path == "./sign.wasm":
			return PluginInfo{Namespace: "acme", Name: cmp.Or(ref.Name, strings.TrimSuffix(ref.Path[min(2, len(ref.Path)):], ".wasm")), Version: "1.0.0", Mode: "call", Signs: ref.Name == "signer"}, nil
		case ref.Path == "./wrong-abi.wasm":
			return PluginInfo{}, errors.New("plugin ./wrong-abi.wasm speaks stage/7, and this node speaks stage/1: build it with a PDK of this version")
		case ref.Path == "./upper.wasm" || ref.Path == "./fix.wasm":
			name := strings.TrimSuffix(strings.TrimPrefix(ref.Path, "./"), ".wasm")
			return PluginInfo{Namespace: "default", Name: name, Version: "0.0.0", Mode: "lines", TakesNoConfig: true}, nil
		case ref.Path == "./program.wasm":
			return PluginInfo{Namespace: "default", Name: "program", Version: "0.0.0", Mode: "lines", Functions: []string{"_start", "run"}, TakesNoConfig: true}, nil
		case ref.Name == "vowels":
			return PluginInfo{Namespace: "default", Name: "vowels", Version: "1.0.0", Mode: "extism", Functions: []string{"count_vowels", "_start"}}, nil
		case ref.Name == "single":
			return PluginInfo{Namespace: "default", Name: "single", Version: "1.0.0", Mode: "extism", Functions: []string{"run"}}, nil
		case ref.Name == "fetch":
			return PluginInfo{Namespace: "default", Name: "fetch", Version: "1.0.0", Mode: "extism", Functions: []string{"get"}, Function: "get", UsesHTTP: true}, nil
		}
		return PluginInfo{}, fmt.Errorf("plugin %s: %w", ref, ErrPluginNotFound)
	},
}

func TestLintGolden(t *testing.T) {
	files, err := filepath.Glob("testdata/lint/*.yaml")
	if err != nil || len(files) < 30 {
		t.Fatalf("got %d files, %v", len(files), err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			src, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			w := testWorld
			if strings.Contains(file, "plugin-not-found") {
				w.plugin = func(ref PluginRef) (PluginInfo, error) {
					return PluginInfo{}, fmt.Errorf("plugin %s: %w", ref, ErrPluginNotFound)
				}
			}
			docs, ps := Parse(filepath.Base(file), src, Options{Resolver: w})
			if len(ps) == 0 {
				t.Error("no problems found")
			}
			for _, d := range docs {
				if (d.Flow != nil || d.Connection != nil) && ps.HasErrors() && len(docs) == 1 {
					t.Errorf("document %s has errors and a model", d.Name())
				}
			}
			golden(t, strings.TrimSuffix(file, ".yaml")+".golden", []byte(ps.Render()))
		})
	}
}

// The examples of the target format hold nothing that the linter does not
// know: what it cannot do yet it says, by name.
func TestTargetFormatIsKnown(t *testing.T) {
	for _, name := range []string{"flow.example", "flow-schedule.example"} {
		src, err := os.ReadFile("testdata/" + name + ".yaml")
		if err != nil {
			t.Fatal(err)
		}
		_, ps := Parse(name+".yaml", src, Options{})
		for _, p := range ps {
			if p.Code != CodeNotSupported {
				t.Errorf("%s", p.Render())
			}
		}
		golden(t, "testdata/"+name+".golden", []byte(ps.Render()))
	}
}

func TestProblemsAsJSON(t *testing.T) {
	src, err := os.ReadFile("testdata/lint/tag.yaml")
	if err != nil {
		t.Fatal(err)
	}
	_, ps := Parse("tag.yaml", src, Options{})
	b, err := json.MarshalIndent(ps, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "testdata/problems.json", append(b, '\n'))
}

var testInputs = Inputs{
	Vars: map[string]string{"min": "7"},
	Env:  func(name string) (string, bool) { return "eu", name == "REGION" },
}

func resolveFile(t *testing.T, file string) []*Document {
	t.Helper()
	src, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	docs, ps := Parse(file, src, Options{Resolver: testWorld})
	if ps.HasErrors() {
		t.Fatal(ps.Render())
	}
	var out []*Document
	for _, d := range docs {
		if d.Kind == KindFlow && d.Flow == nil || d.Kind == KindConnection && d.Connection == nil {
			t.Fatalf("document in line %d has no model and no problem", d.Line)
		}
		in := testInputs
		if d.Flow == nil || d.Flow.Vars["min"] == nil {
			in.Vars = nil
		}
		r, ps := Resolve(d, in, Options{Resolver: testWorld})
		if ps.HasErrors() {
			t.Fatal(ps.Render())
		}
		out = append(out, r)
	}
	return out
}

// What is stored is a format: nodes of other versions read it.
func TestResolvedGolden(t *testing.T) {
	for _, name := range []string{"short", "full", "delivery", "brokers"} {
		var all bytes.Buffer
		for _, d := range resolveFile(t, "testdata/valid/"+name+".yaml") {
			b, err := EncodeResolved(d)
			if err != nil {
				t.Fatal(err)
			}
			back, err := DecodeResolved(b)
			if err != nil {
				t.Fatal(err)
			}
			again, err := EncodeResolved(back)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(b, again) {
				t.Errorf("decoded and encoded again:\n%s\nwant\n%s", again, b)
			}
			if d.Flow != nil {
				checkFlow(t, d.Flow)
				if !reflect.DeepEqual(back.Flow.Vars, d.Flow.Vars) {
					t.Errorf("vars: got %#v, want %#v", back.Flow.Vars, d.Flow.Vars)
				}
				if cs := Diff(d.Flow, back.Flow); len(cs) != 0 {
					t.Errorf("decoded flow differs: %v", cs)
				}
			}
			if err := json.Indent(&all, b, "", "  "); err != nil {
				t.Fatal(err)
			}
			all.WriteByte('\n')
		}
		golden(t, "testdata/valid/"+name+".golden", all.Bytes())
	}
}

// Documents that lie in data folders since before there were branches.
func TestDecodeResolvedReadsEarlierForms(t *testing.T) {
	b, err := os.ReadFile("testdata/earlier.golden")
	if err != nil {
		t.Fatal(err)
	}
	dec := json.NewDecoder(bytes.NewReader(b))
	var got []string
	for dec.More() {
		var raw json.RawMessage
		if err := dec.Decode(&raw); err != nil {
			t.Fatal(err)
		}
		d, err := DecodeResolved(raw)
		if err != nil {
			t.Fatal(err)
		}
		if d.Flow != nil {
			checkFlow(t, d.Flow)
			got = append(got, d.Name()+" "+string(d.Flow.Order)+": "+d.Flow.Delivery.Describe())
		} else {
			got = append(got, d.Name()+": "+d.Connection.Kind())
		}
	}
	want := []string{
		"orders-push none: push POST partner:/v2/orders/${value.id}", "main: kafka", "partner: http", "files partition: push file out.ndjson",
		"extism partition: push stream", "streams partition: push stream", "anonymous partition: push POST https://eu.example:8443/in?id=${value.id}",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestDecodeResolvedRefuses(t *testing.T) {
	for in, want := range map[string]string{
		`{"resolved":2,"flow":{}}`:               "version 2 is not known",
		`{"resolved":1}`:                         "neither a flow nor a connection",
		`{"resolved":1,"flow":{"colour":"red"}}`: "colour",
		`{`:                                      "decode resolved document",
	} {
		if _, err := DecodeResolved([]byte(in)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", in, err, want)
		}
	}
	docs, _ := Parse("a", []byte("flow: v1\nname: a\nsource: {stream: {}}\nstages: [{push: {stream: {}}}]\n"), Options{})
	if _, err := EncodeResolved(docs[0]); err == nil || !strings.Contains(err.Error(), "not resolved") {
		t.Errorf("a document that is not resolved: got %v", err)
	}
}

func TestResolveReportsWhatIsMissing(t *testing.T) {
	src := "# one\nflow: v1\nname: a\n---\nflow: v1\nname: b\nvars: { n: 5 }\nsource: kafka://main/${env.TOPIC}\nstages:\n  - filter: value.a == env.OTHER\n  - push: kafka://main/out\n"
	docs, _ := Parse("x.yaml", []byte(src), Options{})
	_, ps := Resolve(docs[1], Inputs{Vars: map[string]string{"n": "x", "m": "1"}}, Options{})
	var got []string
	for _, p := range ps {
		got = append(got, fmt.Sprintf("%s %d:%d %s", p.Code, p.Line, p.Column, p.Message))
	}
	want := []string{
		"E_VAR_UNKNOWN 5:1 the flow has no var `m` to override",
		"E_VALUE 5:1 var `n` cannot be \"x\"",
		"E_ENV_MISSING 8:9 the environment variable `TOPIC` is not set",
		"E_ENV_MISSING 10:13 the environment variable `OTHER` is not set",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestModel(t *testing.T) {
	docs := resolveFile(t, "testdata/valid/full.yaml")
	f := docs[0].Flow
	if got, want := f.FullName(), "acme-logistics/orders-push"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if got, want := strings.Join(f.Connections(), " "), "main partner"; got != want {
		t.Errorf("connections: got %s, want %s", got, want)
	}
	if got, want := strings.Join(f.Source.Kafka.Topics, " "), "orders orders-eu"; got != want {
		t.Errorf("topics: got %s, want %s", got, want)
	}
	if at, ok := f.Source.Kafka.Start.Time(); !ok || at.Unix() != 1793491200 {
		t.Errorf("start: got %v, %v", at, ok)
	}
	var ids []string
	for _, s := range f.Stages {
		ids = append(ids, s.ID+" "+string(s.Otherwise))
	}
	if got, want := strings.Join(ids, ", "), "paid-only drop, to-partner pause, map3 pause, map4 pause"; got != want {
		t.Errorf("stages: got %s, want %s", got, want)
	}
	if f.Delivery.Otherwise != OtherwiseQueue || f.Delivery.Describe() != "push POST partner:/v2/orders/${value.id}" {
		t.Errorf("delivery: got %s, %s", f.Delivery.Otherwise, f.Delivery.Describe())
	}
	if got := string(f.Stages[1].Plugin.With); got != `{"currency":"CNY","min":7,"note":"a ${b} eu","list":[1,16,2.5,null,true]}` {
		t.Errorf("with: got %s", got)
	}
	if ref := f.Stages[2].Plugin.Ref; ref != (PluginRef{Path: "./fix.wasm", Namespace: "default", Name: "fix", Range: "*"}) {
		t.Errorf("plugin by path: got %+v", ref)
	}
	anon := docs[len(docs)-1].Flow
	if got, want := strings.Join(anon.Connections(), " "), "https://eu.example:8443 kafka://10.0.0.5:9092"; got != want {
		t.Errorf("anonymous connections: got %s, want %s", got, want)
	}
	for _, name := range anon.Connections() {
		if c, ok := Anonymous(name); !ok || c.Name != name {
			t.Errorf("%s: got %+v, %v", name, c, ok)
		}
	}
	if got, want := strings.Join(docs[2].Connection.Secrets(), " "), "partner/key partner/token"; got != want {
		t.Errorf("secrets: got %s, want %s", got, want)
	}
}

func TestDiff(t *testing.T) {
	parse := func(s string) *Flow {
		docs, ps := Parse("a.yaml", []byte(s), Options{})
		if ps.HasErrors() {
			t.Fatal(ps.Render())
		}
		return docs[0].Flow
	}
	old := parse("flow: v1\nname: a\nvars: {n: 1}\nsource: kafka://main/in\nstages:\n  - {id: a, filter: value.a > 1}\n  - {id: b, map: x@^1, with: {q: 1}}\n  - {id: c, filter: value.c > 1}\n  - {id: d, filter: value.d > 1}\n  - {id: out, push: 'https://a.example/x', retry: {attempts: 3}}\n")
	next := parse("flow: v1\nname: a\nvars: {n: 2}\nsource: kafka://main/in\nslots: 4\nstages:\n  - {id: a, filter: value.a > 2}\n  - {id: b, map: x@^1, with: {q: 2}}\n  - {id: d, filter: value.d > 1}\n  - {id: c, filter: value.c > 1}\n  - {id: e, map: {drop: [x]}}\n  - {id: out, push: 'https://a.example/x', retry: {attempts: 4}}\n")
	var got []string
	for _, c := range Diff(old, next) {
		got = append(got, c.String())
	}
	want := []string{
		"~ vars.n: 1 -> 2",
		"+ slots: 4",
		"~ a: filter value.a > 1 -> filter value.a > 2",
		"~ b.with.q: 1 -> 2",
		"~ d: moved",
		"~ c: moved",
		"+ e: map (drop)",
		"~ out.retry.attempts: 3 -> 4",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if cs := Diff(old, old); len(cs) != 0 {
		t.Errorf("a flow differs from itself: %v", cs)
	}
	if cs := Diff(nil, old); len(cs) == 0 || cs[len(cs)-1].String() != "+ out: push POST https://a.example/x" {
		t.Errorf("a new flow: got %v", cs)
	}
	one := func(keys string) *Flow {
		return parse("flow: v1\nname: a\nsource: kafka://main/in\nstages:\n  - {id: b, map: x@^1" + keys + "}\n  - {id: out, push: kafka://main/out}\n")
	}
	for _, c := range []struct{ old, new, want string }{
		{"", ", function: run", "~ b: map x@^1 -> map x@^1 run"},
		{", function: run", ", function: run, hosts: [a.example]", "~ b: map x@^1 run -> map x@^1 run (impure)\n+ b.hosts: [a.example]"},
		{", hosts: a.example", ", hosts: [a.example, b.example]", "~ b.hosts: [a.example] -> [a.example, b.example]"},
		{"", ", isolation: failure, hosts: a.example", "~ b: map x@^1 -> map x@^1 (stateful, impure)\n+ b.hosts: [a.example]\n~ b.isolation: batch -> failure"},
	} {
		if got := changes(one(c.old), one(c.new)); got != c.want {
			t.Errorf("got %s, want %s", got, c.want)
		}
	}
	moved := parse("flow: v1\nname: a\nsource: kafka://main/other\nslots: 5\nstages:\n  - push: kafka://main/out\n")
	if err := CheckUpdate(old, moved); !errors.Is(err, ErrSourceChange) || !strings.Contains(err.Error(), "slots not said -> 5") {
		t.Errorf("got %v, want ErrSourceChange and slots", err)
	}
	if err := CheckUpdate(old, old); err != nil {
		t.Errorf("got %v", err)
	}
}

func TestAnonymous(t *testing.T) {
	for name, want := range map[string]bool{
		"kafka://a:1": true, "rocketmq://a:9876": true, "rocketmq://a": false, "rocketmq://a:1/t": false, "kafka://[::1]:9": true, "https://a": true, "http://a:80": true,
		"main": false, "kafka://a": false, "kafka://a:b": false, "kafka://a:1/t": false, "kafka://a:99999": false, "https://a/b": false, "ftp://a": false, "kafka://::1:9": false,
	} {
		if _, ok := Anonymous(name); ok != want {
			t.Errorf("%s: got %v, want %v", name, ok, want)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, dir := range []string{"testdata/lint/*.yaml", "testdata/valid/*.yaml", "testdata/*.yaml"} {
		files, _ := filepath.Glob(dir)
		for _, file := range files {
			if b, err := os.ReadFile(file); err == nil {
				f.Add(b)
			}
		}
	}
	f.Fuzz(func(t *testing.T, src []byte) {
		docs, ps := Parse("f.yaml", src, Options{Resolver: testWorld})
		if len(docs) == 0 && !ps.HasErrors() {
			t.Fatal("neither a document nor an error")
		}
		ps.Render()
		for _, d := range docs {
			if d.Flow == nil && d.Connection == nil && !ps.HasErrors() {
				t.Fatal("a document without a model, and no error")
			}
			for _, p := range ps {
				if p.Line > 0 && (p.Column < 1 || p.EndColumn <= p.Column) {
					t.Fatalf("a problem without a place: %+v", p)
				}
			}
			if d.Flow == nil && d.Connection == nil {
				continue
			}
			r, _ := Resolve(d, testInputs, Options{})
			if r == nil {
				continue
			}
			b, err := EncodeResolved(r)
			if err != nil {
				t.Fatal(err)
			}
			back, err := DecodeResolved(b)
			if err != nil {
				t.Fatalf("%v\n%s", err, b)
			}
			if r.Flow == nil {
				r.Connection.Secrets()
				continue
			}
			if cs := Diff(r.Flow, back.Flow); len(cs) != 0 {
				t.Fatalf("the decoded flow differs: %v", cs)
			}
			checkFlow(t, r.Flow)
		}
	})
}

// checkFlow holds what everybody relies on who runs a flow.
func checkFlow(t *testing.T, f *Flow) {
	t.Helper()
	seen := map[string]bool{}
	take := func(id string) {
		if id == "" || seen[id] {
			t.Fatalf("id %q is empty or stands twice", id)
		}
		seen[id] = true
	}
	for _, s := range f.AllStages() {
		take(s.ID)
		if (s.Otherwise == OtherwiseTopic) != (s.Aside != nil) {
			t.Fatalf("stage %s: otherwise %s, aside %v", s.ID, s.Otherwise, s.Aside)
		}
		s.Describe()
	}
	for _, d := range f.Deliveries() {
		take(d.ID)
		if d.Kafka == nil && d.RocketMQ == nil && d.HTTP == nil && d.File == nil && d.Stream == nil {
			t.Fatalf("delivery %s goes nowhere", d.ID)
		}
		if d.HTTP == nil && (d.Batch != nil || d.Sign != nil || d.Validate != nil) {
			t.Fatalf("delivery %s to %s has parts of HTTP", d.ID, d.Kind())
		}
		d.Describe()
	}
	for _, p := range f.Plugins() {
		if strings.HasSuffix(p.ID, ".sign") || strings.HasSuffix(p.ID, ".validate") {
			continue
		}
		if !seen[p.ID] {
			t.Fatalf("plugin of a stage %s that is not there", p.ID)
		}
	}
	if n := len(f.Stages); f.Delivery.ID == "" && (n == 0 || !f.Stages[n-1].Branch.ends()) {
		t.Fatal("a record ends nowhere")
	}
	f.Secrets()
	f.Connections()
}
