package api

import (
	"context"
	"errors"
	"io"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"

	"github.com/millrace-io/millrace/runtime/record"
)

// roundTrip is a call of a method: ask goes through the client, serve makes
// the fake note what it was asked and answer.
type roundTrip struct {
	name  string
	ask   func(ctx context.Context, b Backend) (any, error)
	serve func(f *fake, note func(args ...any) error)
	args  []any
	want  any
}

func roundTrips() []roundTrip {
	var trips []roundTrip
	add := func(name string, ask func(ctx context.Context, b Backend) (any, error), serve func(f *fake, note func(args ...any) error), want any, args ...any) {
		trips = append(trips, roundTrip{name, ask, serve, args, want})
	}
	type ctx = context.Context
	type note = func(args ...any) error

	node := filled[Node]()
	add("Node", func(c ctx, b Backend) (any, error) { return b.Node(c) },
		func(f *fake, n note) { f.node = func() (*Node, error) { return node, n() } }, node)

	putFlow, flowPlan := filled[PutFlow](), filled[FlowPlan]()
	add("PutFlow", func(c ctx, b Backend) (any, error) { return b.PutFlow(c, putFlow) },
		func(f *fake, n note) {
			f.putFlow = func(req *PutFlow) (*FlowPlan, error) { return flowPlan, n(req) }
		}, flowPlan, putFlow)

	flow := filled[Flow]()
	flows := []*Flow{flow, filled[Flow]()}
	add("Flows of all projects", func(c ctx, b Backend) (any, error) { return b.Flows(c, "") },
		func(f *fake, n note) {
			f.flows = func(p string) ([]*Flow, error) { return flows, n(p) }
		}, flows, "")
	add("Flows of a project", func(c ctx, b Backend) (any, error) { return b.Flows(c, "a&b") },
		func(f *fake, n note) {
			f.flows = func(p string) ([]*Flow, error) { return flows, n(p) }
		}, flows, "a&b")
	add("Flows: none", func(c ctx, b Backend) (any, error) { return b.Flows(c, "") },
		func(f *fake, n note) {
			f.flows = func(p string) ([]*Flow, error) { return nil, n(p) }
		}, []*Flow{}, "")
	serveFlow := func(f *fake, n note) {
		f.flow = func(p, name string) (*Flow, error) { return flow, n(p, name) }
	}
	add("Flow", func(c ctx, b Backend) (any, error) { return b.Flow(c, "shop", "orders") }, serveFlow, flow, "shop", "orders")
	add("Flow of the default project", func(c ctx, b Backend) (any, error) { return b.Flow(c, "", "orders") }, serveFlow, flow, "default", "orders")
	add("Flow of a strange name", func(c ctx, b Backend) (any, error) { return b.Flow(c, "..", "a/b?c#d%2F é") }, serveFlow, flow, "..", "a/b?c#d%2F é")
	add("Flow of a name of dots", func(c ctx, b Backend) (any, error) { return b.Flow(c, "p", ".") }, serveFlow, flow, "p", ".")
	for _, state := range []string{StateRunning, StatePaused} {
		add("SetFlow "+state, func(c ctx, b Backend) (any, error) { return b.SetFlow(c, "shop", "orders", state) },
			func(f *fake, n note) {
				f.setFlow = func(p, name, s string) (*Flow, error) { return flow, n(p, name, s) }
			}, flow, "shop", "orders", state)
	}
	for _, purge := range []bool{false, true} {
		add("DeleteFlow", func(c ctx, b Backend) (any, error) { return nil, b.DeleteFlow(c, "shop", "orders", purge) },
			func(f *fake, n note) {
				f.deleteFlow = func(p, name string, purge bool) error { return n(p, name, purge) }
			}, nil, "shop", "orders", purge)
	}
	revisions := []*Revision{filled[Revision]()}
	add("Revisions", func(c ctx, b Backend) (any, error) { return b.Revisions(c, "shop", "orders") },
		func(f *fake, n note) {
			f.revisions = func(p, name string) ([]*Revision, error) { return revisions, n(p, name) }
		}, revisions, "shop", "orders")

	page := filled[FailurePage]()
	for _, q := range []*FailureQuery{
		{Project: "shop", Name: "orders"},
		{Project: "shop", Name: "orders", After: 1<<63 + 1, Limit: 1000, FailureFilter: FailureFilter{Class: "rejected", Stage: "map-1", Key: new("a\xff&= b"), Since: 1, Until: 1 << 60, Where: `value.a == "ü" && failure.code > 3`}},
		{Project: "shop", Name: "orders", FailureFilter: FailureFilter{Key: new("")}},
	} {
		add("Failures", func(c ctx, b Backend) (any, error) { return b.Failures(c, q) },
			func(f *fake, n note) {
				f.failures = func(q *FailureQuery) (*FailurePage, error) { return page, n(q) }
			}, page, q)
	}
	add("Failures: none", func(c ctx, b Backend) (any, error) { return b.Failures(c, &FailureQuery{Project: "p", Name: "n"}) },
		func(f *fake, n note) {
			f.failures = func(*FailureQuery) (*FailurePage, error) { return &FailurePage{Total: 3}, n() }
		}, &FailurePage{Entries: []*record.Entry{}, Total: 3})
	add("Failure", func(c ctx, b Backend) (any, error) { return b.Failure(c, "shop", "orders", 1<<64-1) },
		func(f *fake, n note) {
			f.failure = func(p, name string, seq uint64) (*record.Entry, error) { return sampleEntry(), n(p, name, seq) }
		}, sampleEntry(), "shop", "orders", uint64(1<<64-1))

	trips = append(trips, queueTrips()...)
	putConnection, connectionPlan := filled[PutConnection](), filled[ConnectionPlan]()
	add("PutConnection", func(c ctx, b Backend) (any, error) { return b.PutConnection(c, putConnection) },
		func(f *fake, n note) {
			f.putConnection = func(req *PutConnection) (*ConnectionPlan, error) { return connectionPlan, n(req) }
		}, connectionPlan, putConnection)
	connection := filled[Connection]()
	add("Connections", func(c ctx, b Backend) (any, error) { return b.Connections(c) },
		func(f *fake, n note) {
			f.connections = func() ([]*Connection, error) { return []*Connection{connection}, n() }
		}, []*Connection{connection})
	add("Connection", func(c ctx, b Backend) (any, error) { return b.Connection(c, "main") },
		func(f *fake, n note) {
			f.connection = func(name string) (*Connection, error) { return connection, n(name) }
		}, connection, "main")
	add("DeleteConnection", func(c ctx, b Backend) (any, error) { return nil, b.DeleteConnection(c, "main") },
		func(f *fake, n note) { f.deleteConnection = func(name string) error { return n(name) } }, nil, "main")
	seen := filled[ExchangePage]()
	for _, q := range []*ExchangeQuery{{Connection: "main"}, {Connection: "acme:main", Millis: 500, Count: 7}} {
		add("Exchanges", func(c ctx, b Backend) (any, error) { return b.Exchanges(c, q) },
			func(f *fake, n note) {
				f.exchanges = func(q *ExchangeQuery) (*ExchangePage, error) { return seen, n(q) }
			}, seen, q)
	}
	test := filled[ConnectionTest]()
	for _, name := range []string{"main", "kafka://10.0.0.5:9092", "kafka://[::1]:9092,b:9092"} {
		add("TestConnection", func(c ctx, b Backend) (any, error) { return b.TestConnection(c, name) },
			func(f *fake, n note) {
				f.testConnection = func(_ context.Context, name string) (*ConnectionTest, error) { return test, n(name) }
			}, test, name)
	}

	plugin := filled[Plugin]()
	wasm := strings.Repeat("\x00asm\x01\x00\x00\x00", 200_000)
	add("UploadPlugin", func(c ctx, b Backend) (any, error) {
		return b.UploadPlugin(c, "my plugin.wasm", strings.NewReader(wasm))
	},
		func(f *fake, n note) {
			f.uploadPlugin = func(file string, r io.Reader) (*Plugin, error) {
				body, err := io.ReadAll(r)
				return plugin, errors.Join(err, n(file, string(body) == wasm))
			}
		}, plugin, "my plugin.wasm", true)
	add("Plugins", func(c ctx, b Backend) (any, error) { return b.Plugins(c) },
		func(f *fake, n note) { f.plugins = func() ([]*Plugin, error) { return []*Plugin{plugin}, n() } }, []*Plugin{plugin})
	for ref, asked := range map[string]string{
		"upper": "upper", "upper@1.0.0+a.b": "upper@1.0.0+a.b", "acme/upper": "acme/upper", "acme/upper@1.0.0-dev": "acme/upper@1.0.0-dev",
		"default/upper@1": "upper@1", "sha256:01234567": "sha256:01234567", "a/b/c@d@e": "a/b/c@d@e",
	} {
		add("Plugin", func(c ctx, b Backend) (any, error) { return b.Plugin(c, ref) },
			func(f *fake, n note) { f.plugin = func(ref string) (*Plugin, error) { return plugin, n(ref) } }, plugin, asked)
	}
	digest := "sha256:" + strings.Repeat("0a", 32)
	add("Blob", func(c ctx, b Backend) (any, error) { return b.Blob(c, digest) },
		func(f *fake, n note) {
			f.blob = func(digest string) ([]byte, error) { return []byte(wasm), n(digest) }
		}, []byte(wasm), digest)
	deploy, deployment := filled[Deploy](), filled[Deployment]()
	add("Deploy", func(c ctx, b Backend) (any, error) { return b.Deploy(c, deploy) },
		func(f *fake, n note) {
			f.deploy = func(req *Deploy) (*Deployment, error) { return deployment, n(req) }
		}, deployment, deploy)
	add("Deployment", func(c ctx, b Backend) (any, error) { return b.Deployment(c, "d-7") },
		func(f *fake, n note) {
			f.deployment = func(id string) (*Deployment, error) { return deployment, n(id) }
		}, deployment, "d-7")
	return trips
}

