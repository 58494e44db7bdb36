package sandbox

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/tetratelabs/wazero/sys"

	"github.com/millrace-io/millrace/plugins/abi"
	"github.com/millrace-io/millrace/runtime/record"
)

// The ways in which a lines program is run.
const (
	// LinesEach ends STDIN after each record.
	LinesEach = "each"
	// LinesBatch ends STDIN after the batch: fast, but nobody knows which
	// line comes from which record.
	LinesBatch = "batch"
)

// maxOutputBytes bounds what a program may write to STDOUT for one record, or
// for one batch with LinesBatch.
const maxOutputBytes = 16 << 20

// maxEarlyOutputBytes is what of it may come before the program reads: it is
// kept, and part of what every record is answered with.
const maxEarlyOutputBytes = 1 << 20

// errTooMuchOutput is what a program's write is refused with past it.
var errTooMuchOutput = errors.New("too much output")

// output is what a program writes to STDOUT. The zero value is ready.
type output struct {
	b    []byte
	last int // how much was taken last
	over bool
	// early: the program has not read yet.
	early bool
}

// limit is how much may be written.
func (o *output) limit() int {
	if o.early {
		return maxEarlyOutputBytes
	}
	return maxOutputBytes
}

func (o *output) Write(p []byte) (int, error) {
	if len(o.b)+len(p) > o.limit() {
		o.over = true
		return 0, errTooMuchOutput
	}
	if need := len(o.b) + len(p); need > cap(o.b) {
		o.grow(need)
	}
	o.b = append(o.b, p...)
	return len(p), nil
}

// grow makes room for need bytes, at least twice what there was: a long output
// is moved a few times only.
func (o *output) grow(need int) {
	room := max(need, o.last)
	if o.b != nil {
		room = max(need, min(2*cap(o.b), o.limit()))
	}
	var b []byte
	if room >= minKeptOutput {
		if kept, _ := outputs.Get().(*[]byte); kept != nil && cap(*kept) >= need {
			b = (*kept)[:len(o.b)]
		}
	}
	if b == nil {
		b = make([]byte, len(o.b), room)
	}
	copy(b, o.b)
	o.b = b
}

// outputs are long buffers of programs that were closed: one that fails on
// purpose would have new ones made with every record.
var outputs sync.Pool

// minKeptOutput is the least that is kept there.
const minKeptOutput = 1 << 20

// release gives up what was written and not taken.
func (o *output) release() {
	if b := o.b[:0]; cap(b) >= minKeptOutput {
		outputs.Put(&b)
	}
	o.b = nil
}

// begin starts anew with what was written before.
func (o *output) begin(written []byte) {
	o.b, o.over, o.early = append(o.b[:0], written...), false, false
}

// take gives what was written to the caller, who keeps it for long: where the
// buffer is much larger, it is kept for the next run, and a copy given.
func (o *output) take() []byte {
	b := o.b
	if cap(b) > len(b)+len(b)/4 {
		o.b = b[:0]
		return bytes.Clone(b)
	}
	o.b, o.last = nil, len(b)
	return b
}

// processLines runs a program once for each record.
func (s *Stage) processLines(ctx context.Context, b *record.Batch, out *record.Results) error {
	var line []byte
	for i := range b.Records {
		if err := ctx.Err(); err != nil {
			return err
		}
		r := &b.Records[i]
		id := abi.BatchID(s.cfg.FlowUID, s.cfg.Stage, b.Partition, r.Offset, 1)
		replay := &record.Replay{BatchID: id, Now: b.Now, ConfigHash: s.configHash, FuelLimit: s.fuel, MemoryLimit: s.limit, FuelCosts: FuelCosts}
		var failed *record.Error
		if line, failed = s.appendLine(line[:0], r); failed != nil {
			out.Failures = append(out.Failures, record.Failure{In: int32(i), Err: failed, Replay: replay})
			continue
		}
		p, h, err := s.execute(line, b.Now, id, 1)
		if err != nil {
			return err
		}
		replay.Fuel = p.env.fuel.used()
		if failed = p.failed(h, "record"); failed == nil {
			failed = s.emitLines(p.out.take(), r, i, out)
		}
		if failed != nil {
			replay.Logs = p.env.Texts()
			out.Failures = append(out.Failures, record.Failure{In: int32(i), Err: failed, Replay: replay})
		}
		s.tell(ctx, p.env, b.Records[i:i+1], failed != nil)
		s.giveProgram(p, h)
	}
	return nil
}

