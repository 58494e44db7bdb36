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
		to := min(len(b.Records), from+s.callRecords())
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
}

// run answers the records from..to. A part that fails is run again by halves,
// each from the image, down to the records that fail alone.
func (c *caller) run(ctx context.Context, from, to int) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if !c.in.ready() || c.in.image.level != c.stage.imageLevel() {
		c.in.close()
		in, err := c.stage.take(ctx)
		if err != nil {
			return err
		}
		c.in = in
	}
	failed := c.call(from, to)
	if failed == nil {
		return nil
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
	size, err := in.enc.Size(records)
	if err != nil {
		return record.AsError(err)
	}
	if int64(size) > s.limit {
		return record.Errorf(record.TooLarge, "a frame of %d bytes exceeds the memory limit of the plugin, %s", size, bytesText(s.limit))
	}
	id := abi.BatchID(s.cfg.FlowUID, s.cfg.Stage, c.batch.Partition, records[0].Offset, len(records))
	in.env.begin(c.batch.Now, id)
	in.env.fuel.set(s.budget(len(records), size))
	in.used = true
	s.count.calls.Add(1)
	s.count.records.Add(int64(len(records)))
	if c.repeating {
		s.count.repeats.Add(1)
	}
	t0 := time.Now()
	failed := c.exchange(records, from, size, id)
	took := time.Since(t0)
	in.env.finish()
	s.count.guest.Add(int64(took))
	s.count.fuel.Add(in.env.fuel.used())
	if failed != nil {
		in.spoiled = true
		if failed.Class == record.Fuel && len(records) > 1 {
			s.learnFuel(in.env.fuel.used(), len(records), true)
		}
		return failed
	}
	s.learnFuel(in.env.fuel.used(), len(records), false)
	s.perRecord.Store(s.average(int64(took) / int64(len(records))))
	if len(in.env.counts)+len(in.env.lines)+in.env.lost > 0 {
		s.tell(in.ctx, in.env, true)
	}
	if s.stateful {
		return nil
	}
	grew := uint64(in.memory.Size()) != uint64(len(in.image.memory))
	in.dead = in.dead || grew
	s.grew(in.image.level, grew)
	c.attach(from, id)
	return nil
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

// attach gives the failures that a successful call answered what they need to
// be repeated.
func (c *caller) attach(from int, id uint64) {
	var replay *record.Replay
	for i := len(c.out.Failures) - 1; i >= 0; i-- {
		f := &c.out.Failures[i]
		if f.Replay != nil || int(f.In) < from {
			return
		}
		if replay == nil {
			replay = c.replay(id, nil)
		}
		f.Replay = replay
	}
}

func (c *caller) replay(id uint64, logs []string) *record.Replay {
	return &record.Replay{
		BatchID: id, Now: c.batch.Now, ImageLevel: c.in.image.level, ConfigHash: c.stage.configHash, Logs: logs,
		Fuel: c.in.env.fuel.used(),
	}
}

// poison files record i, which failed alone.
func (c *caller) poison(i int, err *record.Error) {
	s, in := c.stage, c.in
	f := record.Failure{In: int32(i), Err: err}
	if !s.stateful {
		id := abi.BatchID(s.cfg.FlowUID, s.cfg.Stage, c.batch.Partition, c.batch.Records[i].Offset, 1)
		f.Replay = c.replay(id, in.env.texts())
	}
	c.out.Failures = append(c.out.Failures, f)
	s.tell(in.ctx, in.env, s.stateful)
}

func (s *Stage) imageLevel() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.level
}
