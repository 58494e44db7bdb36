package connector

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/millrace-io/millrace/runtime/record"
)

func TestParseStart(t *testing.T) {
	day := time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)
	for _, tc := range []struct {
		in, out string
		want    Start
	}{
		{"", "earliest", Start{}},
		{"earliest", "earliest", Start{}},
		{"latest", "latest", Start{Latest: true}},
		{"2026-11-01T00:00:00Z", "2026-11-01T00:00:00Z", Start{Time: day}},
		{"2026-11-01T08:00:00+08:00", "2026-11-01T00:00:00Z", Start{Time: day}},
	} {
		got, err := ParseStart(tc.in)
		if err != nil || got.Latest != tc.want.Latest || !got.Time.Equal(tc.want.Time) || got.String() != tc.out {
			t.Errorf("%q: got %s, %v, want %s", tc.in, got, err, tc.out)
		}
	}
	for _, in := range []string{"first", "2026-11-01", "1700000000"} {
		if got, err := ParseStart(in); err == nil || !strings.Contains(err.Error(), "earliest, latest or a time like") {
			t.Errorf("%q: got %s, %v", in, got, err)
		}
	}
}

func TestPartitionError(t *testing.T) {
	cause := errors.New("why")
	err := error(&PartitionError{Partition: record.Partition{Topic: "t", Num: 3}, Err: record.Errorf(record.Config, "broken: %w", cause)})
	if !errors.Is(err, cause) || record.AsError(err).Class != record.Config {
		t.Errorf("%v does not lead to its cause and class", err)
	}
	if want := "t/3: config: broken: why"; err.Error() != want {
		t.Errorf("got %q, want %q", err, want)
	}
}
