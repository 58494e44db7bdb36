package main

import (
	"context"
	"testing"

	"github.com/millrace-io/millrace/cmd/internal/api"
)

func (m *memory) Logs(_ context.Context, q *api.LogQuery) (*api.LogPage, error) {
	defer m.call("logs %s/%s stage=%s level=%s after=%d limit=%d wait=%d", q.Project, q.Name, q.Stage, q.Level, q.After, q.Limit, q.WaitMillis)()
	full := q.Project + "/" + q.Name
	if m.flows[full] == nil {
		return nil, notFound("flow", q.Name)
	}
	pages := m.logs[full]
	if len(pages) == 0 {
		return nil, context.Canceled // nothing more comes: as Ctrl-C
	}
	m.logs[full] = pages[1:]
	return pages[0], nil
}

func TestLogs(t *testing.T) {
	h := newHarness(t)
	const at = 1_763_714_096_789
	lines := []api.LogLine{
		{Seq: 1, At: at, Stage: "mask", Plugin: "order-mask@1.4.0", Level: "info", Line: "rules: 3"},
		{Seq: 2, At: at + 1, Stage: "mask", Plugin: "order-mask@1.4.0", Level: "warn", Line: "no email", Record: "orders/0/17"},
		{Seq: 3, At: at + 2, Stage: "mask", Plugin: "order-mask@1.4.0", Level: "error", Line: "panicked", Record: "orders/0/18", Filed: true},
		{Seq: 4, At: at + 3, Stage: "mask", Plugin: "order-mask@1.4.0", Level: "info", Line: "to STDERR", First: "orders/1/5", Last: "orders/1/9"},
	}
	page := func(pages ...*api.LogPage) {
		h.node.logs, h.node.calls = map[string][]*api.LogPage{"default/orders": pages}, nil
	}
	page(&api.LogPage{Lines: lines, Next: 4})
	h.do("logs", "orders", "-n", "4", "--level", "info")
	h.asked()
	page(&api.LogPage{Lines: lines[1:2], Next: 4})
	h.do("logs", "orders.mask", "-o", "ndjson")
	h.asked()
	h.note("followed: what was missed is said, and each question goes on from the last")
	page(&api.LogPage{Lines: lines[:2], Next: 2}, &api.LogPage{Lines: lines[3:], Next: 14, Missed: 9})
	h.do("logs", "orders", "-f")
	h.asked()
	h.note("what is not there")
	h.do("logs", "orders.maks")
	h.do("logs", "ordres.mask")
	h.do("logs")
	h.do("logs", "orders", "-n", "-1")
	h.do("logs", "orders", "-n", "1001")
	h.golden("logs")
}
