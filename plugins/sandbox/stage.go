package sandbox

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cespare/xxhash/v2"
	"github.com/millrace-io/millrace/plugins/abi"
	"github.com/millrace-io/millrace/plugins/manifest"
	"github.com/millrace-io/millrace/runtime/record"
)

// LogsPerSecond limits the log lines that a stage passes on; a burst may have
// LogBurst.
const (
	LogsPerSecond = 100
	LogBurst      = 1000
)

// Stats counts what a stage did since it was made.
type Stats struct {
	// Calls of the guest, the repeated ones included; Records in them.
	Calls, Records int64
	// GuestTime is the time of the calls, with encoding and decoding, without
	// restoring.
	GuestTime time.Duration
	// Fuel is what the calls used.
	Fuel int64
	// Restores of an instance to its image; Instances made (by whatever
	// way), and of these Clones: made from the image without a start.
	Restores, Instances, Clones int64
	// RestoreTime is how long the restores took.
	RestoreTime time.Duration
	// Repeats are calls that were made to find the records that fail, and to
	// judge alone those that a guest failed among others.
	Repeats int64
	// Unrepeatable counts failures without a Replay because the guest answers
	// the record otherwise when it is alone.
	Unrepeatable int64
	// Failed counts records in Results.Failures; LogsDropped log lines over
	// the limit.
	Failed, LogsDropped int64
	// ImageLevel is the present level of the image, ImageBytes its size.
	ImageLevel int
	ImageBytes int64
	// Stateful: see IsolationFailure.
	Stateful bool
}

type counters struct {
	calls, records, guest, fuel, restores, restoring, instances, clones, repeats, unrepeatable, failed, logsDropped atomic.Int64
}

// Stage runs a plugin at its place in a flow. Process may be called by many
// goroutines at once; each call has an instance to itself, of at most
// Config.Workers.
type Stage struct {
	rt         *Runtime
	mod        *Module
	cfg        StageConfig
	log        *slog.Logger
	limit      int64
	fuel       int64
	perByte    int64 // what each byte of a call adds to it; tests set it to 0
	configHash uint64
	outputs    []abi.Output
	stateful   bool
	lines      string

	gate *Gate // as wide as there are workers

	mu       sync.Mutex
	idle     []*instance // guarded by mu; the last one used is at the end
	programs []*program  // guarded by mu; ready to read
	image    *image      // guarded by mu; nil before the first instance
	level    int         // guarded by mu; of the image
	maxLevel int         // guarded by mu
	streak   int         // guarded by mu; calls in a row that grew memory, smaller ones left out
	// streakSize is the size of the last call that did, in bytes.
	streakSize int // guarded by mu
	closeOnce  sync.Once
	closeErr   error

	forks     atomic.Int64 // how many snapshots the next program takes
	perRecord atomic.Int64 // ns of guest time, a moving average
	// fuelPerRecord is a moving average too.
	fuelPerRecord atomic.Int64
	outlet        *Outlet
	count         counters
}

// NewStage checks the configuration and starts one instance, so that a plugin
// that does not take it fails here, with its own message (*InitError). Close
// releases the stage.
func (m *Module) NewStage(ctx context.Context, cfg StageConfig) (*Stage, error) {
	s, err := m.stage(cfg)
	if err != nil {
		return nil, err
	}
	if m.info.Mode == manifest.ModeLines {
		p, h, err := s.spawn()
		switch {
		case err != nil:
			return nil, fmt.Errorf("stage %q: %w", cfg.Stage, err)
		case h.ready:
			s.programs = append(s.programs, p)
			return s, nil
		}
		p.close()
		if p.env.fuel.out() {
			return nil, fmt.Errorf("stage %q: %w", cfg.Stage, &InitError{Plugin: s.cfg.Plugin, Export: exportStart, Message: p.env.fuel.text() + " before it read anything"})
		}
		return s, nil
	}
	in, err := s.newInstance(ctx)
	if err != nil {
		return nil, fmt.Errorf("stage %q: %w", cfg.Stage, err)
	}
	s.idle = append(s.idle, in)
	return s, nil
}

// stage makes a stage without an instance.
func (m *Module) stage(cfg StageConfig) (*Stage, error) {
	s := &Stage{
		rt: m.rt, mod: m, cfg: cfg,
		gate: NewGate(m.rt.cfg.Workers), maxLevel: maxImageLevel,
	}
	s.forks.Store(maxForks)
	if err := s.configure(); err != nil {
		return nil, fmt.Errorf("stage %q: plugin %s: %w", cfg.Stage, s.cfg.Plugin, err)
	}
	return s, nil
}

