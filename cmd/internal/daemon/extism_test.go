package daemon

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace-io/millrace/cmd/internal/api"
	"github.com/millrace-io/millrace/plugins/manifest"
)

// shipped is the file of a plugin that ships with the Extism SDK.
func shipped(t *testing.T, name string) string {
	t.Helper()
	dir, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/extism/go-sdk").Output()
	if err != nil {
		t.Fatalf("find the SDK's module: %v", err)
	}
	return filepath.Join(strings.TrimSpace(string(dir)), "wasm", name+".wasm")
}

// passes is an Extism plugin whose function run answers its input, unless that
// has four bytes: then it runs for ever.
func passes() []byte {
	section := func(id byte, content string) string { return string([]byte{id, byte(len(content))}) + content }
	imported := func(name string, typ byte) string {
		return "\x0fextism:host/env" + string(rune(len(name))) + name + "\x00" + string(rune(typ))
	}
	code := "\x00" + // no locals
		"\x10\x00\x42\x04\x51\x04\x40\x03\x40\x0c\x00\x0b\x0b" + // if input_length() == 4 { loop {} }
		"\x10\x01\x10\x00\x10\x02\x41\x00\x0b" // output_set(input_offset(), input_length()); 0
	return []byte("\x00asm\x01\x00\x00\x00" +
		section(1, "\x03\x60\x00\x01\x7e\x60\x02\x7e\x7e\x00\x60\x00\x01\x7f") +
		section(2, "\x03"+imported("input_length", 0)+imported("input_offset", 0)+imported("output_set", 1)) +
		section(3, "\x01\x02") + section(5, "\x01\x00\x01") + section(7, "\x01\x03run\x00\x03") +
		section(10, "\x01"+string(rune(len(code)))+code))
}