// processLinesBatch runs a program once for as many records as a call may
// have. Its answers are those of the records together: the lines that it
// writes are emissions of the first one, without its key and headers, the
// others are dropped, and out.Unit keeps them all from being settled before
// the lines are. If a run fails all its records fail, without a replay: no one
// of them can repeat it. Only a run out of fuel is split.
func (s *Stage) processLinesBatch(ctx context.Context, b *record.Batch, out *record.Results) error {
	u := units.Get().(*unit)
	defer u.release()
	u.stage, u.batch, u.out = s, b, out
	for i := range b.Records {
		line, failed := s.appendLine(u.input, &b.Records[i])
		if failed != nil {
			out.Failures = append(out.Failures, record.Failure{In: int32(i), Err: failed})
			continue
		}
		u.input = line
		u.records, u.ends = append(u.records, int32(i)), append(u.ends, len(line))
	}
	for from := 0; from < len(u.records); {
		to := min(len(u.records), from+s.callRecords())
		if err := u.run(ctx, from, to); err != nil {
			return err
		}
		from = to
	}
	return nil
}

// unit is a batch on its way through a program that answers it as a whole.
type unit struct {
	stage *Stage
	batch *record.Batch
	out   *record.Results
	// input holds a line for each of records, which are indexes in the batch;
	// the lines end at ends.
	input   []byte
	records []int32
	ends    []int
}

// units are kept for their slices: growing them anew for each batch costs as
// much as a run of a small program.
var units = sync.Pool{New: func() any { return new(unit) }}

// maxKeptInput is the largest input that is kept for another batch.
const maxKeptInput = 1 << 20

func (u *unit) release() {
	if cap(u.input) > maxKeptInput {
		return
	}
	*u = unit{input: u.input[:0], records: u.records[:0], ends: u.ends[:0]}
	units.Put(u)
}

// run feeds the lines from..to to the program.
func (u *unit) run(ctx context.Context, from, to int) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	s, fed := u.stage, u.records[from:to]
	begin := 0
	if from > 0 {
		begin = u.ends[from-1]
	}
	first := int(fed[0])
	of := u.batch.Records[first]
	id := abi.BatchID(s.cfg.FlowUID, s.cfg.Stage, u.batch.Partition, of.Offset, len(fed))
	t0 := time.Now()
	p, h, err := s.execute(u.input[begin:u.ends[to-1]], u.batch.Now, id, len(fed))
	if err != nil {
		return err
	}
	took := time.Since(t0)
	defer s.giveProgram(p, h)
	failed := p.failed(h, "batch")
	if failed != nil && failed.Class == record.Fuel && len(fed) > 1 {
		s.learnFuel(p.env.fuel.used(), len(fed), true)
		s.count.repeats.Add(2)
		mid := from + len(fed)/2
		if err := u.run(ctx, from, mid); err != nil {
			return err
		}
		return u.run(ctx, mid, to)
	}
	s.tell(ctx, p.env, u.batch.Records[first:int(fed[len(fed)-1])+1], false)
	if failed == nil {
		s.learnFuel(p.env.fuel.used(), len(fed), false)
		s.perRecord.Store(s.average(int64(took) / int64(len(fed))))
		of.Key, of.Headers = nil, nil
		failed = s.emitLines(p.out.take(), &of, first, u.out)
	}
	if failed == nil {
		u.out.Drops = append(u.out.Drops, fed[1:]...)
		u.out.Unit = true
		return nil
	}
	if len(fed) > 1 {
		e := *failed
		e.Message = fmt.Sprintf("the batch of %d records failed as a whole: %s", len(fed), e.Message)
		failed = &e
	}
	for _, i := range fed {
		u.out.Failures = append(u.out.Failures, record.Failure{In: i, Err: failed, NoReplay: linesBatchReason})
	}
	return nil
}

