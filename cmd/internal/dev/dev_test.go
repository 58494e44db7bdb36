package dev

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/goleak"

	"github.com/millrace-io/millrace/cmd/internal/api"
	"github.com/millrace-io/millrace/cmd/internal/cli"
	"github.com/millrace-io/millrace/plugins/manifest"
	"github.com/millrace-io/millrace/plugins/plugintest/guests"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fake is a project whose only source is a letter, src/stage: what the guest
// does. Its compiler refuses "!", and works on "?" until it is stopped. Its
// test fails if src/test or mask.test.yaml says so.
type fake struct {
	dir string
	// name of the plugin; version of it, may be empty.
	name, version string

	mu      sync.Mutex
	builds  int // guarded by mu
	stopped int // guarded by mu; builds that were stopped
}

func newFake(t *testing.T) *fake {
	t.Helper()
	f := &fake{dir: t.TempDir(), name: "mask", version: "1.2.0"}
	f.write(t, "src/stage", "p")
	f.write(t, "testdata/in.ndjson", `{"id":1,"amount":10.005,"note":"a"}`+"\n\n"+`{"id":2,"amount":3,"note":"b"}`+"\n")
	return f
}

func (f *fake) write(t *testing.T, name, content string) {
	t.Helper()
	path := filepath.Join(f.dir, filepath.FromSlash(name))
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

func (f *fake) Folder() string   { return f.dir }
func (f *fake) Describe() string { return "mask (letters)" }

func (f *fake) Sources() (files []string, err error) {
	err = filepath.WalkDir(f.dir, func(path string, d os.DirEntry, err error) error {
		if err == nil && d.IsDir() && (d.Name() == stateDir || d.Name() == "build") {
			return filepath.SkipDir
		}
		if err == nil && !d.IsDir() {
			files = append(files, path)
		}
		return err
	})
	return files, err
}

func (f *fake) counts() (builds, stopped int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.builds, f.stopped
}

func (f *fake) Build(ctx context.Context, log io.Writer) (*Module, error) {
	f.mu.Lock()
	f.builds++
	name, version := f.name, f.version
	f.mu.Unlock()
	b, err := os.ReadFile(filepath.Join(f.dir, "src", "stage"))
	if err != nil {
		return nil, err
	}
	fmt.Fprintf(log, "compiling %q\n", b)
	switch letter := strings.TrimSpace(string(b)); letter {
	case "!":
		return nil, &cli.Error{Exit: cli.ExitFailed, Code: "E_BUILD", Detail: "src/stage:1: no such letter", Next: "mend it"}
	case "?":
		<-ctx.Done()
		f.mu.Lock()
		f.stopped++
		f.mu.Unlock()
		return nil, ctx.Err()
	default:
		wasm := guests.Version(letter[0])
		if name != "" {
			if wasm, err = manifest.Append(wasm, &manifest.Manifest{ABI: 1, Name: name, Version: version, Deterministic: true}); err != nil {
				return nil, err
			}
		}
		return &Module{Path: filepath.Join(f.dir, "build", "mask.wasm"), Name: name, Wasm: wasm}, nil
	}
}

func (f *fake) Test(context.Context, *Module) (string, error) {
	for _, name := range []string{"src/test", "mask.test.yaml"} {
		if b, _ := os.ReadFile(filepath.Join(f.dir, filepath.FromSlash(name))); strings.TrimSpace(string(b)) == "fail" {
			return "", &cli.Error{Exit: cli.ExitFindings, Code: CodeTests, Detail: "1 of 1 test failed: amounts"}
		}
	}
	return "1 test passed", nil
}

// screen is what a session writes.
type screen struct {
	mu  sync.Mutex
	buf bytes.Buffer // guarded by mu
}

func (s *screen) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.buf.Write(b)
}

func (s *screen) text() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.buf.String()
}

// running is a session under test.
type running struct {
	t        *testing.T
	out, err screen
	stop     context.CancelFunc
	ended    chan error
	seen     map[*screen]int // up to where each screen was searched
	patience time.Duration
}

func start(t *testing.T, cfg Config) *running {
	t.Helper()
	r := &running{t: t, ended: make(chan error, 1), seen: map[*screen]int{}, patience: patience}
	cfg.Stdout, cfg.Stderr = &r.out, &r.err
	if cfg.Listen == "" {
		cfg.Listen = "127.0.0.1:0"
	}
	if cfg.Broker == "" {
		cfg.Broker = "127.0.0.1:0"
	}
	if cfg.Rate == 0 {
		cfg.Rate = 50
	}
	ctx, cancel := context.WithCancel(context.Background())
	r.stop = cancel
	go func() { r.ended <- Run(ctx, cfg) }()
	t.Cleanup(func() {
		cancel()
		if t.Failed() {
			t.Logf("stderr:\n%s\nstdout:\n%s", r.err.text(), cli.Shorten(r.out.text(), 4000))
		}
	})
	return r
}

