package devbroker

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/goleak"

	"github.com/millrace-io/millrace/runtime/connector/kafka"
	"github.com/millrace-io/millrace/runtime/record"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv("DEVBROKER_CHILD"); dir != "" {
		child(dir)
	}
	goleak.VerifyTestMain(m)
}

// child is a broker in a process of its own: it prints its address and waits
// to be killed.
func child(dir string) {
	b, err := Start(Config{Listen: os.Getenv("DEVBROKER_LISTEN"), Dir: dir})
	if err != nil {
		fmt.Println("error:", err)
		os.Exit(1)
	}
	fmt.Println(b.Addr())
	select {}
}

func client(t *testing.T, addr string, opts ...kgo.Opt) *kgo.Client {
	t.Helper()
	cl, err := kgo.NewClient(append([]kgo.Opt{
		kgo.SeedBrokers(addr),
		kgo.AllowAutoTopicCreation(),
		kgo.MetadataMinAge(50 * time.Millisecond),
		kgo.RetryBackoffFn(func(int) time.Duration { return 10 * time.Millisecond }),
	}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	return cl
}

func produce(t *testing.T, cl *kgo.Client, topic string, from, to int) {
	t.Helper()
	var recs []*kgo.Record
	for i := from; i < to; i++ {
		recs = append(recs, &kgo.Record{Topic: topic, Key: []byte("k"), Value: fmt.Append(nil, i)})
	}
	if err := cl.ProduceSync(t.Context(), recs...).FirstErr(); err != nil {
		t.Fatal(err)
	}
}

// values reads n values of a topic.
func values(t *testing.T, addr, topic string, n int) []string {
	t.Helper()
	cl := client(t, addr, kgo.ConsumeTopics(topic), kgo.FetchMaxWait(50*time.Millisecond))
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	var got []string
	for len(got) < n {
		fs := cl.PollFetches(ctx)
		if err := ctx.Err(); err != nil {
			t.Fatalf("read %d of %d values: %v", len(got), n, err)
		}
		fs.EachRecord(func(r *kgo.Record) { got = append(got, string(r.Value)) })
	}
	return got
}

func start(t *testing.T, cfg Config) *Broker {
	t.Helper()
	b, err := Start(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close() })
	return b
}

func TestMissingTopicIsMade(t *testing.T) {
	b := start(t, Config{})
	cl := client(t, b.Addr())
	produce(t, cl, "new", 0, 10)
	if got := len(values(t, b.Addr(), "new", 10)); got != 10 {
		t.Errorf("read %d records, want 10", got)
	}
	if leader, _, err := cl.PartitionLeader("new", 3); err != nil || leader < 0 {
		t.Errorf("partition 3: leader %d, %v; want 4 partitions", leader, err)
	}
	if leader, _, err := cl.PartitionLeader("new", 4); err == nil && leader >= 0 {
		t.Errorf("partition 4 exists; want 4 partitions")
	}
}

func TestKeepsDataOverClose(t *testing.T) {
	dir := t.TempDir()
	b := start(t, Config{Dir: dir})
	addr := b.Addr()
	produce(t, client(t, addr), "kept", 0, 100)
	for range 2 {
		if err := b.Close(); err != nil {
			t.Fatal(err)
		}
	}
	b = start(t, Config{Dir: dir, Listen: addr})
	if b.Addr() != addr {
		t.Errorf("listens on %s, want %s", b.Addr(), addr)
	}
	if got := values(t, addr, "kept", 100); got[0] != "0" || got[99] != "99" {
		t.Errorf("read %s to %s, want 0 to 99", got[0], got[99])
	}
}

// process is a broker in a process of its own.
type process struct {
	t    *testing.T
	dir  string
	addr string
	cmd  *exec.Cmd
}

func newProcess(t *testing.T) *process {
	p := &process{t: t, dir: t.TempDir(), addr: "127.0.0.1:0"}
	p.start()
	t.Cleanup(p.kill)
	return p
}

func (p *process) start() {
	p.t.Helper()
	p.cmd = exec.Command(os.Args[0], "-test.run=^$")
	p.cmd.Env = append(os.Environ(), "DEVBROKER_CHILD="+p.dir, "DEVBROKER_LISTEN="+p.addr)
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		p.t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil || strings.HasPrefix(line, "error") {
		p.t.Fatalf("child: %q, %v", line, err)
	}
	p.addr = strings.TrimSpace(line)
}

func (p *process) kill() {
	_ = p.cmd.Process.Kill()
	_ = p.cmd.Wait()
}

func TestKeepsDataOverKill(t *testing.T) {
	p := newProcess(t)
	cl := client(t, p.addr)
	const rounds, n = 3, 200
	for round := range rounds {
		produce(t, cl, "kept", round*n, (round+1)*n)
		p.kill()
		p.start()
	}
	seen := map[string]bool{}
	for _, v := range values(t, p.addr, "kept", rounds*n) {
		seen[v] = true
	}
	if len(seen) != rounds*n {
		t.Errorf("%d of %d acknowledged records are left", len(seen), rounds*n)
	}
}

// TestConnectorOverKills sends and reads through the Kafka connector while the
// broker is killed: nothing is lost, and first occurrences are in order.
func TestConnectorOverKills(t *testing.T) {
	p := newProcess(t)
	cfg := kafka.Config{Brokers: []string{p.addr}, MetadataMinAge: 50 * time.Millisecond, RetryBackoff: func(int) time.Duration { return 10 * time.Millisecond }}
	sink, err := kafka.NewSink(kafka.SinkConfig{Config: cfg, Topic: "t"})
	if err != nil {
		t.Fatal(err)
	}
	defer sink.Close()
	source, err := kafka.NewSource(kafka.SourceConfig{Config: cfg, Topics: []string{"t"}, CreateTopics: true})
	if err != nil {
		t.Fatal(err)
	}
	defer source.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	found, err := source.Partitions(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range found {
		source.Assign(f.Partition, 0)
	}
	const kills, batches, n = 4, 60, 50
	go func() {
		for i := range batches {
			recs := make([]record.Record, n)
			for j := range recs {
				recs[j] = record.Record{Key: []byte("k"), Value: fmt.Append(nil, i*n+j), To: -1}
			}
			var answered sync.WaitGroup
			answered.Add(n)
			sink.Deliver(ctx, recs, func(_ int, err error) {
				if err != nil {
					t.Errorf("deliver: %v", err)
				}
				answered.Done()
			})
			answered.Wait()
		}
	}()
	next, killed := 0, 0
	for next < batches*n {
		b, err := source.Poll(ctx)
		if err != nil {
			t.Fatalf("poll at %d of %d: %v", next, batches*n, err)
		}
		for _, r := range b.Records {
			i, err := strconv.Atoi(string(r.Value))
			if err != nil {
				t.Fatal(err)
			}
			if i > next {
				t.Fatalf("%d came where %d was to come", i, next)
			}
			next = max(next, i+1)
		}
		if killed < kills && next > (killed+1)*batches*n/(kills+1) {
			killed++
			p.kill()
			p.start()
		}
	}
	if killed != kills {
		t.Errorf("killed %d times, want %d", killed, kills)
	}
}

func TestRefusals(t *testing.T) {
	dir := t.TempDir()
	b := start(t, Config{Dir: dir})
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name string
		cfg  Config
		want string
	}{
		{"port in use", Config{Listen: b.Addr()}, "the port is in use: stop the other program, or choose another --listen"},
		{"folder in use", Config{Dir: dir}, fmt.Sprintf("is in use by the broker of process %d", os.Getpid())},
		{"folder is a file", Config{Dir: file}, "make its folder"},
		{"no port", Config{Listen: "localhost"}, "is not host:port"},
		{"all addresses", Config{Listen: "0.0.0.0:0"}, "names no host"},
		{"no host", Config{Listen: ":9092"}, "for example 127.0.0.1:9092"},
		{"no partitions", Config{Partitions: -1}, "-1 partitions"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b, err := Start(tc.cfg)
			if err == nil {
				_ = b.Close()
				t.Fatal("started")
			}
			if !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %q, want it to contain %q", err, tc.want)
			}
		})
	}
}
