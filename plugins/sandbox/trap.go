package sandbox

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/tetratelabs/wazero/sys"

	"github.com/millrace-io/millrace/runtime/record"
)

// failed says how a call ended that did not return, and decides whether the
// instance can be put back.
func (in *instance) failed(err error) *record.Error {
	if e, ok := errors.AsType[*record.Error](err); ok {
		return e
	}
	in.env.Finish()
	text := in.env.trapText(err)
	_, exited := errors.AsType[*sys.ExitError](err)
	sign, isSign := errors.AsType[*signFailure](err)
	// A stack overflow leaves its stack of tens of MB with the function; what
	// the host recovered from is not known well enough to go on.
	if exited || strings.Contains(err.Error(), "stack overflow") || strings.Contains(err.Error(), "(recovered by wazero)") {
		in.dead = true
	} else {
		in.functions()
	}
	switch {
	case in.env.fuel.out():
		return in.env.fuel.error()
	case isSign:
		return sign.err
	case in.alloc.mem.refused > 0:
		return in.memoryError("%s", text)
	}
	return &record.Error{Class: record.Trap, Message: text, Err: err}
}

// memoryError is a failure of class memory.
func (in *instance) memoryError(format string, args ...any) *record.Error {
	return in.stage.memoryError(in.alloc.mem.refused, format, args...)
}

// memoryError is a failure of class memory; asked is what the guest asked for
// in vain, 0 if it did not.
func (s *Stage) memoryError(asked uint64, format string, args ...any) *record.Error {
	limit := BytesText(s.limit)
	text := fmt.Sprintf(format, args...)
	if asked > 0 {
		return record.Errorf(record.Memory, "%s, after it asked for %s of memory; the limit is %s", text, BytesText(int64(asked)), limit)
	}
	return record.Errorf(record.Memory, "%s; the limit is %s", text, limit)
}

// gaveUp is the failure of a call that answered 0.
func (in *instance) gaveUp() *record.Error {
	in.env.Finish()
	if in.alloc.mem.refused > 0 {
		return in.memoryError("it gave the batch up")
	}
	text := "it gave the batch up (stage_batch answered 0)"
	if logged := in.env.LastLines(3); logged != "" {
		text += "; it logged: " + logged
	} else {
		text += " and logged no reason"
	}
	return record.Errorf(record.Rejected, "%s", text)
}

// trapText is what happened in one sentence: the cause, the functions, and the
// end of what the guest logged in the call.
func (e *guestEnv) trapText(err error) string {
	text := trapCause(err)
	if logged := e.LastLines(3); logged != "" {
		text += "; it logged: " + logged
	}
	return text
}

func trapCause(err error) string { return TrapCause(err, math.MaxUint32) }

// TrapCause is how a call ended that did not return, in words, with the
// innermost functions of wazero's stack trace. Functions from the number own on
// are the rewriter's, and left out.
func TrapCause(err error, own uint32) string {
	if e, ok := errors.AsType[*sys.ExitError](err); ok {
		return fmt.Sprintf("it ended itself with proc_exit(%d)", e.ExitCode())
	}
	if e, ok := errors.AsType[*hostCallError](err); ok {
		return e.message
	}
	s := err.Error()
	s, stack, _ := strings.Cut(s, "\nwasm stack trace:\n")
	if i := strings.Index(s, " (recovered by wazero)"); i >= 0 {
		s = "a host function refused: " + s[:i]
	} else if i := strings.Index(s, "wasm error: "); i >= 0 {
		s = s[i+len("wasm error: "):]
	}
	stack, _, _ = strings.Cut(stack, "\n\n")
	if at := callers(stack, own); at != "" {
		s += " in " + at
	}
	return "it trapped: " + Shorten(Printable([]byte(s)), 2048)
}

// callers names the innermost functions of a stack trace.
func callers(stack string, own uint32) string {
	var names []string
	for line := range strings.SplitSeq(stack, "\n") {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "...") {
			continue
		}
		// ".name(i32,i32) i64", a module's name may stand before the dot.
		name := line
		if i := strings.LastIndexByte(name, ')'); i >= 0 {
			if j := strings.LastIndexByte(name[:i], '('); j >= 0 {
				name = name[:j]
			}
		}
		// A module is often named after its file.
		if i := strings.IndexByte(name, '.'); i >= 0 {
			name = strings.TrimPrefix(name[i+1:], "wasm.")
		}
		if name == entryName {
			continue
		}
		if number, ok := strings.CutPrefix(name, "$"); ok {
			if n, err := strconv.ParseUint(number, 10, 32); err == nil && uint32(n) >= own {
				continue
			}
			name = "function " + number
		}
		if names = append(names, Shorten(name, 120)); len(names) == 3 {
			break
		}
	}
	return strings.Join(names, ", called by ")
}
