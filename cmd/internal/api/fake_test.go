package api

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"reflect"
	"time"

	"github.com/millrace-io/millrace/runtime/record"
)

// fake is a Backend of functions; what a test does not set panics when asked.
type fake struct {
	node             func() (*Node, error)
	putFlow          func(*PutFlow) (*FlowPlan, error)
	flows            func(project string) ([]*Flow, error)
	flow             func(project, name string) (*Flow, error)
	setFlow          func(project, name, state string) (*Flow, error)
	deleteFlow       func(project, name string, purge bool) error
	revisions        func(project, name string) ([]*Revision, error)
	failures         func(*FailureQuery) (*FailurePage, error)
	failure          func(project, name string, seq uint64) (*record.Entry, error)
	rollback         func(*Rollback) (*FlowPlan, error)
	offsets          func(project, name string) (*Offsets, error)
	resetOffsets     func(*OffsetsReset) (*OffsetsPlan, error)
	replayFailures   func(*ReplayFailures) (*ReplayReport, error)
	dropFailures     func(*DropFailures) (*DropReport, error)
	importFailures   func(project, name string, entries io.Reader) (*ImportReport, error)
	retries          func(*RetryQuery) (*RetryPage, error)
	logs             func(*LogQuery) (*LogPage, error)
	exchanges        func(*ExchangeQuery) (*ExchangePage, error)
	putConnection    func(*PutConnection) (*ConnectionPlan, error)
	connections      func() ([]*Connection, error)
	connection       func(name string) (*Connection, error)
	deleteConnection func(name string) error
	testConnection   func(ctx context.Context, name string) (*ConnectionTest, error)
	uploadPlugin     func(file string, wasm io.Reader) (*Plugin, error)
	plugins          func() ([]*Plugin, error)
	plugin           func(ref string) (*Plugin, error)
	blob             func(digest string) ([]byte, error)
	deploy           func(*Deploy) (*Deployment, error)
	deployment       func(id string) (*Deployment, error)
}

var _ Backend = (*fake)(nil)

func (f *fake) Node(context.Context) (*Node, error) { return f.node() }
func (f *fake) PutFlow(_ context.Context, req *PutFlow) (*FlowPlan, error) {
	return f.putFlow(req)
}
func (f *fake) Flows(_ context.Context, project string) ([]*Flow, error) { return f.flows(project) }
func (f *fake) Flow(_ context.Context, project, name string) (*Flow, error) {
	return f.flow(project, name)
}
func (f *fake) SetFlow(_ context.Context, project, name, state string) (*Flow, error) {
	return f.setFlow(project, name, state)
}
func (f *fake) DeleteFlow(_ context.Context, project, name string, purge bool) error {
	return f.deleteFlow(project, name, purge)
}
func (f *fake) Revisions(_ context.Context, project, name string) ([]*Revision, error) {
	return f.revisions(project, name)
}
func (f *fake) Failures(_ context.Context, q *FailureQuery) (*FailurePage, error) {
	return f.failures(q)
}
func (f *fake) Failure(_ context.Context, project, name string, seq uint64) (*record.Entry, error) {
	return f.failure(project, name, seq)
}
func (f *fake) Rollback(_ context.Context, req *Rollback) (*FlowPlan, error) { return f.rollback(req) }
func (f *fake) Offsets(_ context.Context, project, name string) (*Offsets, error) {
	return f.offsets(project, name)
}
func (f *fake) ResetOffsets(_ context.Context, req *OffsetsReset) (*OffsetsPlan, error) {
	return f.resetOffsets(req)
}
func (f *fake) ReplayFailures(_ context.Context, req *ReplayFailures) (*ReplayReport, error) {
	return f.replayFailures(req)
}
func (f *fake) DropFailures(_ context.Context, req *DropFailures) (*DropReport, error) {
	return f.dropFailures(req)
}
func (f *fake) ImportFailures(_ context.Context, project, name string, entries io.Reader) (*ImportReport, error) {
	return f.importFailures(project, name, entries)
}
func (f *fake) Retries(_ context.Context, q *RetryQuery) (*RetryPage, error) { return f.retries(q) }
func (f *fake) Exchanges(_ context.Context, q *ExchangeQuery) (*ExchangePage, error) {
	return f.exchanges(q)
}
func (f *fake) Logs(_ context.Context, q *LogQuery) (*LogPage, error) { return f.logs(q) }
func (f *fake) PutConnection(_ context.Context, req *PutConnection) (*ConnectionPlan, error) {
	return f.putConnection(req)
}
func (f *fake) Connections(context.Context) ([]*Connection, error) { return f.connections() }
func (f *fake) Connection(_ context.Context, name string) (*Connection, error) {
	return f.connection(name)
}
func (f *fake) DeleteConnection(_ context.Context, name string) error {
	return f.deleteConnection(name)
}
func (f *fake) TestConnection(ctx context.Context, name string) (*ConnectionTest, error) {
	return f.testConnection(ctx, name)
}
func (f *fake) UploadPlugin(_ context.Context, file string, wasm io.Reader) (*Plugin, error) {
	return f.uploadPlugin(file, wasm)
}
func (f *fake) Plugins(context.Context) ([]*Plugin, error) { return f.plugins() }
func (f *fake) Plugin(_ context.Context, ref string) (*Plugin, error) {
	return f.plugin(ref)
}
func (f *fake) Blob(_ context.Context, digest string) ([]byte, error)      { return f.blob(digest) }
func (f *fake) Deploy(_ context.Context, req *Deploy) (*Deployment, error) { return f.deploy(req) }
func (f *fake) Deployment(_ context.Context, id string) (*Deployment, error) {
	return f.deployment(id)
}

