package daemon

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace-io/millrace/cmd/internal/api"
	"github.com/millrace-io/millrace/runtime/flow"
	"github.com/millrace-io/millrace/runtime/record"
)

// schemaRegistry knows one schema, of id 7, and counts who asks for it.
func schemaRegistry(t *testing.T) (url string, asked *atomic.Int64) {
	t.Helper()
	asked = &atomic.Int64{}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/vnd.schemaregistry.v1+json")
		if user, password, _ := r.BasicAuth(); user != "reader" || password != "registry-secret" {
			w.WriteHeader(http.StatusUnauthorized)
			_, _ = io.WriteString(w, `{"error_code":40101,"message":"Unauthorized"}`)
			return
		}
		if r.URL.Path != "/schemas/ids/7" {
			w.WriteHeader(http.StatusNotFound)
			_, _ = io.WriteString(w, `{"error_code":40403,"message":"Schema not found"}`)
			return
		}
		asked.Add(1)
		_, _ = io.WriteString(w, `{"schema":"{\"type\":\"record\",\"name\":\"O\",\"fields\":[{\"name\":\"id\",\"type\":\"long\"},{\"name\":\"shop\",\"type\":\"string\"}]}"}`)
	}))
	t.Cleanup(s.Close)
	return s.URL, asked
}

// avroOrder is an order in the registry's wire format.
func avroOrder(schema uint32, id int64, shop string) string {
	b := binary.BigEndian.AppendUint32([]byte{0}, schema)
	b = binary.AppendVarint(b, id)
	b = binary.AppendVarint(b, int64(len(shop)))
	return string(append(b, shop...))
}

func TestDecodeIsAStageInFront(t *testing.T) {
	broker := startBroker(t)
	url, asked := schemaRegistry(t)
	dir := t.TempDir()
	d, _ := life(t, dir)
	secretFile(t, dir, "registry/reader", "registry-secret")
	connection := &api.PutConnection{Document: "connection: v1\nname: main\nkafka: { brokers: [" + broker.Addr() + "], registry: { url: \"" + url + "\", basic: { user: reader, password: { secret: registry/reader } } } }\n"}
	if _, err := d.PutConnection(t.Context(), connection); err != nil {
		t.Fatal(err)
	}
	bad := avroOrder(99, 1, "x")
	send(t, broker.Addr(), avroOrder(7, 1, "a"), bad, "no avro", avroOrder(7, 2, "b"))
	for _, name := range []string{"one", "two"} {
		mustPut(t, d, &api.PutFlow{Document: "flow: v1\nname: " + name + "\nsource: { kafka: { connection: main, topics: [in], decode: { avro: registry } } }\nstages:\n  - id: f\n    filter: value.id > 0\n  - push: kafka://main/out-" + name + "\n"})
	}
	for _, name := range []string{"one", "two"} {
		got := valuesOf(consume(t, broker.Addr(), "out-"+name, 2))
		slices.Sort(got)
		if want := []string{`{"id":1,"shop":"a"}`, `{"id":2,"shop":"b"}`}; !slices.Equal(got, want) {
			t.Errorf("%s: got %q, want %q", name, got, want)
		}
		queued(t, d, name, 2)
	}
	if n := asked.Load(); n != 1 {
		t.Errorf("two flows of one connection asked for the schema %d times", n)
	}
	f := status(t, d, "one")
	if s := f.Stages[0]; s.ID != "decode" || s.Describe != "decode avro (registry)" || s.Records != 4 || s.Failures != 2 {
		t.Errorf("first stage: %+v", s)
	}
	page, err := d.Failures(t.Context(), &api.FailureQuery{Project: "default", Name: "one"})
	if err != nil {
		t.Fatal(err)
	}
	var values []string
	for _, e := range page.Entries {
		values = append(values, string(e.Input.Value))
		if e.Stage != "decode" || e.Class != record.Schema {
			t.Errorf("entry: stage %s, class %s", e.Stage, e.Class)
		}
	}
	slices.Sort(values)
	if want := []string{bad, "no avro"}; !slices.Equal(values, want) {
		t.Errorf("the queue has %q, want %q", values, want)
	}
	test, err := d.TestConnection(t.Context(), "main")
	if err != nil || !test.OK || !strings.Contains(test.Detail, "and the registry at "+url) {
		t.Errorf("connection test: %+v, %v", test, err)
	}
	secretFile(t, dir, "registry/reader", "another")
	test, err = d.TestConnection(t.Context(), "main")
	if err != nil || test.OK || !strings.Contains(test.Detail, "but not the registry") {
		t.Errorf("connection test with a wrong password: %+v, %v", test, err)
	}
}