func (s *Stage) configure() error {
	cfg, info := &s.cfg, s.mod.info
	cfg.Defaults(info)
	s.log, s.outlet = cfg.Log(), NewOutlet(cfg)

	var errs []error
	isLines := info.Mode == manifest.ModeLines
	s.lines = cfg.Lines
	switch {
	case s.lines == "" && isLines && info.Manifest != nil && info.Manifest.Lines == LinesBatch:
		errs = append(errs, errors.New("lines: the manifest of the program asks for batch, which loses keys and drops; confirm it with `lines: batch`, or choose `lines: each`"))
	case s.lines != "" && s.lines != LinesEach && s.lines != LinesBatch:
		errs = append(errs, fmt.Errorf("lines: %q is neither %s nor %s", s.lines, LinesEach, LinesBatch))
	case cfg.Lines != "" && !isLines:
		errs = append(errs, errors.New("lines: it is for programs that read STDIN; this plugin is none"))
	}
	s.stateful = cfg.Isolation == IsolationFailure
	switch cfg.Isolation {
	case "", IsolationBatch:
	case IsolationRecord:
		if isLines && s.lines == LinesBatch {
			errs = append(errs, errors.New("isolation: record contradicts lines: batch; use lines: each"))
		}
	case IsolationFailure:
		if isLines {
			errs = append(errs, errors.New("isolation: a program that reads STDIN keeps nothing from run to run; leave it away"))
		}
	default:
		errs = append(errs, fmt.Errorf("isolation: %q is none of %s, %s and %s", cfg.Isolation, IsolationBatch, IsolationRecord, IsolationFailure))
	}
	if cfg.Envelope && !isLines {
		errs = append(errs, errors.New("envelope: it is for programs that read STDIN; this plugin gets whole records anyway"))
	}
	if cfg.Function != "" {
		errs = append(errs, fmt.Errorf("function: %q is for Extism plugins; this one runs in mode %s, take it away", cfg.Function, info.Mode))
	}
	if cfg.Sign != nil && isLines {
		errs = append(errs, errors.New("sign: a program that reads STDIN cannot sign; build the plugin with a PDK"))
	}
	if len(cfg.Hosts) > 0 {
		errs = append(errs, fmt.Errorf("hosts: only Extism plugins reach hosts; this one runs in mode %s, take them away", info.Mode))
	}
	if !json.Valid(cfg.Config) {
		errs = append(errs, errors.New("configuration of the plugin: it is no JSON"))
	} else {
		errs = append(errs, s.mod.CheckConfig(cfg.Config))
	}
	s.configHash = xxhash.Sum64(cfg.Config)

	names := info.Outputs()
	for i, n := range names {
		s.outputs = append(s.outputs, abi.Output{Name: n, Bound: i == 0 || slices.Contains(cfg.Outputs, n)})
	}
	for _, n := range cfg.Outputs {
		if !slices.Contains(names, n) {
			errs = append(errs, fmt.Errorf("outputs: the plugin has no output %q; it has %q", n, names))
		}
	}

	var err error
	s.limit, s.fuel, err = cfg.Limits(info, s.rt.cfg.MaxMemoryBytes, s.rt.cfg.MaxFuel)
	s.perByte = fuelPerByte
	errs = append(errs, err)
	return errors.Join(errs...)
}

// Info tells what is known about the plugin.
func (s *Stage) Info() *Info { return s.mod.info }

// Stateful reports whether answers depend on earlier batches: see
// IsolationFailure.
func (s *Stage) Stateful() bool { return s.stateful }

// Impure reports whether answers depend on more than the records, which those
// of a plugin of this package never do.
func (s *Stage) Impure() bool { return false }

// MemoryBytes is the memory limit of each instance.
func (s *Stage) MemoryBytes() int64 { return s.limit }

// Fuel is what a record may cost.
func (s *Stage) Fuel() int64 { return s.fuel }

// Process passes b through the plugin and appends the answers to out; each
// record is answered there, whatever the guest does. It blocks while all
// workers are busy. b is only read.
//
// Answers stand in the order in which the guest gave them; where the batch was
// processed in parts, part after part. An error is about the sandbox, not the
// records: ctx ended, the stage was closed, an instance could not be made; out
// is then as it was before, and the whole batch may be processed again.
//
// A guest that never returns blocks the call for ever, whatever ctx says.
func (s *Stage) Process(ctx context.Context, b *record.Batch, out *record.Results) error {
	if len(b.Records) == 0 {
		return nil
	}
	if err := s.gate.Enter(ctx); err != nil {
		return fmt.Errorf("stage %q: plugin %s: %w", s.cfg.Stage, s.cfg.Plugin, err)
	}
	defer s.gate.Leave()
	before := out.Mark()
	var err error
	switch {
	case s.mod.info.Mode != manifest.ModeLines:
		err = s.processCalls(ctx, b, out)
	case s.lines == LinesBatch:
		err = s.processLinesBatch(ctx, b, out)
	default:
		err = s.processLines(ctx, b, out)
	}
	if err != nil {
		out.Rewind(before)
		return fmt.Errorf("stage %q: plugin %s: %w", s.cfg.Stage, s.cfg.Plugin, err)
	}
	s.count.failed.Add(int64(len(out.Failed(before))))
	return nil
}

// Close waits for running calls, then closes all instances. Later calls of
// Process report ErrClosed. It gives up waiting when ctx ends; the instances
// in use are then closed by their calls.
func (s *Stage) Close(ctx context.Context) error {
	s.closeOnce.Do(func() {
		if err := s.gate.Shut(ctx); err != nil {
			s.closeErr = fmt.Errorf("close stage %q: calls of plugin %s are still running: %w", s.cfg.Stage, s.cfg.Plugin, err)
		}
		s.mu.Lock()
		idle, programs := s.idle, s.programs
		s.idle, s.programs, s.image = nil, nil, nil
		s.mu.Unlock()
		for _, p := range programs {
			p.close()
		}
		for _, in := range idle {
			in.close()
		}
	})
	return s.closeErr
}

// Stats tells what the stage did so far.
func (s *Stage) Stats() Stats {
	c := &s.count
	st := Stats{
		Calls: c.calls.Load(), Records: c.records.Load(), GuestTime: time.Duration(c.guest.Load()), Fuel: c.fuel.Load(), Restores: c.restores.Load(),
		RestoreTime: time.Duration(c.restoring.Load()),
		Instances:   c.instances.Load(), Clones: c.clones.Load(), Repeats: c.repeats.Load(), Unrepeatable: c.unrepeatable.Load(), Failed: c.failed.Load(), LogsDropped: c.logsDropped.Load(),
		Stateful: s.stateful,
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	st.ImageLevel = s.level
	if s.image != nil {
		st.ImageBytes = int64(len(s.image.memory))
	}
	return st
}
