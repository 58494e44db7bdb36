package plugintest

import (
	"slices"

	"github.com/millrace-io/millrace/plugins/manifest"
	"github.com/millrace-io/millrace/plugins/sandbox"
	"github.com/millrace-io/millrace/runtime/record"
)

// sameBatch is a batch that the guest gets in one call, so that it is the same
// each time.
func (s *suite) sameBatch(in *inputs) (*record.Batch, error) {
	n := min(sameRecords, s.size, max(len(in.records), 2))
	b := batch(in.records, n)
	err := s.with(nil, func(p *probe) error {
		for range 2 {
			t, err := p.run(s.ctx, b)
			if err != nil {
				return err
			}
			if t.calls > 1 && s.plugin.Info.Mode == manifest.ModeCall {
				b = batch(in.records, 1)
				return nil
			}
		}
		return nil
	})
	return b, err
}

// repeats holds runs of the same batch against each other: on one instance
// with a restore between them, and on two instances.
func (s *suite) repeats(in *inputs) error {
	const check = "same answers"
	b, err := s.sameBatch(in)
	if err != nil {
		return err
	}
	var reference *trace
	difference, where := "", ""
	compare := func(t *trace, on string) {
		if reference == nil {
			reference = t
		} else if d := reference.difference(t); d != "" && difference == "" {
			difference, where = d, on
		}
	}
	for instance := range 2 {
		err := s.with(nil, func(p *probe) error {
			for range 3 - 2*instance {
				t, err := p.run(s.ctx, b)
				if err != nil {
					return err
				}
				compare(t, []string{"the same instance, put back to its image", "a fresh instance"}[instance])
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	m := s.plugin.Info.Manifest
	switch {
	case difference == "":
		what := "answers, logs, counts and fuel"
		if reference.fuel == 0 {
			what = "answers, logs and counts"
		}
		s.pass(check, "the same %s in 3 runs on one instance and on a fresh one", what)
	case s.opt.Stage.Isolation == sandbox.IsolationFailure:
		s.note(check, "leave isolation: failure away, or live with a stage that cannot be replayed", "with isolation: failure it answers the same batch differently on %s: %s", where, difference)
	case m != nil && !m.Deterministic:
		s.note(check, "", "as its manifest says it is not deterministic; on %s: %s", where, difference)
	default:
		s.fail(check, "what it answers must follow from the batch and the configuration alone: clock and random of the batch, no hosts, nothing kept",
			"it answers the same batch differently on %s: %s", where, difference)
	}
	return nil
}

// split holds a batch against its records one by one. It is no fault to
// differ, but a surprise: batches are cut by time.
func (s *suite) split(in *inputs) error {
	const check = "split"
	if s.opt.Stage.Lines == sandbox.LinesBatch {
		return nil
	}
	b := batch(in.records, min(16, s.size))
	difference := ""
	err := s.with(nil, func(p *probe) error {
		whole, err := p.run(s.ctx, b)
		if err != nil {
			return err
		}
		parts := &trace{batch: b}
		for i := range b.Records {
			one := *b
			one.Records = b.Records[i : i+1]
			t, err := p.run(s.ctx, &one)
			if err != nil {
				return err
			}
			for _, e := range t.results.Emits {
				e.In = int32(i)
				parts.results.Emits = append(parts.results.Emits, e)
			}
			for range t.results.Drops {
				parts.results.Drops = append(parts.results.Drops, int32(i))
			}
			for _, f := range t.results.Failures {
				f.In = int32(i)
				parts.results.Failures = append(parts.results.Failures, f)
			}
		}
		difference = whole.byInput().answersDiffer(parts.byInput())
		return nil
	})
	switch {
	case err != nil:
		return err
	case difference != "":
		s.note(check, "batches are cut by time, and again where a record fails: let no answer depend on the other records of its batch",
			"a batch of %d is answered differently than its records one by one: %s", len(b.Records), difference)
	default:
		s.pass(check, "a batch of %d is answered as its records one by one", len(b.Records))
	}
	return nil
}

// byInput is t with its answers in the order of the records.
func (t *trace) byInput() *trace {
	c := *t
	c.results.Emits = slices.Clone(t.results.Emits)
	c.results.Drops = slices.Clone(t.results.Drops)
	c.results.Failures = slices.Clone(t.results.Failures)
	slices.SortStableFunc(c.results.Emits, func(a, b record.Emit) int { return int(a.In) - int(b.In) })
	slices.Sort(c.results.Drops)
	slices.SortStableFunc(c.results.Failures, func(a, b record.Failure) int { return int(a.In) - int(b.In) })
	return &c
}

// state looks whether answers depend on earlier batches where memory is kept.
func (s *suite) state(in *inputs) error {
	const check = "state"
	if s.plugin.Info.Mode != manifest.ModeCall || s.opt.Stage.Isolation != "" && s.opt.Stage.Isolation != sandbox.IsolationBatch {
		return nil
	}
	b, err := s.sameBatch(in)
	if err != nil {
		return err
	}
	difference := ""
	err = s.with(func(cfg *sandbox.StageConfig) { cfg.Isolation = sandbox.IsolationFailure }, func(p *probe) error {
		var first *trace
		for range 3 {
			t, err := p.run(s.ctx, b)
			if err != nil {
				return err
			}
			if first == nil {
				first = t
			} else if d := first.answersDiffer(t); d != "" && difference == "" {
				difference = d
			}
		}
		return nil
	})
	switch {
	case err != nil:
		return err
	case difference != "":
		s.note(check, "do not count on memory: it is put back before each call, so this state is lost; isolation: failure keeps it, without replay",
			"it keeps state: were its memory kept from batch to batch, the same batch would be answered differently: %s", difference)
	default:
		s.pass(check, "it keeps nothing that changes answers from batch to batch")
	}
	return nil
}
