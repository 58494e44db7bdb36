package arena

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace-io/millrace/cmd/bench/contract"
	"github.com/millrace-io/millrace/examples/orders/orderstage"
)

const faultVar = "ARENA_TEST_FAULT"

// The test's own program is a contestant, too.
func TestMain(m *testing.M) {
	if fault, ok := os.LookupEnv(faultVar); ok {
		ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
		defer stop()
		if err := contend(ctx, fault); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// contend does the order stage, with a fault at the tenth record that comes
// out.
func contend(ctx context.Context, fault string) error {
	t, err := contract.FromEnviron()
	if err != nil {
		return err
	}
	cl, err := kgo.NewClient(kgo.SeedBrokers(t.Brokers...), kgo.ConsumeTopics(t.In), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.DefaultProduceTopic(t.Out))
	if err != nil {
		return err
	}
	defer cl.Close()
	n := 0
	for ctx.Err() == nil {
		var out []*kgo.Record
		cl.PollFetches(ctx).EachRecord(func(r *kgo.Record) {
			value, o := orderstage.Order(nil, r.Value)
			if o != orderstage.Emit {
				return
			}
			rec := &kgo.Record{Key: r.Key, Value: value}
			if n++; n == 10 {
				switch fault {
				case "exit":
					fmt.Fprintln(os.Stderr, "lost my way")
					os.Exit(7)
				case "byte":
					value[20]++
				case "lose and double":
					rec = out[len(out)-1]
				case "double":
					out = append(out, &kgo.Record{Key: r.Key, Value: value})
				}
			}
			out = append(out, rec)
		})
		if err := cl.ProduceSync(ctx, out...).FirstErr(); err != nil && ctx.Err() == nil {
			return err
		}
	}
	return nil
}

// The whole way on a real broker: a right contestant's figures and verdict, and
// each fault seen.
func TestCompete(t *testing.T) {
	if testing.Short() {
		t.Skip("skipped: starts a real broker")
	}
	ctx := t.Context()
	w, err := NewWorld(ctx, Kafka, "../../..", t.TempDir(), 3000, 2)
	if errors.Is(err, ErrNoBroker) && os.Getenv("CI") != "true" {
		t.Skip("skipped: ", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	me := func(name, fault string) Contestant {
		return Contestant{Name: name, Command: []string{os.Args[0]}, Env: []string{faultVar + "=" + fault}}
	}
	var log strings.Builder
	series, err := Compete(ctx, w, []Contestant{me("one", ""), me("two", "")}, 2, &log)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range series {
		if len(s.Rounds) != 2 || !s.Verdict.Right() || !s.Verdict.InOrder || !s.Verdict.Bytes {
			t.Errorf("%s: %d rounds, %s", s.Name, len(s.Rounds), s.Verdict)
		}
		for _, f := range s.Rounds {
			if f.PeakMiB < 1 {
				t.Errorf("%s: figures %+v", s.Name, f)
			}
		}
	}
	if n := strings.Count(log.String(), "same bytes, in order"); n != 2 {
		t.Errorf("the log names the verdict %d times, want 2: %s", n, &log)
	}
	for fault, want := range map[string]string{
		"byte":            "WRONG: 1 lost, 0 doubled, 1 foreign",
		"lose and double": "WRONG: 1 lost, 1 doubled, 0 foreign",
		"double":          "want exactly",
		"exit":            "lost my way",
	} {
		// The run that warms up is the right one's: the fault is met in round one.
		_, err := Compete(ctx, w, []Contestant{me("right", ""), me("wrong", fault)}, 1, io.Discard)
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "wrong") {
			t.Errorf("fault %q: got %v, want %q", fault, err, want)
		}
	}
}
