package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/millrace-io/millrace/cmd/internal/twin/capture"
)

// TestTwinRecordOfAConnection: what goes over a connection of the node becomes
// a twin, in as many pages as it takes.
func TestTwinRecordOfAConnection(t *testing.T) {
	h := newHarness(t)
	fill := func(n int) {
		h.node.exchanges = nil
		for i := range n {
			h.node.exchanges = append(h.node.exchanges, capture.Exchange{Time: time.Unix(1_700_000_000, 0).UTC(), Millis: 5, Verdict: "ok",
				Request: capture.Request{Method: "POST", URL: fmt.Sprintf("https://partner.example/orders/%d", 10_000+i)}, Response: capture.Response{Status: 200, Body: `{"code":0}`}})
		}
	}
	fill(700)
	h.node.calls = nil
	code, stdout, stderr := h.call("", "twin", "record", "--connection", "partner", "--for", "25s", "--count", "600", "--save", "seen.ndjson", "--name", "b")
	if code != 0 || !strings.Contains(stdout, "match: 'POST /orders/{id}'") || !strings.Contains(stdout, "weight: 600\n") || !strings.Contains(stderr, "1 route of 600 exchanges") || !strings.Contains(stderr, "300 exchanges came too fast") {
		t.Errorf("exit %d: %s%s", code, stdout, stderr)
	}
	if got := strings.Join(h.node.calls, "\n"); got != "exchanges partner for=10000 count=500\nexchanges partner for=10000 count=100" {
		t.Errorf("calls %s", got)
	}
	b, err := os.ReadFile(filepath.Join(h.dir, "seen.ndjson"))
	if err != nil || strings.Count(string(b), "\n") != 600 {
		t.Errorf("%v: %.200s", err, b)
	}
	code, again, stderr := h.call("", "twin", "record", "seen.ndjson", "--name", "b")
	if code != 0 || again != stdout {
		t.Errorf("of what was saved came %s\n%s", again, stderr)
	}

	// It ends with the time, and in files that must not exist.
	fill(3)
	h.node.calls = nil
	if code, stdout, stderr := h.call("", "twin", "record", "--connection", "partner", "--for", "25s", "--out", "b.yaml"); code != 0 || stdout != "" {
		t.Errorf("exit %d: %s", code, stderr)
	}
	if got := strings.Join(h.node.calls, "\n"); got != "exchanges partner for=10000 count=500\nexchanges partner for=10000 count=500\nexchanges partner for=5000 count=500" {
		t.Errorf("calls %s", got)
	}
	h.node.calls = nil
	for _, args := range [][]string{{"--out", "b.yaml"}, {"--save", "seen.ndjson"}} {
		if code, _, stderr := h.call("", append([]string{"twin", "record", "--connection", "partner"}, args...)...); code != 2 || !strings.Contains(stderr, args[1]+" exists") || len(h.node.calls) > 0 {
			t.Errorf("%v: exit %d: %s, calls %v", args, code, stderr, h.node.calls)
		}
	}
	for _, c := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{"--connection", "partner"}, 1, "nothing went over connection partner in 1m0s"},
		{[]string{"--connection", "lost"}, 1, "there is no connection lost"},
		{[]string{"--connection", "partner", "seen.ndjson"}, 2, "exclude each other"},
		{nil, 2, "record what?"},
		{[]string{"seen.ndjson", "--for", "1s"}, 2, "--for goes with --connection"},
		{[]string{"--connection", "partner", "--for", "0s"}, 2, "--for 0s"},
		{[]string{"--connection", "partner", "--count", "10001"}, 2, "--count 10001"},
	} {
		if code, _, stderr := h.call("", append([]string{"twin", "record"}, c.args...)...); code != c.code || !strings.Contains(stderr, c.want) {
			t.Errorf("%v: exit %d: %s", c.args, code, stderr)
		}
	}
}
