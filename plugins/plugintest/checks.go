package plugintest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/millrace-io/millrace/plugins/manifest"
	"github.com/millrace-io/millrace/plugins/sandbox"
	"github.com/millrace-io/millrace/runtime/record"
)

// callRecords is the batch that most checks use.
const callRecords = 128

// sameRecords is the batch that is compared with itself: small enough to be
// one call of any guest that works.
const sameRecords = 8

// any runs the checks that apply to any guest.
func (s *suite) any() error {
	if !s.runs() {
		return nil
	}
	in := s.inputs()
	err := s.with(nil, func(p *probe) error {
		s.report.Figures.FuelBudget = p.stage.Fuel()
		s.report.Figures.MemoryLimitBytes = p.stage.MemoryBytes()
		return nil
	})
	if start, ok := errors.AsType[*errStart](err); ok {
		next := "see what the plugin says of its start; --with gives it a configuration"
		if _, ok := errors.AsType[*manifest.ConfigError](err); ok {
			next = "give it a configuration that its schema takes, with --with"
		}
		s.fail("start", next, "%v", start.err)
		return nil
	} else if err != nil {
		return err
	}
	s.pass("start", "it starts, and takes its configuration")
	if working, err := s.works(in); err != nil {
		return err
	} else if !working {
		const left = "left out: it does not get through any of %s"
		if s.report.Count(Fail) > 0 {
			s.note("others", "mend that first", left, in.what)
		} else {
			s.fail("others", "mend it, or give records that it is made for: --input, or a sample in its manifest", left, in.what)
		}
		return nil
	}
	for _, kind := range []struct {
		name  string
		check func(*inputs) error
	}{
		{"batch", s.batches}, {"input", s.oddInputs}, {"same answers", s.repeats}, {"split", s.split}, {"state", s.state},
		{"fuel", s.fuel}, {"memory", s.memory}, {"growth", s.growth}, {"speed", s.speed},
	} {
		if err := s.ctx.Err(); err != nil {
			return err
		}
		if len(s.opt.Only) > 0 && !slices.Contains(s.opt.Only, kind.name) {
			continue
		}
		if err := kind.check(in); err != nil {
			return err
		}
	}
	return nil
}

// runs reports whether the plugin can run at all.
func (s *suite) runs() bool {
	info := s.plugin.Info
	if len(info.Refusals) == 0 {
		s.pass("runs", "mode %s: %s", info.Mode, info.Why)
		return true
	}
	for _, r := range info.Refusals {
		s.fail("runs", r.Advice, "refused: %s", r.Reason)
	}
	return false
}

// inputs are what the plugin is tried with.
type inputs struct {
	records []record.Record
	// what they are, for sentences; own: the plugin is made for them.
	what string
	own  bool
}

func (s *suite) inputs() *inputs {
	m := s.plugin.Info.Manifest
	switch {
	case len(s.opt.Records) > 0:
		return &inputs{s.opt.Records, "the given records", true}
	case m != nil && len(m.Sample) > 0:
		return &inputs{m.Sample, "the sample of its manifest", true}
	}
	return &inputs{made(), "made-up JSON records", false}
}

// tally counts what became of records.
type tally struct {
	records, emitted, emits, dropped int
	classes                          map[record.Class]int
	first                            map[record.Class]*record.Failure
}

func (t *trace) tally() (*tally, error) {
	all, err := t.byRecord()
	if err != nil {
		return nil, err
	}
	c := &tally{records: len(all), classes: map[record.Class]int{}, first: map[record.Class]*record.Failure{}}
	for i := range all {
		switch a := &all[i]; {
		case a.failure != nil:
			class := a.failure.Err.Class
			if c.classes[class]++; c.classes[class] == 1 {
				c.first[class] = a.failure
			}
		case a.drops > 0:
			c.dropped++
		default:
			c.emitted++
			c.emits += len(a.emits)
		}
	}
	return c, nil
}

func (c *tally) String() string {
	parts := []string{fmt.Sprintf("%d emitted", c.emitted)}
	if c.emits != c.emitted {
		parts[0] += fmt.Sprintf(" (as %d)", c.emits)
	}
	if c.dropped > 0 {
		parts = append(parts, fmt.Sprintf("%d dropped", c.dropped))
	}
	for _, class := range c.sorted() {
		parts = append(parts, fmt.Sprintf("%d failed (%v)", c.classes[class], class))
	}
	return strings.Join(parts, ", ")
}

func (c *tally) sorted() []record.Class {
	var classes []record.Class
	for class := range c.classes {
		classes = append(classes, class)
	}
	slices.Sort(classes)
	return classes
}

// deaths are how a guest fails that did not mean to.
var deaths = map[record.Class]string{
	record.Trap:     "handle the case, and answer fail with a message where the record cannot be processed",
	record.Fuel:     "do less for a record, or allow more: fuel_per_record of the manifest, limits: {fuel: ...} of the stage",
	record.Memory:   "use less memory, or allow more: memory_mb of the manifest, limits: {memory: ...} of the stage",
	record.Internal: "the plugin host failed, not the plugin: report it",
	record.TooLarge: "answer with less",
}

const protocolNext = "the answers of stage_batch break a rule of stage/1 (docs/reference/abi.md): mend its frame code, or use a PDK"

