package plugtest

import (
	"context"
	"flag"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/millrace-io/millrace/cmd/internal/cli"
	"github.com/millrace-io/millrace/runtime/flow"
	"github.com/millrace-io/millrace/runtime/record"
)

var rewrite = flag.Bool("rewrite", false, "write the golden files anew")

// bench is a folder with tests.
type bench struct {
	t   *testing.T
	dir string
	log strings.Builder
}

func newBench(t *testing.T) *bench {
	b := &bench{t: t, dir: t.TempDir()}
	wasm, err := os.ReadFile("../../../plugins/plugintest/guests/faulty/faulty.wasm")
	if err != nil {
		t.Fatal(err)
	}
	b.write("faulty.wasm", string(wasm))
	return b
}

func (b *bench) write(name, text string) string {
	b.t.Helper()
	path := filepath.Join(b.dir, name)
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		b.t.Fatal(err)
	}
	return path
}

func (b *bench) read(name string) string {
	b.t.Helper()
	text, err := os.ReadFile(filepath.Join(b.dir, name))
	if err != nil {
		b.t.Fatal(err)
	}
	return string(text)
}

// run runs test files; a test that waits for anything does not end in time.
func (b *bench) run(o Options, names ...string) (*Report, error) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.t.Context(), time.Minute)
	defer cancel()
	o.Dir, o.LoadFlow, o.CacheDir = b.dir, b.load, filepath.Join(b.dir, "cache")
	for _, n := range names {
		o.Files = append(o.Files, filepath.Join(b.dir, n))
	}
	return Run(ctx, o)
}

// load is a LoadFlow for flows whose connections stand in their own file.
func (b *bench) load(q FlowRequest) (*Flow, error) {
	src, err := os.ReadFile(q.Path)
	if err != nil {
		return nil, err
	}
	docs, problems := flow.Parse(q.Path, src, flow.Options{})
	if err := problems.Err(); err != nil {
		return nil, err
	}
	out := &Flow{Connections: map[string]*flow.Connection{}, LoadPlugin: func(ref flow.PluginRef) ([]byte, error) {
		return os.ReadFile(filepath.Join(b.dir, ref.Path))
	}}
	for _, d := range docs {
		in := flow.Inputs{Env: func(name string) (string, bool) { v, ok := q.Env[name]; return v, ok }}
		if d.Flow != nil {
			in.Vars = q.Vars
		}
		d, problems := flow.Resolve(d, in, flow.Options{})
		if err := problems.Err(); err != nil {
			return nil, err
		}
		if d.Flow != nil {
			out.Flow = d.Flow
		} else {
			out.Connections[d.Connection.Name] = d.Connection
		}
	}
	return out, nil
}

// note writes a report down.
func (b *bench) note(r *Report) {
	for _, c := range r.Cases {
		fmt.Fprintf(&b.log, "%s %s:%d: %s\n", c.Outcome, c.File, c.Line, c.Name)
		for _, f := range c.Findings {
			fmt.Fprintf(&b.log, "  %d: %s: want %q, got %q %s\n", f.Line, f.Path, f.Want, f.Got, f.Message)
		}
	}
}

func (b *bench) golden(name string) {
	b.t.Helper()
	path := filepath.Join("testdata", name+".golden")
	got := b.log.String()
	if *rewrite {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			b.t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		b.t.Fatal(err)
	}
	if got != string(want) {
		b.t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// all runs a file all of whose cases are to pass.
func (b *bench) all(name string) {
	b.t.Helper()
	r, err := b.run(Options{}, name)
	if err != nil {
		b.t.Fatal(err)
	}
	if r.Failed > 0 || r.Passed == 0 {
		b.note(r)
		b.t.Errorf("%s", b.log.String())
		b.log.Reset()
	}
}

func testdata(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// TestPlugin: expectations of every kind, those that hold and those that do
// not.
func TestPlugin(t *testing.T) {
	b := newBench(t)
	b.write("good.test.yaml", testdata(t, "good-plugin.yaml"))
	b.all("good.test.yaml")
	b.write("bad.test.yaml", testdata(t, "bad-plugin.yaml"))
	r, err := b.run(Options{}, "bad.test.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if r.Passed != 0 {
		t.Errorf("%d cases pass", r.Passed)
	}
	b.note(r)
	b.golden("bad-plugin")
}

// TestFlow: the same of a flow. No request leaves the process, and an hour
// between attempts is not waited for.
func TestFlow(t *testing.T) {
	var asked atomic.Int64
	partner := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked.Add(1) }))
	defer partner.Close()
	b := newBench(t)
	b.write("flow.yaml", strings.ReplaceAll(testdata(t, "flow.yaml"), "http://partner", partner.URL))
	b.write("pause.yaml", strings.NewReplacer("http://partner", partner.URL, "# otherwise", "otherwise").Replace(testdata(t, "flow.yaml")))
	b.write("good.test.yaml", testdata(t, "good-flow.yaml"))
	b.write("many.ndjson", strings.Repeat("{\"n\":1}\n", 16)+"\n")
	for range 3 { // what comes is the same each time
		b.all("good.test.yaml")
	}
	b.write("none.yaml", strings.Replace(b.read("flow.yaml"), "order: key", "order: none", 1))
	b.write("none.test.yaml", testdata(t, "none-flow.yaml"))
	b.all("none.test.yaml")
	b.write("pause.test.yaml", testdata(t, "pause-flow.yaml"))
	b.all("pause.test.yaml")
	b.write("bad.test.yaml", testdata(t, "bad-flow.yaml"))
	r, err := b.run(Options{}, "bad.test.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if r.Passed != 0 {
		t.Errorf("%d cases pass", r.Passed)
	}
	b.note(r)
	b.golden("bad-flow")
	if n := asked.Load(); n > 0 {
		t.Errorf("%d requests were sent", n)
	}
}

