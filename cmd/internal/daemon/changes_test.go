package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace-io/millrace/cluster/state"
	"github.com/millrace-io/millrace/cmd/internal/api"
)

func copyFlow(name, source, extra string) string {
	return fmt.Sprintf("flow: v1\nname: %s\nsource: { kafka: { connection: main, topics: [%s]%s } }\nstages:\n  - push: kafka://main/%s-out\n", name, source, extra, name)
}

func kafkaClient(t *testing.T, addr string) *kgo.Client {
	t.Helper()
	cl, err := kgo.NewClient(kgo.SeedBrokers(addr), kgo.MetadataMinAge(50*time.Millisecond), kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.AllowAutoTopicCreation())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	return cl
}

// write puts n records into a partition.
func write(t *testing.T, cl *kgo.Client, topic string, partition int32, n int) {
	t.Helper()
	for i := range n {
		r := &kgo.Record{Topic: topic, Partition: partition, Value: fmt.Appendf(nil, "%d/%d", partition, i)}
		if err := cl.ProduceSync(t.Context(), r).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
}

func setState(t *testing.T, d *Daemon, name, want string) {
	t.Helper()
	if _, err := d.SetFlow(t.Context(), "default", name, want); err != nil {
		t.Fatal(err)
	}
	if want == api.StatePaused {
		poll(t, "the runner's end", func() (bool, string) { return len(d.active()) == 0, "" })
	}
}

func TestTopicMadeAnewWhileTheFlowRested(t *testing.T) {
	broker := startBroker(t)
	d, _ := life(t, t.TempDir())
	connect(t, d, broker.Addr())
	cl := kafkaClient(t, broker.Addr())
	write(t, cl, "in", 0, 10)
	mustPut(t, d, &api.PutFlow{Document: copyFlow("copy", "in", "")})
	settled(t, d, "copy", 10)
	setState(t, d, "copy", api.StatePaused)
	del := kmsg.NewPtrDeleteTopicsRequest()
	name := kmsg.NewDeleteTopicsRequestTopic()
	name.Topic = kmsg.StringPtr("in")
	del.TopicNames, del.Topics, del.TimeoutMillis = []string{"in"}, []kmsg.DeleteTopicsRequestTopic{name}, 5000
	if _, err := del.RequestWith(t.Context(), cl); err != nil {
		t.Fatal(err)
	}
	write(t, kafkaClient(t, broker.Addr()), "in", 0, 30)
	for range 2 {
		setState(t, d, "copy", api.StateRunning)
		poll(t, "the pause", func() (bool, string) {
			f, err := d.Flow(t.Context(), "default", "copy")
			if err != nil {
				t.Fatal(err)
			}
			return strings.Contains(f.Reason, "made anew"), fmt.Sprintf("%s %s %s", f.State, f.Reason, f.Problem)
		})
		poll(t, "the runner's end", func() (bool, string) { return len(d.active()) == 0, "" })
	}
	settled(t, d, "copy", 10) // of the new topic nothing was taken for the old one's
}

func TestPartitionThatCameLaterIsReadFromItsStart(t *testing.T) {
	broker := startBroker(t)
	d, _ := life(t, t.TempDir())
	connect(t, d, broker.Addr())
	cl := kafkaClient(t, broker.Addr())
	write(t, cl, "in", 0, 10)
	mustPut(t, d, &api.PutFlow{Document: copyFlow("copy", "in", ", start: latest")})
	settled(t, d, "copy", 10)
	setState(t, d, "copy", api.StatePaused)
	add := kmsg.NewPtrCreatePartitionsRequest()
	topic := kmsg.NewCreatePartitionsRequestTopic()
	topic.Topic, topic.Count = "in", 5
	add.Topics, add.TimeoutMillis = append(add.Topics, topic), 5000
	if _, err := add.RequestWith(t.Context(), cl); err != nil {
		t.Fatal(err)
	}
	write(t, kafkaClient(t, broker.Addr()), "in", 4, 7)
	setState(t, d, "copy", api.StateRunning)
	settled(t, d, "copy", 17)
	if got := consume(t, broker.Addr(), "copy-out", 7); string(got[0].Value) != "4/0" {
		t.Errorf("first record out: %s", got[0].Value)
	}
}

func TestConnectionOfAProject(t *testing.T) {
	broker := startBroker(t)
	d, _ := life(t, t.TempDir())
	plan, err := d.PutConnection(t.Context(), &api.PutConnection{Document: "connection: v1\nproject: team\nname: main\nkafka: { brokers: [" + broker.Addr() + "] }\n"})
	if err != nil {
		t.Fatal(err)
	}
	write(t, kafkaClient(t, broker.Addr()), "in", 0, 3)
	mustPut(t, d, &api.PutFlow{Document: copyFlow("copy", "in", "") + "project: team\n"})
	consume(t, broker.Addr(), "copy-out", 3)
	err = d.DeleteConnection(t.Context(), plan.Name)
	if e, ok := errors.AsType[*api.Error](err); !ok || e.Code != api.CodeInUse {
		t.Errorf("deleting %s while it is used: %v", plan.Name, err)
	}
	if _, err := d.PutFlow(t.Context(), &api.PutFlow{Document: copyFlow("copy", "in", "")}); err == nil {
		t.Error("a flow of another project took the connection")
	}
}

func TestFlowsPutAtOnceDoNotMixSources(t *testing.T) {
	broker := startBroker(t)
	d, _ := life(t, t.TempDir())
	connect(t, d, broker.Addr())
	var wg sync.WaitGroup
	errs := make([]error, 4)
	for i := range errs {
		wg.Go(func() {
			_, errs[i] = d.PutFlow(context.Background(), &api.PutFlow{Document: copyFlow("copy", fmt.Sprint("in", i), ", start: earliest")})
		})
	}
	wg.Wait()
	put := 0
	for _, err := range errs {
		if e, ok := errors.AsType[*api.Error](err); err == nil {
			put++
		} else if !ok || e.Code != api.CodeConflict {
			t.Errorf("got %v, want a conflict", err)
		}
	}
	if f, err := d.Flow(t.Context(), "default", "copy"); put != 1 || err != nil || f.Revision != 1 {
		t.Errorf("%d of %d documents with other sources were taken: %+v, %v", put, len(errs), f, err)
	}
}

func TestReconcileAFlowThatIsGone(t *testing.T) {
	broker := startBroker(t)
	d, _ := life(t, t.TempDir())
	connect(t, d, broker.Addr())
	mustPut(t, d, &api.PutFlow{Document: copyFlow("copy", "in", "")})
	poll(t, "the runner", func() (bool, string) { return len(d.active()) == 1, "" })
	f, err := d.store.Flow("default", "copy")
	if err != nil {
		t.Fatal(err)
	}
	gone := *f
	gone.Revision = 9
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.reconcileFlow(t.Context(), &gone); err != nil {
		t.Error(err)
	}
	r := d.runners[f.ID]
	delete(d.runners, f.ID)
	if err := d.reconcileFlow(t.Context(), &gone); err != nil || d.runners[f.ID] != nil {
		t.Errorf("started, or: %v", err)
	}
	d.runners[f.ID] = r
}

func TestStopCutsOffARequestThatHangs(t *testing.T) {
	broker := startBroker(t)
	arrived := make(chan struct{}, 1)
	hang := make(chan struct{})
	partner := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		signal(arrived)
		select {
		case <-hang:
		case <-r.Context().Done():
		}
	}))
	defer partner.Close()
	defer close(hang)
	d, err := Open(t.Context(), Config{Dir: t.TempDir(), Listen: "127.0.0.1:0", DrainLimit: 200 * time.Millisecond, Logger: testLogger(t)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- d.Run(ctx) }()
	connect(t, d, broker.Addr())
	write(t, kafkaClient(t, broker.Addr()), "in", 0, 3)
	mustPut(t, d, &api.PutFlow{Document: "flow: v1\nname: call\nsource: kafka://main/in\norder: partition\nstages:\n  - push: " + partner.URL + "/x\n"})
	<-arrived
	cancel()
	select {
	case err := <-ended:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("the node waits for a request that hangs")
	}
	if err := d.Close(); err != nil {
		t.Error(err)
	}
}

