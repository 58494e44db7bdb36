package sandbox

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"

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

	// Sign signs for a plugin of call mode that imports stage.sign, which knows
	// keys by their handles only; nil: the stage has no keys. alg is a number
	// of the ABI's list, message is read during the call only. An error that
	// is a SignRefusal is what the guest is answered; any other one ends the
	// call, and the record fails with it. It is called within Process, by
	// several goroutines at once, and again for a record that is run again.
	Sign func(handle, alg uint32, message []byte) ([]byte, error)
	// Logger gets the guest's log lines, nil discards.
	Logger *slog.Logger
	// OnLog gets the same lines, and those that are kept with a failure; may be
	// nil. Both are called within Process, by several goroutines at once, at
	// most LogsPerSecond times a second.
	OnLog func(LogLine)
	// OnCount gets what guests count, summed up for each call; may be nil.
	// It is called within Process, by several goroutines at once.
	OnCount func(name string, delta float64)
}

// Defaults fills in what c leaves open and the plugin tells: Digest, Plugin and
// Config.
func (c *StageConfig) Defaults(info *Info) {
	if c.Digest == "" {
		c.Digest = info.Digest
	}
	if c.Plugin == "" {
		n := info.Named("plugin")
		c.Plugin = n.Name + "@" + n.Version
	}
	if len(c.Config) == 0 {
		c.Config = json.RawMessage("{}")
	}
}

// AsIn is c for a replay of r, which may be nil: with the limits that r knows,
// without keys, and heard by nobody.
func (c StageConfig) AsIn(r *record.Replay) StageConfig {
	c.Sign, c.Logger, c.OnLog, c.OnCount, c.ForgetFailures = nil, nil, nil, nil, false
	if r != nil && r.FuelLimit > 0 {
		c.Fuel = r.FuelLimit
	}
	if r != nil && r.MemoryLimit > 0 {
		c.MemoryBytes = r.MemoryLimit
	}
	return c
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
