package sandbox

import (
	"errors"
	"fmt"
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
	in.env.finish()
	text := in.env.trapText(err)
	_, exited := errors.AsType[*sys.ExitError](err)
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
	limit := bytesText(s.limit)
	text := fmt.Sprintf(format, args...)
	if asked > 0 {
		return record.Errorf(record.Memory, "%s, after it asked for %s of memory; the limit is %s", text, bytesText(int64(asked)), limit)
	}
	return record.Errorf(record.Memory, "%s; the limit is %s", text, limit)
}

// gaveUp is the failure of a call that answered 0.
func (in *instance) gaveUp() *record.Error {
	in.env.finish()
	if in.alloc.mem.refused > 0 {
		return in.memoryError("it gave the batch up")
	}
	text := "it gave the batch up (stage_batch answered 0)"
	if logged := in.env.lastLines(3); logged != "" {
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
	if logged := e.lastLines(3); logged != "" {
		text += "; it logged: " + logged
	}
	return text
}

func trapCause(err error) string {
	if e, ok := errors.AsType[*sys.ExitError](err); ok {
		return fmt.Sprintf("it ended itself with proc_exit(%d)", e.ExitCode())
	}
	if e, ok := errors.AsType[*hostCallError](err); ok {
		return e.message
	}
	s := err.Error()
	s, stack, _ := strings.Cut(s, "\nwasm stack trace:\n")
	if i := strings.Index(s, " (recovered by wazero)"); i >= 0 {
		s = "a host function refused its arguments: " + s[:i]
	} else if i := strings.Index(s, "wasm error: "); i >= 0 {
		s = s[i+len("wasm error: "):]
	}
	stack, _, _ = strings.Cut(stack, "\n\n")
	if at := callers(stack); at != "" {
		s += " in " + at
	}
	return "it trapped: " + s
}

// callers names the innermost functions of wazero's stack trace.
func callers(stack string) string {
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
		if i := strings.IndexByte(name, '.'); i >= 0 {
			name = name[i+1:]
		}
		if name == entryName {
			continue
		}
		if strings.HasPrefix(name, "$") {
			name = "function " + name[1:]
		}
		if len(name) > 120 {
			name = strings.ToValidUTF8(name[:120], "") + "..."
		}
		if names = append(names, name); len(names) == 3 {
			break
		}
	}
	return strings.Join(names, ", called by ")
}
