package sandbox

import (
	"context"
	"errors"
	"time"

	"github.com/millrace-io/millrace/plugins/abi"
	"github.com/millrace-io/millrace/runtime/record"
)

// targetCall is how much guest time a call should take. Go cannot preempt a
// running guest: everything that wants to stop the world waits for it.
const targetCall = time.Millisecond

// minCallRecords is the least that a call is reduced to for targetCall.
const minCallRecords = 16

// processCalls passes a batch through a call mode guest.
func (s *Stage) processCalls(ctx context.Context, b *record.Batch, out *record.Results) error {
	in, err := s.take(ctx)
	if err != nil {
		return err
	}
	c := caller{stage: s, in: in, batch: b, out: out}
	defer func() { s.give(c.in) }()
	for from := 0; from < len(b.Records); {
		// Calls of the same size: a small one at the end costs nearly as much.
		left := len(b.Records) - from
		calls := (left-1)/s.callRecords() + 1
		to := from + (left-1)/calls + 1
		if err := c.run(ctx, from, to); err != nil {
			return err
		}
		from = to
	}
	return nil
}

// callRecords is how many records the next call may have.
func (s *Stage) callRecords() int {
	if s.cfg.Isolation == IsolationRecord {
		return 1
	}
	per := s.perRecord.Load()
	if per <= 0 {
		return baseWarmUp
	}
	n := max(minCallRecords, int(int64(targetCall)/per))
	if fuel := s.fuelPerRecord.Load(); fuel > 0 {
		n = max(1, min(n, int(callFuel/4*3/fuel)))
	}
	return n
}

// caller works on one batch with one instance, which it replaces as needed.
type caller struct {
	stage *Stage
	in    *instance
	batch *record.Batch
	out   *record.Results
	// repeating: a call failed, its parts are run again.
	repeating bool
	// judging: a call was sound, and a record that it failed is run alone. The
	// stage learns nothing from it, and what the guest counts and logs is not
	// passed on.
	judging bool
	// as are the circumstances of a recorded call, nil if this is none.
	as *record.Replay
}

// prepare makes the instance one that is in the state of the present image.
func (c *caller) prepare(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if c.in.ready() && c.in.image.level == c.stage.imageLevel() {
		return nil
	}
	c.in.close()
	in, err := c.stage.take(ctx)
	if err != nil {
		return err
	}
	c.in = in
	return nil
}

// run answers the records from..to. A part that fails is run again by halves,
// each from the image, down to the records that fail alone.
func (c *caller) run(ctx context.Context, from, to int) error {
	if err := c.prepare(ctx); err != nil {
		return err
	}
	before := c.out.Mark()
	failed := c.call(from, to)
	if failed == nil {
		return c.attach(ctx, c.out.Failed(before), to-from == 1)
	}
	if to-from == 1 {
		c.poison(from, failed)
		return nil
	}
	outer := c.repeating
	c.repeating = true
	defer func() { c.repeating = outer }()
	mid := from + (to-from)/2
	if err := c.run(ctx, from, mid); err != nil {
		return err
	}
	return c.run(ctx, mid, to)
}

// call makes one call for the records from..to. The instance is in the state
// of its image before it. An error is about the records; nothing is answered
// then.
func (c *caller) call(from, to int) *record.Error {
	s, in := c.stage, c.in
	records := c.batch.Records[from:to]
	id := c.id(from, len(records))
	in.env.begin(c.batch.Now, id)
	in.env.signing = signing{live: true, with: s.cfg.Sign, keep: len(records) == 1 && !s.stateful}
	in.env.fuel.set(0)
	size, err := in.enc.Size(records)
	if err != nil {
		return record.AsError(err)
	}
	if int64(size) > s.limit {
		return record.Errorf(record.TooLarge, "a frame of %d bytes exceeds the memory limit of the plugin, %s", size, BytesText(s.limit))
	}
	in.env.fuel.set(s.budget(len(records), size))
	in.used = true
	s.count.calls.Add(1)
	s.count.records.Add(int64(len(records)))
	if c.repeating || c.judging {
		s.count.repeats.Add(1)
	}
	t0 := time.Now()
	failed := c.exchange(records, from, size, id)
	took := time.Since(t0)
	in.env.Finish()
	s.count.guest.Add(int64(took))
	s.count.fuel.Add(in.env.fuel.used())
	if failed != nil {
		in.spoiled = true
		if failed.Class == record.Fuel && len(records) > 1 {
			s.learnFuel(in.env.fuel.used(), len(records), true)
		}
		return failed
	}
	if !c.judging {
		s.learnFuel(in.env.fuel.used(), len(records), false)
		s.perRecord.Store(s.average(int64(took) / int64(len(records))))
		if len(in.env.counts)+len(in.env.lines)+in.env.lost > 0 {
			s.tell(in.ctx, in.env, records, false)
		}
	}
	if s.stateful {
		return nil
	}
	grew := uint64(in.memory.Size()) != uint64(len(in.image.memory))
	in.dead = in.dead || grew
	if !c.judging {
		s.grew(in.image.level, size, grew)
	}
	return nil
}

