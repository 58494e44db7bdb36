// Package plugintest is the suite that a guest passes: what any plugin must
// hold, whatever it does, and the golden vectors of the conformance protocol
// for guests that speak it.
//
// Check runs it and reports; Run is Check for a Go test. A plugin is given as
// a Plugin, which Of makes of a compiled module of any run mode. The package
// compiles nothing, reads no files but the vectors it is handed, and decides
// nothing about a plugin that a node would decide: refusals, limits and
// restoring are package sandbox's, and are looked at from outside.
package plugintest

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/millrace-io/millrace/plugins/sandbox"
	"github.com/millrace-io/millrace/runtime/record"
)

// Stage is what the suite needs of a plugin at its place in a flow. Calls of
// Process come one after the other.
type Stage interface {
	// Process answers every record of b in out.
	Process(ctx context.Context, b *record.Batch, out *record.Results) error
	// Stats counts what was done since the stage was made. A Fuel that stays 0
	// is taken as not known.
	Stats() sandbox.Stats
	// Fuel is what a record may cost, MemoryBytes what an instance may have.
	Fuel() int64
	MemoryBytes() int64
	Close(ctx context.Context) error
}

// Plugin is a compiled plugin.
type Plugin struct {
	Info *sandbox.Info
	// NewStage makes a stage that starts from the plugin's image.
	NewStage func(context.Context, sandbox.StageConfig) (Stage, error)
}

// Of makes a Plugin of a compiled module's methods: Of(m.Info(), m.NewStage).
func Of[S Stage](info *sandbox.Info, newStage func(context.Context, sandbox.StageConfig) (S, error)) Plugin {
	return Plugin{Info: info, NewStage: func(ctx context.Context, cfg sandbox.StageConfig) (Stage, error) {
		s, err := newStage(ctx, cfg)
		if err != nil {
			return nil, err
		}
		return s, nil
	}}
}

// Options says how a plugin is tested. The zero value works.
type Options struct {
	// Stage is the configuration of every stage that is made; logs and counts
	// are the suite's. The vectors replace its Config. Without a Sign a plugin
	// that signs gets signatures that no key made.
	Stage sandbox.StageConfig
	// Records are what the plugin is made for, and must not make it trap;
	// empty: the sample of its manifest, else made up.
	Records []record.Record
	// Vectors are run after the checks, for a guest that speaks the
	// conformance protocol.
	Vectors []Vector
	// VectorsOnly leaves the checks for any guest out.
	VectorsOnly bool
	// Only narrows the checks that follow "records" to these kinds: batch,
	// input, "same answers", split, state, fuel, memory, growth, speed. Empty:
	// all of them.
	Only []string
	// Bulk is how many records the longest batch has; 0: 10,000.
	Bulk int
	// Patience bounds each check that repeats something; 0: 5 s. What was not
	// reached by then is said in the result.
	Patience time.Duration
	// OnResult gets each result as soon as it is known; may be nil.
	OnResult func(Result)
}

// Outcome is the outcome of a check.
type Outcome string

// The outcomes.
const (
	Pass Outcome = "pass"
	// Fail: the guest breaks a rule, or cannot do what it is for.
	Fail Outcome = "fail"
	// Note: nothing is broken, but its author should know.
	Note Outcome = "note"
)

// Result is the outcome of one check.
type Result struct {
	// Check is its name, stable.
	Check   string  `json:"check"`
	Outcome Outcome `json:"outcome"`
	// Detail is what was seen, in a sentence; Next the next step where
	// something can be done.
	Detail string `json:"detail"`
	Next   string `json:"next,omitempty"`
}

// Figures are what a plugin takes. They are of this machine, but for the fuel.
type Figures struct {
	// FuelMedian and FuelMax are of single records among those it is made
	// for; 0: not known. FuelBudget is what a record may cost beside what its
	// bytes add.
	FuelMedian int64 `json:"fuel_median"`
	FuelMax    int64 `json:"fuel_max"`
	FuelBudget int64 `json:"fuel_budget"`
	// NanosPerRecord is the time for a record in batches of 128.
	NanosPerRecord int64 `json:"nanos_per_record"`
	// MemoryBytes is the least memory with which it passes 128 records;
	// MemoryLimitBytes is what it may have.
	MemoryBytes      int64 `json:"memory_bytes"`
	MemoryLimitBytes int64 `json:"memory_limit_bytes"`
}

// Report is the result of all checks.
type Report struct {
	Mode    string   `json:"mode"`
	Digest  string   `json:"digest"`
	Figures Figures  `json:"figures"`
	Results []Result `json:"results"`
}

