package dev

import (
	"context"
	"encoding/json"
	"fmt"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace-io/millrace/cmd/internal/api"
)

// TestSwapIsWaitedFor: a version is said to run, and the record that shows it
// is fed, once the last batch of the one before is done. The first version here
// uses up its fuel with each record.
func TestSwapIsWaitedFor(t *testing.T) {
	f := newFake(t)
	f.write(t, "src/stage", "s")
	r := start(t, Config{Project: f, NoFeed: true, Ephemeral: true})
	r.next(&r.err, "runs in flow mask")
	state := filepath.Join(f.dir, stateDir)
	client := api.NewClient("http://" + firstLine(t, filepath.Join(state, nodeFile)))
	cl, err := kgo.NewClient(kgo.SeedBrokers(firstLine(t, filepath.Join(state, brokerFile))), kgo.DefaultProduceTopic(sourceTopic), kgo.ProducerLinger(50*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	records := make([]*kgo.Record, 500)
	for i := range records {
		records[i] = &kgo.Record{Value: []byte(`{"id":1,"amount":1,"note":"a"}`)}
	}
	if err := cl.ProduceSync(t.Context(), records...).FirstErr(); err != nil {
		t.Fatal(err)
	}
	poll(t, "the first batch", func() bool {
		flow, err := client.Flow(t.Context(), "default", "mask")
		return err == nil && flow.Receipt.Read > 0
	})
	f.write(t, "src/stage", "n")
	r.next(&r.err, "runs in flow mask")
	if !strings.HasPrefix(r.out.text(), "0  {id:1} failed: ") {
		t.Error("the new version is said to run while the old one works on its batch")
	}
	r.end()
}

// TestEachRecordOnce: while versions replace one another, each record that was
// sent arrives once, in order, and went through one version whole; the versions
// follow one another as they were saved.
func TestEachRecordOnce(t *testing.T) {
	f := newFake(t)
	r := start(t, Config{Project: f, NoFeed: true, Ephemeral: true})
	r.next(&r.err, "runs in flow mask")
	state := filepath.Join(f.dir, stateDir)
	broker := firstLine(t, filepath.Join(state, brokerFile))
	client := api.NewClient("http://" + firstLine(t, filepath.Join(state, nodeFile)))

	cl, err := kgo.NewClient(kgo.SeedBrokers(broker), kgo.DefaultProduceTopic(sourceTopic))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	ctx, stop := context.WithCancel(t.Context())
	fed := make(chan int, 1)
	go func() {
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		n := 0
		for ; ctx.Err() == nil; n++ {
			value := fmt.Sprintf(`{"id":%d,"amount":10.005,"note":"a"}`, n)
			if err := cl.ProduceSync(context.WithoutCancel(ctx), &kgo.Record{Value: []byte(value)}).FirstErr(); err != nil {
				t.Errorf("send %d: %v", n, err)
				break
			}
			<-tick.C
		}
		fed <- n
	}()
	const versions = "pnrnpr"
	r.next(&r.out, "= unchanged")
	for _, letter := range versions[1:] {
		f.write(t, "src/stage", string(letter))
		r.next(&r.err, "runs in flow mask")
		r.next(&r.err, "first record through")
	}
	stop()
	n := <-fed
	var last api.Receipt
	poll(t, "records that are all settled", func() bool {
		flow, err := client.Flow(t.Context(), "default", "mask")
		if err != nil {
			t.Fatal(err)
		}
		last = *flow.Receipt
		return last.Delivered >= int64(n)
	})
	if last.Read != int64(n) || last.Delivered != int64(n) || last.Unaccounted != 0 {
		t.Errorf("%d records were sent, the flow counts %+v", n, last)
	}
	went := ""
	for i, value := range values(t, broker, sinkTopic, n) {
		var got struct {
			ID     int         `json:"id"`
			Amount json.Number `json:"amount"`
			Note   *string     `json:"note"`
		}
		if err := json.Unmarshal([]byte(value), &got); err != nil {
			t.Fatalf("%s: %v", value, err)
		}
		if got.ID != i {
			t.Fatalf("record %d stands at place %d of %d", got.ID, i, n)
		}
		letter := "p"
		switch {
		case got.Note == nil:
			letter = "n"
		case got.Amount == "10.01":
			letter = "r"
		}
		if !strings.HasSuffix(went, letter) {
			went += letter
		}
	}
	if went != versions {
		t.Errorf("the records went through versions %s, saved were %s", went, versions)
	}
	r.end()
}

// TestWaitsDoNotPileUp: versions that no record went through leave nobody who
// waits for one.
func TestWaitsDoNotPileUp(t *testing.T) {
	f := newFake(t)
	r := start(t, Config{Project: f, NoFeed: true, Ephemeral: true})
	r.next(&r.err, "runs in flow mask")
	waiting := func() int {
		buf := make([]byte, 1<<20)
		return strings.Count(string(buf[:runtime.Stack(buf, true)]), "dev.(*session).firstRecord(")
	}
	for _, letter := range "nrxp" {
		f.write(t, "src/stage", string(letter))
		r.next(&r.err, "runs in flow mask")
	}
	poll(t, "one that waits", func() bool { return waiting() == 1 })
	r.end()
}