// TestUpdate: what came is written down, and nothing else changes.
func TestUpdate(t *testing.T) {
	b := newBench(t)
	b.write("flow.yaml", testdata(t, "flow.yaml"))
	for _, name := range []string{"bad-plugin", "bad-flow"} {
		before := testdata(t, name+".yaml")
		file := name + ".test.yaml"
		b.write(file, before)
		r, err := b.run(Options{Update: true}, file)
		if err != nil {
			t.Fatal(err)
		}
		if r.Updated != len(r.Cases)-1 || r.Failed != 1 { // the one in a single line
			t.Errorf("%s: %d of %d updated", name, r.Updated, len(r.Cases))
		}
		after := b.read(file)
		fmt.Fprintf(&b.log, "--- %s\n%s", name, after)
		for line := range strings.Lines(before) {
			if strings.Contains(line, "# keep") && !strings.Contains(after, line) {
				t.Errorf("%s: lost %s", name, line)
			}
		}
		if r, err = b.run(Options{}, file); err != nil || r.Failed != 1 {
			t.Errorf("%s: %v", name, err)
			b.note(r)
		}
	}
	b.golden("update")

	// A file that holds is not touched, and one with \r\n keeps them.
	good := strings.ReplaceAll(testdata(t, "good-plugin.yaml"), "\n", "\r\n")
	b.write("good.test.yaml", good)
	if r, err := b.run(Options{Update: true}, "good.test.yaml"); err != nil || r.Updated != 0 || b.read("good.test.yaml") != good {
		t.Errorf("%v: the file has changed", err)
	}
	wrong := strings.Replace(good, "- drop\r\n", "- pass\r\n", 1)
	b.write("good.test.yaml", wrong)
	if r, err := b.run(Options{Update: true}, "good.test.yaml"); err != nil || r.Updated != 1 || b.read("good.test.yaml") != good {
		t.Errorf("%v: got\n%q, want\n%q", err, b.read("good.test.yaml"), good)
	}
}

// TestProblems: mistakes in a file, each with its place and what to write.
func TestProblems(t *testing.T) {
	b := newBench(t)
	b.write("flow.yaml", testdata(t, "flow.yaml"))
	for _, text := range strings.Split(testdata(t, "problems.txt"), "====\n") {
		b.write("p.test.yaml", text)
		_, err := b.run(Options{}, "p.test.yaml")
		if err == nil {
			t.Errorf("no problem in\n%s", text)
			continue
		}
		e := cli.AsError(err)
		if e.Exit != cli.ExitInvalid {
			t.Errorf("exit %d: %v, of\n%s", e.Exit, err, text)
		}
		if len(e.Problems) == 0 {
			fmt.Fprintf(&b.log, "%s: %s\nnext: %s\n", e.Code, e.Detail, e.Next)
		}
		for _, p := range e.Problems {
			b.log.WriteString(p.Rendered)
		}
		b.log.WriteString("====\n")
	}
	b.golden("problems")
}

// TestSuite: the plugin of a run passes the suite with the configuration of
// its test.
func TestSuite(t *testing.T) {
	b := newBench(t)
	plugin := filepath.Join(b.dir, "faulty.wasm")
	b.write("a.test.yaml", "test: v1\ncases:\n  - { name: a, given: { text: a }, expect: pass }\n")
	r, err := b.run(Options{Plugin: plugin, Suite: true}, "a.test.yaml")
	if err != nil || !r.OK() || r.Suite.Plugin != "faulty@1.0.0" || r.Suite.Passed < 10 {
		t.Fatalf("%v, %+v", err, r)
	}
	b.write("a.test.yaml", "test: v1\nconfig: { behaviour: missing }\ncases:\n  - { name: a, given: { text: a }, expect: { fail: { class: protocol } } }\n")
	r, err = b.run(Options{Plugin: plugin, Suite: true}, "a.test.yaml")
	if err != nil || r.OK() || r.Failed != 0 || r.Suite.Failed == 0 || len(r.Suite.Results) < r.Suite.Failed {
		t.Errorf("%v, %+v", err, r.Suite)
	}
}

