package daemon

import (
	"testing"
	"time"

	"github.com/millrace-io/millrace/runtime/flow"
)

// TestAttemptsOf: as many attempts are made in a test as a flow makes that
// always waits as long as it may.
func TestAttemptsOf(t *testing.T) {
	for _, tt := range []struct {
		name string
		in   *flow.Retry
		want int
	}{
		{"no bounds", nil, 0},
		{"no bounds but the pace", &flow.Retry{First: time.Second}, 0},
		{"attempts", &flow.Retry{Attempts: 5}, 5},
		{"time", &flow.Retry{First: time.Second, Max: time.Second, Within: 3 * time.Second}, 4},
		{"doubling", &flow.Retry{First: time.Second, Max: 8 * time.Second, Within: 15 * time.Second}, 5},
		{"both, attempts first", &flow.Retry{First: time.Second, Max: time.Second, Attempts: 2, Within: time.Hour}, 2},
		{"both, time first", &flow.Retry{First: time.Minute, Max: time.Minute, Attempts: 9, Within: 90 * time.Second}, 2},
		{"too short for a second one", &flow.Retry{First: time.Minute, Within: time.Second}, 1},
		{"more than are tried", &flow.Retry{First: time.Millisecond, Max: time.Millisecond, Within: time.Hour}, maxTestTries},
	} {
		if got := attemptsOf(tt.in); got != tt.want {
			t.Errorf("%s: got %d, want %d", tt.name, got, tt.want)
		}
	}
}
