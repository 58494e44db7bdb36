package state

import (
	"errors"
	"fmt"
)

// RefusalCode says why a command was refused. It is an error itself, so that
// errors.Is(err, state.NotFound) works on what Propose returns.
type RefusalCode uint8

const (
	// Invalid: the command contradicts itself or the state.
	Invalid RefusalCode = 1 + iota
	// NotFound: what it names does not exist.
	NotFound
	// RevisionMismatch: the flow has another revision than IfMatch says.
	RevisionMismatch
	// QueueNotEmpty: the flow's failure queue holds entries, or records of it
	// wait for another attempt.
	QueueNotEmpty
	// InUse: a flow uses what was to be deleted.
	InUse
	// Exists: the same name and version is stored with other bytes.
	Exists
	// TooMany: a bound of the cluster is reached.
	TooMany
	// StaleIncarnation: a newer life of the node is known.
	StaleIncarnation
	// NotPaused: the flow runs, and must not.
	NotPaused
	// GenerationMismatch: the flow's offsets were reset meanwhile.
	GenerationMismatch
	// StateMismatch: the flow was paused or resumed meanwhile.
	StateMismatch
)

var refusalNames = [...]string{"", "invalid", "not found", "revision mismatch", "queue not empty", "in use", "exists", "too many", "stale incarnation", "not paused", "generation mismatch", "state mismatch"}

func (c RefusalCode) Error() string {
	if int(c) < len(refusalNames) && c > 0 {
		return refusalNames[c]
	}
	return fmt.Sprintf("refusal(%d)", uint8(c))
}

// Refusal is the state machine's answer to a command that changed nothing. All
// replicas refuse alike.
type Refusal struct {
	Code    RefusalCode
	Message string
}

func (e *Refusal) Error() string { return e.Message }
func (e *Refusal) Unwrap() error { return e.Code }

func refuse(code RefusalCode, format string, args ...any) error {
	return &Refusal{code, fmt.Sprintf(format, args...)}
}

// ErrClosed is returned by a Store after Close.
var ErrClosed = errors.New("state is closed")

// FailedError reports that the database failed under the store. What was not
// yet synced may be lost; nothing more is written. End the process: a restart
// recovers from the log.
type FailedError struct{ Err error }

func (e *FailedError) Error() string { return "write state: " + e.Err.Error() }
func (e *FailedError) Unwrap() error { return e.Err }