// TestPassIsByBytes: the same JSON in other bytes is no pass.
func TestPassIsByBytes(t *testing.T) {
	in := record.Record{Value: []byte(`{"a":1}`), To: -1}
	out := in
	out.Value = []byte(`{"a": 1}`)
	var c comparison
	c.outcome("expect", &want{kind: kindPass}, &got{kind: kindEmit, record: &out, output: defaultOutput}, &in)
	if len(c.findings) != 1 || c.findings[0].Path != "expect.pass.value" || c.findings[0].Got != `{"a": 1}` {
		t.Errorf("%+v", c.findings)
	}
}

// TestPassesNothingWrong: cases that look as if they held.
func TestPassesNothingWrong(t *testing.T) {
	b := newBench(t)
	b.write("flow.yaml", testdata(t, "flow.yaml"))
	b.write("a.test.yaml", `test: v1
plugin: ./faulty.wasm
cases:
  - name: one header is not two
    given: { text: good, headers: [{ key: h, value: a }, { key: h, value: b }] }
    expect: { emit: { headers: { h: "a, b" } } }
  - name: a header without a value is one
    given: { text: good, headers: { h: null } }
    expect: { emit: { headers: { h: "" } } }
  - name: a key that is there twice
    given: { text: '{"a":1,"a":2}' }
    expect: { emit: { value: { a: 2 } } }
  - name: the same below
    given: { text: '{"l":[{"a":1,"a":2}]}' }
    expect: { emit: { has: { l: [{ a: 2 }] } } }
  - name: nothing is logged
    given: { text: log }
    expect: pass
    logs: []
`)
	b.write("b.test.yaml", `test: v1
flow: ./flow.yaml
secrets: { sign/key: made-up, oauth: made-up }
env: { STAGE: test }
cases:
  - name: an answer that nobody asked for
    given: { value: { n: 1 } }
    answers: { deliver: [200, 503, { status: 500, times: 3 }], exception1: [200] }
    expect: delivered
`)
	r, err := b.run(Options{}, "a.test.yaml", "b.test.yaml")
	if err != nil {
		t.Fatal(err)
	}
	b.note(r)
	if r.Passed != 0 {
		t.Errorf("%d cases pass", r.Passed)
	}
	b.golden("wrong")
}

// TestUpdateSaysWhatItLeaves: a case of which only a part can be written is not
// one that was updated.
func TestUpdateSaysWhatItLeaves(t *testing.T) {
	b := newBench(t)
	b.write("flow.yaml", testdata(t, "flow.yaml"))
	b.write("a.test.yaml", `test: v1
flow: ./flow.yaml
secrets: { sign/key: made-up, oauth: made-up }
env: { STAGE: test }
cases:
  - name: half of it
    given: { value: { n: 1 } }
    answers: { deliver: [200] }
    requests: { deliver: [{ method: PUT }] }
    expect: dropped
`)
	r, err := b.run(Options{Update: true}, "a.test.yaml")
	if err != nil || r.Updated != 0 || r.Failed != 1 || len(r.Cases[0].Findings) != 1 || r.Cases[0].Findings[0].Path != "requests.deliver[0].method" {
		t.Fatalf("%v: %+v", err, r)
	}
	if !strings.Contains(b.read("a.test.yaml"), "expect: { delivered: ") {
		t.Errorf("what can be written was not:\n%s", b.read("a.test.yaml"))
	}
	b.write("b.test.yaml", `test: v1
plugin: ./faulty.wasm
cases:
  - name: nothing is expected
    given: { text: drop }
  - expect: pass
    name: the first key
    given: { text: drop }
  - { name: in one line, given: { text: good }, expect:
        drop }
`)
	if r, err = b.run(Options{Update: true}, "b.test.yaml"); err != nil || r.Updated != 2 || r.Failed != 1 {
		t.Errorf("%v: %+v", err, r)
	}
	if r, err = b.run(Options{}, "b.test.yaml"); err != nil || r.Passed != 2 || r.Cases[0].Name != "nothing is expected" || r.Cases[1].Name != "the first key" {
		b.note(r)
		t.Errorf("%v: %s%s", err, b.log.String(), b.read("b.test.yaml"))
	}
	// In place of fields of what is no JSON stands all of it.
	b.write("c.test.yaml", "test: v1\nplugin: ./faulty.wasm\ncases:\n  - name: c\n    given: { text: no JSON }\n    expect: { emit: { has: { a: 1 } } }\n")
	if r, err = b.run(Options{Update: true}, "c.test.yaml"); err != nil || r.Updated != 1 || !strings.Contains(b.read("c.test.yaml"), "    expect: pass\n") && !strings.Contains(b.read("c.test.yaml"), "no JSON } }") {
		t.Errorf("%v: %s", err, b.read("c.test.yaml"))
	}
	// What somebody wrote while the cases ran is not lost.
	f, problems := parse("b.test.yaml", filepath.Join(b.dir, "b.test.yaml"), []byte(b.read("b.test.yaml")))
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	b.write("b.test.yaml", b.read("b.test.yaml")+"# mine\n")
	if err := f.rewrite([]edit{{1, 1, []string{"test: v1 # changed"}}}); err == nil || !strings.HasSuffix(b.read("b.test.yaml"), "# mine\n") {
		t.Errorf("%v: %s", err, b.read("b.test.yaml"))
	}
}
