package kafka

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace-io/millrace/runtime/connector"
	"github.com/millrace-io/millrace/runtime/record"
)

// A broker that for a moment knows nothing of a topic, as one that has just
// started, ends nothing.
func TestTopicIsMissingForAMoment(t *testing.T) {
	t.Run("in what Partitions asks", func(t *testing.T) {
		c := cluster(t, kfake.SeedTopics(2, "in"))
		s := source(t, c, "in")
		found(t, s)
		c.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Metadata}, Topic: "in", Err: kerr.UnknownTopicOrPartition, Count: 1})
		if fs := found(t, s); len(fs) != 2 {
			t.Errorf("found %v, want two partitions", fs)
		}
	})
	t.Run("in a fetch", func(t *testing.T) {
		c := cluster(t, kfake.SeedTopics(1, "in"))
		fill(t, c, "in", 0, numbers(10))
		s := source(t, c, "in")
		s.patience = time.Minute
		found(t, s)
		s.Assign(in0, 0)
		drain(t, s, in0, 10)
		fetches := c.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Fetch}, Topic: "in", Err: kerr.UnknownTopicID, Count: -1})
		fill(t, c, "in", 0, numbers(5))
		answers := c.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Metadata}, Topic: "in", Err: kerr.UnknownTopicOrPartition, Count: -1})
		var healed sync.WaitGroup
		healed.Go(func() {
			eventually(t, "the source to ask", func() bool {
				s.mu.Lock()
				defer s.mu.Unlock()
				return s.inquiries["in"] != nil
			})
			fetches.Remove()
			answers.Remove()
		})
		recs := drain(t, s, in0, 15)
		healed.Wait()
		if len(recs) != 5 || recs[0].Offset != 10 {
			t.Errorf("%d records after it, want 5", len(recs))
		}
	})
	t.Run("in what Start asks", func(t *testing.T) {
		c := cluster(t, kfake.SeedTopics(1, "in"))
		s := source(t, c, "in")
		found(t, s)
		c.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.ListOffsets}, Topic: "in", Err: kerr.UnknownTopicOrPartition, Count: -1})
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		if _, err := s.Start(ctx, in0, connector.Start{}); err == nil || !record.AsError(err).Class.Transient() {
			t.Errorf("got %v, want an error that is tried again", err)
		}
	})
}

// One partition is asked about, for long; the others are read meanwhile.
func TestOthersGoOnDuringAnInquiry(t *testing.T) {
	c := cluster(t, kfake.SeedTopics(1, "in", "other"))
	fill(t, c, "in", 0, numbers(10))
	s := source(t, c, "in", "other")
	s.patience = 10 * time.Minute
	found(t, s)
	s.Assign(in0, 50) // behind the end, which is asked again and again
	other := record.Partition{Topic: "other"}
	s.Assign(other, 0)
	for i := range 5 {
		fill(t, c, "other", 0, numbers(10))
		drain(t, s, other, int64(10*(i+1)))
	}
	s.mu.Lock()
	asking := s.inquiries["in"] != nil
	s.mu.Unlock()
	if !asking {
		t.Errorf("nothing is asked of the partition that cannot be fetched")
	}
	began := time.Now()
	if err := s.Close(); err != nil || time.Since(began) > 5*time.Second {
		t.Errorf("close during an inquiry: %v after %s", err, time.Since(began))
	}
}

func TestPattern(t *testing.T) {
	c := cluster(t, kfake.SeedTopics(1, "orders-a", "orders-b", "my-orders-a", "orders-a.old", "__orders-x"))
	s, err := NewSource(SourceConfig{Config: config(c), Pattern: `orders-[a-z]|__.*|nothing`})
	if err != nil {
		t.Fatal(err)
	}
	s.patience = 300 * time.Millisecond
	defer s.Close()
	if got := topicsFound(t, s); !slices.Equal(got, []string{"orders-a", "orders-b"}) {
		t.Fatalf("found %v, want whole names, and no internal ones", got)
	}
	if err := c.CreateTopic("orders-c", 1, nil); err != nil {
		t.Fatal(err)
	}
	if got := topicsFound(t, s); !slices.Equal(got, []string{"orders-a", "orders-b", "orders-c"}) {
		t.Fatalf("found %v, want the new one, too", got)
	}
	if err := c.DeleteTopic("orders-b"); err != nil {
		t.Fatal(err)
	}
	_, err = s.Partitions(bounded(t))
	wants(t, err, `topic "orders-b" (id `, "was deleted")
}

