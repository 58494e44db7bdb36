//go:build linux

package exampletest

import (
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/millrace-io/millrace/cmd/internal/api"
)

// mark is a partner that remembers who sent what.
type mark struct {
	*httptest.Server
	mu   sync.Mutex
	keys map[string]map[string]int // idempotency keys by body, how often each came
}

func newMark(t *testing.T) *mark {
	m := &mark{keys: map[string]map[string]int{}}
	m.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return // the node was killed in the middle of it
		}
		if strings.HasPrefix(string(body), "refuse") {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		m.mu.Lock()
		defer m.mu.Unlock()
		if m.keys[string(body)] == nil {
			m.keys[string(body)] = map[string]int{}
		}
		m.keys[string(body)][r.Header.Get("Idempotency-Key")]++
	}))
	t.Cleanup(m.Close)
	return m
}

// flowd starts a life of a node and waits until it serves.
func flowd(t *testing.T, addr, data string, log *os.File) (kill func()) {
	t.Helper()
	cmd := exec.Command(filepath.Join(programs, "flowd"), "run", "--data", data, "--listen", addr)
	cmd.Stdout, cmd.Stderr, cmd.Dir = log, log, filepath.Dir(data)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	kill = sync.OnceFunc(func() {
		_ = cmd.Process.Signal(syscall.SIGKILL)
		_ = cmd.Wait()
	})
	t.Cleanup(kill)
	deadline := time.After(time.Minute)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		resp, err := http.Get("http://" + addr + "/readyz")
		if err == nil {
			_ = resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return kill
			}
		}
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("the node is not ready: %v", err)
		}
	}
}

// Senders repeat until they are answered with 200, while the node is killed
// again and again. Every request that was answered is at the partner or in the
// failure queue; what came there twice came under one key, so that the partner
// can tell; and the receipt adds up.
func TestIngestOverKills(t *testing.T) {
	if testing.Short() {
		t.Skip("runs real processes for seconds")
	}
	if err := build(); err != nil {
		t.Fatal(err)
	}
	const kills, senders, each = 4, 8, 60
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	dir := t.TempDir()
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if b, _ := os.ReadFile(log.Name()); t.Failed() {
			t.Logf("the node wrote:\n%s", b[max(0, len(b)-8000):])
		}
		_ = log.Close()
	}()
	partner, addr, data := newMark(t), freeAddr(t), filepath.Join(dir, "data")
	kill := flowd(t, addr, data, log)
	client := api.NewClient(addr)
	document := "flow: v1\nname: orders\nsource: { ingest: { wait: 5s } }\norder: none\nstages:\n  - push: " + partner.URL + "/x\n"
	if _, err := client.PutFlow(t.Context(), &api.PutFlow{Document: document}); err != nil {
		t.Fatal(err)
	}

	hc := &http.Client{Timeout: 10 * time.Second}
	send := func(key, body string) (status int, outcome string) {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+addr+"/v1/ingest/default/orders", strings.NewReader(body))
		if err != nil {
			t.Error(err)
			return 0, ""
		}
		req.Header.Set("Idempotency-Key", key)
		resp, err := hc.Do(req)
		if err != nil {
			return 0, "" // the node is away
		}
		defer resp.Body.Close()
		var a struct{ ID, Outcome string }
		if err := json.NewDecoder(resp.Body).Decode(&a); err != nil {
			return 0, ""
		}
		if resp.StatusCode == http.StatusOK && a.ID != "ingest/0/"+key {
			t.Errorf("%s was answered for %s", key, a.ID)
		}
		return resp.StatusCode, a.Outcome
	}
	bodyOf := func(key string, i int) string {
		if i%10 == 7 {
			return "refuse " + key
		}
		return key
	}
	var answered, repeats atomic.Int64
	var sending sync.WaitGroup
	for s := range senders {
		sending.Go(func() {
			for i := range each {
				key := fmt.Sprintf("k-%d-%d", s, i)
				pause := time.NewTicker(20 * time.Millisecond)
				for t.Context().Err() == nil {
					status, _ := send(key, bodyOf(key, i))
					if status == http.StatusOK {
						answered.Add(1)
						break
					}
					if status != 0 && status != http.StatusServiceUnavailable && status != http.StatusTooManyRequests {
						t.Errorf("%s: HTTP %d", key, status)
						break
					}
					repeats.Add(1)
					<-pause.C
				}
				pause.Stop()
			}
		})
	}
	done := make(chan struct{})
	go func() { sending.Wait(); close(done) }()
	look := time.NewTicker(time.Millisecond)
	defer look.Stop()
	for range kills {
		at := min(answered.Load()+int64(rnd.IntN(senders*each/kills)), senders*each*9/10)
		for waiting := true; waiting && answered.Load() < at; {
			select {
			case <-done:
				waiting = false
			case <-look.C:
			}
		}
		kill()
		kill = flowd(t, addr, data, log)
	}
	select {
	case <-done:
	case <-time.After(time.Minute):
		t.Fatalf("%d of %d requests are answered", answered.Load(), senders*each)
	}
	t.Logf("%d requests answered, %d repetitions, %d kills", answered.Load(), repeats.Load(), kills)

	filed := map[string]bool{}
	page, err := client.Failures(t.Context(), &api.FailureQuery{Project: "default", Name: "orders", Limit: 1000})
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range page.Entries {
		filed[e.ID()] = true
	}
	twice := 0
	partner.mu.Lock()
	defer partner.mu.Unlock()
	for s := range senders {
		for i := range each {
			key := fmt.Sprintf("k-%d-%d", s, i)
			if i%10 == 7 {
				if !filed["ingest/0/"+key] {
					t.Errorf("%s was answered, and is not in the failure queue", key)
				}
				continue
			}
			came := partner.keys[key]
			if len(came) != 1 {
				t.Errorf("%s came to the partner under the keys %v, want one", key, came)
			}
			for _, n := range came {
				if n > 1 {
					twice++
				}
			}
		}
	}
	if twice > kills*senders {
		t.Errorf("%d requests were delivered twice; with %d kills and %d senders at most %d are explained", twice, kills, senders, kills*senders)
	}
	f, err := client.Flow(t.Context(), "default", "orders")
	if err != nil || f.Receipt == nil || f.Receipt.Unaccounted != 0 {
		t.Errorf("the receipt: %+v, %v", f.Receipt, err)
	}
}