func TestDecodeNeedsARegistry(t *testing.T) {
	broker := startBroker(t)
	d, _ := life(t, t.TempDir())
	connect(t, d, broker.Addr())
	_, err := d.PutFlow(t.Context(), &api.PutFlow{Document: "flow: v1\nname: one\nsource: { kafka: { connection: main, topics: [in], decode: { avro: registry } } }\nstages:\n  - push: kafka://main/out\n"})
	if text := refusal(err); !strings.Contains(text, "3:52") || !strings.Contains(text, "connection `main` has none") {
		t.Errorf("got %s", text)
	}
}

// groupOf are the offsets of a consumer group by partition of topic `in`.
func groupOf(t *testing.T, adm *kadm.Client, group string) map[int32]int64 {
	t.Helper()
	resp, err := adm.FetchOffsets(t.Context(), group)
	if err != nil {
		t.Fatal(err)
	}
	out := map[int32]int64{}
	resp.Each(func(o kadm.OffsetResponse) { out[o.Partition] = o.At })
	return out
}

func TestOffsetsAreMirrored(t *testing.T) {
	broker := startBroker(t)
	cl := kafkaClient(t, broker.Addr())
	adm := kadm.NewClient(cl)
	d, _ := lifeWith(t, Config{Dir: t.TempDir(), Logger: testLogger(t), mirrorEvery: 50 * time.Millisecond})
	connect(t, d, broker.Addr())
	write(t, cl, "in", 1, 5)
	for name, group := range map[string]string{"said": "group: tools, ", "default": "", "none": "group: none, "} {
		mustPut(t, d, &api.PutFlow{Document: "flow: v1\nname: " + name + "\nsource: { kafka: { " + group + "connection: main, topics: [in] } }\nstages:\n  - push: kafka://main/out\n"})
		settled(t, d, name, 5)
	}
	is := func(group string, want int64) {
		t.Helper()
		poll(t, "group "+group, func() (bool, string) {
			got := groupOf(t, adm, group)
			return got[1] == want, fmt.Sprint(got)
		})
	}
	is("tools", 5)
	is("millrace.default.default", 5)
	// A flow that is paused is moved as well; one that stops leaves what it has.
	if _, err := d.SetFlow(t.Context(), "default", "said", api.StatePaused); err != nil {
		t.Fatal(err)
	}
	move := api.OffsetsReset{Project: "default", Name: "said", Positions: []api.OffsetTarget{{Topic: "in", Partition: 1, Offset: 2}}, DryRun: true}
	planned, err := d.ResetOffsets(t.Context(), &move)
	if err != nil {
		t.Fatal(err)
	}
	move.DryRun, move.Hash = false, planned.Hash
	if planned, err = d.ResetOffsets(t.Context(), &move); err != nil || len(planned.Warnings) > 0 {
		t.Fatal(planned, err)
	}
	is("tools", 2)
	setState(t, d, "said", api.StateRunning)
	is("tools", 5)
	write(t, cl, "in", 1, 3)
	settled(t, d, "default", 8)
	is("tools", 8)
	groups, err := adm.ListGroups(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if names := groups.Groups(); slices.ContainsFunc(names, func(s string) bool { return strings.Contains(s, "none") }) {
		t.Errorf("groups %v", names)
	}
}

// refusing is a source whose group takes nothing, and says so as often as it is
// asked.
type refusing struct {
	source
	asked atomic.Int64
}

func (r *refusing) CommitGroup(context.Context, string, map[record.Partition]int64) error {
	r.asked.Add(1)
	return record.Errorf(record.Config, "not allowed")
}

func TestRefusedMirrorIsSaidOnce(t *testing.T) {
	broker := startBroker(t)
	cl := kafkaClient(t, broker.Addr())
	d, _ := life(t, t.TempDir())
	connect(t, d, broker.Addr())
	write(t, cl, "in", 0, 5)
	mustPut(t, d, &api.PutFlow{Document: copyFlow("one", "in", "")})
	settled(t, d, "one", 5)
	f, err := d.findFlow("default", "one")
	if err != nil {
		t.Fatal(err)
	}
	r := d.runner(f.ID)
	logged := &counting{message: "offsets cannot be mirrored to the consumer group; the flow goes on"}
	src := &refusing{}
	m := newMirror(r, src)
	if m == nil {
		t.Fatal("nothing is mirrored")
	}
	m.r = &runner{d: d, id: r.id, log: slog.New(logged)}
	for range 3 {
		m.write(t.Context())
	}
	if n := src.asked.Load(); n != 3 || logged.n.Load() != 1 {
		t.Errorf("asked %d times, said %d times; want 3, 1", n, logged.n.Load())
	}
	m.last(t.Context())
	if n := src.asked.Load(); n != 3 {
		t.Errorf("asked %d times at the end, though it was refused", n)
	}
}

// Records that are deleted before they are read are passed over, and counted.
func TestSkippedRecordsAreShown(t *testing.T) {
	broker := startBroker(t)
	cl := kafkaClient(t, broker.Addr())
	d, _ := life(t, t.TempDir())
	connect(t, d, broker.Addr())
	write(t, cl, "in", 2, 5)
	mustPut(t, d, &api.PutFlow{Document: "flow: v1\nname: one\nsource: { kafka: { connection: main, topics: [in], out_of_range: earliest } }\nstages:\n  - push: kafka://main/out\n"})
	settled(t, d, "one", 5)
	setState(t, d, "one", api.StatePaused)
	write(t, cl, "in", 2, 10)
	req := kmsg.NewPtrDeleteRecordsRequest()
	req.TimeoutMillis = 1000
	topic := kmsg.NewDeleteRecordsRequestTopic()
	topic.Topic = "in"
	topic.Partitions = []kmsg.DeleteRecordsRequestTopicPartition{{Partition: 2, Offset: 12}}
	req.Topics = append(req.Topics, topic)
	resp, err := req.RequestWith(t.Context(), cl)
	if err != nil || resp.Topics[0].Partitions[0].ErrorCode != 0 {
		t.Fatal(err, resp)
	}
	setState(t, d, "one", api.StateRunning)
	settled(t, d, "one", 15)
	f := status(t, d, "one")
	want := []api.Skip{{Topic: "in", Partition: 2, Records: 7, From: 5, To: 12}}
	if len(f.Skips) == 1 {
		f.Skips[0].At = 0
	}
	if !slices.Equal(f.Skips, want) || f.Figures.Skipped != 7 {
		t.Errorf("got %+v, %d; want %+v", f.Skips, f.Figures.Skipped, want)
	}
	if line := "millrace_source_skipped_records_total{flow=\"default/one\"} 7"; !strings.Contains(metricsText(t, d), line) {
		t.Errorf("no %s", line)
	}
	if n := len(consume(t, broker.Addr(), "out", 8)); n != 8 {
		t.Errorf("delivered %d", n)
	}
}

// A push to a topic gives its records the key that the flow says, one of an
// exception by what failed; and the codec.
func TestTopicsGetWhatTheFlowSays(t *testing.T) {
	broker := startBroker(t)
	cl := kafkaClient(t, broker.Addr())
	d, _ := life(t, t.TempDir())
	connect(t, d, broker.Addr())
	mustPut(t, d, &api.PutFlow{Document: "flow: v1\nname: one\nsource: kafka://main/in\notherwise: drop\nstages:\n  - id: f\n    filter: value.id > 0\n  - push: { kafka: { connection: main, topic: out, key: value.id, compression: zstd } }\n" +
		"exceptions:\n  - push: { kafka: { connection: main, topic: told, key: failure.stage } }\n"})
	feed(t, cl, "in", "k", `{"id":5,"pad":"`+strings.Repeat("x", 1000)+`"}`, "k", `{"id":"text"}`)
	out := consume(t, broker.Addr(), "out", 1)[0]
	if string(out.Key) != "5" || out.Attrs.CompressionType() != 4 {
		t.Errorf("out: key %q, codec %d", out.Key, out.Attrs.CompressionType())
	}
	if told := consume(t, broker.Addr(), "told", 1)[0]; string(told.Key) != "f" {
		t.Errorf("told: key %q", told.Key)
	}
}

// Tests of flows stand in for brokers of either kind, and for the registry.
func TestLocalTestMocksBrokers(t *testing.T) {
	docs, ps := flow.Parse("a", []byte("flow: v1\nname: a\nsource: { kafka: { connection: main, pattern: 'o.*', decode: { avro: registry } } }\notherwise: { topic: rocketmq://mq/failed }\nstages:\n  - id: f\n    filter: value.id > 0\n"+
		"  - id: out\n    push: { rocketmq: { connection: mq, topic: out, tag: paid, key: value.id } }\n"), flow.Options{})
	if ps.HasErrors() {
		t.Fatal(ps.Render())
	}
	doc, ps := flow.Resolve(docs[0], flow.Inputs{}, flow.Options{})
	if ps.HasErrors() {
		t.Fatal(ps.Render())
	}
	events, paused, err := RunLocalTest(t.Context(), LocalTest{Flow: doc.Flow, Records: []record.Record{
		{Topic: "o", Value: []byte(`{"id":1}`), Attempt: 1, To: -1}, {Topic: "o", Offset: 1, Value: []byte(`{"id":"x"}`), Attempt: 1, To: -1},
	}})
	if err != nil || paused != "" {
		t.Fatal(paused, err)
	}
	var got []string
	for _, e := range events {
		got = append(got, fmt.Sprintf("%s %s %d %s", e.Kind, e.Stage, e.Record.Offset, e.Record.Key))
	}
	slices.Sort(got)
	if want := []string{"after f 0 ", "delivered out 0 1", "failed f 1 "}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if doc.Flow.Source.Kafka.Decode == nil {
		t.Error("the test changed the flow")
	}
}
