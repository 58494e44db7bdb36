package extism

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cespare/xxhash/v2"

	"github.com/millrace-io/millrace/plugins/abi"
	"github.com/millrace-io/millrace/plugins/sandbox"
	"github.com/millrace-io/millrace/runtime/record"
)

// StartFunction is the entry of a WASI command. As the function of a stage it
// gets a fresh instance for each record, whatever the isolation.
const StartFunction = "_start"

type counters struct {
	calls, records, guest, fuel, instances, repeats, failed, logsDropped atomic.Int64
}

// Stage runs a plugin at its place in a flow. Process may be called by many
// goroutines at once; each call has an instance to itself, of at most
// Config.Workers.
type Stage struct {
	mod        *Module
	cfg        sandbox.StageConfig
	texts      map[string]string // shared by the instances, only read
	limit      int64
	fuel       int64
	code       *code
	configHash uint64

	gate *sandbox.Gate // as wide as there are workers

	mu        sync.Mutex
	idle      []*instance // guarded by mu; the last one used is at the end
	closeOnce sync.Once
	closeErr  error

	outlet *sandbox.Outlet
	count  counters
}

// NewStage checks the configuration and starts one instance, so that a plugin
// that does not start fails here (*sandbox.InitError). It compiles the plugin
// anew where the stage has another budget of fuel than those before it. Close
// releases the stage.
func (m *Module) NewStage(ctx context.Context, cfg sandbox.StageConfig) (*Stage, error) {
	s := &Stage{mod: m, cfg: cfg, gate: sandbox.NewGate(m.rt.cfg.Workers)}
	if err := s.configure(); err != nil {
		return nil, fmt.Errorf("stage %q: plugin %s: %w", cfg.Stage, s.cfg.Plugin, err)
	}
	var err error
	if s.code, err = m.codeFor(ctx, s.fuel); err != nil {
		return nil, fmt.Errorf("stage %q: plugin %s: %w", cfg.Stage, s.cfg.Plugin, err)
	}
	in, err := s.newInstance(ctx)
	if err != nil {
		return nil, fmt.Errorf("stage %q: %w", cfg.Stage, &sandbox.InitError{Plugin: s.cfg.Plugin, Export: "start function", Message: s.trapCause(err)})
	}
	if n := int64(in.alloc.total); n > s.limit {
		in.close()
		return nil, fmt.Errorf("stage %q: plugin %s: memory: it starts with %s, Extism's own included; the limit is %s",
			cfg.Stage, s.cfg.Plugin, sandbox.BytesText(n), sandbox.BytesText(s.limit))
	}
	s.idle = append(s.idle, in)
	return s, nil
}

func (s *Stage) configure() error {
	cfg, info := &s.cfg, s.mod.info
	cfg.Defaults(info)
	s.outlet = sandbox.NewOutlet(cfg)

	var errs []error
	if cfg.Function == "" && info.Manifest != nil {
		cfg.Function = info.Manifest.Function
	}
	errs = append(errs, s.mod.CheckFunction(cfg.Function), CheckHosts(cfg.Hosts))
	if cfg.Lines != "" || cfg.Envelope {
		errs = append(errs, errors.New("lines: `lines` and `envelope` are for programs that read STDIN; an Extism plugin gets one value a call"))
	}
	if cfg.Sign != nil {
		errs = append(errs, errors.New("sign: an Extism plugin cannot sign; build the plugin with a Millrace PDK"))
	}
	for _, n := range cfg.Outputs {
		errs = append(errs, fmt.Errorf("outputs: an Extism plugin has no output %q, only the default one", n))
	}
	switch cfg.Isolation {
	case "":
		cfg.Isolation = sandbox.IsolationBatch
	case sandbox.IsolationBatch, sandbox.IsolationRecord, sandbox.IsolationFailure:
	default:
		errs = append(errs, fmt.Errorf("isolation: %q is not one of %s, %s, %s", cfg.Isolation, sandbox.IsolationBatch, sandbox.IsolationRecord, sandbox.IsolationFailure))
	}
	if cfg.Function == StartFunction {
		cfg.Isolation = sandbox.IsolationRecord
	}
	errs = append(errs, s.mod.CheckConfig(cfg.Config))
	s.texts, _ = flatten(cfg.Config)
	s.configHash = xxhash.Sum64(cfg.Config)

	var err error
	s.limit, s.fuel, err = cfg.Limits(info, s.mod.rt.cfg.MaxMemoryBytes, s.mod.rt.cfg.MaxFuelPerRecord)
	errs = append(errs, err)
	return errors.Join(errs...)
}

