package sandbox

import (
	"context"
	"fmt"

	"github.com/millrace-io/millrace/plugins/manifest"
	"github.com/millrace-io/millrace/runtime/record"
)

// Replayed is what a plugin did with one record, judged alone from its image.
type Replayed struct {
	// Results answer a batch of the one record. A failure in them has no
	// Replay of its own.
	Results record.Results
	// Logs are the lines that the guest logged, whatever became of the record;
	// nil if there are none.
	Logs []string
	// Fuel is what the call used.
	Fuel int64
	// ImageLevel is the level of the image that the call started from.
	ImageLevel int
	// ConfigHash is that of the configuration that was given. Where it differs
	// from the one in the Replay, another configuration was.
	ConfigHash uint64
}

// UnrepeatableError reports that a stage cannot run a record again: what it
// answers depends on more than the record, its configuration and its image.
type UnrepeatableError struct {
	Plugin string
	// Reason is the end of a sentence that begins with the plugin.
	Reason string
	// Err is the cause, may be nil: an error over ErrNotRecorded where the
	// guest asks for a signature that is not in the Replay.
	Err error
}

func (e *UnrepeatableError) Error() string {
	return fmt.Sprintf("plugin %s cannot be run again on a single record: %s", e.Plugin, e.Reason)
}

func (e *UnrepeatableError) Unwrap() error { return e.Err }

// Replay runs rec again, as r says a stage did before: alone, in a fresh
// instance in the state of the image of r's level, with r's clock, batch id
// and limits. The rest of cfg is as it was then; its Fuel and MemoryBytes count
// where r does not tell its own. The same plugin answers the same, with the
// same fuel and logs, on any node; another plugin gets the same input. What the
// guest has signed is answered from r, without keys.
//
// What the guest counts and logs is passed to no one. Errors are about the
// circumstances, not the record: *UnrepeatableError, *InitError, limits beyond
// those of the runtime, a configuration that the plugin does not take, an image
// that cannot be made. A guest that never returns blocks the call for ever.
func (m *Module) Replay(ctx context.Context, cfg StageConfig, rec *record.Record, r *record.Replay) (*Replayed, error) {
	s, err := m.stage(cfg.AsIn(r))
	if err != nil {
		return nil, fmt.Errorf("replay record %s: %w", rec.ID(), err)
	}
	defer s.Close(context.WithoutCancel(ctx))
	out, err := s.replay(ctx, rec, r)
	if err != nil {
		return nil, fmt.Errorf("replay record %s: %w", rec.ID(), err)
	}
	return out, nil
}

func (s *Stage) replay(ctx context.Context, rec *record.Record, r *record.Replay) (*Replayed, error) {
	isLines := s.mod.info.Mode == manifest.ModeLines
	switch {
	case s.stateful:
		return nil, &UnrepeatableError{Plugin: s.cfg.Plugin, Reason: statefulReason}
	case isLines && s.lines == LinesBatch:
		return nil, &UnrepeatableError{Plugin: s.cfg.Plugin, Reason: linesBatchReason}
	case r == nil:
		return nil, &UnrepeatableError{Plugin: s.cfg.Plugin, Reason: "the circumstances of the call are not known"}
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	out := &Replayed{ConfigHash: s.configHash}
	if isLines {
		return out, s.replayLine(out, rec, r)
	}
	return out, s.replayCall(ctx, out, rec, r)
}

func (s *Stage) replayCall(ctx context.Context, out *Replayed, rec *record.Record, r *record.Replay) error {
	if r.ImageLevel < 0 || r.ImageLevel > maxImageLevel {
		return fmt.Errorf("plugin %s: there is no image of level %d; levels are from 0 to %d", s.cfg.Plugin, r.ImageLevel, maxImageLevel)
	}
	s.level = r.ImageLevel
	keys := &player{plugin: s.cfg.Plugin, recorded: r.Signatures}
	s.cfg.Sign = keys.sign
	in, err := s.newInstance(ctx)
	if err != nil {
		return err
	}
	defer in.close()
	if in.image.level != r.ImageLevel {
		return &ImageError{Plugin: s.cfg.Plugin, Level: r.ImageLevel, Highest: in.image.level}
	}
	b := &record.Batch{Partition: record.Partition{Topic: rec.Topic, Broker: rec.Broker, Num: rec.Partition}, Records: []record.Record{*rec}, Now: r.Now}
	c := caller{stage: s, in: in, batch: b, out: &out.Results, as: r}
	failed := c.call(0, 1)
	if keys.err != nil {
		return keys.err
	}
	if failed != nil {
		out.Results.Failures = append(out.Results.Failures, record.Failure{Err: failed})
	}
	out.Logs, out.Fuel, out.ImageLevel = in.env.Texts(), in.env.fuel.used(), in.image.level
	return nil
}

// ImageError reports that a plugin cannot be given an image of a level: its
// warm-up fails there. One that made a record's failure there is another
// plugin, or has another configuration or limit.
type ImageError struct {
	Plugin         string
	Level, Highest int
}

func (e *ImageError) Error() string {
	return fmt.Sprintf("plugin %s: an image of level %d cannot be made with this configuration and memory limit, the highest is %d", e.Plugin, e.Level, e.Highest)
}

func (s *Stage) replayLine(out *Replayed, rec *record.Record, r *record.Replay) error {
	line, failed := s.appendLine(nil, rec)
	if failed == nil {
		p, h, err := s.execute(line, r.Now, r.BatchID, 1)
		if err != nil {
			return err
		}
		if failed = p.failed(h, "record"); failed == nil {
			failed = s.emitLines(p.out.take(), rec, 0, &out.Results)
		}
		out.Logs, out.Fuel = p.env.Texts(), p.env.fuel.used()
		s.giveProgram(p, h)
	}
	if failed != nil {
		out.Results.Failures = append(out.Results.Failures, record.Failure{Err: failed})
	}
	return nil
}