// wasmFile writes a plugin with a manifest.
func wasmFile(t *testing.T, file string, wasm []byte, m manifest.Manifest) string {
	t.Helper()
	m.Deterministic = true
	wasm, err := manifest.Append(wasm, &m)
	if err != nil {
		t.Fatal(err)
	}
	file = filepath.Join(t.TempDir(), file)
	if err := os.WriteFile(file, wasm, 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// extismFlow is a flow with one stage, to which lines are added.
func extismFlow(plugin string, lines ...string) string {
	return "flow: v1\nname: ex\nsource: kafka://main/in\nstages:\n  - id: s\n    map: " + plugin + "\n    " + strings.Join(lines, "\n    ") + "\n  - push: kafka://main/out\n"
}

func send(t *testing.T, addr string, values ...string) {
	t.Helper()
	cl := kafkaClient(t, addr)
	for _, v := range values {
		if err := cl.ProduceSync(t.Context(), &kgo.Record{Topic: "in", Key: []byte("k"), Value: []byte(v)}).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
}

func valuesOf(rs []*kgo.Record) []string {
	var out []string
	for _, r := range rs {
		out = append(out, string(r.Value))
	}
	return out
}

// refusal is what an error of the API says, with the problems in it.
func refusal(err error) string {
	text := fmt.Sprint(err)
	if e, ok := errors.AsType[*api.Error](err); ok {
		for _, p := range e.Problems {
			text += "\n" + p.Rendered
		}
	}
	return text
}

func TestExtismPluginInAFlow(t *testing.T) {
	broker := startBroker(t)
	d, _ := life(t, t.TempDir())
	connect(t, d, broker.Addr())
	digest := upload(t, d, shipped(t, "count_vowels"))
	put := func(lines ...string) *api.PutFlow {
		return &api.PutFlow{Document: extismFlow("./v.wasm", lines...), Files: map[string]string{"./v.wasm": digest}}
	}
	for _, c := range []struct{ line, want string }{
		{"otherwise: queue", "E_PLUGIN_FUNCTION"},
		{"function: count_vowel", "did you mean `count_vowels`"},
		{"hosts: [Example.com]", "did you mean example.com?"},
	} {
		if _, err := d.PutFlow(t.Context(), put(c.line)); err == nil || !strings.Contains(refusal(err), c.want) {
			t.Errorf("%s: got %s, want %q in it", c.line, refusal(err), c.want)
		}
	}
	mustPut(t, d, put("function: count_vowels", `with: { vowels: xyz }`))
	send(t, broker.Addr(), "xylo", "hello")
	settled(t, d, "ex", 2)
	got := consume(t, broker.Addr(), "out", 2)
	want := []string{`{"count":0,"total":0,"vowels":"xyz"}`, `{"count":2,"total":2,"vowels":"xyz"}`}
	values := valuesOf(got)
	slices.Sort(values)
	if !slices.Equal(values, want) && !slices.Equal(values, []string{`{"count":0,"total":2,"vowels":"xyz"}`, want[1]}) {
		t.Errorf("got %q, want %q", values, want)
	}
	if string(got[0].Key) != "k" {
		t.Errorf("got key %q, want the record's own", got[0].Key)
	}
	f, err := d.Flow(t.Context(), "default", "ex")
	if err != nil {
		t.Fatal(err)
	}
	if s := f.Stages[0]; s.Describe != "map ./v.wasm count_vowels" || s.Impure || s.Stateful || s.Plugin == "" {
		t.Errorf("got stage %+v", s)
	}
}

func TestExtismPluginThatWantsForeignFunctionsIsRefused(t *testing.T) {
	d, _ := life(t, t.TempDir())
	f, err := os.Open(shipped(t, "host"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	_, err = d.UploadPlugin(t.Context(), "host.wasm", f)
	if e, ok := errors.AsType[*api.Error](err); !ok || e.Code != api.CodeRefused || !strings.Contains(e.Detail, `it imports the function "extism:host/user" "mult", which this host does not have`) {
		t.Errorf("got %v, want a refusal that names the function", err)
	}
}

func TestHostsOfAStage(t *testing.T) {
	partner := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("X-Answer", "yes") }))
	defer partner.Close()
	defer http.DefaultTransport.(*http.Transport).CloseIdleConnections()
	broker := startBroker(t)
	d, _ := life(t, t.TempDir())
	connect(t, d, broker.Addr())
	digest := upload(t, d, shipped(t, "http_headers"))
	put := &api.PutFlow{Document: extismFlow("./h.wasm", "function: http_get"), Files: map[string]string{"./h.wasm": digest}}
	mustPut(t, d, put)
	send(t, broker.Addr(), `{"url":"`+partner.URL+`/"}`)
	settled(t, d, "ex", 1)
	page, err := d.Failures(t.Context(), &api.FailureQuery{Project: "default", Name: "ex", Limit: 10})
	if err != nil {
		t.Fatal(err)
	}
	if len(page.Entries) != 1 || !strings.Contains(page.Entries[0].Message, "is not allowed") || !strings.Contains(page.Entries[0].Message, "list the host in `hosts` of the stage") {
		t.Fatalf("got %+v, want a request that was refused", page.Entries)
	}

	put.Document = extismFlow("./h.wasm", "function: http_get", "hosts: ['127.0.0.*']")
	plan := mustPut(t, d, put)
	if want := "~ s: map ./h.wasm http_get -> map ./h.wasm http_get (impure)"; !slices.Contains(plan.Changes, want) {
		t.Errorf("got plan %q, want %q in it", plan.Changes, want)
	}
	send(t, broker.Addr(), `{"url":"`+partner.URL+`/"}`)
	settled(t, d, "ex", 2)
	consume(t, broker.Addr(), "out", 1)
	f, err := d.Flow(t.Context(), "default", "ex")
	if err != nil {
		t.Fatal(err)
	}
	if !f.Stages[0].Impure {
		t.Errorf("got stage %+v, want it to say that it is impure", f.Stages[0])
	}
}

// A running flow goes from a plugin of our own to an Extism plugin by a
// deployment, and a record that runs for ever costs itself alone.
func TestSwapToAnExtismPlugin(t *testing.T) {
	broker := startBroker(t)
	d, _ := life(t, t.TempDir())
	connect(t, d, broker.Addr())
	upper, err := os.ReadFile("../../../examples/upper/upper.wasm")
	if err != nil {
		t.Fatal(err)
	}
	upload(t, d, wasmFile(t, "thing.wasm", upper, manifest.Manifest{ABI: 1, Name: "thing", Version: "1.0.0"}))
	mustPut(t, d, &api.PutFlow{Document: extismFlow("thing@*", "limits: { fuel: 1_000_000 }")})
	send(t, broker.Addr(), "one", "two")
	settled(t, d, "ex", 2)

	// Without a function to call nothing is changed.
	bad := upload(t, d, wasmFile(t, "thing.wasm", passes(), manifest.Manifest{Name: "thing", Version: "1.5.0"}))
	if _, err := d.Deploy(t.Context(), &api.Deploy{Digest: bad}); err == nil || !strings.Contains(err.Error(), `this one has ["run"]`) {
		t.Errorf("got %v, want the functions to choose from", err)
	}
	good := upload(t, d, wasmFile(t, "thing.wasm", passes(), manifest.Manifest{Name: "thing", Version: "2.0.0", Mode: manifest.ModeExtism, Function: "run"}))
	dep, err := d.Deploy(t.Context(), &api.Deploy{Digest: good})
	if err != nil {
		t.Fatal(err)
	}
	poll(t, "the deployment", func() (bool, string) {
		now, err := d.Deployment(t.Context(), dep.ID)
		if err != nil {
			t.Fatal(err)
		}
		return now.Done, fmt.Sprintf("%+v", now.Flows)
	})
	send(t, broker.Addr(), "three", "hang", "seven")
	settled(t, d, "ex", 5)
	values := valuesOf(consume(t, broker.Addr(), "out", 4))
	slices.Sort(values)
	if want := []string{"ONE", "TWO", "seven", "three"}; !slices.Equal(values, want) {
		t.Errorf("got %q, want %q", values, want)
	}
	page, err := d.Failures(t.Context(), &api.FailureQuery{Project: "default", Name: "ex", Limit: 10})
	if err != nil {
		t.Fatal(err)
	}
	if len(page.Entries) != 1 {
		t.Fatalf("got %d failures, want the one that runs for ever", len(page.Entries))
	}
	e := page.Entries[0]
	if e.Class.String() != "fuel" || string(e.Input.Value) != "hang" || e.Plugin != "thing@2.0.0" || e.Replay == nil || e.Replay.Fuel <= 1_000_000 {
		t.Errorf("got %+v, want class fuel and what it used", e)
	}
}
