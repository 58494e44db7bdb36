package main

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/millrace-io/millrace/cmd/internal/api"
)

const ordersFlow = `flow: v1
name: orders
source: kafka://main/orders
stages:
  - id: mask
    map: order-mask@^1
  - push: kafka://main/orders-out
`

func TestRevisions(t *testing.T) {
	h := newHarness(t)
	pin := func(version, c string) map[string]string {
		return map[string]string{"mask": version + " sha256:" + strings.Repeat(c, 64)}
	}
	h.node.revisions = map[string][]*api.Revision{"default/orders": {
		{Revision: 3, At: ago(time.Hour), Document: strings.Replace(ordersFlow, "orders-out", "masked", 1), Pinned: pin("1.2.0", "b")},
		{Revision: 2, At: ago(2 * time.Hour), Document: ordersFlow, Pinned: pin("1.2.0", "b")},
		{Revision: 1, At: ago(50 * time.Hour), Document: ordersFlow, Pinned: pin("1.1.0", "a")},
	}, "acme/refunds": {{Revision: 1, At: ago(time.Minute), Document: ordersFlow}}}
	h.do("history", "orders")
	h.do("history", "orders", "-o", "wide")
	h.do("history", "orders", "-o", "name")
	h.do("history", "acme/refunds", "-o", "json")
	h.do("history", "order")
	h.do("diff", "orders")
	h.do("diff", "orders", "1")
	h.do("diff", "orders", "3", "1", "-o", "json")
	h.do("diff", "orders", "2", "2")
	h.do("diff", "orders", "7")
	h.do("diff", "orders", "last")
	h.do("diff", "acme/refunds")
	h.do("diff", "order")
	h.do("diff", "orders", "--var", "a=b")
	h.node.calls = nil
	h.do("rollback", "orders", "--dry-run")
	h.do("rollback", "orders")
	h.do("rollback", "orders", "1", "-o", "json")
	h.asked()
	h.do("rollback", "orders", "9")
	h.do("rollback", "acme/refunds")
	h.do("rollback", "order")
	h.golden("revisions")
}

func TestDiffOfDocuments(t *testing.T) {
	h := newHarness(t)
	h.copy("examples/upper/upper.wasm", "upper.wasm")
	h.write("upper.yaml", upperFlow)
	h.do("diff", "upper.yaml")
	if len(h.node.puts) > 0 {
		t.Error("a comparison changed something")
	}
	h.do("apply", "-f", "upper.yaml")
	h.do("diff", "upper.yaml")
	h.doWith(strings.Replace(upperFlow, "orders-upper", "other", 1), "diff", "-")
	h.do("diff", ".", "-o", "json")
	h.do("diff", "upper.yaml", "2")
	h.do("diff", "missing.yaml")
	h.golden("diff")
}

// patched applies a comparison to the old text, or checks that it belongs to
// it.
func patched(old string, lines []diffLine) (now string, ok bool) {
	var was, is []string
	for _, l := range lines {
		if l.op != '+' {
			was = append(was, l.text)
		}
		if l.op != '-' {
			is = append(is, l.text)
		}
	}
	return strings.Join(is, "\n"), strings.Join(was, "\n") == old
}

func TestLineDiff(t *testing.T) {
	seed := rand.Uint64()
	r := rand.New(rand.NewPCG(seed, 0))
	text := func() string {
		lines := make([]string, 1+r.IntN(12))
		for i := range lines {
			lines[i] = fmt.Sprint("line ", r.IntN(5))
		}
		return strings.Join(lines, "\n")
	}
	for range 2000 {
		old, now := text(), text()
		d := lineDiff(old, now)
		if got, ok := patched(old, d); !ok || got != now {
			t.Fatalf("seed %d: %q -> %q: %v", seed, old, now, d)
		}
		if (len(hunks(d)) == 0) != (old == now) {
			t.Fatalf("seed %d: %q -> %q: hunks %q", seed, old, now, hunks(d))
		}
	}
	for _, c := range []struct{ old, now, want string }{
		{"", "", ""},
		{"", "a\n", "+ a"},
		{"a\n", "", "- a"},
		{"a\r\nb\r\n", "a\nb\n", ""},
		{"1\n2\n3\n4\n5\n6\n7\n8\n9", "1\n2\n3\n4\nx\n6\n7\n8\n9", "...|  3|  4|- 5|+ x|  6|  7|..."},
	} {
		if got := strings.Join(hunks(lineDiff(c.old, c.now)), "|"); got != c.want {
			t.Errorf("%q -> %q: got %q, want %q", c.old, c.now, got, c.want)
		}
	}
	long := func(of string) string { return "same\n" + strings.Repeat(of+"\n", 3000) + "end\n" }
	if d := lineDiff(long("a"), long("b")); len(d) != 6002 || d[0].op != ' ' || d[1].op != '-' || d[6000].op != '+' || d[6001].text != "end" {
		t.Errorf("of long texts: %d lines", len(d))
	}
}
