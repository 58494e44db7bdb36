package daemon

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/millrace-io/millrace/cmd/internal/api"
	"github.com/millrace-io/millrace/plugins/plugintest/guests"
	"github.com/millrace-io/millrace/plugins/registry"
	"github.com/millrace-io/millrace/runtime/delivery/sign"
	"github.com/millrace-io/millrace/runtime/record"
)

const bearer = "bearer-that-nobody-may-see"

// signers is a node with a flow named push, whose requests a plugin signs, or
// whose answers one judges, over a connection that says who asks.
func signers(t *testing.T, beside string, answer http.HandlerFunc, values ...string) (d *Daemon, entries []*record.Entry, more func(value string)) {
	t.Helper()
	broker := startBroker(t)
	srv := httptest.NewServer(answer)
	t.Cleanup(srv.Close)
	dir := t.TempDir()
	secretFile(t, dir, "key", "signing-key-of-push")
	secretFile(t, dir, "bearer", bearer)
	d, _ = life(t, dir)
	connect(t, d, broker.Addr())
	if _, err := d.PutConnection(t.Context(), &api.PutConnection{Document: fmt.Sprintf("connection: v1\nname: partner\nhttp: { base: %s, auth: { bearer: { secret: bearer } } }\n", srv.URL)}); err != nil {
		t.Fatal(err)
	}
	files := map[string]string{"./sign.wasm": uploadBytes(t, d, "sign.wasm", guests.Sign), "./check.wasm": uploadBytes(t, d, "check.wasm", guests.Check)}
	cl := kafkaClient(t, broker.Addr())
	for _, v := range values {
		feed(t, cl, "in", "k", v)
	}
	mustPut(t, d, &api.PutFlow{Files: files, Document: "flow: v1\nname: push\nsource: kafka://main/in\norder: partition\nstages:\n  - id: deliver\n    push: { http: { connection: partner, post: /orders?page=1 } }\n    retry: { first: 1ms, max: 2ms, attempts: 2 }\n" + beside})
	settled(t, d, "push", int64(len(values)))
	return d, failures(t, d, api.FailureFilter{}).Entries, func(value string) { feed(t, cl, "in", "k", value) }
}

// again runs an entry many times, and compares each with what was recorded.
func again(t *testing.T, r *Replayer, e *record.Entry, wasm []byte) {
	t.Helper()
	was := e.Called()
	if was.Replay == nil || was.Replay.Fuel == 0 || was.Setting == nil {
		t.Fatalf("entry %s: replay %+v (%s), setting %+v", e.ID(), was.Replay, was.NoReplay, was.Setting)
	}
	for range 30 {
		got, err := r.Replay(t.Context(), e, wasm)
		if err != nil {
			t.Fatal(err)
		}
		if len(got.Results.Failures) != 1 {
			t.Fatalf("entry %s: got %+v, want a failure", e.ID(), got.Results)
		}
		f := got.Results.Failures[0].Err
		if f.Class != was.Class || f.Code != was.Code || f.Message != was.Message || !slices.Equal(got.Logs, was.Replay.Logs) || got.Fuel != was.Replay.Fuel || got.ConfigHash != was.Replay.ConfigHash {
			t.Fatalf("entry %s: got %v, fuel %d, logs %q, want %v %d %q, %+v", e.ID(), f, got.Fuel, got.Logs, was.Class, was.Code, was.Message, was.Replay)
		}
	}
}

func replayer(t *testing.T, d *Daemon, entries []*record.Entry) *Replayer {
	t.Helper()
	r, err := NewReplayer(t.Context(), ReplayConfig{CacheDir: filepath.Join(d.cfg.Dir, "cache", "wazero")}, entries)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close(t.Context()) })
	return r
}

