package ingest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/millrace-io/millrace/runtime/connector"
	"github.com/millrace-io/millrace/runtime/record"
)

func TestStopsGiveUp(t *testing.T) {
	for name, stop := range map[string]func(s *Source){
		"unassign":     func(s *Source) { s.Unassign(Partition) },
		"close":        func(s *Source) { _ = s.Close() },
		"assign again": func(s *Source) { s.Assign(Partition, 0) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := open(t, Config{})
				polled := send(t, s, post("1", "x"))
				old := poll(t, s)[0]
				queued := send(t, s, post("2", "x"))
				waiting(t, queued)
				stop(s)
				for _, c := range []<-chan reply{polled, queued} {
					if got := <-c; got.status != 503 || got.err.Code != CodeUnavailable || got.header.Get("Retry-After") != "5" {
						t.Errorf("got %+v", got)
					}
				}
				empty(t, s)
				if name == "close" {
					if got := serve(t, s, post("1", "x")); got.status != 503 {
						t.Errorf("after Close: %+v", got)
					}
					return
				}
				if name == "unassign" {
					if got := serve(t, s, post("1", "x")); got.status != 503 {
						t.Errorf("after Unassign: %+v", got)
					}
					s.Assign(Partition, 0)
				}
				again := send(t, s, post("1", "x"))
				rec := poll(t, s)[0]
				if rec.ID() != old.ID() || rec.Offset <= old.Offset {
					t.Errorf("repeated: %s at %d, was %s at %d", rec.ID(), rec.Offset, old.ID(), old.Offset)
				}
				s.Settled(Partition, old.Offset, record.Delivered) // of the assignment before
				waiting(t, again)
				s.Settled(Partition, rec.Offset, record.Delivered)
				if got := <-again; got.status != 200 || got.answer.Repeated {
					t.Errorf("got %+v", got)
				}
			})
		})
	}
}

func TestOffsetsRise(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		now := time.UnixMicro(1_800_000_000_000_000)
		next := func(s *Source) int64 {
			t.Helper()
			b, err := s.Poll(t.Context())
			if err != nil || len(b.Records) != 0 {
				t.Fatalf("the first batch has %d records, %v", len(b.Records), err)
			}
			ends, _ := s.End(t.Context())
			send(t, s, post("", "x"))
			if rec := poll(t, s)[0]; rec.Offset != b.Next || ends[Partition] != b.Next {
				t.Fatalf("first offset %d, the position was %d, the end %d", rec.Offset, b.Next, ends[Partition])
			}
			return b.Next
		}
		s := open(t, Config{Now: func() time.Time { return now }})
		if got := next(s); got != now.UnixMicro() {
			t.Errorf("first life: %d", got)
		}
		for i := range 3 {
			send(t, s, post("", "x"))
			if got := poll(t, s)[0].Offset; got != now.UnixMicro()+1+int64(i) {
				t.Errorf("offset %d", got)
			}
		}
		s.Assign(Partition, 0)
		if got := next(s); got != now.UnixMicro()+4 {
			t.Errorf("assigned again: %d", got)
		}
		committed := now.UnixMicro() + 2
		now = now.Add(-time.Hour)
		later, err := New(Config{Now: func() time.Time { return now }})
		if err != nil {
			t.Fatal(err)
		}
		defer later.Close()
		later.Above(committed + 7)
		later.Assign(Partition, committed)
		if got := next(later); got != committed+7 {
			t.Errorf("after the clock was set back: %d, want %d", got, committed+7)
		}
	})
}