func TestPatternThatNothingMatches(t *testing.T) {
	c := cluster(t, kfake.SeedTopics(1, "in"))
	s, err := NewSource(SourceConfig{Config: config(c), Pattern: "orders-.*"})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	fs, err := s.Partitions(bounded(t))
	if len(fs) > 0 || !errors.Is(err, connector.ErrNoTopic) || record.AsError(err).Class != record.Retryable ||
		!strings.HasSuffix(err.Error(), "matches the pattern orders-.*: make one, or correct the flow's source") {
		t.Errorf("found %v, %v, want that no topic matches", fs, err)
	}
}

func TestKnownTopics(t *testing.T) {
	c := cluster(t, kfake.AllowAutoTopicCreation(), kfake.SeedTopics(1, "in"))
	id := c.TopicInfo("in").TopicID
	open := func(known map[string][16]byte) *Source {
		s, err := NewSource(SourceConfig{Config: config(c), Topics: []string{"in"}, CreateTopics: true, Known: known})
		if err != nil {
			t.Fatal(err)
		}
		s.patience = 300 * time.Millisecond
		t.Cleanup(func() { _ = s.Close() })
		return s
	}
	found(t, open(map[string][16]byte{"in": id, "another": {1}}))
	_, err := open(map[string][16]byte{"in": {1}}).Partitions(bounded(t))
	wants(t, err, `topic "in" was deleted and made anew`, topicID([16]byte{1}), topicID(id))
	if err := c.DeleteTopic("in"); err != nil {
		t.Fatal(err)
	}
	_, err = open(map[string][16]byte{"in": id}).Partitions(bounded(t))
	wants(t, err, `topic "in" (id `+topicID(id)+`) was deleted`)
	if c.TopicInfo("in") != nil {
		t.Errorf("a topic that was deleted is made again")
	}
}

func TestOutOfRangePolicies(t *testing.T) {
	c := cluster(t, kfake.SeedTopics(1, "in"))
	fill(t, c, "in", 0, numbers(100))
	if err := c.DeleteRecords("in", 0, 60); err != nil {
		t.Fatal(err)
	}
	for policy, want := range map[OutOfRange]string{OutOfRangeEarliest: "50-60", OutOfRangeLatest: "50-100"} {
		told := make(chan string, 10)
		s, err := NewSource(SourceConfig{Config: config(c), Topics: []string{"in"}, OutOfRange: policy,
			OnSkip: func(p record.Partition, from, to int64) { told <- fmt.Sprintf("%d-%d", from, to) }})
		if err != nil {
			t.Fatal(err)
		}
		s.Assign(in0, 50)
		recs := drain(t, s, in0, 100)
		if n := map[OutOfRange]int{OutOfRangeEarliest: 40}[policy]; len(recs) != n {
			t.Errorf("%s: %d records, want %d", policy, len(recs), n)
		}
		if got := <-told; got != want {
			t.Errorf("%s: told of %s, want %s", policy, got, want)
		}
		if err := s.Close(); err != nil || len(told) > 0 {
			t.Errorf("%s: close: %v; told %d times more", policy, err, len(told))
		}
	}
}