// works looks at each record alone. It reports whether any was answered as a
// guest answers that works.
func (s *suite) works(in *inputs) (bool, error) {
	const check = "records"
	distinct := in.records[:min(len(in.records), 64)]
	sum := &tally{classes: map[record.Class]int{}, first: map[record.Class]*record.Failure{}}
	var broken error
	err := s.with(nil, func(p *probe) error {
		until := time.Now().Add(s.opt.Patience)
		slowest := time.Duration(0)
		for i := range distinct {
			t, err := p.run(s.ctx, batch(distinct[i:i+1], 1))
			if err != nil {
				return err
			}
			slowest = max(slowest, t.took)
			s.size = max(1, min(callRecords, int(s.opt.Patience/8/max(1, slowest))))
			c, err := t.tally()
			if err != nil {
				broken = fmt.Errorf("record %d of %s: %w", i, in.what, err)
				return nil
			}
			sum.merge(c)
			if time.Now().After(until) {
				break
			}
		}
		return nil
	})
	switch {
	case err != nil:
		return false, err
	case broken != nil:
		s.fail(check, protocolNext, "%v", broken)
		return false, nil
	}
	s.judge(check, fmt.Sprintf("%s, one at a time", in.what), in.own, sum)
	for class, n := range sum.classes {
		if _, dead := deaths[class]; dead || class == record.Protocol {
			sum.records -= n
		}
	}
	return sum.records > 0, nil
}

func (c *tally) merge(o *tally) {
	c.records, c.emitted, c.emits, c.dropped = c.records+o.records, c.emitted+o.emitted, c.emits+o.emits, c.dropped+o.dropped
	for class, n := range o.classes {
		if c.classes[class] == 0 {
			c.first[class] = o.first[class]
		}
		c.classes[class] += n
	}
}

// judge turns a tally into a result: broken rules are never right, deaths not
// on what the plugin is made for.
func (s *suite) judge(check, what string, own bool, c *tally) {
	if f := c.first[record.Protocol]; f != nil {
		s.fail(check, protocolNext, "%s: %d of %d records: %s", what, c.classes[record.Protocol], c.records, clip(f.Err.Message))
		return
	}
	for _, class := range c.sorted() {
		next, dead := deaths[class]
		if !dead {
			continue
		}
		f := c.first[class]
		detail := fmt.Sprintf("%s: %d of %d records fail with class %v: %s", what, c.classes[class], c.records, class, clip(f.Err.Message))
		if own || class == record.Internal {
			s.fail(check, next, "%s", detail)
		} else {
			s.note(check, next, "%s", detail)
		}
		return
	}
	if c.emitted+c.dropped == 0 && c.classes[record.Rejected]+c.classes[record.Schema] > 0 {
		for _, class := range c.sorted() {
			s.note(check, "give the manifest a sample, or the test --input, that it takes", "%s: it takes none of them: %s", what, clip(c.first[class].Err.Error()))
			return
		}
	}
	s.pass(check, "%s: %v", what, c)
}

// batches looks at batches of every size.
func (s *suite) batches(in *inputs) error {
	for _, n := range []int{0, 1, callRecords, s.opt.Bulk} {
		check := fmt.Sprintf("batch of %d", n)
		var broken error
		sum := &tally{classes: map[record.Class]int{}, first: map[record.Class]*record.Failure{}}
		calls := int64(0)
		err := s.with(nil, func(p *probe) error {
			until := time.Now().Add(s.opt.Patience)
			b := batch(in.records, n)
			// A slow guest is given parts, so that the check has an end.
			size := min(n, s.size)
			if n > callRecords && s.size == callRecords {
				t, err := p.run(s.ctx, batch(in.records, callRecords))
				if err != nil {
					return err
				}
				if t.took*time.Duration(n/callRecords) < s.opt.Patience {
					size = n
				}
			}
			for from := 0; from <= n; from += size {
				part := *b
				part.Records = b.Records[from:min(n, from+size)]
				if len(part.Records) == 0 && n > 0 {
					break
				}
				t, err := p.run(s.ctx, &part)
				if err != nil {
					return err
				}
				calls += t.calls
				c, err := t.tally()
				if err != nil {
					broken = err
					return nil
				}
				sum.merge(c)
				if size == 0 || time.Now().After(until) {
					break
				}
			}
			return nil
		})
		switch {
		case err != nil:
			return err
		case broken != nil:
			s.fail(check, protocolNext, "%v", broken)
			continue
		}
		what := in.what
		switch {
		case n == 0:
			s.pass(check, "nothing in, nothing out")
			continue
		case sum.records < n:
			what = fmt.Sprintf("%s, of which %d were reached in %v", in.what, sum.records, s.opt.Patience)
		}
		s.judge(check, what, in.own, sum)
	}
	return nil
}

// oddInputs looks at what few plugins are made for.
func (s *suite) oddInputs(in *inputs) error {
	for _, o := range odds(batch(in.records, 1).Records[0]) {
		sum := &tally{classes: map[record.Class]int{}, first: map[record.Class]*record.Failure{}}
		var broken error
		err := s.with(nil, func(p *probe) error {
			until := time.Now().Add(s.opt.Patience)
			for i := range o.records {
				if i > 0 && time.Now().After(until) {
					break
				}
				t, err := p.run(s.ctx, batch(o.records[i:i+1], 1))
				if err != nil {
					return err
				}
				c, err := t.tally()
				if err != nil {
					broken = err
					return nil
				}
				sum.merge(c)
			}
			return nil
		})
		switch {
		case err != nil:
			return err
		case broken != nil:
			s.fail("input "+o.check, protocolNext, "%s: %v", o.what, broken)
		default:
			s.judge("input "+o.check, o.what, false, sum)
		}
	}
	return nil
}

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

// within runs f until it says that it is done, or Patience is over.
func (s *suite) within(f func() (done bool, err error)) error {
	until := time.Now().Add(s.opt.Patience)
	for {
		done, err := f()
		if err == nil && !done {
			err = context.Cause(s.ctx)
		}
		if err != nil || done || time.Now().After(until) {
			return err
		}
	}
}
