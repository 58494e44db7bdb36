package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/millrace-io/millrace/cmd/internal/api"
)

// Exit codes.
const (
	ExitOK          = 0
	ExitFailed      = 1
	ExitInvalid     = 2 // usage, or invalid input
	ExitUnreachable = 3 // no daemon, or the environment
	ExitFindings    = 4 // tests failed, records failed, drift
	ExitCancelled   = 5 // at a question
	ExitInterrupted = 130
)

// Codes of errors that arise in flowctl itself; those of a node are package
// api's.
const (
	CodeUsage       = api.CodeUsage
	CodeFile        = "E_FILE"
	CodeLint        = "E_LINT"
	CodePlugin      = "E_PLUGIN_NOT_FOUND"
	CodeUnreachable = api.CodeUnreachable
	CodeTimeout     = api.CodeTimeout
	CodeFailed      = "E_FAILED"
	CodeRecords     = "E_RECORDS_FAILED"
	CodeConnection  = "E_CONNECTION_FAILED"
	CodeInterrupted = "E_INTERRUPTED"
)

// Error is an error as the user sees it.
type Error struct {
	// Exit is the program's exit code.
	Exit int `json:"exit"`
	// Code is language-neutral and stable: E_...
	Code string `json:"code"`
	// Detail is a sentence: the target and the cause. Next is the next step.
	Detail string `json:"detail"`
	Next   string `json:"next,omitempty"`
	// Problems are the linter's.
	Problems []api.Problem `json:"problems,omitempty"`
	// Err is the cause, may be nil.
	Err error `json:"-"`
}

func (e *Error) Error() string { return e.Detail }
func (e *Error) Unwrap() error { return e.Err }

// Usage is an error in how the program was called.
func Usage(next, format string, args ...any) *Error {
	return &Error{Exit: ExitInvalid, Code: CodeUsage, Detail: fmt.Sprintf(format, args...), Next: next}
}

// AsError turns any error into one that can be shown: the one place where
// errors get their exit codes.
func AsError(err error) *Error {
	if e, ok := errors.AsType[*Error](err); ok {
		return e
	}
	if e, ok := errors.AsType[*api.Error](err); ok {
		return &Error{Exit: exitOf(e.Code), Code: e.Code, Detail: e.Detail, Next: e.Next, Problems: e.Problems, Err: err}
	}
	if errors.Is(err, context.Canceled) {
		return &Error{Exit: ExitInterrupted, Code: CodeInterrupted, Detail: "interrupted", Err: err}
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return &Error{Exit: ExitFailed, Code: CodeTimeout, Detail: err.Error(), Err: err}
	}
	return &Error{Exit: ExitFailed, Code: CodeFailed, Detail: err.Error(), Err: err}
}

// exitOf is the exit code of an error code of package api.
func exitOf(code string) int {
	switch code {
	case api.CodeInvalid, api.CodeRefused, api.CodeTooLarge, api.CodeUsage:
		return ExitInvalid
	case api.CodeUnavailable, CodeUnreachable:
		return ExitUnreachable
	}
	return ExitFailed
}

// Print writes the error: the linter's problems, `CODE: sentence`, and
// `next: step`; or, with asJSON, one JSON object in a line.
func (e *Error) Print(w io.Writer, asJSON bool) {
	if asJSON {
		enc := json.NewEncoder(w)
		enc.SetEscapeHTML(false)
		_ = enc.Encode(e)
		return
	}
	PrintProblems(w, e.Problems)
	fmt.Fprintf(w, "%s: %s\n", e.Code, sentence(e.Detail))
	if e.Next != "" {
		fmt.Fprintf(w, "next: %s\n", sentence(e.Next))
	}
}

// PrintProblems writes the linter's problems, an empty line behind each.
func PrintProblems(w io.Writer, problems []api.Problem) {
	for _, p := range problems {
		fmt.Fprintf(w, "%s\n\n", strings.TrimRight(p.Rendered, "\n"))
	}
}

// sentence is a text in as few lines as it has, each safe for a terminal.
func sentence(s string) string {
	lines := strings.Split(strings.TrimRight(s, "\n"), "\n")
	for i := range lines {
		lines[i] = Safe(lines[i])
	}
	return strings.Join(lines, "\n  ")
}