// Count is how many results have that outcome.
func (r *Report) Count(o Outcome) int {
	n := 0
	for i := range r.Results {
		if r.Results[i].Outcome == o {
			n++
		}
	}
	return n
}

// Check runs the suite. The error is about the suite, not the plugin: ctx
// ended, or the sandbox failed. What the plugin does wrong stands in the
// report. It takes a second or two, and several times Patience for slow guests.
func Check(ctx context.Context, p Plugin, opt Options) (*Report, error) {
	if opt.Bulk == 0 {
		opt.Bulk = 10_000
	}
	if opt.Patience == 0 {
		opt.Patience = 5 * time.Second
	}
	s := &suite{ctx: ctx, plugin: p, opt: opt, size: callRecords, report: &Report{Mode: p.Info.Mode, Digest: p.Info.Digest, Results: []Result{}}}
	if !opt.VectorsOnly {
		if err := s.any(); err != nil {
			return s.report, err
		}
	}
	for i := range opt.Vectors {
		if err := s.vector(&opt.Vectors[i]); err != nil {
			return s.report, err
		}
	}
	return s.report, ctx.Err()
}

// T is the part of *testing.T that Run needs.
type T interface {
	Helper()
	Context() context.Context
	Logf(format string, args ...any)
	Errorf(format string, args ...any)
}

// Run checks a plugin in a Go test: each check that fails is an error of the
// test, each note a line of its log.
func Run(t T, p Plugin, opt Options) *Report {
	t.Helper()
	report, err := Check(t.Context(), p, opt)
	if err != nil {
		t.Errorf("%v", err)
	}
	for _, r := range report.Results {
		switch r.Outcome {
		case Fail:
			t.Errorf("%s: %s; %s", r.Check, r.Detail, r.Next)
		case Note:
			t.Logf("%s: %s", r.Check, r.Detail)
		}
	}
	return report
}

// suite is one run of Check.
type suite struct {
	ctx    context.Context
	plugin Plugin
	opt    Options
	report *Report
	// size is how many records a batch has at most, so that a slow guest comes
	// to an end.
	size int
}

func (s *suite) add(r Result) {
	s.report.Results = append(s.report.Results, r)
	if s.opt.OnResult != nil {
		s.opt.OnResult(r)
	}
}

func (s *suite) pass(check, format string, args ...any) {
	s.add(Result{Check: check, Outcome: Pass, Detail: fmt.Sprintf(format, args...)})
}

func (s *suite) fail(check, next, format string, args ...any) {
	s.add(Result{Check: check, Outcome: Fail, Detail: fmt.Sprintf(format, args...), Next: next})
}

func (s *suite) note(check, next, format string, args ...any) {
	s.add(Result{Check: check, Outcome: Note, Detail: fmt.Sprintf(format, args...), Next: next})
}

// errStart is a stage that did not start, which is the plugin's fault.
type errStart struct{ err error }

func (e *errStart) Error() string { return e.err.Error() }
func (e *errStart) Unwrap() error { return e.err }

// open makes a stage; an error of the plugin's is an *errStart.
func (s *suite) open(change func(*sandbox.StageConfig)) (*probe, error) {
	cfg := s.opt.Stage
	if cfg.Stage == "" {
		cfg.Stage = "test"
	}
	if change != nil {
		change(&cfg)
	}
	if cfg.Sign == nil && s.plugin.Info.Signs {
		cfg.Sign = anySignature
	}
	p := &probe{counts: map[string]float64{}}
	// Failures are counted: what is judged again alone would be in the figures.
	cfg.OnLog, cfg.OnCount, cfg.ForgetFailures = p.onLog, p.onCount, true
	stage, err := s.plugin.NewStage(s.ctx, cfg)
	if err != nil {
		if s.ctx.Err() != nil {
			return nil, s.ctx.Err()
		}
		return nil, &errStart{err}
	}
	p.stage = stage
	p.startLogs, p.logs = p.logs, nil
	return p, nil
}

// anySignature stands for the signatures of whatever keys a plugin asks for:
// the same one for the same message.
func anySignature(handle, alg uint32, message []byte) ([]byte, error) {
	h := sha256.New()
	_ = binary.Write(h, binary.LittleEndian, [2]uint32{handle, alg})
	h.Write(message)
	return h.Sum(nil), nil
}

// with opens a stage for f and closes it.
func (s *suite) with(change func(*sandbox.StageConfig), f func(*probe) error) error {
	p, err := s.open(change)
	if err != nil {
		return err
	}
	err = f(p)
	return errors.Join(err, p.stage.Close(context.WithoutCancel(s.ctx)))
}
