package dev

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/millrace-io/millrace/cmd/internal/api"
	"github.com/millrace-io/millrace/cmd/internal/cli"
	"github.com/millrace-io/millrace/cmd/internal/devbroker"
	"github.com/millrace-io/millrace/plugins/manifest"
	"github.com/millrace-io/millrace/plugins/plugintest/guests"
)

// TestPortTaken: the next one is tried, unless an address was asked for.
func TestPortTaken(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, text, _ := net.SplitHostPort(l.Addr().String())
	port, _ := strconv.Atoi(text)
	var tried []string
	open := func(addr string) error { tried = append(tried, addr); return free(addr) }
	if err := eachPort("", port, open); err != nil || len(tried) != 1 || tried[0] == l.Addr().String() {
		t.Errorf("%v, tried %v", err, tried)
	}
	if err := eachPort(l.Addr().String(), port, open); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("an address that was asked for: %v", err)
	}
	broken := errors.New("broken")
	if err := eachPort("", port, func(string) error { return broken }); err != broken {
		t.Errorf("another error: %v", err)
	}

	e := cli.AsError(Run(t.Context(), Config{Project: newFake(t), Listen: l.Addr().String(), Broker: "127.0.0.1:0"}))
	if e.Exit != cli.ExitUnreachable || !strings.Contains(e.Detail, "listen at "+l.Addr().String()) || e.Next == "" {
		t.Errorf("node: %+v", e)
	}
	e = cli.AsError(Run(t.Context(), Config{Project: newFake(t), Listen: "127.0.0.1:0", Broker: l.Addr().String()}))
	if e.Exit != cli.ExitUnreachable || !strings.Contains(e.Detail, "the port is in use") {
		t.Errorf("broker: %+v", e)
	}
	e = cli.AsError(Run(t.Context(), Config{Project: newFake(t), Listen: "0.0.0.0:0", Broker: "127.0.0.1:0"}))
	if e.Exit != cli.ExitInvalid {
		t.Errorf("an address for everybody: %+v", e)
	}
}

func TestRateRefused(t *testing.T) {
	for _, rate := range []float64{-1, MaxRate + 1} {
		if e := cli.AsError(Run(t.Context(), Config{Project: newFake(t), Rate: rate})); e.Exit != cli.ExitInvalid || !strings.Contains(e.Detail, fmt.Sprintf("--rate %g", rate)) {
			t.Errorf("%g: %+v", rate, e)
		}
	}
}

func TestDevVersion(t *testing.T) {
	for s, want := range map[string]string{
		"1.2.0": "1.2.0-dev", "1.2.0-dev": "1.2.0-dev", "1.2.0-x-dev": "1.2.0-x-dev", "1.2.0-rc.1": "1.2.0-rc.1-dev",
		"0.0.0": "0.0.0", "0.0.0+ab": "0.0.0+ab", "1.2.0+ab": "1.2.0-dev+ab", "0.1.0": "0.1.0-dev", "": "",
	} {
		if got := devVersion(s); got != want {
			t.Errorf("%q: got %q, want %q", s, got, want)
		}
	}
}

func TestDeveloped(t *testing.T) {
	plain := guests.Version('p')
	if got, err := developed(plain); err != nil || string(got) != string(plain) {
		t.Errorf("a module without a manifest is changed, or %v", err)
	}
	want := manifest.Manifest{ABI: 1, Name: "a/b", Version: "2.0.0", Outputs: []string{"default", "x"}, Config: []byte(`{"type":"object"}`), MemoryMB: 7, FuelPerRecord: 9}
	wasm, err := manifest.Append(plain, &want)
	if err != nil {
		t.Fatal(err)
	}
	if wasm, err = developed(wasm); err != nil {
		t.Fatal(err)
	}
	section, err := manifest.Find(wasm)
	if err != nil {
		t.Fatal(err)
	}
	got, err := manifest.Parse(section)
	if err != nil {
		t.Fatal(err)
	}
	want.Version = "2.0.0-dev"
	if fmt.Sprintf("%+v", *got) != fmt.Sprintf("%+v", want) {
		t.Errorf("got  %+v\nwant %+v", *got, want)
	}
}

// watched is a watcher on a project.
func watched(t *testing.T, f *fake) *watcher {
	t.Helper()
	w, err := newWatcher(f.dir, f.Sources)
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { defer close(ended); w.run(t.Context(), t.Logf) }()
	t.Cleanup(func() { <-ended }) // the test's context ends before
	return w
}

