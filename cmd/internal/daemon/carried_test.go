package daemon

import (
	"encoding/base64"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/millrace-io/millrace/cluster/state"
	"github.com/millrace-io/millrace/cmd/internal/api"
)

func forked(a, b *partnerServer, m string) string {
	return `flow: v1
name: push
source: kafka://main/in
order: none
stages:
  - id: m
    map: { set: { x: ` + m + ` } }
  - id: fork
    every: true
    branch:
      - when: value.a == 1
        stages:
          - id: a
            push: ` + a.URL + `/a
      - when: value.a == 1
        stages:
          - id: b
            push: ` + b.URL + `/b
      - else: drop
`
}

// A record of which one emission is filed is filed as a whole by a stage before,
// and replayed: the emission is filed again, and counts once.
func TestReceiptOfAnEmissionFiledTwice(t *testing.T) {
	broker := startBroker(t)
	a := startPartner(t, func(received) (int, string) { return 400, "" })
	b := startPartner(t, func(received) (int, string) { return 503, "" })
	d, _ := life(t, t.TempDir())
	connect(t, d, broker.Addr())
	feed(t, kafkaClient(t, broker.Addr()), "in", "k", `{"a":1,"s":"abc"}`)
	good, bad := forked(a, b, "value.a"), forked(a, b, "int(value.s)")
	mustPut(t, d, &api.PutFlow{Document: good})
	queued(t, d, "push", 1)
	setState(t, d, "push", api.StatePaused)
	mustPut(t, d, &api.PutFlow{Document: bad})
	setState(t, d, "push", api.StateRunning)
	queued(t, d, "push", 2)
	b.set(nil)
	mustPut(t, d, &api.PutFlow{Document: good})
	poll(t, "the replay", func() (bool, string) {
		var seqs []uint64
		for _, e := range failures(t, d, api.FailureFilter{}).Entries {
			if e.Stage == "m" {
				seqs = append(seqs, e.Seq)
			}
		}
		if len(seqs) == 0 {
			return true, ""
		}
		if status(t, d, "push").Revision < 3 {
			return false, "an earlier revision works"
		}
		_, err := d.ReplayFailures(t.Context(), &api.ReplayFailures{Project: "default", Name: "push", Selection: api.Selection{Seqs: seqs}})
		return err == nil, fmt.Sprint(err)
	})
	poll(t, "the delivery to b", func() (bool, string) { return len(b.got()) >= 1, fmt.Sprint(len(b.got())) })
	keptIs(t, d, "push", 0)
	if f := status(t, d, "push"); f.Receipt.Unaccounted != 0 || f.Receipt.Filed != 1 || f.Receipt.Dropped[state.DroppedReplaced] != 1 {
		t.Errorf("receipt %+v", f.Receipt.Account)
	}
}

// What comes of one kept record is more than one command may hold.
func TestCommitOfALargeReplay(t *testing.T) {
	const branches = 56
	broker := startBroker(t)
	p := startPartner(t, func(received) (int, string) { return 400, "" })
	d, _ := life(t, t.TempDir())
	connect(t, d, broker.Addr())
	noise := make([]byte, 675<<10) // that does not become less in a command
	if _, err := rand.NewChaCha8([32]byte{7}).Read(noise); err != nil {
		t.Fatal(err)
	}
	feed(t, kafkaClient(t, broker.Addr()), "in", "k", `{"a":1,"s":"abc","pad":"`+base64.StdEncoding.EncodeToString(noise)+`"}`)
	doc := func(expr string) string {
		s := "flow: v1\nname: push\nsource: kafka://main/in\norder: none\nstages:\n  - id: m\n    map: { set: { x: " + expr + " } }\n  - id: fork\n    every: true\n    branch:\n"
		for i := range branches {
			s += fmt.Sprintf("      - when: value.a == 1\n        stages:\n          - id: d%d\n            push: %s/x\n", i, p.URL)
		}
		return s + "      - else: drop\n"
	}
	mustPut(t, d, &api.PutFlow{Document: doc("int(value.s)")})
	queued(t, d, "push", 1)
	mustPut(t, d, &api.PutFlow{Document: doc("value.a")})
	if _, err := d.ReplayFailures(t.Context(), &api.ReplayFailures{Project: "default", Name: "push", Selection: api.Selection{Seqs: []uint64{1}}}); err != nil {
		t.Fatal(err)
	}
	queued(t, d, "push", branches)
	keptIs(t, d, "push", 0)
	if a := accounted(t, d, "push"); a.Filed != branches {
		t.Errorf("receipt %+v", a)
	}
	f, err := d.store.Flow("default", "push")
	if err != nil {
		t.Fatal(err)
	}
	if q, err := d.store.QueueStats(f.ID); err != nil || q.Bytes <= state.MaxCommandBytes {
		t.Errorf("the queue has %d bytes, %v; the test needs more than a command may hold", q.Bytes, err)
	}
}

// TestUnaccountedDoesNotCancel: one too many does not make up for one too few.
func TestUnaccountedDoesNotCancel(t *testing.T) {
	r := &api.Receipt{}
	for _, n := range []int64{1, 0, -1, 2} {
		r.Partitions = append(r.Partitions, api.PartitionReceipt{Account: api.Account{Unaccounted: n}})
	}
	if n := unaccounted(r); n != 4 {
		t.Errorf("%d unaccounted for, want 4", n)
	}
}