// What a paused partition holds is neither lost nor repeated by an error that
// meant nothing.
func TestErrorWhileRecordsAreHeld(t *testing.T) {
	c := cluster(t, kfake.SeedTopics(2, "in"))
	fill(t, c, "in", 0, numbers(10))
	s := source(t, c, "in")
	found(t, s)
	in1 := record.Partition{Topic: "in", Num: 1}
	s.Assign(in0, 0)
	s.Pause(in0)
	s.Assign(in1, 0)
	// Polls for the other partition bring those of the paused one along.
	next := int64(0)
	more := func(what string, done func(*part) bool) {
		t.Helper()
		eventually(t, what, func() bool {
			fill(t, c, "in", 1, numbers(1))
			next++
			drain(t, s, in1, next)
			s.mu.Lock()
			defer s.mu.Unlock()
			return done(s.parts[in0])
		})
	}
	more("records to be held", func(pt *part) bool { return len(pt.held) == 10 })
	c.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Fetch}, Topic: "in", Partitions: []int32{0}, Err: kerr.OffsetOutOfRange})
	fill(t, c, "in", 0, numbers(5))
	more("an error that meant nothing, and what came after it", func(pt *part) bool { return len(pt.held) >= 15 })
	s.Unassign(in1)
	s.Resume(in0)
	recs := drain(t, s, in0, 15)
	for i, rec := range recs {
		if rec.Offset != int64(i) {
			t.Fatalf("record %d has offset %d", i, rec.Offset)
		}
	}
	if len(recs) != 15 {
		t.Errorf("%d records, want 15", len(recs))
	}
}

func TestEndOfWhatCanBeTold(t *testing.T) {
	for _, how := range []string{"a partition without an answer", "a broker without an answer"} {
		t.Run(how, func(t *testing.T) {
			c := cluster(t, kfake.NumBrokers(2), kfake.SeedTopics(1, "in", "other"))
			for i, topic := range []string{"in", "other"} {
				if err := c.MoveTopicPartition(topic, 0, int32(i)); err != nil {
					t.Fatal(err)
				}
			}
			fill(t, c, "in", 0, numbers(10))
			s := source(t, c, "in", "other")
			s.Assign(in0, 0)
			s.Assign(record.Partition{Topic: "other"}, 0)
			if how == "a broker without an answer" {
				c.ControlKey(int16(kmsg.ListOffsets), func(kmsg.Request) (kmsg.Response, error, bool) {
					c.KeepControl()
					return nil, errors.New("away"), c.CurrentNode() == 1
				})
			} else {
				c.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.ListOffsets}, Topic: "other", Err: kerr.OffsetNotAvailable, Count: -1})
			}
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			ends, err := s.End(ctx)
			if err != nil || len(ends) != 1 || ends[in0] != 10 {
				t.Errorf("got %v, %v, want the end of the partition that can be told", ends, err)
			}
		})
	}
}

func TestUnknownTopic(t *testing.T) {
	c := cluster(t, kfake.SeedTopics(1, "in"))
	fill(t, c, "in", 0, numbers(3))
	s := source(t, c, "nowhere", "in")
	fs, err := s.Partitions(bounded(t))
	if e := record.AsError(err); e == nil || e.Class != record.Retryable || !errors.Is(err, connector.ErrNoTopic) ||
		!strings.Contains(e.Message, `topic "nowhere" does not exist at 127.0.0.1:`) || !strings.Contains(e.Message, "make it, or correct the flow's source") {
		t.Errorf("got %v, want that the topic is not there, of class retryable", err)
	}
	if len(fs) != 1 || fs[0].Partition != in0 {
		t.Errorf("found %v, want the partition of the topic that is there", fs)
	}
	if err := c.CreateTopic("nowhere", 2, nil); err != nil {
		t.Fatal(err)
	}
	if fs := found(t, s); len(fs) != 3 {
		t.Errorf("found %v once both topics are there, want three partitions", fs)
	}
}

func TestTopicIsMade(t *testing.T) {
	c := cluster(t, kfake.AllowAutoTopicCreation(), kfake.DefaultNumPartitions(4))
	s, err := NewSource(SourceConfig{Config: config(c), Topics: []string{"new"}, CreateTopics: true})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if fs := found(t, s); len(fs) != 4 {
		t.Errorf("found %v, want four partitions", fs)
	}
}

