package sandbox

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/tetratelabs/wazero/experimental"
	"github.com/tetratelabs/wazero/sys"

	"github.com/millrace-io/millrace/plugins/abi"
	"github.com/millrace-io/millrace/runtime/record"
)

// maxOutputBytes bounds what a program may write to STDOUT for one record.
const maxOutputBytes = 16 << 20

// errTooMuchOutput is what a program's write is refused with past it.
var errTooMuchOutput = errors.New("too much output")

// processLines runs a program once for each record.
func (s *Stage) processLines(ctx context.Context, b *record.Batch, out *record.Results) error {
	var p program
	p.stage = s
	for i := range b.Records {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := p.run(ctx, b, i, out); err != nil {
			return err
		}
	}
	return nil
}

// program runs records through fresh instances, one after the other.
type program struct {
	stage *Stage
	in    bytes.Buffer
	out   output
}

type output struct {
	bytes.Buffer
	over bool
}

func (o *output) Write(p []byte) (int, error) {
	if o.Len()+len(p) > maxOutputBytes {
		o.over = true
		return 0, errTooMuchOutput
	}
	return o.Buffer.Write(p)
}

func (p *program) run(ctx context.Context, b *record.Batch, i int, out *record.Results) error {
	s, r := p.stage, &b.Records[i]
	id := abi.BatchID(s.cfg.FlowUID, s.cfg.Stage, b.Partition, r.Offset, 1)
	env := &guestEnv{}
	env.begin(b.Now, id)
	fail := func(err *record.Error) {
		env.finish()
		out.Failures = append(out.Failures, record.Failure{In: int32(i), Err: err, Replay: &record.Replay{
			BatchID: id, Now: b.Now, ConfigHash: s.configHash, Logs: env.texts(),
		}})
		s.tell(ctx, env, false)
	}
	if err := p.input(r); err != nil {
		fail(err)
		return nil
	}
	p.out.Reset()
	p.out.over = false
	failed, err := p.execute(env)
	if err != nil {
		return err
	}
	if failed != nil {
		fail(failed)
		return nil
	}
	env.finish()
	emits := len(out.Emits)
	if err := p.emit(r, i, out); err != nil {
		clear(out.Emits[emits:])
		out.Emits = out.Emits[:emits]
		fail(err)
		return nil
	}
	s.tell(ctx, env, true)
	return nil
}

// input writes the line that the program reads.
func (p *program) input(r *record.Record) *record.Error {
	p.in.Reset()
	if p.stage.cfg.Envelope {
		line, err := record.AppendEnvelope(nil, r)
		if err != nil {
			return record.AsError(err)
		}
		p.in.Write(line)
	} else {
		if bytes.IndexByte(r.Value, '\n') >= 0 {
			return record.Errorf(record.Schema, "the value has a line end in it, and the program reads one value a line; set `envelope: true` on the stage")
		}
		p.in.Write(r.Value)
	}
	p.in.WriteByte('\n')
	return nil
}

// execute runs the program on p.in. The first result is about the record.
func (p *program) execute(env *guestEnv) (*record.Error, error) {
	s := p.stage
	in := &instance{stage: s, env: env, alloc: &memories{limit: uint64(s.limit)}}
	in.ctx = experimental.WithMemoryAllocator(context.WithValue(context.Background(), envKey{}, env), in.alloc)
	s.count.instances.Add(1)
	s.count.calls.Add(1)
	s.count.records.Add(1)
	t0 := time.Now()
	defer func() { s.count.guest.Add(int64(time.Since(t0))) }()
	mod, err := s.rt.wz.InstantiateModule(in.ctx, s.mod.compiled, env.moduleConfig().WithStdin(&p.in).WithStdout(&p.out))
	if err != nil {
		defer in.alloc.free()
		if in.alloc.mem == nil {
			return nil, fmt.Errorf("make an instance: %w", err)
		}
		env.finish()
		return &record.Error{Class: record.Trap, Message: in.trapText(err), Err: err}, nil
	}
	in.mod = mod
	defer in.close()
	_, err = mod.ExportedFunction(exportStart).Call(in.ctx)
	env.finish()
	exit, exited := errors.AsType[*sys.ExitError](err)
	switch {
	case p.out.over:
		return record.Errorf(record.TooLarge, "it wrote more than %s for one record", bytesText(maxOutputBytes)), nil
	case err == nil || exited && exit.ExitCode() == 0:
		return nil, nil
	case in.alloc.mem.refused > 0:
		text := trapCause(err)
		if exited {
			text = fmt.Sprintf("it ended with exit code %d", exit.ExitCode())
		}
		return in.memoryError("%s", text), nil
	case exited:
		message := env.lastLines(3)
		if message == "" {
			message = fmt.Sprintf("it ended with exit code %d and wrote nothing to STDERR", exit.ExitCode())
		}
		return &record.Error{Class: record.Rejected, Code: exit.ExitCode(), Message: message}, nil
	}
	return &record.Error{Class: record.Trap, Message: in.trapText(err), Err: err}, nil
}

// emit turns each line of the output into a record.
func (p *program) emit(r *record.Record, i int, out *record.Results) *record.Error {
	rest := bytes.Clone(p.out.Bytes())
	first := len(out.Emits)
	for len(rest) > 0 {
		line, after, _ := bytes.Cut(rest, []byte{'\n'})
		rest = after
		e := record.Emit{In: int32(i), Record: *r}
		e.Record.To = -1
		e.Record.Value = line[:len(line):len(line)]
		if p.stage.cfg.Envelope {
			given, err := record.ParseEnvelope(line)
			if err != nil {
				return record.Errorf(record.Protocol, "line %d of its output is no record: %w", len(out.Emits)-first+1, err)
			}
			e.Record.Key, e.Record.Value, e.Record.Headers = given.Key, given.Value, given.Headers
			if given.Timestamp != 0 {
				e.Record.Timestamp = given.Timestamp
			}
		}
		out.Emits = append(out.Emits, e)
	}
	n := len(out.Emits) - first
	if n == 0 {
		out.Drops = append(out.Drops, int32(i))
	}
	for k := range n {
		if n > 1 {
			path, err := r.Path.Child(k)
			if err != nil {
				return record.AsError(err)
			}
			out.Emits[first+k].Record.Path = path
		}
	}
	return nil
}