// filled is a T whose every field has a value of its own, so that a field that
// gets lost on the way shows.
func filled[T any]() *T {
	var v T
	n := 0
	fill(reflect.ValueOf(&v).Elem(), "", &n)
	return &v
}

func fill(v reflect.Value, name string, n *int) {
	*n++
	switch v.Kind() {
	case reflect.String:
		v.SetString(fmt.Sprintf("%s-%d <é>", name, *n))
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Float64:
		v.SetFloat(float64(*n) + 0.5)
	case reflect.Int, reflect.Int32, reflect.Int64:
		v.SetInt(int64(*n))
		if v.Kind() == reflect.Int64 {
			v.SetInt(1<<60 + int64(*n))
		}
	case reflect.Uint8:
		v.SetUint(uint64(record.Rejected)) // a record.Class
	case reflect.Uint16, reflect.Uint32, reflect.Uint64:
		v.SetUint(uint64(*n % 200))
		if v.Kind() == reflect.Uint64 {
			v.SetUint(1<<63 + uint64(*n))
		}
	case reflect.Pointer:
		if v.Type() == reflect.TypeFor[*record.Entry]() {
			v.Set(reflect.ValueOf(sampleEntry()))
			return
		}
		if v.Type() == reflect.TypeFor[*record.Setting]() {
			v.Set(reflect.ValueOf(sampleEntry().Setting))
			return
		}
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem(), name, n)
	case reflect.Struct:
		if v.Type() == reflect.TypeFor[time.Time]() {
			v.Set(reflect.ValueOf(time.Unix(1_700_000_000+int64(*n), 0).UTC()))
			return
		}
		for i := range v.NumField() {
			fill(v.Field(i), v.Type().Field(i).Name, n)
		}
	case reflect.Slice:
		if v.Type() == reflect.TypeFor[json.RawMessage]() {
			v.SetBytes(fmt.Appendf(nil, `{"%s":%d}`, name, *n))
			return
		}
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		for i := range v.Len() {
			fill(v.Index(i), name, n)
		}
	case reflect.Array:
		for i := range v.Len() {
			fill(v.Index(i), name, n)
		}
	case reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
		key, value := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
		fill(key, name, n)
		fill(value, name, n)
		v.SetMapIndex(key, value)
	case reflect.Interface:
		v.Set(reflect.ValueOf(map[string]any{name: float64(*n)}))
	default:
		panic(fmt.Sprintf("fill %s: kind %v", name, v.Kind()))
	}
}

func sampleEntry() *record.Entry {
	e := &record.Entry{
		Seq: 1<<63 + 9, Flow: "default/orders", FlowUID: 0xabcdef, Revision: 2, Generation: 1, Stage: "mask",
		Plugin: "orders@1.0.0", Digest: "sha256:ab", Touched: []string{"sha256:cd"},
		Class: record.Rejected, Code: 7, Message: "no object at byte 0", Attempts: 2, Time: 1700000000456,
		Input: record.Record{
			Key: []byte("c-1"), Value: []byte{0xff, 0}, Headers: []record.Header{{Key: "h", Value: []byte("x")}},
			Topic: "orders", Broker: "b", Partition: 3, Offset: 42, Timestamp: 1700000000123, Attempt: 2, To: -1, Redelivered: true,
		},
		Replay: &record.Replay{
			BatchID: 1 << 60, Now: 1700000000400, ImageLevel: 1, ConfigHash: 5, Logs: []string{"panic"},
			Fuel: 4711, FuelLimit: 1_200_000, MemoryLimit: 64 << 20, FuelCosts: 2,
			Signatures: []record.Signature{{Handle: 1, Alg: 2, MessageSHA256: record.SHA256{1, 2}, Signature: []byte{3, 4}, Refused: -1}},
		},
		Exchange: &record.Exchange{
			Method: "POST", URL: "https://partner.example/v2", RequestHeaders: []record.Header{{Key: "A", Value: []byte("b")}}, RequestBody: []byte("{}"), RequestCut: true,
			Status: 422, ResponseHeaders: []record.Header{{Key: "C", Value: []byte{0xff}}}, ResponseBody: []byte{0xff}, ResponseCut: true,
		},
		Call: &record.Call{
			Stage: "deliver.sign", Plugin: "sign@1.0.0", Digest: "sha256:ef", Class: record.Fuel, Code: 3, Message: "m", Hidden: []string{"X-Token"}, InputOmitted: true, InputHash: 5,
			Input:   record.Record{Value: []byte("v"), Headers: []record.Header{{Key: ":method", Value: []byte("POST")}}, Topic: "deliver.sign", Offset: 7, Timestamp: 9, Attempt: 1, To: -1},
			Replay:  &record.Replay{BatchID: 1 << 60, Now: 1, Signatures: []record.Signature{{Handle: 1, Signature: []byte{1}}}},
			Setting: &record.Setting{With: record.Text("{}")}, NoReplay: "none",
		},
		History:  []record.Attempt{{Time: 1700000000450, Millis: 6, Class: record.Timeout, Code: 504, Message: "late"}},
		Requeues: 1, Told: "the exception could not be told",
		NoReplay: "alone the record is answered otherwise",
		Setting: &record.Setting{
			File: "/plugins/orders.wasm", With: record.Text(`{"a": 1}`), Lines: "each", Envelope: true, Isolation: "record", Function: "run", Hosts: []string{"*.example.com"},
			Fuel: 500_000, MemoryBytes: 32 << 20,
		},
	}
	var err error
	if e.Input.Path, err = record.ParsePath("#2.0"); err != nil {
		panic(err)
	}
	e.Input.Trace, e.Input.Ref = record.Trace{1, 2, 3}, "r-1"
	return e
}