func TestWatch(t *testing.T) {
	f := newFake(t)
	f.write(t, "Cargo.lock", "1")
	w := watched(t, f)
	saved := func(want ...string) {
		t.Helper()
		var got []string
		deadline := time.After(20 * time.Second)
		for !slices.Equal(got, want) {
			select {
			case s := <-w.saves:
				if s.at.IsZero() || time.Since(s.at) > 10*time.Second {
					t.Errorf("saved at %s", s.at)
				}
				got = append(got, s.files...)
				slices.Sort(got)
				got = slices.Compact(got)
			case <-deadline:
				t.Fatalf("saved %v, want %v", got, want)
			}
		}
	}
	f.write(t, "src/stage", "n")
	saved("src/stage")
	// A module of the author's that is called like a folder of a toolchain.
	if err := os.MkdirAll(filepath.Join(f.dir, "src", "target"), 0o755); err != nil {
		t.Fatal(err)
	}
	f.write(t, "src/target/part", "1")
	saved("src/target/part")

	// An editor that writes beside the file and renames.
	f.write(t, "src/stage.swp", "x")
	f.write(t, "src/new~", "longer than before")
	if err := os.Rename(filepath.Join(f.dir, "src", "new~"), filepath.Join(f.dir, "src", "stage")); err != nil {
		t.Fatal(err)
	}
	saved("src/stage")

	// What toolchains, authors of prose and this program write.
	for _, name := range []string{"Cargo.lock", "README.md", "testdata/in.ndjson", "build/mask.wasm", ".millrace/node"} {
		f.write(t, name, "other than before")
	}
	// A new folder, and one in it.
	f.write(t, "src/deep/er/part", "1")
	saved("src/deep/er/part")
	f.write(t, "src/deep/er/part", "22")
	saved("src/deep/er/part")
	// A folder that stays empty for a while.
	if err := os.MkdirAll(filepath.Join(f.dir, "src", "empty"), 0o755); err != nil {
		t.Fatal(err)
	}
	f.write(t, "src/stage", "longer still than before")
	saved("src/stage")
	f.write(t, "src/empty/part", "1")
	saved("src/empty/part")
	if err := os.RemoveAll(filepath.Join(f.dir, "src", "deep")); err != nil {
		t.Fatal(err)
	}
	saved("src/deep/er/part")
}

// TestSavesAreJoined: a save that nobody took is in the next one.
func TestSavesAreJoined(t *testing.T) {
	w := &watcher{saves: make(chan save, 1)}
	w.put(save{files: []string{"a", "b"}})
	w.put(save{files: []string{"b", "c"}})
	if s := <-w.saves; !slices.Equal(union(s.files, nil), []string{"a", "b", "c"}) {
		t.Errorf("got %v", s.files)
	}
}

// TestFeed: files in turn, without empty lines, again and again; what they hold
// by then counts, and one that cannot be read is said once.
func TestFeed(t *testing.T) {
	f := newFake(t)
	b, err := devbroker.Start(devbroker.Config{Partitions: 1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close() })
	said := make(chan string, 100) // more than are said
	feed, err := newFeeder(filepath.Join(f.dir, "testdata"), b.Addr(), "in", 1e-3, func(format string, args ...any) { said <- fmt.Sprintf(format, args...) })
	if err != nil {
		t.Fatal(err)
	}
	f.write(t, "testdata/in.ndjson", "1\n\n2\n")
	f.write(t, "testdata/next.ndjson", "3")
	f.write(t, "testdata/other.json", "no")
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { defer close(ended); feed.run(ctx) }()
	want := func(want ...string) {
		t.Helper()
		for n := range want {
			feed.now <- struct{}{}
			if got := values(t, b.Addr(), "in", n+1); !slices.Equal(got, want[:n+1]) {
				t.Fatalf("got %v, want %v", got, want[:n+1])
			}
		}
	}
	want("1", "2", "3", "1", "2")
	cancel()
	<-ended

	none := &feeder{dir: t.TempDir(), rate: 1e-3, sink: feed.sink, now: make(chan struct{}), say: t.Logf}
	ctx, cancel = context.WithCancel(t.Context())
	ended = make(chan struct{})
	go func() { defer close(ended); none.run(ctx) }()
	for range 3 { // it waits for its turn though there is nothing
		none.now <- struct{}{}
	}
	cancel()
	<-ended
	if len(said) > 0 {
		t.Errorf("said %s", <-said)
	}
	f.write(t, "testdata/long.ndjson", strings.Repeat("x", maxLine+1))
	if err := feed.file(filepath.Join(f.dir, "testdata", "long.ndjson"), func([]byte) bool { return true }); err == nil || !strings.Contains(err.Error(), "longer than 1 MiB") {
		t.Errorf("a long line: %v", err)
	}
}

