//go:build linux

package faulttest

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace-io/millrace/examples/orders/gen"
	"github.com/millrace-io/millrace/plugins/plugintest/guests"
	"github.com/millrace-io/millrace/runtime/record"
)

// One record of 10,000 on which the guest traps, or to which it answers
// garbage, lies in the failure queue with its cause; the others arrive.
func TestPoisonRecord(t *testing.T) {
	const records = 10_000
	r := newRig(t, false)
	rng := seeded(t)
	r.run()
	r.connectKafka()
	p := r.upload("faulty.wasm", guests.Faulty)
	cases := []struct {
		value string // which the guest takes for a command
		class record.Class
		why   string // in the message
	}{
		{"trap", record.Trap, "unreachable"},
		{"panic", record.Trap, "unreachable"},
		{"outside", record.Trap, "out of bounds"},
		{"wrong-length", record.Protocol, "length"},
		{"missing", record.Protocol, "is not answered"},
		{"doubled", record.Protocol, "answered twice"},
		{"unknown-id", record.Protocol, "is for record 1000000"},
	}
	poison := make([]int, len(cases))
	for i, c := range cases {
		poison[i] = rng.IntN(records)
		r.makeTopics(r.source, "in-"+c.value)
		r.makeTopics(r.output, "out-"+c.value)
		r.apply(fmt.Sprintf("flow: v1\nname: %[1]s\nsource: kafka://main/in-%[1]s\nstages:\n  - id: %[1]s-stage\n    map: ./faulty.wasm\n  - push: kafka://other/out-%[1]s\n", c.value),
			map[string]string{"./faulty.wasm": p.Digest})
		for n := range records {
			value := fmt.Sprintf("record %d", n)
			if n == poison[i] {
				value = c.value
			}
			r.source.client.Produce(t.Context(), &kgo.Record{Topic: "in-" + c.value, Key: []byte(strconv.Itoa(n % 100)), Value: []byte(value),
				Headers: []kgo.RecordHeader{{Key: numberHeader, Value: []byte(strconv.Itoa(n))}}}, nil)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := r.source.client.Flush(ctx); err != nil {
		t.Fatal(err)
	}
	for i, c := range cases {
		t.Run(c.value, func(t *testing.T) {
			r := *r
			r.t = t
			r.settled(c.value, "in-"+c.value, 30*time.Second)
			f := follow(t, r.output.addr, "out-"+c.value, partitions)
			f.upTo(t, r.ends(r.output, "out-"+c.value))
			arrived := make([]int, records)
			for _, o := range f.all() {
				if o.number < 0 || o.sum != gen.SumOf([]byte(strconv.Itoa(o.number%100)), fmt.Appendf(nil, "record %d", o.number)) {
					t.Fatalf("output %d/%d (record %d) is not what was sent", o.partition, o.offset, o.number)
				}
				arrived[o.number]++
			}
			for n, times := range arrived {
				if want := 1; n == poison[i] && times != 0 || n != poison[i] && times != want {
					t.Fatalf("record %d of %d (the poison is %d) arrived %d times", n, records, poison[i], times)
				}
			}
			entries := r.entries(c.value)
			if len(entries) != 1 {
				t.Fatalf("%d entries in the failure queue, want the one", len(entries))
			}
			e := entries[0]
			t.Logf("%s: stage %s, plugin %s %s: %s: %s", e.ID(), e.Stage, e.Plugin, e.Digest, e.Class, e.Message)
			if string(e.Input.Value) != c.value || e.Stage != c.value+"-stage" || e.Plugin != p.Ref() || e.Digest != p.Digest || e.Class != c.class || e.Flow != "default/"+c.value {
				t.Errorf("entry %+v", e)
			}
			if !strings.Contains(e.Message, c.why) {
				t.Errorf("message %q does not say %q", e.Message, c.why)
			}
			if e.Replay == nil {
				t.Error("the entry cannot be replayed")
			}
		})
	}
	r.stopNode()
}
