package plugintest

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/millrace-io/millrace/plugins/manifest"
	"github.com/millrace-io/millrace/plugins/sandbox"
	"github.com/millrace-io/millrace/runtime/record"
)

const pageBytes = 64 << 10

// fuel measures what single records cost.
func (s *suite) fuel(in *inputs) error {
	const check = "fuel"
	figures := &s.report.Figures
	var used []int64
	share := 0.0 // the greatest
	err := s.with(nil, func(p *probe) error {
		i := 0
		return s.within(func() (bool, error) {
			t, err := p.run(s.ctx, batch(in.records[i:i+1], 1))
			if err != nil {
				return false, err
			}
			i++
			used = append(used, t.fuel)
			// Large records may cost more, by their bytes.
			if r := &t.batch.Records[0]; len(r.Key)+len(r.Value) <= 1<<10 {
				share = max(share, float64(t.fuel)/float64(figures.FuelBudget))
			}
			return i == len(in.records) || i == 256, nil
		})
	})
	if err != nil {
		return err
	}
	slices.Sort(used)
	if used[len(used)-1] == 0 {
		s.note(check, "", "what it uses is not known in this run mode; the budget of a record is %d units", figures.FuelBudget)
		return nil
	}
	figures.FuelMedian, figures.FuelMax = used[len(used)/2], used[len(used)-1]
	detail := fmt.Sprintf("a record takes %d units in the median and %d at most, alone; the budget is %d and more by its bytes", figures.FuelMedian, figures.FuelMax, figures.FuelBudget)
	if share > 0.8 {
		s.note(check, "do less for a record, or allow more: fuel_per_record of the manifest, limits: {fuel: ...} of the stage", "%s: %.0f %% of it", detail, share*100)
		return nil
	}
	s.pass(check, "%s", detail)
	return nil
}

// memory finds the least limit with which 128 records pass as they do with
// all that is allowed.
func (s *suite) memory(in *inputs) error {
	const check = "memory"
	limit := s.report.Figures.MemoryLimitBytes
	passes := func(pages int64) (bool, error) {
		enough := true
		err := s.with(func(cfg *sandbox.StageConfig) { cfg.MemoryBytes = pages * pageBytes }, func(p *probe) error {
			t, err := p.run(s.ctx, batch(in.records, s.size))
			if err != nil {
				return err
			}
			for _, f := range t.results.Failures {
				if c := f.Err.Class; c == record.Memory || c == record.TooLarge || c == record.Trap {
					enough = false
				}
			}
			return nil
		})
		if _, ok := errors.AsType[*errStart](err); ok {
			return false, nil
		}
		return enough, err
	}
	enough, err := passes(limit / pageBytes)
	if err != nil {
		return err
	}
	if !enough {
		s.note(check, "see the failures above", "%d records do not pass with all that it may have, %s", s.size, bytesText(limit))
		return nil
	}
	least, most := max(1, s.plugin.Info.MemoryMinBytes/pageBytes)-1, limit/pageBytes // least does not do, most does
	err = s.within(func() (bool, error) {
		if most-least <= 1 {
			return true, nil
		}
		mid := least + (most-least)/2
		if least > 0 && most > 2*least+16 {
			mid = 2 * least // most need little
		}
		ok, err := passes(mid)
		if ok {
			most = mid
		} else {
			least = mid
		}
		return most-least <= 1, err
	})
	if err != nil {
		return err
	}
	s.report.Figures.MemoryBytes = most * pageBytes
	detail := fmt.Sprintf("%d records need %s, it may have %s", s.size, bytesText(most*pageBytes), bytesText(limit))
	if most*pageBytes*5 > limit*4 {
		s.note(check, "allow more: memory_mb of the manifest, limits: {memory: ...} of the stage", "%s: little is left for larger records", detail)
		return nil
	}
	s.pass(check, "%s", detail)
	return nil
}

// Batches before growth is measured, which raise the image to its greatest
// level, and those measured.
const (
	growthWarm     = 40
	growthMeasured = 16
)

// growth looks whether memory still grows in every call once the image has
// grown with it: an instance that grew is thrown away.
func (s *suite) growth(in *inputs) error {
	const check = "growth"
	if s.plugin.Info.Mode != manifest.ModeCall {
		return nil
	}
	if !s.plugin.Info.ExactRestore {
		s.note(check, "build without reference types and passive segments that are dropped (flowctl plugin inspect names what it uses)", "each call gets a fresh instance, because putting one back is not exact")
		return nil
	}
	grew, calls, level := int64(0), int64(0), 0
	err := s.with(nil, func(p *probe) error {
		n, before := 0, p.stage.Stats()
		err := s.within(func() (bool, error) {
			if n++; n == growthWarm {
				before = p.stage.Stats()
			}
			_, err := p.run(s.ctx, batch(in.records, s.size))
			return n >= growthWarm+growthMeasured, err
		})
		after := p.stage.Stats()
		if n < growthWarm {
			before = sandbox.Stats{}
		}
		grew, calls, level = after.Instances-before.Instances, after.Calls-before.Calls, after.ImageLevel
		return err
	})
	if err != nil {
		return err
	}
	if grew*2 >= calls && calls > 2 {
		s.fail(check, "free what a call allocates, or use the same buffer for each; limits are for one call, not for all",
			"its memory grows in every call: %d of %d calls of up to %d records threw their instance away, with the image at level %d", grew, calls, s.size, level)
		return nil
	}
	detail := fmt.Sprintf("calls of up to %d records do not make its memory grow", s.size)
	if level > 0 {
		detail += fmt.Sprintf(", after the image was made larger (level %d)", level)
	}
	s.pass(check, "%s", detail)
	return nil
}

// speed measures the time for a record.
func (s *suite) speed(in *inputs) error {
	const check = "speed"
	var took []time.Duration
	logs, lost := 0, false
	err := s.with(nil, func(p *probe) error {
		b := batch(in.records, s.size)
		total := time.Duration(0)
		return s.within(func() (bool, error) {
			t, err := p.run(s.ctx, b)
			if err != nil {
				return false, err
			}
			if total == 0 {
				logs, lost = len(t.logs), t.lost
			}
			total += t.took
			took = append(took, t.took)
			return total > 100*time.Millisecond && len(took) >= 10, nil
		})
	})
	if err != nil {
		return err
	}
	slices.Sort(took)
	per := took[len(took)/2] / time.Duration(s.size)
	s.report.Figures.NanosPerRecord = int64(per)
	s.pass(check, "%v a record in batches of %d, on this machine", per, s.size)
	switch {
	case lost || logs > s.size/8:
		s.note("logs", "log what somebody must see, count the rest (stage.count)", "it logs %d lines for %d records; %d a second are kept", logs, s.size, sandbox.LogsPerSecond)
	default:
		s.pass("logs", "%d lines of log for %d records", logs, s.size)
	}
	return nil
}

func bytesText(n int64) string {
	switch {
	case n >= 1<<20 && n%(1<<20) == 0:
		return fmt.Sprintf("%d MiB", n>>20)
	case n >= 1<<20:
		return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20))
	}
	return fmt.Sprintf("%d KiB", n>>10)
}