// appendLine appends the line that the program reads for r.
func (s *Stage) appendLine(b []byte, r *record.Record) ([]byte, *record.Error) {
	if s.cfg.Envelope {
		line, err := record.AppendEnvelope(b, r)
		if err != nil {
			return b, record.AsError(err)
		}
		return append(line, '\n'), nil
	}
	if bytes.IndexByte(r.Value, '\n') >= 0 {
		return b, record.Errorf(record.Schema, "the value has a line end in it, and the program reads one value a line; set `envelope: true` on the stage")
	}
	return append(append(b, r.Value...), '\n'), nil
}

// failed says how a run ended that did not end well; unit is what it was for.
func (p *program) failed(h halt, unit string) *record.Error {
	exit, exited := errors.AsType[*sys.ExitError](h.err)
	switch {
	case p.out.over && p.out.early:
		return record.Errorf(record.TooLarge, "it wrote more than %s before it read anything", BytesText(maxEarlyOutputBytes))
	case p.out.over:
		return record.Errorf(record.TooLarge, "it wrote more than %s for one %s", BytesText(maxOutputBytes), unit)
	case h.err == nil || exited && exit.ExitCode() == 0:
		return nil
	case p.env.fuel.out():
		return p.env.fuel.error()
	case p.alloc.mem.refused > 0:
		text := trapCause(h.err)
		if exited {
			text = fmt.Sprintf("it ended with exit code %d", exit.ExitCode())
		}
		return p.stage.memoryError(p.alloc.mem.refused, "%s", text)
	case exited:
		message := p.env.LastLines(3)
		if message == "" {
			message = fmt.Sprintf("it ended with exit code %d and wrote nothing to STDERR", exit.ExitCode())
		}
		return &record.Error{Class: record.Rejected, Code: exit.ExitCode(), Message: message}
	}
	return &record.Error{Class: record.Trap, Message: p.env.trapText(h.err), Err: h.err}
}

// emitLines turns each line of written, which they keep, into an emission of r,
// which is record i of the batch; none at all drops it. On an error out is as
// it was before.
func (s *Stage) emitLines(written []byte, r *record.Record, i int, out *record.Results) *record.Error {
	before, first := out.Mark(), len(out.Emits)
	fail := func(err *record.Error) *record.Error {
		out.Rewind(before)
		return err
	}
	n := bytes.Count(written, []byte{'\n'})
	if len(written) > 0 && written[len(written)-1] != '\n' {
		n++
	}
	switch {
	case n == 0:
		out.Drops = append(out.Drops, int32(i))
		return nil
	case n > maxCallEmits:
		return record.Errorf(record.TooLarge, "it wrote %d lines, the limit is %d", n, maxCallEmits)
	}
	out.Emits = slices.Grow(out.Emits, n)[:first+n]
	for k := range out.Emits[first:] {
		line, rest, _ := bytes.Cut(written, []byte{'\n'})
		written = rest
		e := &out.Emits[first+k]
		*e = record.Emit{In: int32(i), Record: *r}
		e.Record.To = -1
		e.Record.Value = line[:len(line):len(line)]
		if n > 1 {
			var err error
			if e.Record.Path, err = childPath(r.Path, k); err != nil {
				return fail(record.AsError(err))
			}
		}
		if s.cfg.Envelope {
			given, err := record.ParseEnvelope(line)
			if err != nil {
				return fail(record.Errorf(record.Protocol, "line %d of its output is no record: %w", k+1, err))
			}
			e.Record.Key, e.Record.Value, e.Record.Headers = given.Key, given.Value, given.Headers
			if given.Timestamp != 0 {
				e.Record.Timestamp = given.Timestamp
			}
		}
	}
	return nil
}

// firstChildren are the paths of emissions of a record that has none itself:
// nearly all there are.
var firstChildren = sync.OnceValue(func() []record.Path {
	paths := make([]record.Path, 1024)
	for k := range paths {
		paths[k], _ = record.Path("").Child(k)
	}
	return paths
})

func childPath(of record.Path, k int) (record.Path, error) {
	if first := firstChildren(); of == "" && k < len(first) {
		return first[k], nil
	}
	return of.Child(k)
}
