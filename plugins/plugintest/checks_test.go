package plugintest_test

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/millrace-io/millrace/plugins/internal/testkit"
	"github.com/millrace-io/millrace/plugins/plugintest"
	"github.com/millrace-io/millrace/plugins/plugintest/guests"
	"github.com/millrace-io/millrace/plugins/plugintest/hostile"
	"github.com/millrace-io/millrace/plugins/sandbox"
)

// quick is enough to find what is always there. It is patient: what is found
// must not depend on how busy the machine is.
var quick = plugintest.Options{Bulk: 300, Patience: 5 * time.Minute}

// find is the result of a check.
func find(t *testing.T, r *plugintest.Report, check string) plugintest.Result {
	t.Helper()
	for _, x := range r.Results {
		if x.Check == check {
			return x
		}
	}
	t.Fatalf("there is no check %q in %+v", check, r.Results)
	return plugintest.Result{}
}

func expect(t *testing.T, r *plugintest.Report, check string, outcome plugintest.Outcome, part string) {
	t.Helper()
	x := find(t, r, check)
	if x.Outcome != outcome || !strings.Contains(x.Detail, part) {
		t.Errorf("got %+v, want %s with %q", x, outcome, part)
	}
	if x.Outcome == plugintest.Fail && x.Next == "" {
		t.Errorf("%s: no next step", check)
	}
}

