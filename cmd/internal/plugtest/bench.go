package plugtest

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/millrace-io/millrace/plugins/registry"
	"github.com/millrace-io/millrace/plugins/sandbox"
	"github.com/millrace-io/millrace/runtime/expr"
	"github.com/millrace-io/millrace/runtime/flow"
	"github.com/millrace-io/millrace/runtime/record"
	"github.com/millrace-io/millrace/runtime/stage"
)

// BenchOptions says what is measured.
type BenchOptions struct {
	// Wasm is the plugin, Stage its configuration.
	Wasm  []byte
	Stage sandbox.StageConfig
	// Records are what it gets, in turn; at least one.
	Records []record.Record
	// Time is how long it takes in all; 0: 2 s.
	Time time.Duration
	// CacheDir keeps compiled plugins; empty: they are compiled each time.
	CacheDir string
}

// BenchBatch is how many records a large batch has.
const BenchBatch = 128

// Speed is what a stage needs for batches of one size: medians of rounds.
type Speed struct {
	Batch int `json:"batch"`
	// NanosPerRecord of the plugin, of a filter that keeps everything in the
	// same rounds, and how many times more the first is.
	NanosPerRecord     int64   `json:"nanos_per_record"`
	PassNanosPerRecord int64   `json:"pass_nanos_per_record"`
	Ratio              float64 `json:"ratio"`
	// RecordsPerSecond of one core.
	RecordsPerSecond int64 `json:"records_per_second"`
	// FuelPerRecord is the mean; 0: not known in this run mode.
	FuelPerRecord int64 `json:"fuel_per_record"`
	// GuestNanos and RestoreNanos are the parts of the plugin's time a record
	// that are calls of the guest, with encoding and decoding, and putting it
	// back.
	GuestNanos   int64 `json:"guest_nanos_per_record"`
	RestoreNanos int64 `json:"restore_nanos_per_record"`
	// Restores and Instances made in the rounds.
	Restores  int64 `json:"restores"`
	Instances int64 `json:"instances"`
}

// BenchReport is what a plugin needs.
type BenchReport struct {
	Plugin string `json:"plugin"` // name@version
	Digest string `json:"digest"`
	Mode   string `json:"mode"`
	Rounds int    `json:"rounds"`
	// Inputs is how many different records it got.
	Inputs int   `json:"inputs"`
	Large  Speed `json:"batch_128"`
	Single Speed `json:"batch_1"`
	// BytesIn and BytesOut are of key, value and headers of a record, in the
	// mean; Out, Dropped and Failed are parts of all records: what it emits,
	// drops and fails.
	BytesIn  int64   `json:"bytes_in"`
	BytesOut int64   `json:"bytes_out"`
	Out      float64 `json:"out"`
	Dropped  float64 `json:"dropped"`
	Failed   float64 `json:"failed"`
	// Failure is the first one's text.
	Failure string `json:"failure,omitempty"`
	// ImageBytes is what an instance is put back to, MemoryPages its memory in
	// pages of 64 KiB, FuelLimit what a record may cost.
	ImageBytes  int64 `json:"image_bytes"`
	MemoryPages int64 `json:"memory_pages"`
	FuelLimit   int64 `json:"fuel_limit"`
	// Verdict says what takes the most time.
	Verdict string `json:"verdict"`
}

// benchRounds is how many rounds the time is shared out to.
const benchRounds = 10

