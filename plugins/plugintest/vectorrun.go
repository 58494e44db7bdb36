package plugintest

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/millrace-io/millrace/plugins/sandbox"
	"github.com/millrace-io/millrace/runtime/record"
)

// vector runs one vector, twice over the same stage: what a guest answers does
// not depend on what it answered before.
func (s *suite) vector(v *Vector) error {
	check := "vector " + v.Name
	next := "compare with the vector's file and the rule it is about: " + v.About
	wrong := ""
	err := s.with(func(cfg *sandbox.StageConfig) { cfg.Config, cfg.Outputs = v.Config, v.Outputs }, func(p *probe) error {
		for _, again := range []string{"", "the second time, "} {
			t, err := p.run(s.ctx, &v.Batch)
			if err != nil {
				return err
			}
			if d := v.compare(t, s.plugin.Info.Outputs()); d != "" {
				wrong = again + d
				return nil
			}
		}
		return nil
	})
	start, started := errors.AsType[*errStart](err)
	switch {
	case started:
		s.fail(check, "a guest of the conformance protocol takes its commands as configuration", "it does not start with the configuration %s: %v", clip(string(v.Config)), start.err)
		return nil
	case err != nil:
		return fmt.Errorf("vector %s: %w", v.Name, err)
	case wrong != "":
		s.fail(check, next, "%s", wrong)
	default:
		s.pass(check, "%s", v.About)
	}
	return nil
}

// compare says where the answers are not those of the vector; empty if they
// are.
func (v *Vector) compare(t *trace, outputs []string) string {
	if _, err := t.byRecord(); err != nil {
		return err.Error()
	}
	byRecord := func(a, b record.Failure) int { return cmp.Compare(a.In, b.In) }
	fails := slices.SortedStableFunc(slices.Values(t.results.Failures), byRecord)
	wanted := slices.SortedStableFunc(slices.Values(v.Fails), byRecord)
	for i := range max(len(fails), len(wanted)) {
		switch {
		case i >= len(wanted) || i < len(fails) && fails[i].In < wanted[i].In:
			return fmt.Sprintf("record %d failed: %s", fails[i].In, clip(fails[i].Err.Error()))
		case i >= len(fails) || wanted[i].In < fails[i].In:
			return fmt.Sprintf("record %d did not fail, want %s", wanted[i].In, clip(wanted[i].Err.Error()))
		}
		if d := failureDiffers(fails[i].Err, wanted[i].Err); d != "" {
			return fmt.Sprintf("record %d: %s", fails[i].In, d)
		}
	}
	for i := range max(len(t.results.Emits), len(v.Emits)) {
		switch {
		case i >= len(v.Emits):
			return fmt.Sprintf("record %d was emitted once more than it should, with value %s", t.results.Emits[i].In, quote(t.results.Emits[i].Record.Value))
		case i >= len(t.results.Emits):
			return fmt.Sprintf("record %d was not emitted, or not often enough", v.Emits[i].In)
		}
		got, want := t.results.Emits[i], v.Emits[i].Emit
		if got.In != want.In {
			return fmt.Sprintf("emission %d answers record %d, want record %d", i, got.In, want.In)
		}
		name := ""
		if int(got.Output) < len(outputs) {
			name = outputs[got.Output]
		}
		if name != v.Emits[i].Output {
			return fmt.Sprintf("record %d: output is %q, want %q", got.In, name, v.Emits[i].Output)
		}
		want.Output = got.Output
		if d := emitsDiffer(&got, &want, "%s, want %s"); d != "" {
			return fmt.Sprintf("record %d: %s", got.In, d)
		}
	}
	drops := slices.Sorted(slices.Values(t.results.Drops))
	if !slices.Equal(drops, slices.Sorted(slices.Values(v.Drops))) {
		return fmt.Sprintf("it dropped %d records, want %d", len(drops), len(v.Drops))
	}
	if !t.lost && !slices.Equal(t.logs, v.Logs) {
		return fmt.Sprintf("it logged %q, want %q", t.logs, v.Logs)
	}
	if !maps.Equal(t.counts, v.Counts) {
		return fmt.Sprintf("it counted %v, want %v", t.counts, v.Counts)
	}
	return ""
}

func failureDiffers(got, want *record.Error) string {
	switch {
	case got.Class != want.Class:
		return fmt.Sprintf("it failed with class %v (%s), want class %v", got.Class, clip(got.Message), want.Class)
	case got.Code != want.Code:
		return fmt.Sprintf("code is %d, want %d", got.Code, want.Code)
	case got.Message != want.Message:
		return fmt.Sprintf("message is %q, want %q", clip(got.Message), clip(want.Message))
	case got.RetryAfter != want.RetryAfter:
		return fmt.Sprintf("delay is %v, want %v", got.RetryAfter, want.RetryAfter)
	}
	return ""
}
