package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/millrace-io/millrace/plugins/registry"
	"github.com/millrace-io/millrace/runtime/connector"
	"github.com/millrace-io/millrace/runtime/delivery"
	"github.com/millrace-io/millrace/runtime/delivery/sign"
	"github.com/millrace-io/millrace/runtime/delivery/verdict"
	"github.com/millrace-io/millrace/runtime/flow"
	"github.com/millrace-io/millrace/runtime/pipeline"
	"github.com/millrace-io/millrace/runtime/record"
	"github.com/millrace-io/millrace/runtime/retry"
)

// LocalTest is a flow that runs in this process with mocked ends: what
// `flowctl test` does. All fields but GuestLogger are required.
type LocalTest struct {
	// Flow is a resolved document. It is not changed.
	Flow        *flow.Flow
	Connections map[string]*flow.Connection
	// Secrets are values by name.
	Secrets map[string]string
	// LoadPlugin reads a plugin that the flow names.
	LoadPlugin func(ref flow.PluginRef) ([]byte, error)
	Host       *registry.Host
	// Records in the order in which they are read; at most MaxTestRecords. Each
	// has its topic, partition and an offset that grows in its partition.
	Records []record.Record
	// Now is the clock at the start. It moves by a nanosecond a look.
	Now time.Time
	// Answer answers a request of the delivery or exception with that id; nil
	// twice: there is no further answer. Requests of one id come one after the
	// other.
	Answer func(id string, r *sign.Request) (*verdict.Response, error)
	// GuestLogger gets what plugins log; nil discards.
	GuestLogger *slog.Logger
}

// MaxTestRecords is how many records a LocalTest may have: as many as lanes
// pass on in one call, so that batches do not depend on the speed of anything.
const MaxTestRecords = 256

// Kinds of a TestEvent.
const (
	TestAfter     = "after"     // a stage emitted the record
	TestDelivered = "delivered" // by the delivery; of an exception: told
	TestDropped   = "dropped"   // by the stage, as its answer
	TestFailed    = "failed"    // at the stage or delivery
	TestWaiting   = "waiting"   // there for another attempt
)

// TestEvent is something that befell a record.
type TestEvent struct {
	Kind, Stage string
	Record      record.Record
	// Output of an emission of a stage.
	Output uint16
	// Class, Code, Message of a failure, Attempts made in all.
	Class    record.Class
	Code     uint32
	Message  string
	Attempts uint32
}

// Waits of a test in place of the flow's own. That for another attempt is so
// much longer that batches which only gather have gone before it.
const (
	testRetry = 25 * time.Millisecond
	testBatch = time.Millisecond
)

// RunLocalTest runs the flow until everything is settled or waits without end.
// A flow that pauses is no error: paused is the reason.
func RunLocalTest(ctx context.Context, t LocalTest) (events []TestEvent, paused string, err error) {
	if t.GuestLogger == nil {
		t.GuestLogger = slog.New(slog.DiscardHandler)
	}
	doc, err := testDocument(t.Flow)
	if err != nil {
		return nil, "", err
	}
	folder, err := testSecrets(t.Secrets)
	if err != nil {
		return nil, "", err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(folder)) }()
	l := &Local{Flow: doc, LoadPlugin: t.LoadPlugin, Connections: map[string]*flow.Connection{}, Logger: slog.New(slog.DiscardHandler), GuestLogger: t.GuestLogger}
	for name, c := range t.Connections {
		l.Connections[name] = testConnection(c)
	}
	m := &mocks{t: &t}
	plugins := &localPlugins{l: l, host: t.Host}
	defer func() { err = errors.Join(err, plugins.close(context.WithoutCancel(ctx))) }()
	p := &parts{
		connection: l.connection, secrets: secrets(folder), connections: newConnections(), logger: l.Logger, keepNothing: true, mocks: m,
		plugin: func(s *flow.Stage, sign signWith) (registry.Stage, pluginInfo, error) {
			st, info, err := plugins.bind(ctx, s, pipeline.StageInfo{ID: s.ID}, sign)
			return st, pluginInfo{stage: s.ID, plugin: info.Plugin}, err
		},
	}
	outs, err := p.outlets(doc, delivery.Identity{FlowUID: 1})
	if err != nil {
		return nil, "", err
	}
	defer func() { err = errors.Join(err, outs.Close()) }()
	set, err := l.set(ctx, p, outs, plugins)
	if err != nil {
		return nil, "", err
	}
	paused, err = m.run(ctx, l, outs, set)
	return m.events, paused, err
}

