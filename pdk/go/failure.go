package millrace

import (
	"fmt"
	"time"
)

// Failure is why a record is not processed. Any other error that a stage
// returns is a failure with code 1 and its own message.
type Failure struct {
	// Code is the author's own number for the case; 1 is that of the kit.
	Code uint32
	// Message is for the operator.
	Message string
	// Retry asks for the record again, after Delay and the flow's own backoff.
	Retry bool
	// Delay is in whole milliseconds; one below 0 is none.
	Delay time.Duration
}

func (f *Failure) Error() string { return f.Message }

// Fail fails the record: it goes where the flow's `otherwise` says, with this
// code and message.
//
//go:noinline
func Fail(code uint32, message string) error {
	return &Failure{Code: code, Message: message}
}

// Failf is Fail with a message made by fmt.Sprintf. In TinyGo fmt makes a plugin
// some 100 KB larger; "text " + strconv.Itoa(n) does not.
func Failf(code uint32, format string, args ...any) error {
	return Fail(code, fmt.Sprintf(format, args...))
}

// RetryAfter asks for the record to be tried again after the delay and the
// flow's own backoff.
//
//go:noinline
func RetryAfter(delay time.Duration, code uint32, message string) error {
	return &Failure{Code: code, Message: message, Retry: true, Delay: delay}
}

// failureOf is err as what the host is told. A Failure inside of err gives the
// code, and err the message.
func failureOf(err error) Failure {
	f := inside(err)
	if f == nil {
		return Failure{Code: 1, Message: err.Error()}
	}
	failure := *f
	failure.Message = err.Error()
	return failure
}

// inside is the first Failure in the tree of err, nil if there is none. It is
// errors.As without the 13 KB of reflection that this costs in TinyGo.
func inside(err error) *Failure {
	for err != nil {
		switch e := err.(type) {
		case *Failure:
			return e
		case interface{ Unwrap() error }:
			err = e.Unwrap()
		case interface{ Unwrap() []error }:
			for _, one := range e.Unwrap() {
				if f := inside(one); f != nil {
					return f
				}
			}
			return nil
		default:
			return nil
		}
	}
	return nil
}