// Info tells what is known about the plugin.
func (s *Stage) Info() *sandbox.Info { return s.mod.info }

// MemoryBytes is the memory limit of each instance.
func (s *Stage) MemoryBytes() int64 { return s.limit }

// Fuel is the budget of each record.
func (s *Stage) Fuel() int64 { return s.fuel }

// Impure reports that answers may depend on more than the record: the guest
// may reach hosts. Its failures cannot be replayed, and a record that fails,
// or whose batch is processed again, sends its requests again.
func (s *Stage) Impure() bool { return len(s.cfg.Hosts) > 0 }

// Stateful reports that answers may depend on earlier batches.
func (s *Stage) Stateful() bool { return s.cfg.Isolation == sandbox.IsolationFailure }

// Process passes b through the plugin, record by record, and appends the
// answers to out; each record is answered there, whatever the guest does: with
// one emission, or a drop where the guest's output is empty. It blocks while
// all workers are busy. b is only read.
//
// An error is about the runtime, not the records: ctx ended, the stage was
// closed, an instance could not be made; out is then as it was before, and the
// whole batch may be processed again.
//
// ctx is looked at between records, and ends HTTP requests.
func (s *Stage) Process(ctx context.Context, b *record.Batch, out *record.Results) error {
	if len(b.Records) == 0 {
		return nil
	}
	if err := s.gate.Enter(ctx); err != nil {
		return fmt.Errorf("stage %q: plugin %s: %w", s.cfg.Stage, s.cfg.Plugin, err)
	}
	defer s.gate.Leave()
	before := out.Mark()
	run := batchRun{stage: s}
	err := run.records(ctx, b, out)
	run.end()
	if err != nil {
		out.Rewind(before)
		return fmt.Errorf("stage %q: plugin %s: %w", s.cfg.Stage, s.cfg.Plugin, err)
	}
	s.count.records.Add(int64(len(b.Records)))
	s.count.failed.Add(int64(len(out.Failed(before))))
	return nil
}

// tell passes on what a call for records logged; filed: the lines lie with the
// failure.
func (s *Stage) tell(ctx context.Context, in *instance, records []record.Record, filed bool) {
	s.count.logsDropped.Add(s.outlet.Tell(ctx, in.env, records, filed))
}

// batchRun passes one batch through instances.
type batchRun struct {
	stage *Stage
	in    *instance // nil: the next record needs one
}

func (r *batchRun) records(ctx context.Context, b *record.Batch, out *record.Results) error {
	s := r.stage
	for i := range b.Records {
		if err := ctx.Err(); err != nil {
			return err
		}
		rec := &b.Records[i]
		id := abi.BatchID(s.cfg.FlowUID, s.cfg.Stage, b.Partition, rec.Offset, 1)
		a, err := r.call(ctx, b.Now, id, rec)
		if err != nil {
			return err
		}
		a.answer(int32(i), rec, out)
		if a.failure == nil {
			s.tell(ctx, r.in, b.Records[i:i+1], false)
			continue
		}
		if reason := s.unrepeatable(); reason != "" {
			out.Failures[len(out.Failures)-1].NoReplay = reason
		} else {
			f := &out.Failures[len(out.Failures)-1]
			f.Replay = &record.Replay{BatchID: id, Now: b.Now, ConfigHash: s.configHash, Logs: r.in.env.Texts(),
				Fuel: a.fuel, FuelLimit: s.fuel, MemoryLimit: s.limit, FuelCosts: sandbox.FuelCosts}
		}
		s.tell(ctx, r.in, b.Records[i:i+1], out.Failures[len(out.Failures)-1].Replay != nil)
		r.drop()
	}
	return nil
}