func check(t *testing.T, p plugintest.Plugin, opt plugintest.Options) *plugintest.Report {
	t.Helper()
	r, err := plugintest.Check(t.Context(), p, opt)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// TestMutants: the checks for any guest find each fault, and say it.
func TestMutants(t *testing.T) {
	m := compile(t, guests.Mutant)
	plugin := plugintest.Of(m.Info(), m.NewStage)
	for _, c := range []struct {
		fault, do string
		check     string
		outcome   plugintest.Outcome
		part      string
	}{
		{"forgets-last", "pass", "records", plugintest.Fail, "is not answered"},
		{"answers-twice", "drop", "records", plugintest.Fail, "1 of 1 records: "},
		{"wrong-id", "pass", "records", plugintest.Fail, "the sample of its manifest, one at a time: 1 of 1 records: "},
		{"keeps-memory", "pass", "state", plugintest.Note, "were its memory kept from batch to batch, the same batch would be answered differently: record 0: value is"},
		{"keeps-memory", "pass", "same answers", plugintest.Pass, "in 3 runs on one instance and on a fresh one"},
		{"batch-size", "pass", "split", plugintest.Note, `a batch of 16 is answered differently than its records one by one: record 0: value is "16", then "1"`},
		{"leaks", "pass", "growth", plugintest.Fail, "its memory grows in every call"},
		{"spins", "pass", "records", plugintest.Fail, "fail with class fuel"},
		{"traps-on-null", "pass", "input null", plugintest.Note, "a null key or value: 3 of 3 records fail with class trap"},
		{"traps-on-null", "pass", "records", plugintest.Pass, "1 emitted"},
		{"traps-on-binary", "pass", "input binary", plugintest.Note, "with class trap"},
		{"traps-on-large", "pass", "input large", plugintest.Note, "2 of 3 records fail with class trap"},
		{"", "fail 3 not me", "records", plugintest.Note, "it takes none of them: rejected (3): not me"},
		{"", "log info x; pass", "logs", plugintest.Note, "it logs 128 lines for 128 records"},
		{"", "output 1", "records", plugintest.Fail, "audit"},
	} {
		t.Run(c.fault+"/"+c.do+"/"+c.check, func(t *testing.T) {
			opt := quick
			opt.Only = []string{kindOf(c.check)}
			if c.check == "growth" {
				opt.Stage.MemoryBytes = 8 << 20 // which one image fills
			}
			opt.Stage.Config = fmt.Appendf(nil, `{"do":%q,"fault":%q}`, c.do, c.fault)
			expect(t, check(t, plugin, opt), c.check, c.outcome, c.part)
		})
	}
}

// kindOf is the kind of a check, by which Options.Only names it.
func kindOf(check string) string {
	switch kind, _, _ := strings.Cut(check, " "); kind {
	case "batch", "input":
		return kind
	case "logs":
		return "speed"
	}
	return check
}

// TestRecordsOfItsOwn: what somebody says that a plugin is made for must not
// make it trap.
func TestRecordsOfItsOwn(t *testing.T) {
	m := compile(t, guests.Mutant)
	opt := quick
	opt.Stage.Config = []byte(`{"do":"pass","fault":"traps-on-null"}`)
	opt.Only = []string{"batch"}
	opt.Records = vectorNamed(t, "nulls-copy").Batch.Records
	r := check(t, plugintest.Of(m.Info(), m.NewStage), opt)
	expect(t, r, "records", plugintest.Fail, "the given records, one at a time: 3 of 6 records fail with class trap")
	expect(t, r, "batch of 128", plugintest.Fail, "fail with class trap")
}

func vectorNamed(t *testing.T, name string) *plugintest.Vector {
	t.Helper()
	for _, v := range vectors(t) {
		if v.Name == name {
			return &v
		}
	}
	t.Fatalf("there is no vector %s", name)
	return nil
}

// TestHostThatDoesNotRestore: a guest that keeps something, in a host that
// does not put it back.
func TestHostThatDoesNotRestore(t *testing.T) {
	m := compile(t, guests.Mutant)
	plugin := plugintest.Of(m.Info(), func(ctx context.Context, cfg sandbox.StageConfig) (*sandbox.Stage, error) {
		cfg.Isolation = sandbox.IsolationFailure
		return m.NewStage(ctx, cfg)
	})
	opt := quick
	opt.Only = []string{"same answers"}
	opt.Stage.Config = []byte(`{"do":"pass","fault":"keeps-memory"}`)
	expect(t, check(t, plugin, opt), "same answers", plugintest.Fail, "it answers the same batch differently on the same instance, put back to its image: record 0: value is")
}

// TestFaulty: each way to break the rules of a frame is found.
func TestFaulty(t *testing.T) {
	m := compile(t, guests.Faulty)
	plugin := plugintest.Of(m.Info(), m.NewStage)
	for _, behaviour := range []string{
		"missing", "doubled", "emit-drop", "unknown-id", "unknown-outcome", "unknown-output", "wrong-length", "short-length", "zero-length", "odd-length",
		"long-key", "long-value", "long-headers", "bad-headers", "bad-kind", "bad-version", "bad-batch-id", "bad-frame-length", "bad-offset", "empty-result", "short-result",
	} {
		opt := quick
		opt.Stage.Config = fmt.Appendf(nil, `{"behaviour":%q}`, behaviour)
		r := check(t, plugin, opt)
		if x := find(t, r, "records"); x.Outcome != plugintest.Fail || !strings.Contains(x.Next, "stage/1") {
			t.Errorf("%s: got %+v", behaviour, x)
		}
	}
	for behaviour, part := range map[string]string{"init-fail": "refused the configuration with code 3", "init-trap": "stage_init", "alloc0": "stage_alloc"} {
		opt := quick
		opt.Stage.Config = fmt.Appendf(nil, `{"behaviour":%q}`, behaviour)
		expect(t, check(t, plugin, opt), "start", plugintest.Fail, part)
	}
}

// TestHostile: the suite ends with a sentence for each hostile guest.
func TestHostile(t *testing.T) {
	rt, err := sandbox.New(t.Context(), sandbox.Config{Workers: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer rt.Close(t.Context())
	for i, g := range hostile.Guests() {
		if g.Large || testkit.Race && i%4 > 0 {
			continue // they cost seconds, and are the sandbox's test
		}
		wasm := g.Wasm()
		if g.Refused != "" {
			info, err := sandbox.Inspect(wasm)
			if err != nil || len(info.Refusals) == 0 {
				continue // no module at all, or refused when compiled
			}
			r := check(t, plugintest.Plugin{Info: info}, quick)
			if len(r.Results) != len(info.Refusals) || r.Count(plugintest.Fail) != len(r.Results) {
				t.Errorf("%s: got %+v", g.Name, r.Results)
			}
			continue
		}
		m, err := rt.Compile(t.Context(), wasm)
		if err != nil {
			t.Fatalf("%s: %v", g.Name, err)
		}
		opt := plugintest.Options{Bulk: 129, Patience: time.Millisecond}
		r := check(t, plugintest.Of(m.Info(), m.NewStage), opt)
		if !g.Passes && r.Count(plugintest.Fail)+r.Count(plugintest.Note) == 0 {
			t.Errorf("%s: nothing was found", g.Name)
		}
		for _, x := range r.Results {
			if strings.Contains(x.Detail, "\n") || x.Outcome == plugintest.Fail && x.Next == "" || g.Passes && x.Check == "records" && x.Outcome == plugintest.Fail {
				t.Errorf("%s: got %+v", g.Name, x)
			}
		}
		if err := m.Close(t.Context()); err != nil {
			t.Error(err)
		}
	}
}

// TestExamples: what ships passes.
func TestExamples(t *testing.T) {
	for _, c := range []struct {
		path string
		cfg  sandbox.StageConfig
	}{
		{"upper/upper.wasm", sandbox.StageConfig{}},
		{"orders/orders.wasm", sandbox.StageConfig{}},
		{"lines/lines.wasm", sandbox.StageConfig{}},
		{"lines/lines.wasm", sandbox.StageConfig{Lines: sandbox.LinesBatch}},
	} {
		wasm, err := os.ReadFile("../../examples/" + c.path)
		if err != nil {
			t.Fatal(err)
		}
		m := compile(t, wasm)
		r := plugintest.Run(t, plugintest.Of(m.Info(), m.NewStage), plugintest.Options{Stage: c.cfg, Bulk: 2000})
		f := r.Figures
		if f.NanosPerRecord <= 0 || f.MemoryBytes < m.Info().MemoryMinBytes || f.MemoryBytes > f.MemoryLimitBytes || f.FuelMedian <= 0 || f.FuelMax < f.FuelMedian || f.FuelBudget <= 0 {
			t.Errorf("%s: got figures %+v", c.path, f)
		}
	}
}

// TestCancelled: the suite ends with its context.
func TestCancelled(t *testing.T) {
	m := compile(t, guests.Conformance)
	ctx, cancel := context.WithCancel(t.Context())
	n := 0
	_, err := plugintest.Check(ctx, plugintest.Of(m.Info(), m.NewStage), plugintest.Options{OnResult: func(plugintest.Result) {
		if n++; n == 3 {
			cancel()
		}
	}})
	if err == nil || ctx.Err() == nil {
		t.Errorf("got %v after %d results", err, n)
	}
}

// TestRunReports: Run is a test's own errors.
func TestRunReports(t *testing.T) {
	m := compile(t, guests.Mutant)
	opt := quick
	opt.Stage.Config = []byte(`{"do":"pass","fault":"wrong-id"}`)
	r := &recorder{ctx: t.Context()}
	plugintest.Run(r, plugintest.Of(m.Info(), m.NewStage), opt)
	if len(r.errors) == 0 || !strings.HasPrefix(r.errors[0], "records: ") {
		t.Errorf("got %q", r.errors)
	}
}

type recorder struct {
	ctx    context.Context
	errors []string
}

func (r *recorder) Helper()                  {}
func (r *recorder) Context() context.Context { return r.ctx }
func (r *recorder) Logf(string, ...any)      {}
func (r *recorder) Errorf(format string, args ...any) {
	r.errors = append(r.errors, fmt.Sprintf(format, args...))
}