func TestFlowThatCannotOpenIsPausedOnce(t *testing.T) {
	broker := startBroker(t)
	said := &counting{Handler: slog.DiscardHandler, message: "flow paused"}
	d, _ := lifeWith(t, Config{Dir: t.TempDir(), Logger: slog.New(said)})
	connect(t, d, broker.Addr())
	if _, err := d.PutConnection(t.Context(), &api.PutConnection{Document: "connection: v1\nname: partner\nhttp: { base: http://127.0.0.1:1, auth: { bearer: { secret: partner/token } } }\n"}); err != nil {
		t.Fatal(err)
	}
	mustPut(t, d, &api.PutFlow{Document: "flow: v1\nname: call\nsource: kafka://main/in\nstages:\n  - push: { http: { connection: partner, post: /x } }\n"})
	for n := range int64(3) {
		poll(t, "the pause", func() (bool, string) {
			f, err := d.Flow(t.Context(), "default", "call")
			if err != nil {
				t.Fatal(err)
			}
			return f.State == state.AutoPaused.String() && strings.Contains(f.Reason, "partner/token") && len(d.active()) == 0, f.State + " " + f.Reason
		})
		if got := said.n.Load(); got != n+1 {
			t.Errorf("paused %d times, want %d", got, n+1)
		}
		setState(t, d, "call", api.StateRunning)
	}
}

// counting counts a message.
type counting struct {
	slog.Handler
	message string
	n       atomic.Int64
}

func (c *counting) Enabled(context.Context, slog.Level) bool { return true }
func (c *counting) WithAttrs([]slog.Attr) slog.Handler       { return c }
func (c *counting) Handle(_ context.Context, r slog.Record) error {
	if r.Message == c.message {
		c.n.Add(1)
	}
	return nil
}
