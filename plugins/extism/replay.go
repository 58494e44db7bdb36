package extism

import (
	"context"
	"fmt"

	"github.com/millrace-io/millrace/plugins/sandbox"
	"github.com/millrace-io/millrace/runtime/record"
)

// unrepeatable says why no record can be run again, "" if it can be.
func (s *Stage) unrepeatable() string {
	switch {
	case s.Impure():
		return "its stage lists `hosts`, and what these answered is not kept"
	case s.Stateful():
		return "its stage has `isolation: failure`, so its answers depend on the records before it"
	}
	return ""
}

// Replay runs rec alone on a fresh instance, with the batch id and the clock
// that r holds. cfg is the stage's configuration then; its Logger, OnLog and
// OnCount are not used. The error is a *sandbox.UnrepeatableError where answers
// depend on more than the record.
func (m *Module) Replay(ctx context.Context, cfg sandbox.StageConfig, rec *record.Record, r *record.Replay) (*sandbox.Replayed, error) {
	s, err := m.NewStage(ctx, cfg.AsIn(r))
	if err != nil {
		return nil, err
	}
	defer s.Close(context.WithoutCancel(ctx))
	reason := s.unrepeatable()
	if reason == "" && r == nil {
		reason = "the circumstances of the call are not known"
	}
	if reason != "" {
		return nil, &sandbox.UnrepeatableError{Plugin: s.cfg.Plugin, Reason: reason}
	}
	in, err := s.take(ctx)
	if err != nil {
		return nil, fmt.Errorf("stage %q: plugin %s: %w", s.cfg.Stage, s.cfg.Plugin, err)
	}
	defer in.close()
	a := in.call(ctx, r.Now, r.BatchID, rec)
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	out := &sandbox.Replayed{Logs: in.env.Texts(), Fuel: in.fuelOf() + in.hostFuel, ConfigHash: s.configHash}
	a.answer(0, rec, &out.Results)
	return out, nil
}