// call runs one record, and once more on a fresh instance where it failed on a
// used one: what a record does must not be blamed on what came before it.
func (r *batchRun) call(ctx context.Context, now int64, id uint64, rec *record.Record) (answer, error) {
	if r.stage.cfg.Isolation == sandbox.IsolationRecord {
		r.drop()
	}
	for {
		if r.in == nil {
			var err error
			if r.in, err = r.stage.take(ctx); err != nil {
				return answer{}, err
			}
		}
		used := r.in.calls > 0
		a := r.in.call(ctx, now, id, rec)
		if a.failure == nil {
			return a, nil
		}
		if err := ctx.Err(); err != nil {
			return answer{}, err
		}
		if !used || a.failure.Class.Transient() {
			return a, nil
		}
		r.stage.count.repeats.Add(1)
		r.in.close()
		var err error
		if r.in, err = r.stage.fresh(ctx); err != nil {
			return answer{}, err
		}
	}
}

// drop closes a used instance; a fresh one stays.
func (r *batchRun) drop() {
	if r.in != nil && r.in.calls > 0 {
		r.in.close()
		r.in = nil
	}
}

// end keeps the instance for the next batch where it may be used for it.
func (r *batchRun) end() {
	if r.in == nil {
		return
	}
	s := r.stage
	if (r.in.calls == 0 || s.Stateful()) && s.keep(r.in) {
		return
	}
	r.in.close()
}

// keep makes an instance idle, unless the stage is closed.
func (s *Stage) keep(in *instance) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.gate.IsShut() {
		return false
	}
	s.idle = append(s.idle, in)
	return true
}

// take is an idle instance, or a fresh one.
func (s *Stage) take(ctx context.Context) (*instance, error) {
	s.mu.Lock()
	if n := len(s.idle); n > 0 {
		in := s.idle[n-1]
		s.idle[n-1] = nil
		s.idle = s.idle[:n-1]
		s.mu.Unlock()
		return in, nil
	}
	s.mu.Unlock()
	return s.fresh(ctx)
}

func (s *Stage) fresh(ctx context.Context) (*instance, error) {
	in, err := s.newInstance(ctx)
	if err != nil {
		return nil, fmt.Errorf("make an instance: %s", s.trapCause(err))
	}
	return in, nil
}

// Close waits for running calls, then closes all instances. Later calls of
// Process report sandbox.ErrClosed. It gives up waiting when ctx ends; the
// instances in use are then closed by their calls.
func (s *Stage) Close(ctx context.Context) error {
	s.closeOnce.Do(func() {
		if err := s.gate.Shut(ctx); err != nil {
			s.closeErr = fmt.Errorf("close stage %q: calls of plugin %s are still running: %w", s.cfg.Stage, s.cfg.Plugin, err)
		}
		s.mu.Lock()
		idle := s.idle
		s.idle = nil
		s.mu.Unlock()
		for _, in := range idle {
			in.close()
		}
	})
	return s.closeErr
}

// Stats tells what the stage did so far.
func (s *Stage) Stats() sandbox.Stats {
	c := &s.count
	return sandbox.Stats{
		Calls: c.calls.Load(), Records: c.records.Load(), GuestTime: time.Duration(c.guest.Load()), Fuel: c.fuel.Load(),
		Instances: c.instances.Load(), Repeats: c.repeats.Load(), Failed: c.failed.Load(), LogsDropped: c.logsDropped.Load(),
		Stateful: s.Stateful(),
	}
}