// startNode serves a Backend as a node does.
func startNode(t *testing.T, b Backend) *httptest.Server {
	t.Helper()
	server := httptest.NewUnstartedServer(nil)
	server.Config = Server("", New(Config{Backend: b, Version: "test"}))
	server.Start()
	t.Cleanup(server.Close)
	return server
}

func TestEveryMethodComesThrough(t *testing.T) {
	f := &fake{}
	client := NewClient(startNode(t, f).URL)
	seen := map[string]bool{}
	for _, trip := range roundTrips() {
		t.Run(trip.name, func(t *testing.T) {
			seen[strings.Fields(strings.TrimSuffix(trip.name, ":"))[0]] = true
			calls := 0
			trip.serve(f, func(args ...any) error {
				calls++
				if len(args) != 0 && !reflect.DeepEqual(args, trip.args) {
					t.Errorf("the backend was asked %+v, want %+v", deref(args), deref(trip.args))
				}
				return nil
			})
			got, err := trip.ask(t.Context(), client)
			if err != nil {
				t.Fatal(err)
			}
			if calls != 1 {
				t.Errorf("the backend was asked %d times", calls)
			}
			if trip.want != nil && !reflect.DeepEqual(got, trip.want) {
				t.Errorf("got %+v, want %+v", got, trip.want)
			}
		})
	}
	for i := range reflect.TypeFor[Backend]().NumMethod() {
		name := reflect.TypeFor[Backend]().Method(i).Name
		if !seen[name] && !seen[name+":"] {
			t.Errorf("no case for %s", name)
		}
	}
}

func TestEveryFieldOfAnErrorComesThrough(t *testing.T) {
	f := &fake{}
	client := NewClient(startNode(t, f).URL)
	want := filled[Error]()
	want.Status = 409
	for _, trip := range roundTrips() {
		t.Run(trip.name, func(t *testing.T) {
			trip.serve(f, func(...any) error { return want })
			_, err := trip.ask(t.Context(), client)
			got, ok := errors.AsType[*Error](err)
			if !ok || !reflect.DeepEqual(got, want) {
				t.Errorf("got %#v, want %#v", err, want)
			}
		})
	}
}

func deref(args []any) []any {
	out := make([]any, len(args))
	for i, a := range args {
		out[i] = a
		if v := reflect.ValueOf(a); v.Kind() == reflect.Pointer {
			out[i] = v.Elem().Interface()
		}
	}
	return out
}
