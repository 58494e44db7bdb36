package daemon

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/millrace-io/millrace/cmd/internal/api"
	"github.com/millrace-io/millrace/plugins/sandbox"
	"github.com/millrace-io/millrace/runtime/record"
)

// What a plugin logs can be read with the record that it is about, also of a
// record that failed, and whoever waits for a line gets it.
func TestLogs(t *testing.T) {
	broker := startBroker(t)
	d, _ := life(t, t.TempDir())
	connect(t, d, broker.Addr())
	digest := upload(t, d, "../../../plugins/plugintest/guests/faulty/faulty.wasm")
	mustPut(t, d, &api.PutFlow{Document: "flow: v1\nname: push\nsource: kafka://main/in\nstages:\n  - id: judge\n    map: ./p.wasm\n  - id: deliver\n    push: kafka://main/out\n",
		Files: map[string]string{"./p.wasm": digest}})
	ask := func(q api.LogQuery) *api.LogPage {
		t.Helper()
		q.Project, q.Name = "default", "push"
		page, err := d.Logs(t.Context(), &q)
		if err != nil {
			t.Fatal(err)
		}
		return page
	}
	if page := ask(api.LogQuery{}); len(page.Lines) != 0 || page.Next != 0 {
		t.Errorf("before the first line: %+v", page)
	}
	waiting := make(chan *api.LogPage, 1)
	go func() {
		page, err := d.Logs(t.Context(), &api.LogQuery{Project: "default", Name: "push", WaitMillis: 20_000})
		if err != nil {
			t.Error(err)
		}
		waiting <- page
	}()
	cl := kafkaClient(t, broker.Addr())
	feed(t, cl, "in", "k", "log")
	if page := <-waiting; len(page.Lines) != 1 || page.Lines[0].Line != "log: hello from faulty" || page.Lines[0].Record != "in/0/0" ||
		page.Lines[0].Stage != "judge" || page.Lines[0].Plugin != "faulty@1.0.0" || page.Lines[0].Level != "info" || page.Next != 1 {
		t.Errorf("waited for %+v", page)
	}
	feed(t, cl, "in", "k", "count-trap")
	poll(t, "the failure", func() (bool, string) {
		a := accounted(t, d, "push")
		return a.Filed == 1, fmt.Sprintf("%+v", a)
	})
	page := ask(api.LogQuery{After: 1})
	if len(page.Lines) != 1 || page.Lines[0].Record != "in/0/1" || !page.Lines[0].Filed || page.Lines[0].Level != "error" {
		t.Errorf("of a failure: %+v", page)
	}
	if page := ask(api.LogQuery{Level: "warn", Stage: "judge"}); len(page.Lines) != 1 || page.Lines[0].Seq != 2 {
		t.Errorf("from warn: %+v", page)
	}
	if page := ask(api.LogQuery{Stage: "other"}); len(page.Lines) != 0 || page.Next != 2 {
		t.Errorf("of another stage: %+v", page)
	}
	if page := ask(api.LogQuery{After: 1 << 40}); len(page.Lines) != 2 {
		t.Errorf("after a line of an earlier process: %+v", page)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := d.Logs(ended, &api.LogQuery{Project: "default", Name: "push", After: 2, WaitMillis: 20_000}); err == nil {
		t.Error("an asker who went away was waited for")
	}
	for _, q := range []api.LogQuery{{Project: "default", Name: "none"}, {Project: "default", Name: "push", Level: "loud"}} {
		if _, err := d.Logs(t.Context(), &q); err == nil {
			t.Errorf("no error for %+v", q)
		}
	}
	if err := d.DeleteFlow(t.Context(), "default", "push", true); err != nil {
		t.Fatal(err)
	}
	poll(t, "the log to go with its flow", func() (bool, string) {
		d.logs.mu.Lock()
		defer d.logs.mu.Unlock()
		return len(d.logs.books) == 0, fmt.Sprint(len(d.logs.books))
	})
}

// A log is bounded in lines and bytes, and tells what is gone.
func TestLogBounds(t *testing.T) {
	var l logbooks
	hear := l.listen(7, "s", "p@1.0.0")
	batch := []record.Record{{Topic: "in", Offset: 3}, {Topic: "in", Offset: 4}}
	for i := range 1500 {
		hear(sandbox.LogLine{Text: fmt.Sprint(i), Records: batch, Of: i%3 - 1})
	}
	all, _ := l.page(7, &api.LogQuery{}, 0)
	if len(all.Lines) != maxLogLines || all.Lines[0].Seq != 501 || all.Next != 1500 {
		t.Errorf("got %d lines from %d, next %d", len(all.Lines), all.Lines[0].Seq, all.Next)
	}
	if a, b, c := all.Lines[1], all.Lines[2], all.Lines[0]; a.First != "in/0/3" || a.Last != "in/0/4" || a.Record != "" || b.Record != "in/0/3" || c.Record != "in/0/4" {
		t.Errorf("records %+v, %+v, %+v", a, b, c)
	}
	page, _ := l.page(7, &api.LogQuery{After: 100, Limit: 10}, 0)
	if page.Missed != 400 || len(page.Lines) != 10 || page.Lines[0].Seq != 501 || page.Next != 510 {
		t.Errorf("after 100: missed %d, %d lines, next %d", page.Missed, len(page.Lines), page.Next)
	}
	if page, _ := l.page(7, &api.LogQuery{Limit: 10}, 0); page.Lines[0].Seq != 1491 || page.Next != 1500 {
		t.Errorf("the last: from %d, next %d", page.Lines[0].Seq, page.Next)
	}
	long := []record.Record{{Topic: strings.Repeat("/path", 1600)}}
	for range 40 {
		hear(sandbox.LogLine{Records: long})
	}
	if all, _ := l.page(7, &api.LogQuery{}, 0); len(all.Lines) > 16 {
		t.Errorf("%d lines of records with ids of 8 KiB", len(all.Lines))
	}
	for range 40 {
		hear(sandbox.LogLine{Text: strings.Repeat("x", 8<<10)})
	}
	if all, _ := l.page(7, &api.LogQuery{}, 0); len(all.Lines) != maxLogBytes/(8<<10+logCost) {
		t.Errorf("%d lines of 8 KiB", len(all.Lines))
	}
}
