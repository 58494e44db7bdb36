package daemon

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace-io/millrace/cluster/state"
	"github.com/millrace-io/millrace/cmd/internal/api"
)

// strict is a broker that makes no topic unless it is told to.
func strict(t *testing.T, topics ...string) (*kfake.Cluster, string) {
	t.Helper()
	c, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(1, topics...))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c, c.ListenAddrs()[0]
}

// says waits until a flow is in a state and gives a reason or a problem.
func says(t *testing.T, d *Daemon, name, want, words string) {
	t.Helper()
	poll(t, "flow "+name+" to say "+words, func() (bool, string) {
		f, err := d.Flow(t.Context(), "default", name)
		if err != nil {
			t.Fatal(err)
		}
		return f.State == want && strings.Contains(f.Reason+f.Problem, words), fmt.Sprintf("%s %s %s", f.State, f.Reason, f.Problem)
	})
}

// A flow waits for a topic that is not there, reads the others meanwhile, and
// takes what was written to it from its beginning on, also after a restart.
func TestFlowWaitsForItsTopic(t *testing.T) {
	c, addr := strict(t, "there", "copy-out")
	dir := t.TempDir()
	d, end := life(t, dir)
	connect(t, d, addr)
	write(t, kafkaClient(t, addr), "there", 0, 5) // before the flow: not its own
	mustPut(t, d, &api.PutFlow{Document: copyFlow("copy", "there, later", ", start: latest")})
	says(t, d, "copy", api.StateRunning, `topic "later" does not exist at `+addr)
	settled(t, d, "copy", 5)
	write(t, kafkaClient(t, addr), "there", 0, 5)
	settled(t, d, "copy", 10)
	end()
	if err := c.CreateTopic("later", 1, nil); err != nil {
		t.Fatal(err)
	}
	write(t, kafkaClient(t, addr), "later", 0, 7)
	d, _ = life(t, dir)
	settled(t, d, "copy", 17)
	if got := consume(t, addr, "copy-out", 12); len(got) != 12 {
		t.Errorf("%d records out, want 12", len(got))
	}
	says(t, d, "copy", api.StateRunning, "")
}

func TestFlowWaitsForTopicsOfItsPattern(t *testing.T) {
	c, addr := strict(t, "copy-out")
	d, _ := life(t, t.TempDir())
	connect(t, d, addr)
	mustPut(t, d, &api.PutFlow{Document: "flow: v1\nname: copy\nsource: { kafka: { connection: main, pattern: 'orders-.*', start: latest } }\nstages:\n  - push: kafka://main/copy-out\n"})
	says(t, d, "copy", api.StateRunning, "matches the pattern orders-.*")
	for i, topic := range []string{"orders-a", "orders-b"} {
		if err := c.CreateTopic(topic, 1, nil); err != nil {
			t.Fatal(err)
		}
		write(t, kafkaClient(t, addr), topic, 0, 4)
		if i > 0 { // found at the next look; a new life looks at once
			setState(t, d, "copy", api.StatePaused)
			setState(t, d, "copy", api.StateRunning)
		}
		settled(t, d, "copy", int64(4*(i+1)))
		if n := c.PartitionInfo("copy-out", 0).HighWatermark; n != int64(4*(i+1)) {
			t.Errorf("%d records out, want all of %d topics", n, i+1)
		}
	}
	if err := c.DeleteTopic("orders-a"); err != nil {
		t.Fatal(err)
	}
	setState(t, d, "copy", api.StatePaused)
	setState(t, d, "copy", api.StateRunning)
	says(t, d, "copy", api.StateAutoPaused, `topic "orders-a"`)
}

