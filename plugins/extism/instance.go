package extism

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"time"

	sdk "github.com/extism/go-sdk"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/experimental"
	"github.com/tetratelabs/wazero/sys"

	"github.com/millrace-io/millrace/plugins/sandbox"
	"github.com/millrace-io/millrace/runtime/record"
)

// maxOutputBytes bounds the value that a call may answer.
const maxOutputBytes = 16 << 20

// instance is a running plugin. It belongs to one goroutine at a time.
type instance struct {
	stage  *Stage
	plugin *sdk.Plugin
	env    *sandbox.World
	alloc  *memories
	// calls that it has run.
	calls int
	// owing is the fuel that calls may have used which is not accounted for,
	// spent what they had used when that was done, modulo 2^32.
	owing int64
	spent uint32

	// blocks are what the present call may write to in Extism's memory.
	blocks     blocks
	inputBytes int
	memory     api.Memory // Extism's
	// hostFuel is what the host's work for the present call costs beside
	// what the guest pays for each of its calls.
	hostFuel int64
}

func (s *Stage) newInstance(ctx context.Context) (*instance, error) {
	in := &instance{stage: s, env: &sandbox.World{}, alloc: &memories{limit: uint64(s.limit)}}
	in.env.Begin(0, 0)
	p, err := s.code.plugin.Instance(experimental.WithMemoryAllocator(context.WithoutCancel(ctx), in.alloc),
		sdk.PluginInstanceConfig{ModuleConfig: moduleConfig(in.env)})
	if err != nil {
		return nil, err
	}
	s.count.instances.Add(1)
	p.Config = s.texts
	p.AllowedHosts = s.cfg.Hosts
	p.AllowedPaths = nil
	p.MaxHttpResponseBytes = s.limit
	p.SetLogger(logTo(in.env))
	in.plugin, in.memory = p, p.Memory()
	return in, nil
}

func (in *instance) close() {
	if in.owing > 0 {
		in.account()
	}
	// A module that ended itself is closed already.
	_ = in.plugin.Close(context.Background())
}

// overdraft is more than a single charge, the last one of a call, can be beyond
// the budget.
const overdraft = 1 << 28

// answer is what a call came to: a failure, or a value, empty to drop.
type answer struct {
	value   []byte
	failure *record.Error
	fuel    int64
}

// answer appends what a means for record i, which is r.
func (a *answer) answer(i int32, r *record.Record, out *record.Results) {
	switch {
	case a.failure != nil:
		out.Failures = append(out.Failures, record.Failure{In: i, Err: a.failure})
	case len(a.value) == 0:
		out.Drops = append(out.Drops, i)
	default:
		e := record.Emit{In: i, Record: *r}
		e.Record.Value, e.Record.To = a.value, -1
		out.Emits = append(out.Emits, e)
	}
}

// call runs the function on one record, with a clock and a batch id.
func (in *instance) call(ctx context.Context, now int64, id uint64, r *record.Record) answer {
	s := in.stage
	in.env.Begin(now, id)
	in.alloc.begin()
	in.blocks.clear()
	in.hostFuel, in.inputBytes = 0, len(r.Value)
	in.calls++
	s.count.calls.Add(1)
	ctx, cancel := withHosts(ctx, s.cfg.Hosts)
	defer cancel()
	t0 := time.Now()
	code, value, err := in.run(ctx, s.cfg.Function, r.Value)
	s.count.guest.Add(int64(time.Since(t0)))
	in.env.Finish()
	a := answer{value: value, failure: in.judge(code, value, err)}
	if a.failure != nil {
		a.fuel = in.fuelOf()
		if max(a.fuel, in.hostFuel) > s.fuel && a.failure.Class == record.Trap {
			a.failure = record.Errorf(record.Fuel, "it used more than its budget of %d units of fuel", s.fuel)
		}
		a.fuel += in.hostFuel
	}
	s.count.fuel.Add(in.hostFuel)
	if in.owing += s.fuel; in.owing+s.fuel > math.MaxUint32-overdraft {
		in.account()
	}
	return a
}

// run turns a panic of the SDK, which reads what guests wrote, into an error.
func (in *instance) run(ctx context.Context, function string, input []byte) (code uint32, value []byte, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("the Extism SDK gave up: %v", r)
		}
	}()
	return in.plugin.CallWithContext(in.context(ctx), function, input)
}

// judge says how a call failed; nil if it did not.
func (in *instance) judge(code uint32, value []byte, err error) *record.Error {
	if in.alloc.refusedToHost() > 0 {
		// Extism's allocator then answers 0, and what was to be written there
		// is lost or lies over something else.
		return in.memoryError("its input, output or messages did not fit")
	}
	if err == nil {
		switch {
		case code != 0:
			message := fmt.Sprintf("it returned %d and set no error", code)
			if logged := in.env.LastLines(3); logged != "" {
				message += "; it logged: " + logged
			}
			return &record.Error{Class: record.Rejected, Code: code, Message: message}
		case len(value) > maxOutputBytes:
			return record.Errorf(record.TooLarge, "it answered %s, more than %s", sandbox.BytesText(int64(len(value))), sandbox.BytesText(maxOutputBytes))
		}
		return nil
	}
	said := in.plugin.GetError()
	if said != "" && err.Error() == said {
		return &record.Error{Class: record.Rejected, Code: code, Message: sandbox.Shorten(sandbox.Printable([]byte(said)), sandbox.MaxLineBytes)}
	}
	if e := requestError(err); e != nil {
		return e
	}
	exit, exited := errors.AsType[*sys.ExitError](err)
	text := in.trapText(err, said)
	switch {
	case in.alloc.refused() > 0:
		return in.memoryError(text)
	case exited:
		message := said
		if message == "" {
			message = in.env.LastLines(3)
		}
		if message == "" {
			message = text
		}
		return &record.Error{Class: record.Rejected, Code: exit.ExitCode(), Message: sandbox.Shorten(sandbox.Printable([]byte(message)), sandbox.MaxLineBytes)}
	}
	return &record.Error{Class: record.Trap, Message: text, Err: err}
}

func (in *instance) memoryError(text string) *record.Error {
	return record.Errorf(record.Memory, "%s, after %s of memory were asked for; the limit is %s",
		text, sandbox.BytesText(int64(in.alloc.refused())), sandbox.BytesText(in.stage.limit))
}

// trapText is what happened in one sentence: the cause, the functions, the
// error that the guest had set, and the end of what it logged in the call.
func (in *instance) trapText(err error, said string) string {
	text := in.stage.trapCause(err)
	if len(in.stage.cfg.Hosts) == 0 && in.stage.mod.info.UsesHTTP && strings.Contains(text, "is not allowed") {
		text += "; list the host in `hosts` of the stage"
	}
	if said != "" {
		text += "; its error: " + sandbox.Shorten(sandbox.Printable([]byte(said)), 1024)
	}
	if logged := in.env.LastLines(3); logged != "" {
		text += "; it logged: " + logged
	}
	return text
}

func (s *Stage) trapCause(err error) string { return sandbox.TrapCause(err, s.code.firstAdded) }