// run is the flow itself.
func (m *mocks) run(ctx context.Context, l *Local, outs *outlets, set pipeline.Set) (paused string, err error) {
	for i := range set.Nodes {
		n := &set.Nodes[i]
		n.Retry = retry.Policy{First: 1, Max: 1}
		if n.Stage != nil {
			n.Stage = &watchedStage{n.Stage, m, *n}
		}
	}
	ends := outs.deliveries()
	for i := range ends {
		if outs.list[i].engine != nil {
			ends[i] = &watchedDelivery{ends[i], m, outs.list[i].id}
		}
	}
	tell := m.teller(ctx, outs)
	defer tell.close()
	cfg := pipelineConfig(l.Flow)
	cfg.InFlight, cfg.Tell, cfg.Now = 2*MaxTestRecords, tell.tell, m.clock()
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	reason := errors.New("paused")
	cfg.Pause = func(why string) {
		paused = why
		stop(reason)
	}
	src := newTestSource(m.t.Records)
	f := pipeline.New(cfg, src, set, ends)
	if err := l.open(ctx, f, src); err != nil {
		return "", err
	}
	err = l.run(ctx, f, stop)
	if cause := context.Cause(ctx); err == nil && cause != nil && !errors.Is(cause, reason) {
		err = cause
	}
	if paused != "" {
		err = nil
	}
	return paused, err
}

// clock is a pipeline's clock: each look is a nanosecond later, so that what is
// due comes.
func (m *mocks) clock() func() time.Time {
	var looks atomic.Int64
	return func() time.Time { return m.t.Now.Add(time.Duration(looks.Add(1))) }
}

// testTeller notes failures and runs the flow's exceptions in their order.
type testTeller struct {
	m    *mocks
	outs *outlets
	ctx  context.Context // of the run; its goroutine's
	list chan *record.Entry
	wg   sync.WaitGroup
}

func (m *mocks) teller(ctx context.Context, outs *outlets) *testTeller {
	t := &testTeller{m: m, outs: outs, ctx: ctx, list: make(chan *record.Entry, 64*MaxTestRecords)} // so that nobody waits
	t.wg.Go(func() {
		for e := range t.list {
			if outs.tell == nil {
				continue
			}
			told := make(chan struct{})
			outs.tell.tell(ctx, e, func(string) { close(told) })
			<-told
		}
	})
	return t
}

func (t *testTeller) tell(_ context.Context, e *record.Entry, done func(string)) {
	t.m.add(TestEvent{Kind: TestFailed, Stage: e.Stage, Record: e.Input, Class: e.Class, Code: e.Code, Message: e.Message, Attempts: e.Attempts})
	select {
	case t.list <- e:
	default: // thousands of failures: the exceptions are not told of all
	}
	done("")
}

func (t *testTeller) close() {
	close(t.list)
	t.wg.Wait()
}

// testSource gives out records, a batch a partition, and ends. A partition
// comes when the one before it is settled, so that partners are asked in an
// order.
type testSource struct {
	batches []*record.Batch
	next    int
	settled chan struct{} // as wide as there are records
	open    int           // of the partition under way
}

// Settled implements pipeline.Acker.
func (s *testSource) Settled(record.Partition, int64, record.Settlement) { s.settled <- struct{}{} }

func newTestSource(recs []record.Record) *testSource {
	s := &testSource{settled: make(chan struct{}, len(recs))}
	for _, r := range recs {
		p := record.Partition{Topic: r.Topic, Broker: r.Broker, Num: r.Partition}
		i := slices.IndexFunc(s.batches, func(b *record.Batch) bool { return b.Partition == p })
		if i < 0 {
			i = len(s.batches)
			s.batches = append(s.batches, &record.Batch{Partition: p})
		}
		b := s.batches[i]
		r.Trace = record.NewTraceSeed(p).Trace(r.Offset)
		b.Records, b.Next = append(b.Records, r), r.Offset+1
	}
	return s
}