// Bench measures a plugin against a filter that keeps everything, turn by turn.
func Bench(ctx context.Context, o BenchOptions) (report *BenchReport, err error) {
	if o.Time <= 0 {
		o.Time = 2 * time.Second
	}
	rt, err := sandbox.New(ctx, sandbox.Config{CacheDir: o.CacheDir, Workers: 1})
	if err != nil {
		return nil, err
	}
	late := context.WithoutCancel(ctx)
	defer func() { err = errors.Join(err, rt.Close(late)) }()
	host := registry.NewHost(rt)
	defer func() { err = errors.Join(err, host.Close(late)) }()
	m, err := host.Compile(ctx, o.Wasm, registry.Mode(o.Stage.Function))
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, m.Close(late)) }()
	named := m.Info().Named("plugin")
	report = &BenchReport{Plugin: named.Name + "@" + named.Version, Digest: m.Info().Digest, Mode: m.Info().Mode, Rounds: benchRounds, Inputs: len(o.Records)}
	o.Stage.Flow, o.Stage.Stage, o.Stage.Outputs = "bench/bench", "bench", m.Info().Outputs()[1:]
	if o.Stage.Config == nil {
		o.Stage.Config = json.RawMessage("{}")
	}
	keep, err := stage.New(&flow.Stage{ID: "pass", Filter: "true"}, expr.Scope{Roots: expr.RecordRoots})
	if err != nil {
		return nil, err
	}
	var all []*contestant
	var stages []registry.Stage
	for _, n := range []int{BenchBatch, 1} {
		st, err := m.NewStage(ctx, o.Stage)
		if err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, st.Close(late)) }()
		stages = append(stages, st)
		all = append(all, newContestant(st, o.Records, n), newContestant(keep, o.Records, n))
	}
	before := make([]sandbox.Stats, len(stages))
	for round := -1; round < benchRounds; round++ { // the first one warms up
		if round == 0 {
			for i, st := range stages {
				before[i] = st.Stats()
			}
		}
		for _, c := range all {
			if err := c.round(ctx, o.Time/time.Duration((benchRounds+1)*len(all)), round >= 0); err != nil {
				return nil, err
			}
		}
	}
	report.Large = speed(all[0], all[1], before[0], stages[0].Stats())
	report.Single = speed(all[2], all[3], before[1], stages[1].Stats())
	report.shape(all[0], stages[0])
	report.Verdict = report.verdict()
	return report, nil
}

// processor is a stage of any kind.
type processor interface {
	Process(ctx context.Context, b *record.Batch, out *record.Results) error
}

// contestant runs batches of one size.
type contestant struct {
	stage   processor
	per     int
	records []record.Record
	next    int
	out     record.Results
	nanos   []float64 // a record, by round
	// seen is what one pass over all records gave.
	emits, drops, fails, in int64
	bytesIn, bytesOut       int64
	failure                 string
}

func newContestant(st processor, records []record.Record, per int) *contestant {
	return &contestant{stage: st, per: per, records: records}
}

// batch is the next one, of all records in turn.
func (c *contestant) batch() *record.Batch {
	b := &record.Batch{Partition: record.Partition{Topic: "bench"}, Records: make([]record.Record, c.per), Now: defaultNow.UnixMilli()}
	for i := range b.Records {
		b.Records[i] = c.records[c.next%len(c.records)]
		b.Records[i].Topic, b.Records[i].Offset = "bench", int64(c.next)
		c.next++
	}
	return b
}

// preparedBatches is how many batches are made before the clock runs.
const preparedBatches = 64

func (c *contestant) round(ctx context.Context, length time.Duration, counts bool) error {
	batches := make([]*record.Batch, preparedBatches)
	for i := range batches {
		batches[i] = c.batch()
	}
	n := 0
	start := time.Now()
	for n == 0 || time.Since(start) < length {
		c.out.Reset()
		if err := c.stage.Process(ctx, batches[n%len(batches)], &c.out); err != nil {
			return err
		}
		n++
		if !counts {
			c.note(batches[(n-1)%len(batches)])
		}
	}
	took := time.Since(start)
	if counts {
		c.nanos = append(c.nanos, float64(took.Nanoseconds())/float64(n*c.per))
	}
	return nil
}