func TestPoll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, err := New(Config{})
		if err != nil {
			t.Fatal(err)
		}
		if found, err := s.Partitions(t.Context()); err != nil || len(found) != 1 || found[0].Partition != Partition {
			t.Errorf("partitions %v, %v", found, err)
		}
		none(t, s) // not assigned
		s.Assign(Partition, 0)
		s.Pause(Partition)
		c := send(t, s, post("1", "x"))
		none(t, s)
		s.Resume(Partition)
		rec := poll(t, s)[0]
		s.Settled(Partition, rec.Offset, record.Delivered)
		<-c

		for i := range 900 {
			send(t, s, post(fmt.Sprint("many-", i), "x"))
		}
		synctest.Wait()
		if recs := poll(t, s); len(recs) != 900 {
			t.Errorf("a batch of %d, want all that is there", len(recs))
		}

		ended := make(chan error, 1)
		ctx, cancel := context.WithCancel(t.Context())
		go func() { _, err := s.Poll(ctx); ended <- err }()
		synctest.Wait()
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("poll ended with %v", err)
		}
		go func() { _, err := s.Poll(t.Context()); ended <- err }()
		synctest.Wait()
		for range 2 {
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
		}
		if err := <-ended; !errors.Is(err, connector.ErrClosed) {
			t.Errorf("poll ended with %v", err)
		}
	})
}

func TestRememberedOverLives(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t, Config{Durable: true})
		all := func(int64) bool { return true }
		delivered := send(t, s, post("delivered", "x"))
		rec := poll(t, s)[0]
		if got := s.Settling(func(offset int64) bool { return offset < rec.Offset }); len(got) != 0 {
			t.Errorf("lent below the watermark: %v", got)
		}
		s.Settled(Partition, rec.Offset, record.Delivered)
		<-delivered
		send(t, s, post("", "x")) // nobody can repeat it
		s.Settled(Partition, poll(t, s)[0].Offset, record.Delivered)
		// Its entry is in the commit that covers it; Settled follows the commit.
		filed := send(t, s, post("filed", "x"))
		at := poll(t, s)[0].Offset
		lent := s.Settling(all)
		var refs []string
		for _, r := range lent {
			refs = append(refs, r.Ref)
		}
		slices.Sort(refs)
		if !slices.Equal(refs, []string{"delivered", "filed"}) {
			t.Fatalf("lent %v", refs)
		}
		if got := s.Settling(all); len(got) != 2 {
			t.Errorf("lent again before it is saved: %v", got)
		}
		s.Saved(lent)
		waiting(t, filed)
		if got := s.Settling(all); len(got) != 0 {
			t.Errorf("lent after it was saved: %v", got)
		}
		s.Settled(Partition, at, record.Filed)
		<-filed
		if got := s.Settling(all); len(got) != 0 {
			t.Errorf("lent after it was saved and settled: %v", got)
		}

		next, err := New(Config{Durable: true})
		if err != nil {
			t.Fatal(err)
		}
		defer next.Close()
		next.Remember(lent)
		next.Assign(Partition, 0)
		for _, key := range refs {
			if got := serve(t, next, post(key, "x")); got.status != 200 || got.answer != (Answer{ID: "ingest/0/" + key, Repeated: true}) {
				t.Errorf("%s in the next life: %+v", key, got)
			}
			if got := serve(t, next, post(key, "y")); got.status != 422 {
				t.Errorf("%s with another body in the next life: %+v", key, got)
			}
		}
		none(t, next)
	})
}

func TestSavedButNotSettled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t, Config{Durable: true})
		c := send(t, s, post("k", "x"))
		poll(t, s)
		s.Saved(s.Settling(func(int64) bool { return true }))
		s.Unassign(Partition)
		if got := <-c; got.status != 200 || got.answer != (Answer{ID: "ingest/0/k"}) {
			t.Errorf("its commit is known, and the answer is %+v", got)
		}
		s.Assign(Partition, 0)
		if got := serve(t, s, post("k", "x")); got.status != 200 || !got.answer.Repeated {
			t.Errorf("repeated: %+v", got)
		}
		none(t, s)
		empty(t, s)
	})
}

func TestFaultyConfig(t *testing.T) {
	_, err := New(Config{Body: MaxBody + 1, Wait: -1})
	if err == nil || !strings.Contains(err.Error(), strconv.Itoa(MaxBody+1)+" bytes") || !strings.Contains(err.Error(), "negative") {
		t.Errorf("got %v", err)
	}
}
