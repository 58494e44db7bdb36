package sandbox

import (
	"errors"
	"fmt"

	"github.com/millrace-io/millrace/plugins/rewrite"
)

// Refusal says for which kind of reason a module is refused.
type Refusal string

// The kinds of refusals.
const (
	RefusedFormat   Refusal = "format"   // no WebAssembly, damaged, or a proposal that is not supported
	RefusedLimits   Refusal = "limits"   // too large to be compiled
	RefusedABI      Refusal = "abi"      // another version of the ABI, or its exports incomplete
	RefusedImport   Refusal = "import"   // an import that the host does not give
	RefusedMode     Refusal = "mode"     // no run mode that this host has
	RefusedMemory   Refusal = "memory"   // no memory, shared, or larger than allowed
	RefusedManifest Refusal = "manifest" // the manifest cannot be read
)

// RefusedError says why a plugin cannot run here and what its author can do.
type RefusedError struct {
	Kind Refusal
	// Reason is a sentence without the plugin's name; Advice the next step,
	// may be empty.
	Reason, Advice string
	// Err is the cause, may be nil.
	Err error
}

func (e *RefusedError) Error() string {
	if e.Advice == "" {
		return "plugin refused: " + e.Reason
	}
	return "plugin refused: " + e.Reason + "; " + e.Advice
}

func (e *RefusedError) Unwrap() error { return e.Err }

func refuse(kind Refusal, advice, format string, args ...any) *RefusedError {
	return &RefusedError{Kind: kind, Reason: fmt.Sprintf(format, args...), Advice: advice}
}

// refusedBy turns what package rewrite refuses into ours.
func refusedBy(e *rewrite.RefusedError) *RefusedError {
	kind := RefusedFormat
	switch e.Kind {
	case rewrite.SharedMemory:
		kind = RefusedMemory
	case rewrite.TooLarge:
		kind = RefusedLimits
	}
	reason := e.Reason
	switch {
	case e.Func >= 0 && e.Offset >= 0:
		reason += fmt.Sprintf(" (function %d, byte offset %#x)", e.Func, e.Offset)
	case e.Offset >= 0:
		reason += fmt.Sprintf(" (byte offset %#x)", e.Offset)
	}
	return &RefusedError{Kind: kind, Reason: reason, Advice: e.Advice, Err: e}
}

// ModeError reports that a plugin runs in a mode which is another package's.
type ModeError struct{ Mode string }

func (e *ModeError) Error() string { return "plugin: mode " + e.Mode + " is not the sandbox's" }

// InitError reports that a guest did not start: its stage_init answered a code
// other than 0, or one of its functions trapped before the first batch.
type InitError struct {
	Plugin string
	// Export is the function that did not work.
	Export string
	// Code that stage_init answered; 0 if it trapped.
	Code int32
	// Message is what the guest wrote to STDERR, or how it trapped.
	Message string
}

func (e *InitError) Error() string {
	if e.Code == 0 {
		return fmt.Sprintf("start plugin %s: %s: %s", e.Plugin, e.Export, e.Message)
	}
	s := fmt.Sprintf("start plugin %s: %s refused the configuration with code %d", e.Plugin, e.Export, e.Code)
	if e.Message == "" {
		return s + " and logged no reason"
	}
	return s + ": " + e.Message
}

// ErrClosed is returned for calls of a stage that was closed.
var ErrClosed = errors.New("the stage is closed")