// note counts what a batch gave.
func (c *contestant) note(b *record.Batch) {
	size := func(r *record.Record) int64 {
		n := len(r.Key) + len(r.Value)
		for _, h := range r.Headers {
			n += len(h.Key) + len(h.Value)
		}
		return int64(n)
	}
	for i := range b.Records {
		c.bytesIn += size(&b.Records[i])
	}
	c.in += int64(len(b.Records))
	c.emits += int64(len(c.out.Emits))
	c.drops += int64(len(c.out.Drops))
	c.fails += int64(len(c.out.Failures))
	if c.failure == "" && len(c.out.Failures) > 0 {
		c.failure = c.out.Failures[0].Err.Error()
	}
	for i := range c.out.Emits {
		c.bytesOut += size(&c.out.Emits[i].Record)
	}
}

func speed(plugin, pass *contestant, before, after sandbox.Stats) Speed {
	s := Speed{Batch: plugin.per, NanosPerRecord: int64(median(plugin.nanos)), PassNanosPerRecord: int64(median(pass.nanos)), Restores: after.Restores - before.Restores, Instances: after.Instances - before.Instances}
	ratios := make([]float64, len(plugin.nanos))
	for i := range ratios {
		ratios[i] = plugin.nanos[i] / max(pass.nanos[i], 1)
	}
	s.Ratio = median(ratios)
	s.RecordsPerSecond = int64(1e9 / max(median(plugin.nanos), 1))
	if n := after.Records - before.Records; n > 0 {
		s.FuelPerRecord = (after.Fuel - before.Fuel) / n
		s.GuestNanos = int64(after.GuestTime-before.GuestTime) / n
		s.RestoreNanos = int64(after.RestoreTime-before.RestoreTime) / n
	}
	return s
}

func median(all []float64) float64 {
	s := slices.Clone(all)
	slices.SortFunc(s, cmp.Compare)
	if len(s)%2 == 0 {
		return (s[len(s)/2-1] + s[len(s)/2]) / 2
	}
	return s[len(s)/2]
}

const pageBytes = 64 << 10

// shape is what a plugin does with the records, and what it is.
func (r *BenchReport) shape(c *contestant, st registry.Stage) {
	n := float64(max(c.in, 1))
	r.BytesIn, r.BytesOut = int64(float64(c.bytesIn)/n), int64(float64(c.bytesOut)/n)
	r.Out, r.Dropped, r.Failed, r.Failure = float64(c.emits)/n, float64(c.drops)/n, float64(c.fails)/n, c.failure
	stats := st.Stats()
	r.ImageBytes, r.MemoryPages, r.FuelLimit = stats.ImageBytes, stats.ImageBytes/pageBytes, st.Fuel()
}

// verdict says what takes the most time in batches of 128.
func (r *BenchReport) verdict() string {
	s := &r.Large
	total := float64(max(s.NanosPerRecord, 1))
	part := func(n int64) float64 { return min(100*float64(n)/total, 100) }
	switch {
	case r.Failed > 0.02:
		return fmt.Sprintf("failures: %.0f %% of the records fail, and a record that fails is run again alone: %s", 100*r.Failed, r.Failure)
	case part(s.RestoreNanos) >= 40:
		image := ""
		if r.MemoryPages > 0 {
			image = fmt.Sprintf(", for an image of %d pages", r.MemoryPages)
		}
		return fmt.Sprintf("putting the instance back: %.0f %% of the time%s; a plugin that touches less memory is put back faster", part(s.RestoreNanos), image)
	case s.Instances > 1 && s.Instances*2 > s.Restores:
		return fmt.Sprintf("new instances: %d were made, since the plugin cannot be put back exactly or runs once a record; see `plugin inspect`", s.Instances)
	case part(s.GuestNanos) >= 60:
		return fmt.Sprintf("the plugin's own code: %.0f %% of the time", part(s.GuestNanos))
	}
	return fmt.Sprintf("the way in and out: %.0f %% of the time is neither the plugin's own code nor putting it back", 100-part(s.GuestNanos)-part(s.RestoreNanos))
}