func (s *testSource) Poll(ctx context.Context) (*record.Batch, error) {
	if s.next == len(s.batches) {
		return nil, io.EOF
	}
	for ; s.open > 0; s.open-- {
		select {
		case <-s.settled:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	s.next++
	s.open = len(s.batches[s.next-1].Records)
	return s.batches[s.next-1], nil
}

func (s *testSource) Partitions(context.Context) ([]connector.Found, error) {
	var found []connector.Found
	for _, b := range s.batches {
		found = append(found, connector.Found{Partition: b.Partition})
	}
	return found, nil
}

func (s *testSource) Start(context.Context, record.Partition, connector.Start) (int64, error) {
	return 0, nil
}
func (s *testSource) End(context.Context) (map[record.Partition]int64, error) { return nil, nil }
func (s *testSource) Assign(record.Partition, int64)                          {}
func (s *testSource) Unassign(record.Partition)                               {}
func (s *testSource) Pause(record.Partition)                                  {}
func (s *testSource) Resume(record.Partition)                                 {}
func (s *testSource) Problem() string                                         { return "" }
func (s *testSource) Close() error                                            { return nil }

// testDocument is a copy of a flow without what only waits: limits of speed,
// and waits between attempts. As many attempts are made as would have been.
func testDocument(f *flow.Flow) (*flow.Flow, error) {
	b, err := flow.EncodeResolved(&flow.Document{Kind: flow.KindFlow, Flow: f})
	if err != nil {
		return nil, err
	}
	d, err := flow.DecodeResolved(b)
	if err != nil {
		return nil, err
	}
	d.Flow.Limits = flow.Limits{}
	if k := d.Flow.Source.Kafka; k != nil {
		k.Decode = nil // the records of a test are decoded
	}
	for _, end := range d.Flow.Deliveries() {
		end.Retry = &flow.Retry{First: testRetry, Max: testRetry, Attempts: attemptsOf(end.Retry)}
		if end.Batch != nil {
			end.Batch.Wait = testBatch
		}
		if end.Sign != nil && end.Sign.OAuth2 != nil {
			end.Sign.APIKey, end.Sign.OAuth2 = testToken(end.Sign.OAuth2), nil
		}
	}
	return d.Flow, nil
}

// maxTestTries ends the count of the attempts that fit into a time.
const maxTestTries = 1000

// attemptsOf is how many attempts a delivery makes: as many as it may, and as
// fit into its time if it always waits as long as it may; 0: any number.
func attemptsOf(r *flow.Retry) int {
	if r == nil || r.Within == 0 {
		if r == nil {
			return 0
		}
		return r.Attempts
	}
	longest := policy(r)
	var elapsed time.Duration
	n := uint32(1)
	for ; n < maxTestTries; n++ {
		d := longest.Decide(retry.Failure{Err: &record.Error{Class: record.Retryable}, Attempt: n, Elapsed: elapsed, Rand: 1})
		if d.Action != retry.Again {
			break
		}
		elapsed += d.After
	}
	return int(n)
}

// tokenSecret is the secret that stands in for access tokens.
const tokenSecret = "millrace-test/access-token"

func testToken(o *flow.OAuth2) *flow.APIKey {
	key := &flow.APIKey{Key: flow.Secret{Name: tokenSecret}, Header: o.Header, Prefix: "Bearer "}
	if key.Header == "" {
		key.Header = "Authorization"
	}
	return key
}

// testConnection is a copy of a connection that asks nobody for anything.
func testConnection(c *flow.Connection) *flow.Connection {
	out := *c
	if c.HTTP != nil {
		h := *c.HTTP
		h.TLS = nil
		if h.OAuth2 != nil {
			h.APIKey, h.OAuth2 = testToken(h.OAuth2), nil
		}
		out.HTTP = &h
	}
	return &out
}

// testSecrets writes secrets to a folder of their own.
func testSecrets(values map[string]string) (string, error) {
	folder, err := os.MkdirTemp("", "millrace-test-")
	if err != nil {
		return "", fmt.Errorf("secrets of a test: %w", err)
	}
	write := func(name, value string) error {
		if !filepath.IsLocal(filepath.FromSlash(name)) {
			return record.Errorf(record.Config, "secret %q: a name is a path below the secrets folder", name)
		}
		path := filepath.Join(folder, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			return err
		}
		return os.WriteFile(path, []byte(strings.TrimRight(value, "\n")), 0o600)
	}
	err = write(tokenSecret, "test-token")
	for name, value := range values {
		err = errors.Join(err, write(name, value))
	}
	if err != nil {
		return "", errors.Join(err, os.RemoveAll(folder))
	}
	return folder, nil
}
