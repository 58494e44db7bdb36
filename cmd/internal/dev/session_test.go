package dev

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/millrace-io/millrace/cmd/internal/api"
	"github.com/millrace-io/millrace/cmd/internal/cli"
)

// TestNextSession: what an earlier session left goes on, and a plugin of
// another name gets another flow.
func TestNextSession(t *testing.T) {
	f := newFake(t)
	r := start(t, Config{Project: f})
	r.next(&r.out, "1  {id:2} = unchanged")
	r.end()

	f.write(t, "src/stage", "!")
	r = start(t, Config{Project: f})
	r.next(&r.err, "flow mask of the last session goes on")
	r.next(&r.err, "the old version goes on")
	f.mu.Lock()
	f.name = "cover"
	f.mu.Unlock()
	f.write(t, "src/stage", "n")
	r.next(&r.err, "flow mask is paused")
	r.next(&r.err, "cover@1.2.0-dev")
	r.next(&r.out, "0  {id:1} - note")
	r.end()
}

// TestNameTaken: a flow of the plugin's name that was deployed on the development
// node is left alone.
func TestNameTaken(t *testing.T) {
	f := newFake(t)
	f.write(t, "src/stage", "!") // nothing to deploy yet
	r := start(t, Config{Project: f})
	r.next(&r.err, "nothing runs yet")
	node := api.NewClient("http://" + firstLine(t, filepath.Join(f.dir, stateDir, nodeFile)))
	kafka := "kafka://" + firstLine(t, filepath.Join(f.dir, stateDir, brokerFile))
	if _, err := node.PutFlow(t.Context(), &api.PutFlow{File: "flow.yaml", Document: "flow: v1\nname: mask\nsource: " + kafka + "/in\nstages:\n  - push: " + kafka + "/out\n"}); err != nil {
		t.Fatal(err)
	}
	f.write(t, "src/stage", "n")
	r.next(&r.err, "flow mask was deployed here and is left alone: the version that you write runs in flow mask-dev")
	r.next(&r.err, "runs in flow mask-dev")
	r.next(&r.out, "0  {id:1} - note")
	f.write(t, "src/stage", "p")
	r.next(&r.err, "runs in flow mask-dev")
	flow, err := node.Flow(t.Context(), "default", "mask")
	if err != nil || flow.Revision != 1 || flow.State == api.StatePaused {
		t.Errorf("got %+v, %v", flow, err)
	}
	r.end()
}

// TestOneInAFolder: a second one says who has the folder.
func TestOneInAFolder(t *testing.T) {
	for _, ephemeral := range []bool{false, true} {
		t.Run(fmt.Sprintf("ephemeral=%t", ephemeral), func(t *testing.T) {
			f := newFake(t)
			r := start(t, Config{Project: f, Ephemeral: ephemeral})
			r.next(&r.err, "mask@1.2.0-dev")
			addr := firstLine(t, filepath.Join(f.dir, stateDir, nodeFile))
			err := Run(t.Context(), Config{Project: f, Ephemeral: ephemeral})
			e := cli.AsError(err)
			if e.Code != CodeRunning || e.Exit != cli.ExitUnreachable || !strings.Contains(e.Detail, addr) || !strings.Contains(e.Detail, fmt.Sprint("process ", os.Getpid())) {
				t.Errorf("got %+v", e)
			}
			if got := firstLine(t, filepath.Join(f.dir, stateDir, nodeFile)); got != addr {
				t.Errorf("the address is %s now, was %s", got, addr)
			}
			r.end()
		})
	}
}

// TestEphemeral: nothing is left but the lock, neither here nor in the folder
// for temporary files.
func TestEphemeral(t *testing.T) {
	tmp := t.TempDir()
	t.Setenv("TMPDIR", tmp)
	f := newFake(t)
	r := start(t, Config{Project: f, Ephemeral: true})
	r.next(&r.err, "state in "+tmp)
	r.next(&r.out, "= unchanged")
	if entries, err := os.ReadDir(tmp); err != nil || len(entries) != 1 {
		t.Errorf("%d folders in %s, %v", len(entries), tmp, err)
	}
	r.end()
	if entries, err := os.ReadDir(tmp); err != nil || len(entries) != 0 {
		t.Errorf("%d entries are left in %s, %v", len(entries), tmp, err)
	}
	entries, err := os.ReadDir(filepath.Join(f.dir, stateDir))
	if err != nil || len(entries) != 1 || entries[0].Name() != lockFile {
		t.Errorf("%v are left, %v", entries, err)
	}
}

// TestOldFailures: what failed in an earlier session is not told again.
func TestOldFailures(t *testing.T) {
	partner := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusUnprocessableEntity) }))
	defer partner.Close()
	f := newFake(t)
	f.write(t, "flow.yaml", "flow: v1\nname: orders\nsource: kafka://dev/in\nstages:\n  - map: ./build/mask.wasm\n  - id: deliver\n    push: "+partner.URL+"/orders\n")
	r := start(t, Config{Project: f})
	r.next(&r.out, "0  {id:1} failed in deliver")
	r.end()
	failed := regexp.MustCompile(`(?m)^(\d+)  .* failed in deliver`)
	before := map[string]bool{}
	for _, m := range failed.FindAllStringSubmatch(r.out.text(), -1) {
		before[m[1]] = true
	}
	r = start(t, Config{Project: f})
	r.next(&r.out, " failed in deliver")
	r.end()
	for _, m := range failed.FindAllStringSubmatch(r.out.text(), -1) {
		if before[m[1]] {
			t.Errorf("record %s is told again", m[1])
		}
	}
}