// id is the batch id of a call for n records from the one at from.
func (c *caller) id(from, n int) uint64 {
	if c.as != nil {
		return c.as.BatchID
	}
	return abi.BatchID(c.stage.cfg.FlowUID, c.stage.cfg.Stage, c.batch.Partition, c.batch.Records[from].Offset, n)
}

// Bounds of the answers to one call: they are copied out of the guest and
// live until they are delivered.
const (
	maxResultBytes = 64 << 20
	maxCallEmits   = 100_000
	maxCallHeaders = 500_000
)

// resultLimit is the largest result frame for a request of size bytes.
func resultLimit(size int) int {
	return max(size, min(maxResultBytes, 16*size+16<<20))
}

func (s *Stage) average(ns int64) int64 {
	old := s.perRecord.Load()
	if old == 0 {
		return ns
	}
	return old + (ns-old)/8
}

func (c *caller) exchange(records []record.Record, from, size int, id uint64) *record.Error {
	in := c.in
	in.alloc.mem.refused = 0
	buffer := in.image.buffer
	if uint64(size) > uint64(in.image.bufferBytes) {
		in.settle(0) // the guest runs before the request is written
		var err error
		if buffer, err = in.allocate(uint32(size)); err != nil {
			if errors.Is(err, errNoMemory) {
				in.dead = true
				return in.memoryError("it has no room for a frame of %d bytes", size)
			}
			return in.failed(err)
		}
	}
	ptr, n, err := in.sendAt(buffer, records, size, id, c.batch.Now)
	if err != nil {
		return in.failed(err)
	}
	if ptr == 0 && n == 0 {
		return in.gaveUp()
	}
	if limit := resultLimit(size); uint64(n) > uint64(limit) {
		return record.Errorf(record.TooLarge, "its result has %d bytes, the limit is %d for a request of %d", n, limit, size)
	}
	frame, ok := in.memory.Read(ptr, n)
	if !ok {
		return record.Errorf(record.Protocol, "its result of %d bytes at %#x lies outside of its memory of %d bytes", n, ptr, in.memory.Size())
	}
	if err := in.dec.Decode(frame, id, records, from, c.out); err != nil {
		return record.AsError(err)
	}
	return nil
}

// Reasons why a failure has no Replay.
const (
	statefulReason   = "the stage is stateful (`isolation: failure`): what it answers depends on the records before"
	linesBatchReason = "`lines: batch` answers the records of a run together"
)

// attach gives the failures that a sound call answered what they need to be
// repeated. What a record is answered beside others may depend on them, and on
// the id that the call had. So each is judged alone, from the image: where the
// answer is the same, the Replay is that of the record alone.
func (c *caller) attach(ctx context.Context, failures []record.Failure, alone bool) error {
	s := c.stage
	switch {
	case len(failures) == 0 || s.cfg.ForgetFailures:
		return nil
	case s.stateful:
		for i := range failures {
			failures[i].NoReplay = statefulReason
		}
		return nil
	case alone:
		c.keep(&failures[0])
		return nil
	}
	var answers record.Results
	out := c.out
	c.judging, c.out = true, &answers
	defer func() { c.judging, c.out = false, out }()
	for i := range failures {
		if err := c.prepare(ctx); err != nil {
			return err
		}
		f := &failures[i]
		answers.Reset()
		err := c.call(int(f.In), int(f.In)+1)
		if err == nil && len(answers.Failures) == 1 {
			err = answers.Failures[0].Err
		}
		if err != nil && err.Class == f.Err.Class && err.Code == f.Err.Code && err.Message == f.Err.Message {
			c.keep(f)
			continue
		}
		s.count.unrepeatable.Add(1)
		what := "by an emission or a drop"
		if err != nil {
			what = err.Error()
		}
		f.NoReplay = "alone the record is answered otherwise: " + what
	}
	return nil
}

// keep gives f, which is that of the last call, alone, what it can be repeated
// with.
func (c *caller) keep(f *record.Failure) {
	s, in := c.stage, c.in
	if f.NoReplay = in.env.signing.noReplay; f.NoReplay != "" {
		return
	}
	f.Replay = &record.Replay{
		BatchID: c.id(int(f.In), 1), Now: c.batch.Now, ImageLevel: in.image.level, ConfigHash: s.configHash,
		Fuel: in.env.fuel.used(), FuelLimit: s.fuel, MemoryLimit: s.limit, FuelCosts: FuelCosts, Logs: in.env.Texts(),
		Signatures: in.env.signing.asked,
	}
}

// poison files record i, which failed alone.
func (c *caller) poison(i int, err *record.Error) {
	s, in := c.stage, c.in
	f := record.Failure{In: int32(i), Err: err}
	if s.stateful {
		f.NoReplay = statefulReason
	} else {
		c.keep(&f)
	}
	c.out.Failures = append(c.out.Failures, f)
	s.tell(in.ctx, in.env, c.batch.Records[i:i+1], f.Replay != nil)
}

func (s *Stage) imageLevel() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.level
}
