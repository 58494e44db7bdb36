//go:build linux

package exampletest

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/millrace-io/millrace/cmd/internal/api"
	"github.com/millrace-io/millrace/cmd/internal/page"
	"github.com/millrace-io/millrace/runtime/record"

	// A change of the programs is a change of this test: its results are not
	// to be taken from the test cache.
	_ "github.com/millrace-io/millrace/cmd/internal/flowd"
)

// programs is the folder of the binaries.
var programs string

func TestMain(m *testing.M) {
	os.Exit(func() int {
		var err error
		if programs, err = os.MkdirTemp("", "exampletest-"); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(programs)
		return m.Run()
	}())
}

var build = sync.OnceValue(func() error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "go", "build", "-o", programs+string(filepath.Separator), "github.com/millrace-io/millrace/cmd/flowd", "github.com/millrace-io/millrace/cmd/flowctl")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go build: %w\n%s", err, out)
	}
	return nil
})

// walk is a user's way through an example: a copy of it with ports and folders
// of its own.
type walk struct {
	t      *testing.T
	root   string // in it are bin and examples
	moved  *strings.Replacer
	node   string // address
	blocks []page.Block
	log    *os.File // what all programs write
}

// begin prepares an example. Its commands need curl, and what else is named.
func begin(t *testing.T, example string, needs ...string) *walk {
	t.Helper()
	return beginAt(t, example, nil, needs...)
}

// beginAt also replaces what stands in the example: old and new in turn.
func beginAt(t *testing.T, example string, moved []string, needs ...string) *walk {
	t.Helper()
	if testing.Short() {
		t.Skip("runs real processes for seconds")
	}
	for _, program := range append(needs, "curl", "sh") {
		if _, err := exec.LookPath(program); err != nil {
			t.Skipf("the README's commands need %s: %v", program, err)
		}
	}
	if err := build(); err != nil {
		t.Fatal(err)
	}
	w := &walk{t: t, root: t.TempDir(), node: freeAddr(t)}
	w.moved = strings.NewReplacer(append(moved, "127.0.0.1:7070", w.node, "127.0.0.1:8088", freeAddr(t), "127.0.0.1:19092", freeAddr(t), "/tmp/millrace-", w.root+"/tmp-")...)
	if err := os.Symlink(programs, filepath.Join(w.root, "bin")); err != nil {
		t.Fatal(err)
	}
	from := filepath.Join("..", "..", "..", "examples", example)
	to := filepath.Join(w.root, "examples", example)
	if err := os.MkdirAll(to, 0o755); err != nil {
		t.Fatal(err)
	}
	err := filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		text := w.moved.Replace(string(b))
		if d.Name() == "README.md" {
			w.blocks = page.Blocks(t, text)
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		if err := os.MkdirAll(filepath.Dir(filepath.Join(to, rel)), 0o755); err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(to, rel), []byte(text), info.Mode())
	})
	if err != nil {
		t.Fatal(err)
	}
	if w.log, err = os.Create(filepath.Join(w.root, "log")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = w.log.Close()
		if b, _ := os.ReadFile(w.log.Name()); t.Failed() {
			t.Logf("the programs wrote:\n%s", b[max(0, len(b)-8000):])
		}
	})
	return w
}

// run runs the next block of commands, as if it was typed, and returns what
// they wrote to STDOUT. What they leave in the background ends with the test.
func (w *walk) run() string {
	w.t.Helper()
	for len(w.blocks) > 0 && w.blocks[0].Kind != "sh" {
		w.blocks = w.blocks[1:]
	}
	if len(w.blocks) == 0 {
		w.t.Fatal("the README has no further commands")
	}
	text := w.blocks[0].Text
	w.blocks = w.blocks[1:]
	out, err := os.CreateTemp(w.root, "out-") // a pipe would wait for what stays in the background
	if err != nil {
		w.t.Fatal(err)
	}
	defer out.Close()
	cmd := exec.Command("sh", "-e", "-c", text)
	cmd.Dir, cmd.Stdout, cmd.Stderr = w.root, out, w.log
	for _, kv := range os.Environ() {
		if !strings.HasPrefix(kv, "FLOWD_") && !strings.HasPrefix(kv, "FLOWCTL_") {
			cmd.Env = append(cmd.Env, kv)
		}
	}
	cmd.Env = append(cmd.Env, "FLOWCTL_SERVER=http://"+w.node)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) })
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	limit := time.NewTimer(90 * time.Second)
	defer limit.Stop()
	select {
	case err = <-ended:
	case <-limit.C:
		err = fmt.Errorf("not done after 90 s")
	}
	b, _ := os.ReadFile(out.Name())
	if err != nil {
		w.t.Fatalf("the README's commands\n%s\n%v\n%s", text, err, b)
	}
	return string(b)
}

