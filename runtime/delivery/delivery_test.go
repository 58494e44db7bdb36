package delivery

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/millrace-io/millrace/runtime/record"
	"github.com/millrace-io/millrace/runtime/retry"
)

func records(n int) []record.Record {
	recs := make([]record.Record, n)
	for i := range recs {
		recs[i] = record.Record{Topic: "t", Offset: int64(i)}
	}
	return recs
}

// answers collects what done was called with, once an index.
type answers map[int]error

func (a answers) done(t *testing.T) func(int, error) {
	return func(i int, err error) {
		if _, twice := a[i]; twice {
			t.Errorf("index %d was answered twice", i)
		}
		a[i] = err
	}
}

// fullSink takes nothing until it is mended, and refuses offset 1 for good.
type fullSink struct {
	mended time.Time
	got    []int64
}

func (s *fullSink) Problem() string { return "" }
func (s *fullSink) Close() error    { return nil }
func (s *fullSink) Deliver(ctx context.Context, recs []record.Record, done func(int, error)) {
	for i := range recs {
		switch {
		case ctx.Err() != nil:
			done(i, fmt.Errorf("write: %w", context.Canceled))
		case recs[i].Offset == 1:
			done(i, record.Errorf(record.Schema, "two lines"))
		case time.Now().Before(s.mended):
			done(i, record.Errorf(record.Retryable, "no space left on device"))
		default:
			s.got = append(s.got, recs[i].Offset)
			done(i, nil)
		}
	}
}

func TestPatientWaitsForASinkThatIsFull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &fullSink{mended: time.Now().Add(10 * time.Minute)}
		recs, got := records(4), answers{}
		NewPatient(s, retry.Policy{}).Deliver(t.Context(), recs, got.done(t))
		if !slices.Equal(s.got, []int64{0, 2, 3}) || len(got) != 4 || got[0] != nil || record.AsError(got[1]).Class != record.Schema {
			t.Errorf("written %v, answers %v", s.got, got)
		}
		if recs[1].Attempt != 1 || recs[3].Attempt < 10 {
			t.Errorf("attempts %d and %d", recs[1].Attempt, recs[3].Attempt)
		}

		s.mended = time.Now().Add(time.Hour)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		got = answers{}
		NewPatient(s, retry.Policy{}).Deliver(ctx, records(1), got.done(t))
		if !errors.Is(got[0], context.Canceled) {
			t.Errorf("after a soft stop: %v", got[0])
		}
		got = answers{}
		NewPatient(s, retry.Policy{Attempts: 3}).Deliver(t.Context(), records(1), got.done(t))
		if e := record.AsError(got[0]); e == nil || e.Class != record.Retryable {
			t.Errorf("after the last attempt: %v", got[0])
		}
	})
}
