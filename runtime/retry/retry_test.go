package retry

import (
	"testing"
	"time"

	"github.com/millrace-io/millrace/runtime/record"
)

func TestDecide(t *testing.T) {
	const ms = time.Millisecond
	transient := record.Errorf(record.Retryable, "503")
	tests := []struct {
		name   string
		policy Policy
		f      Failure
		want   Decision
	}{
		{"first attempt waits First", Policy{}, Failure{Err: transient, Attempt: 1, Rand: 0.9}, Decision{Again, 100 * ms}},
		{"the ceiling doubles", Policy{}, Failure{Err: transient, Attempt: 3, Rand: 0.5}, Decision{Again, 250 * ms}},
		{"up to Max", Policy{Max: time.Second}, Failure{Err: transient, Attempt: 4_000_000_000, Rand: 1}, Decision{Again, time.Second}},
		{"First above Max", Policy{First: time.Minute, Max: time.Second}, Failure{Err: transient, Attempt: 2, Rand: 0.3}, Decision{Again, time.Second}},
		{"no end without limits", Policy{}, Failure{Err: transient, Attempt: 1000, Elapsed: 1000 * time.Hour}, Decision{Again, 100 * ms}},
		{"Retry-After wins", Policy{}, Failure{Err: &record.Error{Class: record.Retryable, RetryAfter: 7 * time.Second}, Attempt: 1}, Decision{Again, 7 * time.Second}},
		{"a shorter one does not", Policy{}, Failure{Err: &record.Error{Class: record.Retryable, RetryAfter: ms}, Attempt: 1}, Decision{Again, 100 * ms}},
		{"and is bounded", Policy{}, Failure{Err: &record.Error{Class: record.Retryable, RetryAfter: 1000 * time.Hour}, Attempt: 1}, Decision{Again, MaxRetryAfter}},
		{"timeouts are tried again", Policy{}, Failure{Err: record.Errorf(record.Timeout, "t"), Attempt: 1}, Decision{Again, 100 * ms}},
		{"attempts used up", Policy{Attempts: 3}, Failure{Err: transient, Attempt: 3}, Decision{Action: GiveUp}},
		{"one attempt left", Policy{Attempts: 3}, Failure{Err: transient, Attempt: 2}, Decision{Again, 100 * ms}},
		{"too old", Policy{Within: time.Second}, Failure{Err: transient, Attempt: 1, Elapsed: 950 * ms}, Decision{Action: GiveUp}},
		{"rejected", Policy{}, Failure{Err: record.Errorf(record.Rejected, "no"), Attempt: 1}, Decision{Action: GiveUp}},
		{"trap", Policy{}, Failure{Err: record.Errorf(record.Trap, "t"), Attempt: 1}, Decision{Action: GiveUp}},
		{"too large", Policy{}, Failure{Err: record.Errorf(record.TooLarge, "t"), Attempt: 1}, Decision{Action: GiveUp}},
		{"config pauses", Policy{}, Failure{Err: record.Errorf(record.Config, "401"), Attempt: 1}, Decision{Action: Pause}},
		{"internal pauses", Policy{}, Failure{Err: record.Errorf(record.Internal, "bug"), Attempt: 1}, Decision{Action: Pause}},
		{"fenced stops", Policy{}, Failure{Err: record.Errorf(record.Fenced, "epoch 3"), Attempt: 1}, Decision{Action: Stop}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := tt.policy.Decide(tt.f); got != tt.want {
				t.Errorf("got %+v, want %+v", got, tt.want)
			}
		})
	}
}
