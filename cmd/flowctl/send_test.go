package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace-io/millrace/cmd/internal/api"
	"github.com/millrace-io/millrace/cmd/internal/devbroker"
)

// taken are n records of a topic.
func taken(t *testing.T, broker, topic string, n int) []*kgo.Record {
	t.Helper()
	cl, err := kgo.NewClient(kgo.SeedBrokers(broker), kgo.ConsumeTopics(topic), kgo.FetchMaxWait(50*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	var got []*kgo.Record
	for len(got) < n {
		fs := cl.PollFetches(ctx)
		if ctx.Err() != nil {
			t.Fatalf("read %d of %d records of %s", len(got), n, topic)
		}
		got = append(got, fs.Records()...)
	}
	return got
}

func TestSend(t *testing.T) {
	h := newHarness(t)
	b, err := devbroker.Start(devbroker.Config{Partitions: 1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close() })
	h.write(".millrace/broker", b.Addr()+"\n")
	h.node.connections["here"] = &api.Connection{Name: "here", Kind: "kafka", Target: b.Addr()}
	h.write("orders.ndjson", `{"id":1,"customer":{"id":"c-1"}}`+"\n\n"+`{"id":2}`+"\r\n"+`{"id":3,"customer":{"id":7}}`)
	h.dir = filepath.Join(h.dir, "deep", "er")
	for i, tc := range []struct {
		name  string
		stdin string
		args  []string
		want  []string // key, value, headers
	}{
		{"STDIN", "a\nb\n", nil, []string{"<nil> a", "<nil> b"}},
		{"a dash", "a", []string{"-"}, []string{"<nil> a"}},
		{"a file with keys", "", []string{"../../orders.ndjson", "--key", "customer.id", "--header", "source=test=1", "--header", "b="},
			[]string{`c-1 {"id":1,"customer":{"id":"c-1"}} source=test=1 b=`, `<nil> {"id":2} source=test=1 b=`, `7 {"id":3,"customer":{"id":7}} source=test=1 b=`}},
		{"an expression", `{"country":"DE"}`, []string{"--key", "lower(value.country)"}, []string{`de {"country":"DE"}`}},
		{"a root", `x`, []string{"--key", "raw"}, []string{`x x`}},
		{"a connection of the node", "a", []string{"--connection", "here"}, []string{"<nil> a"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			topic := fmt.Sprint("in", i)
			code, stdout, stderr := h.call(tc.stdin, append([]string{"send", topic}, tc.args...)...)
			n := "records"
			if len(tc.want) == 1 {
				n = "record"
			}
			if want := fmt.Sprintf("sent %d %s to topic %s at %s\n", len(tc.want), n, topic, b.Addr()); code != 0 || stdout != want {
				t.Fatalf("exit %d, stdout %q, stderr %q; want %q", code, stdout, stderr, want)
			}
			var got []string
			for _, r := range taken(t, b.Addr(), topic, len(tc.want)) {
				key := "<nil>"
				if r.Key != nil {
					key = string(r.Key)
				}
				s := key + " " + string(r.Value)
				for _, hd := range r.Headers {
					s += " " + hd.Key + "=" + string(hd.Value)
				}
				got = append(got, s)
			}
			if !slices.Equal(got, tc.want) {
				t.Errorf("got  %q\nwant %q", got, tc.want)
			}
		})
	}

	t.Run("addresses in the topic, JSON", func(t *testing.T) {
		for _, target := range []string{"kafka://" + b.Addr() + "/whole", "kafka://here/whole"} {
			code, stdout, stderr := h.call("a\nb", "send", target, "-o", "json")
			var got sent
			if err := json.Unmarshal([]byte(stdout), &got); err != nil || code != 0 || got.Sent != 2 || got.Topic != "whole" || len(got.Broker) != 1 || got.Broker[0] != b.Addr() {
				t.Errorf("exit %d, %s%s, %v", code, stdout, stderr, err)
			}
		}
		taken(t, b.Addr(), "whole", 4)
	})

	t.Run("a line without JSON", func(t *testing.T) {
		code, stdout, stderr := h.call("{\"a\":1}\nx\n{\"a\":2}\n", "send", "broken", "--key", "a")
		if code != 2 || stdout != "" || !strings.HasPrefix(stderr, "E_SEND_FAILED: line 2: the key: ") || !strings.Contains(stderr, "; 1 record went to topic broken\nnext: ") {
			t.Errorf("exit %d, %q, %q", code, stdout, stderr)
		}
		if got := taken(t, b.Addr(), "broken", 1); string(got[0].Key) != "1" {
			t.Errorf("key %q", got[0].Key)
		}
	})
}

// TestSendInterrupted: Ctrl-C ends it while it waits for a line, and what was
// sent is told.
func TestSendInterrupted(t *testing.T) {
	h := newHarness(t)
	b, err := devbroker.Start(devbroker.Config{Partitions: 1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close() })
	in, out := io.Pipe()
	defer out.Close()
	ctx, cancel := context.WithCancel(t.Context())
	var stdout, stderr bytes.Buffer
	ended := make(chan int, 1)
	go func() { ended <- h.start(ctx, in, &stdout, &stderr, "send", "kafka://"+b.Addr()+"/in") }()
	if _, err := io.WriteString(out, "a\n"); err != nil {
		t.Fatal(err)
	}
	taken(t, b.Addr(), "in", 1)
	cancel()
	select {
	case code := <-ended:
		if code != 130 || !strings.Contains(stderr.String(), "1 record went to topic in") {
			t.Errorf("exit %d, %s", code, &stderr)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("it does not end")
	}
}

// TestSendLongLine: the line that is too long is named, those before it arrive.
func TestSendLongLine(t *testing.T) {
	h := newHarness(t)
	b, err := devbroker.Start(devbroker.Config{Partitions: 1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close() })
	for limit, want := range map[int]string{maxSendLine: "line 2 is longer than 16.0 MiB; 1 record went to topic ", 2 << 20: "line 2: "} {
		topic := fmt.Sprint("in", limit)
		code, stdout, stderr := h.call("a\n"+strings.Repeat("x", limit)+"\nb\n", "send", "kafka://"+b.Addr()+"/"+topic)
		if code == 0 || stdout != "" || !strings.Contains(stderr, want) {
			t.Errorf("%d: exit %d, %q, want %q", limit, code, stderr, want)
		}
		taken(t, b.Addr(), topic, 1)
	}
}

func TestSendRefusals(t *testing.T) {
	h := newHarness(t)
	h.node.connections["partner"].Kind = "http"
	h.node.connections["secured"] = &api.Connection{Name: "secured", Kind: "kafka", Target: "127.0.0.1:9", Document: "connection: v1\nname: secured\nkafka: { brokers: [\"127.0.0.1:9\"], tls: {} }\n"}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody := l.Addr().String()
	_ = l.Close()
	for _, tc := range []struct {
		name string
		args []string
		code int
		want string
	}{
		{"no topic", nil, 2, "missing argument TOPIC"},
		{"no dev node", []string{"in"}, 2, "E_NO_BROKER: which broker has topic in? There is no `flowctl dev` in this folder or above it\nnext: go to the folder of one, or name the broker: `flowctl send kafka://HOST:PORT/in`, or --connection NAME\n"},
		{"no broker there", []string{"kafka://" + nobody + "/in", "--timeout", "2s"}, 3, "E_NO_BROKER: no broker at " + nobody + " (from TOPIC): "},
		{"no topic in the address", []string{"kafka://127.0.0.1:9092"}, 2, "names no topic"},
		{"an odd topic", []string{"a/b"}, 2, `"a/b" is not the name of a topic`},
		{"two brokers", []string{"kafka://127.0.0.1:9092/in", "--connection", "main"}, 2, "both name a broker"},
		{"two connections", []string{"kafka://other/in", "--connection", "main"}, 2, "both name a connection"},
		{"a connection of another kind", []string{"in", "--connection", "partner"}, 2, "connection partner is of kind http"},
		{"a secure connection", []string{"in", "--connection", "secured"}, 2, "connection secured is a secure one"},
		{"no such connection", []string{"in", "--connection", "missing"}, 1, "missing"},
		{"a header without a value", []string{"in", "--header", "x"}, 2, `--header "x" has no name and value`},
		{"a key that is no expression", []string{"in", "--key", "a +"}, 2, `--key "a +"`},
		{"no such file", []string{"kafka://" + nobody + "/in", "missing.ndjson"}, 2, "missing.ndjson"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			code, stdout, stderr := h.call("a\n", append([]string{"send"}, tc.args...)...)
			if code != tc.code || stdout != "" || !strings.Contains(stderr, tc.want) {
				t.Errorf("exit %d, stdout %q, stderr %q; want exit %d and %q", code, stdout, stderr, tc.code, tc.want)
			}
		})
	}
}
