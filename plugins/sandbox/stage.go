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

// StageConfig is the place of a plugin in a flow. The zero value works, for a
// plugin that needs no configuration.
type StageConfig struct {
	// Flow is {project}/{name}, Stage the id in it, Plugin name@version; all
	// for logs and messages.
	Flow, Stage, Plugin string
	// FlowUID goes into batch ids.
	FlowUID uint64
	// Digest of the plugin for logs; empty: the module's own.
	Digest string
	// Config is given to stage_init; empty: {}. In extism mode it is what
	// config_get answers: an object, whose values are given as texts, nested
	// ones as JSON.
	Config json.RawMessage
	// Function is the export that an Extism plugin is called by; empty: that
	// of its manifest. Other plugins have none.
	Function string
	// Hosts are those that an Extism plugin may reach by HTTP: names in lower
	// case, in which * stands for any run of characters. None: it reaches no
	// network. With any the stage is impure. Other plugins have none.
	Hosts []string
	// MemoryBytes limits the guest's memory; 0: memory_mb of the manifest,
	// else the runtime's limit. More than that is an error.
	MemoryBytes int64
	// Fuel is what a record may cost; 0: fuel_per_record of the manifest, else
	// the runtime's limit. More than that is an error.
	Fuel int64
	// Lines is how a lines program runs: LinesEach, LinesBatch, or empty for
	// the first; a program whose manifest asks for batch needs one of both.
	Lines string
	// Envelope gives a lines program whole records as JSON and reads such.
	Envelope bool
	// Isolation is IsolationBatch, IsolationRecord, IsolationFailure, or empty
	// for the first.
	Isolation string
	// Outputs are the outputs, beside the default one, that the flow takes.
	// Emitting to another one is a protocol error.
	Outputs []string
	// ForgetFailures says that failures are counted and not kept. They may
	// then come without a Replay, which costs a call for each that a guest
	// answers among other records.
	ForgetFailures bool

	// Logger gets the guest's log lines, nil discards.
	Logger *slog.Logger
	// OnLog gets the same lines, may be nil. Both are called within Process,
	// at most LogsPerSecond times a second.
	OnLog func(level slog.Level, line string)
	// OnCount gets what guests count, summed up for each call; may be nil.
	// It is called within Process, by several goroutines at once.
	OnCount func(name string, delta float64)
}

// Log is the logger of the stage's messages, which name flow, stage and plugin.
func (c *StageConfig) Log() *slog.Logger {
	if c.Logger == nil {
		return slog.New(slog.DiscardHandler)
	}
	return c.Logger.With("flow", c.Flow, "stage", c.Stage, "plugin", c.Plugin)
}

// Limits are the memory of an instance and the fuel of a record: what c asks
// for, else what the plugin's manifest does, else the most that a runtime
// gives, which is passed. The error says what of c or of the plugin is beyond
// that.
func (c *StageConfig) Limits(info *Info, maxMemory, maxFuel int64) (memory, fuel int64, err error) {
	var errs []error
	memory = maxMemory
	switch {
	case c.MemoryBytes > memory:
		errs = append(errs, fmt.Errorf("memory: %s is more than this node allows, %s", BytesText(c.MemoryBytes), BytesText(memory)))
	case c.MemoryBytes > 0:
		memory = c.MemoryBytes
	case info.Manifest != nil && info.Manifest.MemoryMB > 0:
		memory = min(memory, int64(info.Manifest.MemoryMB)<<20)
	}
	memory = memory / pageBytes * pageBytes
	if info.MemoryMinBytes > memory {
		errs = append(errs, fmt.Errorf("memory: the plugin starts with %s, the limit is %s", BytesText(info.MemoryMinBytes), BytesText(memory)))
	}
	fuel = maxFuel
	switch {
	case c.Fuel < 0 || c.Fuel > fuel:
		errs = append(errs, fmt.Errorf("fuel: %d a record is not from 0 to what this node allows, %d", c.Fuel, fuel))
	case c.Fuel > 0:
		fuel = c.Fuel
	case info.Manifest != nil && info.Manifest.FuelPerRecord > 0:
		fuel = min(fuel, info.Manifest.FuelPerRecord)
	}
	return memory, fuel, errors.Join(errs...)
}