func TestTopicMadeAnew(t *testing.T) {
	for _, how := range []string{"while it is read", "noticed by Partitions", "between two sources of one position"} {
		t.Run(how, func(t *testing.T) {
			c := cluster(t, kfake.SeedTopics(2, "in"))
			fill(t, c, "in", 0, numbers(10))
			s := source(t, c, "in")
			id := found(t, s)[0].TopicID
			p1 := record.Partition{Topic: "in", Num: 1}
			if how != "between two sources of one position" {
				s.Assign(in0, 0)
				s.Assign(p1, 0)
				drain(t, s, in0, 10)
			}
			if err := c.DeleteTopic("in"); err != nil {
				t.Fatal(err)
			}
			if err := c.CreateTopic("in", 2, nil); err != nil {
				t.Fatal(err)
			}
			fill(t, c, "in", 0, numbers(20))
			now := c.TopicInfo("in").TopicID
			parts := []string{`topic "in" was deleted and made anew`, topicID(id), topicID(now), "delete the flow"}

			if how == "noticed by Partitions" {
				_, err := s.Partitions(bounded(t))
				wants(t, err, parts...)
				return
			}
			if how == "between two sources of one position" {
				s.Assign(in0, 10)
				s.Assign(p1, 0)
			}
			failed := map[record.Partition]bool{}
			for range 2 {
				err := failure(t, s)
				wants(t, err, parts...)
				failed[err.Partition] = true
			}
			if !failed[in0] || !failed[p1] {
				t.Errorf("errors of %v, want one of each partition", failed)
			}
			if fs := found(t, s); fs[0].TopicID != now {
				t.Errorf("after the errors the topic's id is %x, want %x", fs[0].TopicID, now)
			}
			s.Assign(in0, 0)
			if recs := drain(t, s, in0, 20); len(recs) != 20 {
				t.Errorf("%d records of the new topic, want 20", len(recs))
			}
		})
	}
}

func TestTopicDeleted(t *testing.T) {
	c := cluster(t, kfake.SeedTopics(1, "in"))
	fill(t, c, "in", 0, numbers(10))
	s := source(t, c, "in")
	id := found(t, s)[0].TopicID
	s.Assign(in0, 0)
	drain(t, s, in0, 10)
	if err := c.DeleteTopic("in"); err != nil {
		t.Fatal(err)
	}
	_, err := s.Partitions(bounded(t))
	wants(t, err, `topic "in" (id `+topicID(id)+`) was deleted`)
	wants(t, failure(t, s), `topic "in" (id `+topicID(id)+`) was deleted`)
}

func TestPositionOutsideTheLog(t *testing.T) {
	c := cluster(t, kfake.SeedTopics(1, "in"))
	fill(t, c, "in", 0, numbers(100))
	if err := c.DeleteRecords("in", 0, 60); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		at         int64
		want, next string
	}{
		{50, "position 50 is no longer in the log, which begins at 60 and ends at 100: 10 records were deleted before they were read", "go on without them: `flowctl flow offsets reset FLOW --to in/0=60`"},
		{150, "position 150 is behind the end of the log, which begins at 60 and ends at 100: the log was cut off", "`flowctl flow offsets reset FLOW --to in/0=100`"},
	} {
		s := source(t, c, "in")
		s.Assign(in0, tc.at)
		err := failure(t, s)
		wants(t, err, tc.want, tc.next, "then `flowctl flow start FLOW`")
		if err.Partition != in0 {
			t.Errorf("error of %v, want %v", err.Partition, in0)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		if b, err := s.Poll(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("poll after the error: %v, %v", b, err)
		}
		cancel()
		s.Assign(in0, 60)
		if recs := drain(t, s, in0, 100); len(recs) != 40 {
			t.Errorf("%d records after the position was set anew, want 40", len(recs))
		}
	}
}