// next waits for a text behind what was waited for before.
func (r *running) next(s *screen, want string) {
	r.t.Helper()
	pollFor(r.t, r.patience, "the text "+want, func() bool {
		at := strings.Index(s.text()[r.seen[s]:], want)
		if at < 0 {
			return false
		}
		r.seen[s] += at + len(want)
		return true
	})
}

// end stops the session as Ctrl-C does.
func (r *running) end() {
	r.t.Helper()
	r.stop()
	select {
	case err := <-r.ended:
		if err != nil {
			r.t.Errorf("ended with %v", err)
		}
	case <-time.After(patience):
		r.t.Fatal("it does not end")
	}
}

// patience is how long a test waits for what it must see.
const patience = time.Minute

func poll(t *testing.T, what string, cond func() bool) {
	t.Helper()
	pollFor(t, patience, what, cond)
}

func pollFor(t *testing.T, limit time.Duration, what string, cond func() bool) {
	t.Helper()
	deadline := time.After(limit)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !cond() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

// values reads n values of a topic.
func values(t *testing.T, broker, topic string, n int) []string {
	t.Helper()
	cl, err := kgo.NewClient(kgo.SeedBrokers(broker), kgo.ConsumeTopics(topic), kgo.FetchMaxWait(50*time.Millisecond), kgo.MetadataMinAge(50*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	var got []string
	for len(got) < n {
		fs := cl.PollFetches(ctx)
		if ctx.Err() != nil {
			t.Fatalf("read %d of %d values of %s", len(got), n, topic)
		}
		fs.EachRecord(func(r *kgo.Record) { got = append(got, string(r.Value)) })
	}
	return got
}

func firstLine(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	line, _, _ := strings.Cut(string(b), "\n")
	return line
}

// TestDevelop: from the first build over versions that replace one another
// while records flow, builds and tests that fail, to Ctrl-C, with the topics
// as proof that no record was lost or came twice.
func TestDevelop(t *testing.T) {
	f := newFake(t)
	r := start(t, Config{Project: f})
	r.next(&r.err, "mask@1.2.0-dev")
	if line, _, _ := strings.Cut(r.err.text(), "\n"); line != "development node, no TLS, no tokens" {
		t.Errorf("the first line is %q", line)
	}
	r.next(&r.out, "0  {id:1} = unchanged\n1  {id:2} = unchanged\n2  {id:1}")

	f.write(t, "src/stage", "n")
	r.next(&r.err, "saved src/stage")
	r.next(&r.err, "1 test passed")
	r.next(&r.err, "after the save")
	r.next(&r.err, "first record through")
	r.next(&r.out, "{id:1} - note\n")

	f.write(t, "src/stage", "!")
	r.next(&r.err, "compiling \"!\"\nE_BUILD: src/stage:1: no such letter\nnext: correct it and save: it is built again by itself\nthe old version goes on")
	r.next(&r.out, "- note")

	f.write(t, "src/stage", "r")
	f.write(t, "src/test", "fail")
	r.next(&r.err, "E_TESTS_FAILED: 1 of 1 test failed: amounts\nthe old version goes on")
	r.next(&r.out, "- note")
	f.write(t, "src/test", "pass")
	r.next(&r.err, "first record through")
	r.next(&r.out, "{id:1} ~ amount 10.005 -> 10.01\n")
	f.write(t, "src/stage", "f")
	r.next(&r.err, "first record through")
	r.next(&r.out, "07  {id:2} failed: rejected (7): not today")
	r.next(&r.out, "67  {id:2}") // 1.2 s later: the failure queue was looked at
	if strings.Contains(r.out.text(), "failed in") {
		t.Error("a failure of a stage is told twice")
	}

	state := filepath.Join(f.dir, stateDir)
	broker := firstLine(t, filepath.Join(state, brokerFile))
	client := api.NewClient("http://" + firstLine(t, filepath.Join(state, nodeFile)))
	flow, err := client.Flow(t.Context(), "default", "mask")
	if err != nil {
		t.Fatal(err)
	}
	if got := len(flow.Stages); got != 2 || flow.Stages[0].Plugin != "mask@1.2.0-dev" {
		t.Errorf("flow %+v", flow.Stages)
	}
	revs, err := client.Revisions(t.Context(), "default", "mask")
	if err != nil || len(revs) != 4 {
		t.Errorf("%d revisions, %v; want 4: p, n, r, f", len(revs), err)
	}
	var read, delivered, filed int64
	poll(t, "records that are all settled", func() bool {
		flow, err := client.Flow(t.Context(), "default", "mask")
		if err != nil {
			t.Fatal(err)
		}
		read, delivered, filed = flow.Receipt.Read, flow.Receipt.Delivered, flow.Receipt.Filed
		return delivered >= 50 && filed > 0
	})
	in, out := values(t, broker, sourceTopic, int(read)), values(t, broker, sinkTopic, int(delivered))
	ids := func(vs []string) (ids []byte) {
		for _, v := range vs[:min(len(vs), 200)] {
			ids = append(ids, v[6])
		}
		return ids
	}
	// The feed alternates between the two records; the seventh of each hundred
	// may have failed.
	if got := ids(in); bytes.Contains(got, []byte("11")) || bytes.Contains(got, []byte("22")) {
		t.Errorf("the feed sent %s", got)
	}
	if doubles := bytes.Count(ids(out), []byte("11")) + bytes.Count(ids(out), []byte("22")); int64(doubles) > filed {
		t.Errorf("%d gaps or repetitions in the output, %d records failed: %s", doubles, filed, ids(out))
	}

	r.end()
	r.next(&r.err, "stopping the node")
	for _, name := range []string{nodeFile, brokerFile} {
		if _, err := os.Stat(filepath.Join(state, name)); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s is left: %v", name, err)
		}
	}
}

// TestSaveWhileBuilding: the compiler is stopped, and started with what is
// newer.
func TestSaveWhileBuilding(t *testing.T) {
	f := newFake(t)
	f.write(t, "src/stage", "?")
	r := start(t, Config{Project: f, NoFeed: true, Ephemeral: true})
	poll(t, "the first build", func() bool { n, _ := f.counts(); return n == 1 })
	f.write(t, "src/other", "x")
	poll(t, "the second build", func() bool { n, stopped := f.counts(); return n == 2 && stopped == 1 })
	f.write(t, "src/stage", "p")
	r.next(&r.err, "saved src/other, src/stage")
	r.next(&r.err, "mask@1.2.0-dev")
	if n, stopped := f.counts(); n != 3 || stopped != 2 {
		t.Errorf("%d builds, %d of them stopped, want 3 and 2", n, stopped)
	}
	r.end()
}

// TestStoppedWhileBuilding: Ctrl-C does not wait for the compiler.
func TestStoppedWhileBuilding(t *testing.T) {
	f := newFake(t)
	f.write(t, "src/stage", "?")
	r := start(t, Config{Project: f, Ephemeral: true})
	poll(t, "the first build", func() bool { n, _ := f.counts(); return n == 1 })
	r.end()
}

// TestNothingRunsYet: a first build that fails is said, and the next save makes
// the flow.
func TestNothingRunsYet(t *testing.T) {
	f := newFake(t)
	f.write(t, "src/stage", "!")
	r := start(t, Config{Project: f, Ephemeral: true})
	r.next(&r.err, "E_BUILD")
	r.next(&r.err, "nothing runs yet; save a change to try again")
	f.write(t, "src/stage", "x")
	r.next(&r.out, "0  {id:1} -> 2 records\n     0: = unchanged\n     1: = unchanged\n")
	r.end()
}

// TestTestsAreCorrected: a module that failed its tests is deployed once its
// tests are corrected, without another build.
func TestTestsAreCorrected(t *testing.T) {
	f := newFake(t)
	r := start(t, Config{Project: f, Ephemeral: true})
	r.next(&r.out, "= unchanged")
	f.write(t, "mask.test.yaml", "fail")
	r.next(&r.err, "E_TESTS_FAILED")
	f.write(t, "src/stage", "n")
	r.next(&r.err, "saved src/stage")
	r.next(&r.err, "E_TESTS_FAILED")
	builds, _ := f.counts()
	f.write(t, "mask.test.yaml", "pass")
	r.next(&r.err, "1 test passed")
	r.next(&r.err, "first record through")
	r.next(&r.out, "- note")
	if n, _ := f.counts(); n != builds {
		t.Errorf("%d more builds", n-builds)
	}
	// What is not built yet is built with any save.
	f.write(t, "src/stage", "!")
	r.next(&r.err, "E_BUILD")
	f.write(t, "mask.test.yaml", "passes")
	r.next(&r.err, "E_BUILD")
	r.end()
}

// TestFirstRecordAtOnce: after a swap the feed does not wait for its turn.
func TestFirstRecordAtOnce(t *testing.T) {
	f := newFake(t)
	r := start(t, Config{Project: f, Ephemeral: true, Rate: 1e-3})
	r.next(&r.out, "0  {id:1} = unchanged")
	f.write(t, "src/stage", "n")
	r.next(&r.err, "first record through")
	r.next(&r.out, "1  {id:2} - note")
	r.end()
}

// TestSameBytes: a save that changes nothing swaps nothing.
func TestSameBytes(t *testing.T) {
	f := newFake(t)
	r := start(t, Config{Project: f, Ephemeral: true})
	r.next(&r.out, "= unchanged")
	f.write(t, "src/stage", "p\n")
	r.next(&r.err, "the same bytes as before: nothing to swap")
	r.end()
}