// When a call mode guest is put back to its image.
const (
	// IsolationBatch: before each call, which has the records of one batch.
	IsolationBatch = "batch"
	// IsolationRecord: before each record.
	IsolationRecord = "record"
	// IsolationFailure: only after a call that failed. The stage is then
	// stateful: what it answers depends on what its instance saw before,
	// instances do not know of each other, and its failures cannot be
	// repeated.
	IsolationFailure = "failure"
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

	// workers has a place for each instance in use; its capacity is the
	// number of workers.
	workers chan struct{}
	closed  chan struct{}

	mu        sync.Mutex
	idle      []*instance // guarded by mu; the last one used is at the end
	programs  []*program  // guarded by mu; ready to read
	image     *image      // guarded by mu; nil before the first instance
	level     int         // guarded by mu; of the image
	maxLevel  int         // guarded by mu
	streak    int         // guarded by mu; calls in a row that grew memory
	closeOnce sync.Once
	closeErr  error

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
		workers: make(chan struct{}, m.rt.cfg.Workers), closed: make(chan struct{}),
		maxLevel: maxImageLevel,
	}
	s.forks.Store(maxForks)
	if err := s.configure(); err != nil {
		return nil, fmt.Errorf("stage %q: plugin %s: %w", cfg.Stage, s.cfg.Plugin, err)
	}
	return s, nil
}

func (s *Stage) configure() error {
	cfg, info := &s.cfg, s.mod.info
	if cfg.Digest == "" {
		cfg.Digest = info.Digest
	}
	if cfg.Plugin == "" {
		n := info.Named("plugin")
		cfg.Plugin = n.Name + "@" + n.Version
	}
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
	if len(cfg.Hosts) > 0 {
		errs = append(errs, fmt.Errorf("hosts: only Extism plugins reach hosts; this one runs in mode %s, take them away", info.Mode))
	}
	if len(cfg.Config) == 0 {
		cfg.Config = json.RawMessage("{}")
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
	if err := s.enter(ctx); err != nil {
		return fmt.Errorf("stage %q: plugin %s: %w", s.cfg.Stage, s.cfg.Plugin, err)
	}
	defer func() { <-s.workers }()
	unit := out.Unit
	emits, drops, failures := len(out.Emits), len(out.Drops), len(out.Failures)
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
		out.Unit = unit
		clear(out.Emits[emits:])
		clear(out.Failures[failures:])
		out.Emits, out.Drops, out.Failures = out.Emits[:emits], out.Drops[:drops], out.Failures[:failures]
		return fmt.Errorf("stage %q: plugin %s: %w", s.cfg.Stage, s.cfg.Plugin, err)
	}
	s.count.failed.Add(int64(len(out.Failures) - failures))
	return nil
}

// enter takes a worker's place.
func (s *Stage) enter(ctx context.Context) error {
	select {
	case <-s.closed:
		return ErrClosed
	default:
	}
	select {
	case s.workers <- struct{}{}:
		return nil
	case <-s.closed:
		return ErrClosed
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Close waits for running calls, then closes all instances. Later calls of
// Process report ErrClosed. It gives up waiting when ctx ends; the instances
// in use are then closed by their calls.
func (s *Stage) Close(ctx context.Context) error {
	s.closeOnce.Do(func() {
		close(s.closed)
		for range cap(s.workers) {
			select {
			case s.workers <- struct{}{}:
			case <-ctx.Done():
				s.closeErr = fmt.Errorf("close stage %q: calls of plugin %s are still running: %w", s.cfg.Stage, s.cfg.Plugin, ctx.Err())
			}
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