// shown is the next block that is no command.
func (w *walk) shown() string {
	w.t.Helper()
	for i, b := range w.blocks {
		if b.Kind == "" {
			w.blocks = w.blocks[i+1:]
			return strings.TrimSuffix(b.Text, "\n")
		}
	}
	w.t.Fatal("the README shows nothing further")
	return ""
}

// poll tries until cond holds.
func (w *walk) poll(what string, cond func() (bool, string)) {
	w.t.Helper()
	deadline := time.After(3 * time.Minute)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		ok, said := cond()
		if ok {
			return
		}
		select {
		case <-tick.C:
		case <-deadline:
			w.t.Fatalf("waited in vain: %s: %s", what, said)
		}
	}
}

// freeAddr is an address that nothing listens on, outside of the range that the
// system gives to clients.
func freeAddr(t *testing.T) string {
	t.Helper()
	for range 200 {
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", 16000+rand.IntN(16000)))
		if err != nil {
			continue
		}
		defer l.Close()
		return l.Addr().String()
	}
	t.Fatal("no free port")
	return ""
}

func TestPartner(t *testing.T) {
	w := begin(t, "partner")
	w.run()
	w.run()
	client := api.NewClient(w.node)
	w.poll("the receipt", func() (bool, string) {
		f, err := client.Flow(t.Context(), "default", "orders-push")
		if err != nil || f.Receipt == nil {
			return false, fmt.Sprint(err)
		}
		if f.Receipt.Unaccounted != 0 {
			t.Fatalf("%d records are unaccounted for", f.Receipt.Unaccounted)
		}
		return f.Receipt.Delivered == 132 && f.Receipt.Filed == 2, fmt.Sprintf("%+v, %s %s", f.Receipt.Account, f.State, f.Problem)
	})
	got := w.run()
	if want := w.shown(); !strings.Contains(got, want) {
		t.Errorf("flow get says\n%s\nwant in it\n%s", got, want)
	}
	state := w.run()
	for _, want := range []string{`"items_applied": 132,`, `"items_again": 0,`, `"mismatches": 0,`, `"reject": 2`, "o-0037", "o-0151"} {
		if !strings.Contains(state, want) {
			t.Errorf("the partner's side lacks %s:\n%s", want, state)
		}
	}
	for _, wrong := range []string{`"wrong"`, `"missing"`} {
		if strings.Contains(state, wrong) {
			t.Errorf("a signature was %s:\n%s", wrong, state)
		}
	}
	seen, err := os.ReadFile(filepath.Join(w.root, "tmp-partner", "seen.ndjson"))
	if err != nil || bytes.Count(seen, []byte(`"route":"oncall"`)) != 2 {
		t.Errorf("who is on call was told other than twice, %v:\n%s", err, seen)
	}
}

func TestIngest(t *testing.T) {
	w := begin(t, "ingest", "openssl")
	w.run()
	got := w.run()
	if want := w.shown(); got != want+"\n" && got != want {
		t.Errorf("the answers are\n%s\nwant\n%s", got, want)
	}
	lines, err := os.ReadFile(filepath.Join(w.root, "tmp-shop", "orders.ndjson"))
	if want := `{"id":"order-1","shop_id":"s-1","amount":5}` + "\n"; err != nil || string(lines) != want {
		t.Errorf("the file holds %q, %v; want %q", lines, err, want)
	}
	page, err := api.NewClient(w.node).Failures(t.Context(), &api.FailureQuery{Project: "default", Name: "shop"})
	if err != nil || len(page.Entries) != 1 || page.Entries[0].ID() != "ingest/0/order-3" {
		t.Errorf("the failure queue: %+v, %v", page, err)
	}
	if i := slices.IndexFunc(page.Entries[0].Input.Headers, func(h record.Header) bool { return strings.EqualFold(h.Key, "X-Sign") }); i >= 0 {
		t.Error("the signature is in the record")
	}
}
