package extism

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	sdk "github.com/extism/go-sdk"
	"github.com/tetratelabs/wazero/experimental"
	"github.com/tetratelabs/wazero/sys"

	"github.com/millrace-io/millrace/plugins/abi"
	"github.com/millrace-io/millrace/runtime/record"
)

// maxOutputBytes bounds the value that a call may answer.
const maxOutputBytes = 16 << 20

// instance is a running plugin. It belongs to one goroutine at a time.
type instance struct {
	stage  *Stage
	plugin *sdk.Plugin
	env    *guestEnv
	alloc  *memories
	// calls that it has run.
	calls int
}

func (s *Stage) newInstance(ctx context.Context) (*instance, error) {
	in := &instance{stage: s, env: &guestEnv{}, alloc: &memories{limit: uint64(s.limit)}}
	in.env.begin(0, 0)
	p, err := s.code.plugin.Instance(experimental.WithMemoryAllocator(context.WithoutCancel(ctx), in.alloc),
		sdk.PluginInstanceConfig{ModuleConfig: in.env.moduleConfig()})
	if err != nil {
		return nil, err
	}
	s.count.instances.Add(1)
	p.Config = s.texts
	p.AllowedHosts = s.cfg.Hosts
	p.AllowedPaths = nil
	p.MaxHttpResponseBytes = s.limit
	p.SetLogger(in.env.log)
	in.plugin = p
	return in, nil
}

func (in *instance) close() {
	// A module that ended itself is closed already.
	_ = in.plugin.Close(context.Background())
}

// answer is what a call came to: a failure, or a value, empty to drop.
type answer struct {
	value   []byte
	failure *record.Error
	batchID uint64
}

// call runs the function on one record.
func (in *instance) call(ctx context.Context, b *record.Batch, r *record.Record) answer {
	s := in.stage
	id := abi.BatchID(s.cfg.FlowUID, s.cfg.Stage, b.Partition, r.Offset, 1)
	in.env.begin(b.Now, id)
	in.alloc.begin()
	in.calls++
	s.count.calls.Add(1)
	ctx, cancel := withHosts(ctx, s.cfg.Hosts)
	defer cancel()
	t0 := time.Now()
	code, value, err := in.run(ctx, r.Value)
	s.count.guest.Add(int64(time.Since(t0)))
	in.env.finish()
	return answer{value: value, failure: in.judge(code, value, err), batchID: id}
}

// run turns a panic of the SDK, which reads what guests wrote, into an error.
func (in *instance) run(ctx context.Context, input []byte) (code uint32, value []byte, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("the Extism SDK gave up: %v", r)
		}
	}()
	return in.plugin.CallWithContext(ctx, in.stage.cfg.Function, input)
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
			if logged := in.env.lastLines(3); logged != "" {
				message += "; it logged: " + logged
			}
			return &record.Error{Class: record.Rejected, Code: code, Message: message}
		case len(value) > maxOutputBytes:
			return record.Errorf(record.TooLarge, "it answered %s, more than %s", bytesText(int64(len(value))), bytesText(maxOutputBytes))
		}
		return nil
	}
	said := in.plugin.GetError()
	if said != "" && err.Error() == said {
		return &record.Error{Class: record.Rejected, Code: code, Message: shorten(printable([]byte(said)), maxLineBytes)}
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
			message = in.env.lastLines(3)
		}
		if message == "" {
			message = text
		}
		return &record.Error{Class: record.Rejected, Code: exit.ExitCode(), Message: shorten(printable([]byte(message)), maxLineBytes)}
	}
	if in.outOfFuel() {
		return record.Errorf(record.Fuel, "it used more than its budget of %d units of fuel", in.stage.fuel)
	}
	return &record.Error{Class: record.Trap, Message: text, Err: err}
}

// outOfFuel asks an instance that trapped whether its fuel is used up. The
// instance must not be used any more.
func (in *instance) outOfFuel() bool {
	in.env.silent = true
	code, _, err := in.plugin.CallWithContext(context.Background(), fuelProbe, nil)
	return err == nil && code == 1
}

func (in *instance) memoryError(text string) *record.Error {
	return record.Errorf(record.Memory, "%s, after %s of memory were asked for; the limit is %s",
		text, bytesText(int64(in.alloc.refused())), bytesText(in.stage.limit))
}

// trapText is what happened in one sentence: the cause, the functions, the
// error that the guest had set, and the end of what it logged in the call.
func (in *instance) trapText(err error, said string) string {
	text := in.stage.trapCause(err)
	if len(in.stage.cfg.Hosts) == 0 && in.stage.mod.http && strings.Contains(text, "is not allowed") {
		text += "; list the host in `hosts` of the stage"
	}
	if said != "" {
		text += "; its error: " + shorten(printable([]byte(said)), 1024)
	}
	if logged := in.env.lastLines(3); logged != "" {
		text += "; it logged: " + logged
	}
	return text
}

func (s *Stage) trapCause(err error) string {
	if e, ok := errors.AsType[*sys.ExitError](err); ok {
		return fmt.Sprintf("it ended itself with exit code %d", e.ExitCode())
	}
	text, stack, _ := strings.Cut(err.Error(), "\nwasm stack trace:\n")
	if before, _, ok := strings.Cut(text, " (recovered by wazero)"); ok {
		text = "a host function refused: " + before
	} else if _, after, ok := strings.Cut(text, "wasm error: "); ok {
		text = after
	}
	stack, _, _ = strings.Cut(stack, "\n\n")
	if at := callers(stack, s.code.firstWrapper); at != "" {
		text += " in " + at
	}
	return "it trapped: " + shorten(printable([]byte(text)), 2048)
}

// callers names the innermost functions of wazero's stack trace, without those
// from the first wrapper on.
func callers(stack string, firstWrapper uint32) string {
	var names []string
	for line := range strings.SplitSeq(stack, "\n") {
		name := strings.TrimSpace(line)
		if name == "" || strings.HasPrefix(name, "...") {
			continue
		}
		// "module.name(i32,i32) i64"
		if i := strings.LastIndexByte(name, ')'); i >= 0 {
			if j := strings.LastIndexByte(name[:i], '('); j >= 0 {
				name = name[:j]
			}
		}
		if rest, ok := strings.CutPrefix(name, envModule+"."); ok {
			name = rest
		} else if _, after, ok := strings.Cut(name, "."); ok {
			name = after
		}
		if number, ok := strings.CutPrefix(name, "$"); ok {
			if n, err := strconv.ParseUint(number, 10, 32); err == nil && n >= uint64(firstWrapper) {
				continue
			}
			name = "function " + number
		}
		if names = append(names, shorten(name, 120)); len(names) == 3 {
			break
		}
	}
	return strings.Join(names, ", called by ")
}
