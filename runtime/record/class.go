package record

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Class says what kind of failure befell a record. The set is closed; names
// and numbers are part of stored entries and never change.
type Class uint8

const (
	// Internal is a fault of ours. It pauses the flow.
	Internal Class = iota
	// Retryable failures go away by themselves: a sink that is down, a
	// partner's 429 or 5xx, a guest's "retry later".
	Retryable
	// Timeout is an answer that did not come in time; it is tried again.
	Timeout
	// Rejected: a guest's "fail", or a partner's final no.
	Rejected
	// Schema: the record is not of the form an expression or contract needs.
	Schema
	// Trap: the guest crashed on the record.
	Trap
	// Fuel: the guest used more than its budget on the record.
	Fuel
	// Memory: the guest needed more memory than its limit for the record.
	Memory
	// Protocol: the guest's answer broke the ABI.
	Protocol
	// TooLarge: the record exceeds what a stage or a sink takes.
	TooLarge
	// Config: the flow cannot work as configured (401, unknown topic,
	// missing secret). It pauses the flow.
	Config
	// Fenced: the partition has another owner. It stops the lane.
	Fenced
	numClasses
)

var classNames = [numClasses]string{"internal", "retryable", "timeout", "rejected", "schema", "trap", "fuel", "memory", "protocol", "too_large", "config", "fenced"}

func (c Class) String() string {
	if c < numClasses {
		return classNames[c]
	}
	return fmt.Sprintf("class(%d)", uint8(c))
}

// Valid reports whether c is one of the closed set.
func (c Class) Valid() bool { return c < numClasses }

// ParseClass reads a class's name.
func ParseClass(s string) (Class, error) {
	for c, name := range classNames {
		if s == name {
			return Class(c), nil
		}
	}
	return 0, fmt.Errorf("parse class %q: unknown; the classes are %v", s, classNames[:])
}

// MarshalText writes the class's name.
func (c Class) MarshalText() ([]byte, error) {
	if !c.Valid() {
		return nil, fmt.Errorf("marshal class: %d is not a class", uint8(c))
	}
	return []byte(c.String()), nil
}

// UnmarshalText reads the class's name.
func (c *Class) UnmarshalText(b []byte) error {
	v, err := ParseClass(string(b))
	*c = v
	return err
}

// Transient reports whether failures of the class are tried again as they are.
func (c Class) Transient() bool { return c == Retryable || c == Timeout }

// PausesFlow reports whether a failure of the class says that the flow cannot
// work, rather than that one record cannot go on.
func (c Class) PausesFlow() bool { return c == Config || c == Internal }

// Error is a classified failure. Everything that can happen to a record is
// turned into one at the border where it happens.
type Error struct {
	Class Class
	// Code is the guest's own code or the HTTP status; 0 if there is none.
	Code uint32
	// Message is one sentence, or the guest's own message.
	Message string
	// RetryAfter is how long the other side asked us to wait; 0: not said.
	RetryAfter time.Duration
	// Err is the cause, may be nil.
	Err error
	// Call is that of the plugin that signs or validates which failed, if one
	// did.
	Call *Call
}

func (e *Error) Error() string {
	s := e.Class.String()
	if e.Code != 0 {
		s += fmt.Sprintf(" (%d)", e.Code)
	}
	switch {
	case e.Message != "":
		return s + ": " + e.Message
	case e.Err != nil:
		return s + ": " + e.Err.Error()
	}
	return s
}

func (e *Error) Unwrap() error { return e.Err }

// Errorf makes an Error of a class. A %w in the format is kept as the cause.
func Errorf(c Class, format string, args ...any) *Error {
	err := fmt.Errorf(format, args...)
	return &Error{Class: c, Message: err.Error(), Err: errors.Unwrap(err)}
}

// AsError returns the Error in err's chain, or wraps err: a deadline as class
// timeout, all else as internal. It returns nil for nil.
func AsError(err error) *Error {
	if err == nil {
		return nil
	}
	if e, ok := errors.AsType[*Error](err); ok {
		return e
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return &Error{Class: Timeout, Message: err.Error(), Err: err}
	}
	return &Error{Class: Internal, Message: err.Error(), Err: err}
}
