package arena

import (
	"context"
	"fmt"
	"io"

	"github.com/millrace-io/millrace/examples/orders/gen"
)

// Series is what a contestant's rounds gave.
type Series struct {
	Contestant
	Rounds  []Figures
	Verdict Verdict // on the output of the first round
}

// Compete runs the contestants, round for round in turn, after one run of the
// first that does not count: it warms the broker up. The output of round one
// is read back and compared; a wrong one is an error. What happens is told to
// log.
func Compete(ctx context.Context, w *World, all []Contestant, rounds int, log io.Writer) ([]*Series, error) {
	series := make([]*Series, len(all))
	for i, c := range all {
		series[i] = &Series{Contestant: c}
	}
	if _, err := w.Run(ctx, all[0], nil); err != nil {
		return nil, err
	}
	j := judge{w: w, want: map[string][][]gen.Sum{}}
	for round := range rounds {
		for i := range series {
			s := series[(i+round)%len(series)] // another one is the first each time
			check := func(string) error { return nil }
			if round == 0 {
				check = func(topic string) (err error) { s.Verdict, err = j.compare(ctx, s.Work, topic); return err }
			}
			f, err := w.Run(ctx, s.Contestant, check)
			if err != nil {
				return series, err
			}
			s.Rounds = append(s.Rounds, f)
			fmt.Fprintf(log, "round %d  %-16s %8.0f records/s  %6.2f us  broker %5.2f us  %5.0f MiB", round+1, s.Name, f.Rate, f.CPU, f.BrokerCPU, f.PeakMiB)
			if round == 0 {
				fmt.Fprintf(log, "  %s", s.Verdict)
			}
			fmt.Fprintln(log)
			if round == 0 && !s.Verdict.Right() {
				return series, fmt.Errorf("%s: its output is not what the order stage by hand makes of the input: %s", s.Name, s.Verdict)
			}
		}
	}
	return series, nil
}

// judge keeps what must come out, once it was made.
type judge struct {
	w    *World
	want map[string][][]gen.Sum
}

// compare reads an output back and compares it, byte for byte and, if that
// fails, as JSON.
func (j *judge) compare(ctx context.Context, work Work, topic string) (Verdict, error) {
	var v Verdict
	for _, canonical := range []bool{false, true} {
		key := fmt.Sprint(work, canonical)
		var err error
		if j.want[key] == nil {
			if j.want[key], err = j.w.expected(ctx, work, canonical); err != nil {
				return v, err
			}
		}
		got, err := j.w.sums(ctx, topic, j.w.Expect(work), canonical)
		if err != nil {
			return v, err
		}
		v = Judge(j.want[key], got)
		v.Bytes = !canonical
		if v.Foreign == 0 { // bytes that differ are foreign
			break
		}
	}
	return v, nil
}

// Median is the median of a figure over the rounds.
func (s *Series) Median(of func(Figures) float64) float64 {
	var v []float64
	for _, f := range s.Rounds {
		v = append(v, of(f))
	}
	return Median(v)
}

// Against is the median, over the rounds, of how a figure stands to base's in
// the same round.
func (s *Series) Against(base *Series, of func(Figures) float64, how func(ours, theirs float64) float64) float64 {
	var v []float64
	for i := range min(len(s.Rounds), len(base.Rounds)) {
		v = append(v, how(of(s.Rounds[i]), of(base.Rounds[i])))
	}
	return Median(v)
}
