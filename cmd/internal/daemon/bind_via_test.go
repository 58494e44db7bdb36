package daemon

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/millrace-io/millrace/cmd/internal/api"
	"github.com/millrace-io/millrace/plugins/registry"
	"github.com/millrace-io/millrace/runtime/record"
)

// A plugin that stands in for a stage's own is tried again after it could not
// be bound, and has the setting of the newest document.
func TestViaIsBoundAnew(t *testing.T) {
	const missing = "../../../plugins/plugintest/guests/pass/pass.wasm"
	broker := startBroker(t)
	d, _ := life(t, t.TempDir())
	connect(t, d, broker.Addr())
	digest := upload(t, d, "../../../plugins/plugintest/guests/faulty/faulty.wasm")
	put := func(setting string) {
		t.Helper()
		mustPut(t, d, &api.PutFlow{Document: "flow: v1\nname: push\nsource: kafka://main/in\nstages:\n  - id: judge\n    map: ./p.wasm\n" + setting + "  - id: deliver\n    push: kafka://main/out\n",
			Files: map[string]string{"./p.wasm": digest}})
	}
	feed(t, kafkaClient(t, broker.Addr()), "in", "k", "v")
	put("")
	settled(t, d, "push", 1)
	f, err := d.store.Flow("default", "push")
	if err != nil {
		t.Fatal(err)
	}
	r := d.runner(f.ID)
	now := time.Now()
	via := func(digest string) *viaStage {
		v := &viaStage{r: r, key: viaKey{"judge", digest}, now: func() time.Time { return now }}
		t.Cleanup(func() { _ = v.Close(t.Context()) })
		return v
	}
	ask := func(v *viaStage) string {
		t.Helper()
		var out record.Results
		b := &record.Batch{Records: []record.Record{{Topic: "in", Value: []byte("v"), To: -1}}}
		if err := v.Process(t.Context(), b, &out); err != nil {
			t.Fatal(err)
		}
		if len(out.Failures) == 1 {
			return fmt.Sprint(out.Failures[0].Err)
		}
		return ""
	}

	wasm, err := os.ReadFile(missing)
	if err != nil {
		t.Fatal(err)
	}
	v := via(registry.Digest(wasm))
	if said := ask(v); !strings.Contains(said, "stage judge: plugin") {
		t.Errorf("without the plugin: %q", said)
	}
	upload(t, d, missing)
	if said := ask(v); said == "" {
		t.Error("the plugin is looked for with every call")
	}
	now = now.Add(rebindAfter)
	if said := ask(v); said != "" {
		t.Errorf("with the plugin: %q", said)
	}

	v = via(digest)
	if said := ask(v); said != "" {
		t.Errorf("as set first: %q", said)
	}
	busy, err := v.acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	doc := r.doc.Load()
	put("    with: { behaviour: fail }\n")
	poll(t, "the changed document", func() (bool, string) { return r.doc.Load() != doc, r.problem() })
	if said := ask(v); !strings.Contains(said, "not acceptable") {
		t.Errorf("as set anew: %q", said)
	}
	if v.use == busy || !busy.retired {
		t.Error("the plugin with the old setting is in use still")
	}
	var out record.Results
	b := &record.Batch{Records: []record.Record{{Topic: "in", Value: []byte("v"), To: -1}}}
	if err := busy.st.Process(t.Context(), b, &out); err != nil || len(out.Failures) > 0 {
		t.Errorf("a call that was under way: %+v, %v", out, err)
	}
	v.release(t.Context(), busy)
	if err := busy.st.Process(t.Context(), b, &out); err == nil {
		t.Error("the plugin with the old setting was not closed")
	}
}
