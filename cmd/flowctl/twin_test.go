package main

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/millrace-io/millrace/cmd/internal/twin"
)

const twinFile = `twin: v1
name: shop
log: seen.ndjson
routes:
  - match: POST /orders
    idempotency: Idempotency-Key
    answers: [{ body: "seed ${request.headers[\"x-n\"]}" }]
`

// serve runs `twin serve` until stop is called, which returns its exit code
// and what came on STDOUT behind the first JSON value or line.
func serve(t *testing.T, h *harness, args ...string) (first string, stop func() (int, string)) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	t.Cleanup(cancel)
	r, w := io.Pipe()
	code := make(chan int, 1)
	var stderr strings.Builder
	go func() {
		code <- h.start(ctx, strings.NewReader(""), w, &stderr, append([]string{"twin", "serve"}, args...)...)
		w.Close()
	}()
	out := bufio.NewReader(r)
	for {
		line, err := out.ReadString('\n')
		if first += line; err != nil {
			t.Fatalf("exit %d: %s%s", <-code, first, &stderr)
		}
		if !strings.HasPrefix(first, "{") || line == "}\n" {
			break
		}
	}
	return first, func() (int, string) {
		cancel()
		rest, err := io.ReadAll(out)
		if err != nil {
			t.Fatal(err)
		}
		return <-code, string(rest)
	}
}

func post(t *testing.T, url, key string) string {
	t.Helper()
	req, err := http.NewRequest("POST", url+"/orders", strings.NewReader("{}"))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Idempotency-Key", key)
	req.Header.Set("X-N", key)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestTwinServe(t *testing.T) {
	h := newHarness(t)
	defer http.DefaultClient.CloseIdleConnections()
	h.write("twins/partner.yaml", twinFile)
	url, stop := serve(t, h, "twins/partner.yaml", "--addr", "127.0.0.1:0")
	url = strings.TrimSpace(url)
	for _, key := range []string{"a", "b", "a"} {
		if got := post(t, url, key); got != "seed "+key {
			t.Errorf("%s: %q", key, got)
		}
	}
	code, rest := stop()
	if code != 0 || !strings.Contains(rest, "3 requests: 2 applied, 1 duplicate, ") || !strings.Contains(rest, "outcomes: answered 2, duplicate 1\n") {
		t.Errorf("exit %d: %s", code, rest)
	}
	log, err := os.ReadFile(filepath.Join(h.dir, "twins", "seen.ndjson"))
	if err != nil || strings.Count(string(log), "\n") != 3 {
		t.Errorf("the log beside the file: %v\n%s", err, log)
	}

	// As JSON, with a log and a seed of its own.
	first, stop := serve(t, h, "twins/partner.yaml", "--addr", "127.0.0.1:0", "--seed", "9", "--log", "other.ndjson", "-o", "json")
	var started struct {
		URL  string
		Seed uint64
		Log  string
	}
	if err := json.Unmarshal([]byte(first), &started); err != nil || started.Seed != 9 || started.Log != "other.ndjson" {
		t.Fatalf("%s: %v", first, err)
	}
	post(t, started.URL, "a")
	code, rest = stop()
	var state twin.State
	if err := json.Unmarshal([]byte(rest), &state); err != nil || code != 0 || state.Requests != 1 || state.Seed != 9 || state.Name != "shop" {
		t.Errorf("exit %d, %v: %s", code, err, rest)
	}
	if log, err := os.ReadFile(filepath.Join(h.dir, "other.ndjson")); err != nil || strings.Count(string(log), "\n") != 1 {
		t.Errorf("%v\n%s", err, log)
	}
}

// TestTwinCommands holds what the twin's commands say, mistakes included.
func TestTwinCommands(t *testing.T) {
	h := newHarness(t)
	h.write("wrong.yaml", "twin: v1\nroutes:\n  - match: POST /o\n    answers: [{ staus: 503 }]\n")
	h.write("secret.yaml", "twin: v1\nroutes:\n  - match: POST /o\n    auth: { bearer: { env: PARTNER_TOKEN } }\n")
	h.write("good.yaml", twinFile)
	h.write("capture.ndjson", `{"ms":12,"request":{"method":"POST","url":"https://partner.example/v2/orders/17","headers":{"Authorization":"Bearer s3cr3t"}},"response":{"status":200,"headers":{"Content-Type":"application/json"},"body":"{\"code\":0,\"access_token\":\"s3cr3t\"}"}}`+"\n")
	h.write("notes.txt", "no capture\n")
	h.note("a twin with a wrong key")
	h.do("twin", "serve", "wrong.yaml")
	h.note("a twin whose secret is not there")
	h.do("twin", "serve", "secret.yaml")
	h.note("a file that does not exist")
	h.do("twin", "serve", "god.yaml")
	h.note("an address that cannot be had")
	h.do("twin", "serve", "good.yaml", "--addr", "127.0.0.1:x")
	h.note("a twin out of a capture")
	h.do("twin", "record", "capture.ndjson")
	h.do("twin", "record", "capture.ndjson", "--out", "made.yaml", "--redact", "code", "--name", "regulator")
	h.note("the file is there already")
	h.do("twin", "record", "capture.ndjson", "--out", "made.yaml")
	h.note("no capture")
	h.do("twin", "record", "notes.txt")
	h.note("a field that is none")
	h.do("twin", "record", "capture.ndjson", "--redact", "a..b")
	made, err := os.ReadFile(filepath.Join(h.dir, "made.yaml"))
	if err != nil || strings.Contains(h.log.String()+string(made), "s3cr3t") {
		t.Errorf("%v, or a secret is shown:\n%s", err, made)
	}
	if _, err := twin.Parse("made.yaml", made); err != nil {
		t.Error(err)
	}
	h.golden("twin")
}
