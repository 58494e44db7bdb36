package plugintest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/millrace-io/millrace/plugins/manifest"
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