// TestFeedOfOddFolders: a folder may be called like a pattern, and what is no
// file is not waited for.
func TestFeedOfOddFolders(t *testing.T) {
	f := &feeder{dir: filepath.Join(t.TempDir(), "[work", "*")}
	if got := f.files(); len(got) != 0 {
		t.Errorf("no folder: got %v", got)
	}
	if err := os.MkdirAll(filepath.Join(f.dir, "folder.ndjson"), 0o755); err != nil {
		t.Fatal(err)
	}
	want := []string{filepath.Join(f.dir, "a.ndjson"), filepath.Join(f.dir, "b.ndjson")}
	for _, path := range append(want, filepath.Join(f.dir, "c.json")) {
		if err := os.WriteFile(path, nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if got := f.files(); !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

// TestTail: the end of a compiler's words is shown in whole lines.
func TestTail(t *testing.T) {
	w := &tail{}
	for i := range 10_000 {
		fmt.Fprintf(w, "line %d\n", i)
	}
	if got, want := string(w.lines()), "line 9940\n"; !strings.HasPrefix(got, want) || !strings.HasSuffix(got, "line 9999\n") || strings.Count(got, "\n") != tailLines {
		t.Errorf("got %q", got)
	}
	w = &tail{}
	fmt.Fprint(w, "first\n", strings.Repeat("x", 2*tailBytes), "\nlast")
	if got := string(w.lines()); got != "last\n" {
		t.Errorf("got %d bytes, %q", len(got), got[:min(20, len(got))])
	}
	if got := (&tail{}).lines(); got != nil {
		t.Errorf("nothing was said: %q", got)
	}
}

func TestNeedsBuild(t *testing.T) {
	for _, tc := range []struct {
		files []string
		want  bool
	}{{[]string{"flow.yaml", "mask.test.yaml"}, false}, {[]string{"flow.yaml", "src/lib.rs"}, true}} {
		if got := needsBuild(tc.files); got != tc.want {
			t.Errorf("%v: %t", tc.files, got)
		}
	}
}

// TestFlowOfTheProject: its Kafka connections are the dev broker, its stages
// are named, its document is taken up when it is saved, and what a delivery
// does not take is shown.
func TestFlowOfTheProject(t *testing.T) {
	f := newFake(t)
	document := func(extra string) string {
		return "flow: v1\nname: orders\nsource: kafka://main/orders\nstages:\n  - id: mask\n    map: ./build/mask.wasm\n" + extra + "  - id: deliver\n    push: kafka://main/orders-out\n"
	}
	f.write(t, "flow.yaml", document(""))
	f.write(t, "connection.yaml", "connection: v1\nname: main\nkafka: { brokers: [10.0.0.5:9092] }\n")
	f.write(t, "src/stage", "n")
	r := start(t, Config{Project: f, Ephemeral: true})
	r.next(&r.err, "connection main is the dev broker here")
	r.next(&r.err, "runs in flow orders")
	r.next(&r.err, "to topic orders")
	r.next(&r.out, "0  {id:1} - note")

	f.write(t, "flow.yaml", document("  - id: keep\n    filter: value.id == 2\n"))
	r.next(&r.err, "saved flow.yaml")
	r.next(&r.err, "runs in flow orders")
	r.next(&r.out, "mask  {id:1} - note")
	r.next(&r.out, "keep  {id:1} dropped")
	r.next(&r.out, "keep  {id:2} = unchanged")
	builds, _ := f.counts()

	f.write(t, "flow.yaml", document("  - id: keep\n    flter: value.id == 2\n"))
	r.next(&r.err, "E_LINT")
	r.next(&r.err, "the old version goes on")
	if again, _ := f.counts(); again != builds {
		t.Errorf("%d builds for documents", again-builds)
	}
	r.end()
}

func TestFindFlow(t *testing.T) {
	f := newFake(t)
	want := func(want, problem string) {
		t.Helper()
		got, err := findFlow(f.dir)
		if want != "" {
			want = filepath.Join(f.dir, want)
		}
		if got != want || (err == nil) != (problem == "") || err != nil && !strings.Contains(err.Error(), problem) {
			t.Errorf("got %q, %v; want %q and %q", got, err, want, problem)
		}
	}
	f.write(t, "mask.test.yaml", "test: v1\n")
	f.write(t, "connection.yaml", "connection: v1\nname: main\nkafka: { brokers: [10.0.0.5:9092] }\n")
	want("", "")
	f.write(t, "orders.yaml", "flow: v1\nname: orders\n")
	want("orders.yaml", "")
	f.write(t, "other.yml", "flow: v1\nname: other\n")
	want("", "several flows: orders.yaml, other.yml")
	f.write(t, "flow.yaml", "flow: v1\nname: third\n")
	want("flow.yaml", "")
}

// TestDeliveryFailures: what fails in a delivery is shown too, and that the
// delivery is a real one is said.
func TestDeliveryFailures(t *testing.T) {
	partner := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusUnprocessableEntity) }))
	defer partner.Close()
	f := newFake(t)
	f.write(t, "flow.yaml", "flow: v1\nname: orders\nsource: kafka://dev/in\nstages:\n  - map: ./build/mask.wasm\n  - id: deliver\n    push: "+partner.URL+"/orders\n")
	r := start(t, Config{Project: f, Ephemeral: true})
	r.next(&r.err, partner.URL+" is not the dev broker: the flow uses it as it is")
	r.next(&r.out, "{id:1} failed in deliver: rejected (422): ")
	r.end()
}

func TestStanding(t *testing.T) {
	for want, f := range map[string]*api.Flow{
		"":                        {State: api.StateRunning},
		"does not get on: broken": {State: api.StateRunning, Problem: "broken"},
		"is paused":               {State: api.StatePaused},
		"is auto_paused: full":    {State: api.StateAutoPaused, Reason: "full"},
	} {
		if got := standing(f); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}