// Of a node that was killed between making a partition known and its first
// commit nothing is left but that it is known.
func TestPartitionOfAKilledLifeIsReadFromItsStart(t *testing.T) {
	c, addr := strict(t, "in", "copy-out")
	d, _ := life(t, t.TempDir())
	connect(t, d, addr)
	write(t, kafkaClient(t, addr), "in", 0, 5)
	mustPut(t, d, &api.PutFlow{Document: copyFlow("copy", "in", ", start: latest")})
	settled(t, d, "copy", 5)
	setState(t, d, "copy", api.StatePaused)
	f, err := d.store.Flow("default", "copy")
	if err != nil {
		t.Fatal(err)
	}
	known, err := d.store.Partitions(f.ID)
	if err != nil || len(known) != 1 {
		t.Fatalf("known %v, %v", known, err)
	}
	add := kmsg.NewPtrCreatePartitionsRequest()
	topic := kmsg.NewCreatePartitionsRequestTopic()
	topic.Topic, topic.Count = "in", 2
	add.Topics = append(add.Topics, topic)
	if _, err := add.RequestWith(t.Context(), kafkaClient(t, addr)); err != nil {
		t.Fatal(err)
	}
	key := known[0].PartitionKey
	key.Source = 1
	if _, err := d.node.Propose(t.Context(), &state.PartitionsAdd{Flow: f.ID, Partitions: []state.PartitionKey{key}}); err != nil {
		t.Fatal(err)
	}
	write(t, kafkaClient(t, addr), "in", 1, 9)
	setState(t, d, "copy", api.StateRunning)
	settled(t, d, "copy", 14)
	if n := c.PartitionInfo("copy-out", 0).HighWatermark; n != 9 {
		t.Errorf("%d records out, want the 9 of the new partition", n)
	}
}

func TestTopicDeletedWhileTheFlowRested(t *testing.T) {
	broker := startBroker(t) // makes topics on demand
	d, _ := life(t, t.TempDir())
	connect(t, d, broker.Addr())
	write(t, kafkaClient(t, broker.Addr()), "in", 0, 10)
	mustPut(t, d, &api.PutFlow{Document: copyFlow("copy", "in", "")})
	settled(t, d, "copy", 10)
	setState(t, d, "copy", api.StatePaused)
	del := kmsg.NewPtrDeleteTopicsRequest()
	name := kmsg.NewDeleteTopicsRequestTopic()
	name.Topic = kmsg.StringPtr("in")
	del.TopicNames, del.Topics, del.TimeoutMillis = []string{"in"}, []kmsg.DeleteTopicsRequestTopic{name}, 5000
	if _, err := del.RequestWith(t.Context(), kafkaClient(t, broker.Addr())); err != nil {
		t.Fatal(err)
	}
	setState(t, d, "copy", api.StateRunning)
	says(t, d, "copy", api.StateAutoPaused, "was deleted: ")
	_, err := d.ResetOffsets(t.Context(), &api.OffsetsReset{Project: "default", Name: "copy", To: "earliest", DryRun: true})
	if e, ok := errors.AsType[*api.Error](err); !ok || e.Code != api.CodeConflict || !strings.Contains(e.Detail, "was deleted: ") {
		t.Errorf("reset: got %v, want that the topic was deleted", err)
	}
}

// Brokers that know nothing of a topic for a moment, as those that have just
// started, do not pause its flow.
func TestTopicIsMissingForAMoment(t *testing.T) {
	c, addr := strict(t, "in", "copy-out")
	d, _ := life(t, t.TempDir())
	connect(t, d, addr)
	cl := kafkaClient(t, addr)
	write(t, cl, "in", 0, 10)
	mustPut(t, d, &api.PutFlow{Document: copyFlow("copy", "in", "")})
	settled(t, d, "copy", 10)
	setState(t, d, "copy", api.StatePaused)
	write(t, cl, "in", 0, 10)
	for _, key := range []kmsg.Key{kmsg.Metadata, kmsg.ListOffsets} {
		c.Fault(kfake.Fault{Keys: []kmsg.Key{key}, Topic: "in", Err: kerr.UnknownTopicOrPartition, Count: 3})
	}
	setState(t, d, "copy", api.StateRunning)
	settled(t, d, "copy", 20)
	says(t, d, "copy", api.StateRunning, "")
}

// A plan changes nothing, not even at brokers that make topics on demand.
func TestDryRunMakesNoTopic(t *testing.T) {
	broker := startBroker(t)
	d, _ := life(t, t.TempDir())
	connect(t, d, broker.Addr())
	there := func() bool {
		t.Helper()
		topics, err := kadm.NewClient(kafkaClient(t, broker.Addr())).ListTopics(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return topics.Has("fresh")
	}
	put := &api.PutFlow{Document: copyFlow("copy", "fresh", ""), DryRun: true}
	if _, err := d.PutFlow(t.Context(), put); err != nil {
		t.Fatal(err)
	}
	if there() {
		t.Error("the dry run made the topic of the source")
	}
	put.DryRun = false
	mustPut(t, d, put)
	if !there() {
		t.Error("the topic is not made when the flow is applied")
	}
}
