package main

import (
	"testing"

	"github.com/millrace-io/millrace/cmd/internal/api"
)

func TestOffsets(t *testing.T) {
	h := newHarness(t)
	h.do("flow", "offsets", "get", "orders")
	h.do("flow", "offsets", "get", "orders", "-o", "ndjson")
	h.do("flow", "offsets", "get", "order")
	h.node.calls = nil
	h.do("flow", "offsets", "reset", "orders", "--to", "earliest", "--dry-run")
	h.do("flow", "offsets", "reset", "orders", "--to", "latest", "--dry-run", "-o", "json")
	h.do("flow", "offsets", "reset", "orders", "--to", "2h", "--dry-run", "-o", "name")
	h.asked()
	h.note("nobody there to ask")
	h.do("flow", "offsets", "reset", "orders", "--to", "-100")
	h.note("somebody")
	h.sits = true
	h.doWith("\n", "flow", "offsets", "reset", "orders", "--to", "-100")
	h.node.calls = nil
	h.doWith("yes\n", "flow", "offsets", "reset", "orders", "--to", "0=12", "--to", "orders/1=5")
	h.asked()
	h.node.flows["default/orders"].State = api.StatePaused
	h.do("flow", "offsets", "reset", "orders", "--to", "2026-11-21", "--yes", "-o", "json")
	h.asked()

	h.note("what is no target")
	h.do("flow", "offsets", "reset", "orders")
	h.do("flow", "offsets", "reset", "order", "--to", "earliest")
	for _, to := range []string{"begin", "-0", "--5", "0=x", "a/=1", "/1=1", "-1=1", "0=-1", "99999999999=1"} {
		h.do("flow", "offsets", "reset", "orders", "--to", to)
	}
	h.do("flow", "offsets", "reset", "orders", "--to", "latest", "--to", "0=1")
	h.do("flow", "offsets", "reset", "orders", "--to", "latest", "--to", "earliest")
	h.golden("offsets")
}