// What a plugin that signs failed with is run again elsewhere, bit for bit,
// with the signature that it was given and without a key.
func TestReplayOfASigningPlugin(t *testing.T) {
	d, entries, _ := signers(t, `    sign: { plugin: ./sign.wasm, with: { refuse: true, times: 2 }, keys: { only: { secret: key } } }
`, func(http.ResponseWriter, *http.Request) { t.Error("a request was sent") }, `{"a":1}`, `{"a":2}`)
	if len(entries) != 2 {
		t.Fatalf("%d entries", len(entries))
	}
	r := replayer(t, d, entries)
	offsets := map[int64]bool{}
	for i, e := range entries {
		c := e.Call
		if e.Stage != "deliver" || e.Digest != "" || e.Replay != nil || c == nil || c.Stage != "deliver.sign" || c.Class != record.Rejected || c.Code != 3 || c.Digest != digestOf(guests.Sign) {
			t.Fatalf("entry %+v, call %+v", e, c)
		}
		if string(e.Input.Value) != string(c.Input.Value) || string(c.Input.Value) != fmt.Sprintf(`{"a":%d}`, i+1) || len(c.Replay.Signatures) != 2 || len(c.Hidden) != 0 {
			t.Errorf("call %+v, signatures %+v", c, c.Replay.Signatures)
		}
		names := map[string]string{}
		for _, h := range c.Input.Headers {
			names[h.Key] = string(h.Value)
		}
		if names[":method"] != "POST" || !strings.HasSuffix(names[":url"], "/orders?page=1") || names["Idempotency-Key"] == "" || names["Authorization"] != "" {
			t.Errorf("headers %v", names)
		}
		offsets[c.Input.Offset] = true
		again(t, r, e, guests.Sign)
		for _, text := range []string{bearer, "signing-key-of-push"} {
			if line := jsonOf(t, e); strings.Contains(line, text) {
				t.Errorf("%q is in %s", text, line)
			}
		}
	}
	if len(offsets) != 2 {
		t.Errorf("two calls are of one offset, and draw the same at random: %v", offsets)
	}

	// With another configuration it would have gone through: with the signature
	// of the record.
	e := entries[0]
	other := *e
	call := *e.Call
	other.Call = &call
	call.Setting = &record.Setting{With: record.Text(`{"times":2}`)}
	got, err := r.Replay(t.Context(), &other, guests.Sign)
	if err != nil || len(got.Results.Emits) != 1 {
		t.Fatalf("%+v, %v", got, err)
	}
	signed := false
	for _, h := range got.Results.Emits[0].Record.Headers {
		signed = signed || h.Key == "X-Signature" && strings.HasSuffix(e.Call.Message, ": "+string(h.Value))
	}
	if !signed {
		t.Errorf("emitted %+v", got.Results.Emits[0].Record.Headers)
	}
	call.Setting = &record.Setting{With: record.Text(`{"times":3,"refuse":true}`)}
	if _, err := r.Replay(t.Context(), &other, guests.Sign); err == nil || !strings.Contains(err.Error(), "keys are not used again") {
		t.Errorf("a third signature: %v", err)
	}
}

// What a plugin that judges answers failed with is run again with the answer
// that it got, also after an export and an import.
func TestReplayOfAValidatingPlugin(t *testing.T) {
	d, entries, _ := signers(t, "    validate: ./check.wasm\n", func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		w.Header().Set("Set-Cookie", "session=of-the-partner")
		switch {
		case bytes.Contains(body, []byte("echo")):
			fmt.Fprintf(w, `{"code":9,"message":"you sent %s"}`, r.Header.Get("Authorization"))
		case bytes.Contains(body, []byte("later")):
			_, _ = io.WriteString(w, `{"code":429}`)
		case bytes.Contains(body, []byte("large")):
			fmt.Fprintf(w, `{"code":8,"pad":%q}`, strings.Repeat("x", 400_000)+strings.Repeat("y", record.MaxCallInput-400_000))
		default:
			_, _ = io.WriteString(w, `{"code":7,"message":"no such order","pad":"`+strings.Repeat("pad ", 2000)+`"}`)
		}
	}, `{"v":"plain"}`, `{"v":"echo"}`, `{"v":"large"}`, `{"v":"later"}`)
	if len(entries) != 4 {
		t.Fatalf("%d entries", len(entries))
	}
	r := replayer(t, d, entries)
	plain, echo, large, later := entries[0], entries[1], entries[2], entries[3]
	if c := plain.Call; c == nil || c.Stage != "deliver.validate" || c.Message != "no such order" || c.Code != 7 || !strings.Contains(plain.Message, "status 200: no such order") || !reflect.DeepEqual(c.Hidden, []string{"Set-Cookie"}) || len(c.Input.Value) < 8000 {
		t.Fatalf("call %+v", c)
	}
	again(t, r, plain, guests.Check)
	again(t, r, later, guests.Check)
	if later.Call.Class != record.Retryable || later.Attempts != 2 {
		t.Errorf("entry %+v, call %+v", later, later.Call)
	}
	if c := echo.Call; c == nil || c.Replay != nil || c.NoReplay == "" || len(c.Input.Value) != 0 || c.Input.Headers != nil {
		t.Errorf("call with a credential in it %+v", c)
	}
	if _, err := r.Replay(t.Context(), echo, guests.Check); err == nil || !strings.Contains(err.Error(), "holds a credential") {
		t.Errorf("replay of what is not kept: %v", err)
	}
	if c := large.Call; c == nil || !c.InputOmitted || c.InputHash == 0 || c.Input.Value != nil || c.Replay == nil {
		t.Errorf("call with a large answer %+v", c)
	}
	for _, e := range entries {
		if line := jsonOf(t, e); strings.Contains(line, bearer) || strings.Contains(line, "of-the-partner") {
			t.Errorf("a credential is in %s", line)
		}
	}

	node := api.NewClient("http://" + d.Addr())
	line := jsonOf(t, plain)
	if _, err := node.DropFailures(t.Context(), &api.DropFailures{Project: "default", Name: "push", Selection: api.Selection{Seqs: []uint64{plain.Seq}}}); err != nil {
		t.Fatal(err)
	}
	if rep, err := node.ImportFailures(t.Context(), "default", "push", strings.NewReader(line+"\n")); err != nil || rep.Filed != 1 {
		t.Fatalf("%+v, %v", rep, err)
	}
	all := failures(t, d, api.FailureFilter{}).Entries
	back := all[len(all)-1]
	if !reflect.DeepEqual(back.Call, plain.Call) {
		t.Errorf("imported %+v, want %+v", back.Call, plain.Call)
	}
	again(t, r, back, guests.Check)

	// The node runs what the delivery has, and says so where another is asked for.
	rep, err := node.ReplayFailures(t.Context(), &api.ReplayFailures{Project: "default", Name: "push", Selection: api.Selection{Seqs: []uint64{back.Seq}}, Plugin: digestOf(guests.Sign), DryRun: true})
	if err != nil || rep.Skipped != 1 || !strings.Contains(rep.Problems[0].Detail, "deliver.validate") {
		t.Errorf("replay with another plugin: %+v, %v", rep, err)
	}
	for _, want := range []string{api.ReplayCurrent, api.ReplayFailed, digestOf(guests.Check)} {
		if rep, err := node.ReplayFailures(t.Context(), &api.ReplayFailures{Project: "default", Name: "push", Selection: api.Selection{Seqs: []uint64{back.Seq}}, Plugin: want, DryRun: true}); err != nil || rep.Replayed != 1 {
			t.Errorf("replay with %s: %+v, %v", want, rep, err)
		}
	}
	f := status(t, d, "push")
	st := f.Stages[len(f.Stages)-1]
	if len(st.Plugins) != 1 || st.Plugins[0].ID != "deliver.validate" || st.Plugins[0].Digest != digestOf(guests.Check) || st.Plugins[0].Setting == nil {
		t.Errorf("plugins of the delivery %+v", st.Plugins)
	}
	accounted(t, d, "push")
}

// A plugin signs what is sent but for what says who asks, which comes to it
// with every token anew.
func TestPluginsSignApart(t *testing.T) {
	seen := make(chan http.Header, 8)
	d, entries, _ := signers(t, `    sign: { plugin: ./sign.wasm, with: { query: sig }, keys: { only: { secret: key } } }
`, func(_ http.ResponseWriter, r *http.Request) {
		h := r.Header.Clone()
		h.Set("query", r.URL.RawQuery)
		seen <- h
	}, `{"a":1}`)
	if len(entries) != 0 {
		t.Fatalf("entries %+v", entries[0])
	}
	h := <-seen
	if h.Get("Authorization") != "Bearer "+bearer || h.Get("X-Signature") == "" || h.Get("query") != "page=1&sig="+h.Get("X-Signature") {
		t.Errorf("headers %v", h)
	}
	accounted(t, d, "push")
}

func TestApartSignsEachTime(t *testing.T) {
	d, _, _ := signers(t, `    sign: { plugin: ./sign.wasm, with: {}, keys: { only: { secret: key } } }
`, func(http.ResponseWriter, *http.Request) {}, `{"a":1}`)
	run := d.runner(1)
	if run == nil {
		t.Fatal("no runner")
	}
	own := &signPlugin{run.exchanges[0].st, pluginInfo{stage: "deliver.sign", plugin: "sign"}}
	auth := twice{}
	req, err := http.NewRequest(http.MethodPost, "http://p.example/o?a=1", nil)
	if err != nil {
		t.Fatal(err)
	}
	var queries []string
	err = apart{auth, own}.Do(t.Context(), &sign.Request{Method: "POST", URL: req.URL, Body: []byte("b"), Header: []record.Header{{Key: "X-Signature", Value: []byte("none")}}}, func(_ context.Context, r *sign.Request) (int, error) {
		queries = append(queries, r.URL.RawQuery)
		n := 0
		for _, h := range r.Header {
			if h.Key == "X-Token" || h.Key == "X-Signature" && string(h.Value) != "none" {
				n++
			}
		}
		if n != 2 {
			t.Errorf("headers %+v", r.Header)
		}
		return 401, nil
	})
	if err != nil || !slices.Equal(queries, []string{"a=1&k=0", "a=1&k=1"}) {
		t.Errorf("%q, %v", queries, err)
	}
	if h, q := (apart{auth, own}).Credentials(); !slices.Equal(h, []string{"X-Token"}) || !slices.Equal(q, []string{"k"}) {
		t.Errorf("credentials %v, %v", h, q)
	}
}

// twice is auth that has a new token the second time.
type twice struct{}

func (twice) Credentials() (header, query []string) { return []string{"X-Token"}, []string{"k"} }

func (twice) Do(ctx context.Context, r *sign.Request, send func(context.Context, *sign.Request) (int, error)) error {
	var err error
	for i := range 2 {
		a := &sign.Additions{Header: []sign.Field{{Name: "X-Token", Value: fmt.Sprint(i)}}, Query: []sign.Field{{Name: "k", Value: fmt.Sprint(i)}}}
		if _, err = send(ctx, a.Apply(r)); err != nil {
			return err
		}
	}
	return nil
}

func jsonOf(t *testing.T, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func digestOf(wasm []byte) string { return registry.Digest(wasm) }
