package sandbox

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/millrace-io/millrace/plugins/internal/testkit"
	"github.com/millrace-io/millrace/runtime/record"
)

const (
	signWasm  = "../plugintest/guests/sign/sign.wasm"
	checkWasm = "../plugintest/guests/check/check.wasm"
)

func hmacOf(key string, message []byte) []byte {
	m := hmac.New(sha256.New, []byte(key))
	m.Write(message)
	return m.Sum(nil)
}

// oneKey has key 0 alone, for HMAC-SHA256.
func oneKey(handle, alg uint32, message []byte) ([]byte, error) {
	switch {
	case handle > 0:
		return nil, fmt.Errorf("stage s: %w", SignUnknownKey)
	case alg != 3:
		return nil, SignKeyMismatch
	}
	return hmacOf("secret", message), nil
}

// requests are records as a sign plugin gets them.
func requests(bodies ...string) *record.Batch {
	b := testkit.Batch(bodies...)
	for i := range b.Records {
		b.Records[i].Headers = []record.Header{
			{Key: ":method", Value: []byte("POST")}, {Key: ":url", Value: []byte("https://partner.example/orders")}, {Key: "Accept", Value: []byte("*/*")},
		}
	}
	return b
}

func headers(r *record.Record) string {
	var out []string
	for _, h := range r.Headers {
		out = append(out, h.Key+"="+string(h.Value))
	}
	return strings.Join(out, " ")
}

func TestSign(t *testing.T) {
	m := compile(t, open(t, Config{Workers: 1}), testkit.Read(t, signWasm))
	if !m.Info().Signs {
		t.Error("the module does not say that it signs")
	}
	s := newStage(t, m, StageConfig{Stage: "s", Sign: oneKey})
	b := requests("a", "", strings.Repeat("long ", 100_000))
	out := testkit.Process(t, s, b)
	if len(out.Emits) != len(b.Records) {
		t.Fatalf("got %+v", out)
	}
	for i, e := range out.Emits {
		want := ":method=POST :url=https://partner.example/orders Accept=*/* X-Signature=" + hex.EncodeToString(hmacOf("secret", b.Records[i].Value))
		if got := headers(&e.Record); got != want || !bytes.Equal(e.Record.Value, b.Records[i].Value) {
			t.Errorf("request %d: got headers %s, want %s", i, got, want)
		}
	}
	s = newStage(t, m, StageConfig{Stage: "s", Sign: oneKey, Config: json.RawMessage(`{"header":"Authorization","query":"sig"}`)})
	mac := hex.EncodeToString(hmacOf("secret", []byte("a")))
	want := ":method=POST :url=https://partner.example/orders Accept=*/* Authorization=" + mac + " :url=https://partner.example/orders?sig=" + mac
	if got := headers(&testkit.Process(t, s, requests("a")).Emits[0].Record); got != want {
		t.Errorf("got headers %s, want %s", got, want)
	}
}

// TestSignRefused: a refusal is the guest's to answer; other errors are not,
// and leave what else is in the batch alone.
func TestSignRefused(t *testing.T) {
	m := compile(t, open(t, Config{Workers: 1}), testkit.Read(t, signWasm))
	for _, c := range []struct {
		name    string
		sign    func(handle, alg uint32, message []byte) ([]byte, error)
		config  string
		class   record.Class
		message string
	}{
		{"no keys", nil, "", record.Rejected, "sign: the stage has no keys"},
		{"no such key", oneKey, `{"key":1}`, record.Rejected, "sign: the stage has no such key"},
		{"no such algorithm", func(_, _ uint32, _ []byte) ([]byte, error) { return nil, SignUnknownAlgorithm }, "", record.Rejected, "sign: the node does not know the algorithm"},
		{"key of another kind", func(_, _ uint32, _ []byte) ([]byte, error) { return nil, SignKeyMismatch }, "", record.Rejected, "sign: the key does not go with the algorithm"},
		{"new refusal", func(_, _ uint32, _ []byte) ([]byte, error) { return nil, SignRefusal(-77) }, "", record.Rejected, "sign: the node refused it (-77)"},
		{"secret that is gone", func(_, _ uint32, _ []byte) ([]byte, error) {
			return nil, record.Errorf(record.Config, "secret %q is gone", "partner")
		}, "", record.Config, `secret "partner" is gone`},
		{"error of no class", func(_, _ uint32, _ []byte) ([]byte, error) { return nil, errors.New("broken") }, "", record.Internal, "broken"},
		{"signature that is too long", func(_, _ uint32, _ []byte) ([]byte, error) { return make([]byte, 1025), nil }, "", record.Config, "a signature of 1025 bytes, and a plugin can be given 1024"},
	} {
		t.Run(c.name, func(t *testing.T) {
			sign := c.sign
			if sign != nil && c.config == "" {
				sign = func(handle, alg uint32, message []byte) ([]byte, error) {
					if string(message) != "bad" {
						return oneKey(handle, alg, message)
					}
					return c.sign(handle, alg, message)
				}
			}
			cfg := StageConfig{Stage: "s", Sign: sign, Config: json.RawMessage(c.config)}
			s := newStage(t, m, cfg)
			b := requests("good", "bad", "good")
			out := testkit.Process(t, s, b)
			if sign == nil || c.config != "" {
				if len(out.Failures) != 3 {
					t.Fatalf("got %+v, want three failures", out)
				}
			} else if len(out.Emits) != 2 || len(out.Failures) != 1 || out.Failures[0].In != 1 {
				t.Fatalf("got %+v, want one failure", out)
			}
			f := &out.Failures[0]
			if f.Err.Class != c.class || !strings.Contains(f.Err.Message, c.message) {
				t.Errorf("got %v, want class %v, %q", f.Err, c.class, c.message)
			}
			if c.class == record.Rejected {
				cfg.Sign = nil
				sameAgain(t, m, cfg, b, f)
			} else if f.Replay != nil || !strings.Contains(f.NoReplay, "could not be made") {
				t.Errorf("got replay %+v, %q, want none", f.Replay, f.NoReplay)
			}
		})
	}
}

// TestSignReplay: signatures that are others each time, as those of ECDSA, are
// those of the recorded call in a replay, which has no keys.
func TestSignReplay(t *testing.T) {
	m := compile(t, open(t, Config{Workers: 1}), testkit.Read(t, signWasm))
	var n atomic.Int64
	cfg := StageConfig{Stage: "s", Config: json.RawMessage(`{"refuse":true,"times":3}`), Sign: func(_, _ uint32, message []byte) ([]byte, error) {
		return fmt.Appendf(nil, "%d over %s", n.Add(1), message), nil
	}}
	b := requests("one")
	out := testkit.Process(t, newStage(t, m, cfg), b)
	f := &out.Failures[0]
	if want := "POST https://partner.example/orders: " + hex.EncodeToString([]byte("3 over one")); f.Err.Message != want {
		t.Fatalf("got %v, want %q", f.Err, want)
	}
	text, err := json.Marshal(f.Replay)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256([]byte("one"))
	if want := fmt.Sprintf(`"signatures":[{"handle":0,"alg":3,"message_sha256":"%x","signature":"MSBvdmVyIG9uZQ=="},`, sum); !strings.Contains(string(text), want) {
		t.Errorf("got %s, want %s in it", text, want)
	}
	var read record.Replay
	if err := json.Unmarshal(text, &read); err != nil {
		t.Fatal(err)
	}
	asked := n.Load()
	f.Replay = &read
	for range 3 {
		sameAgain(t, compile(t, open(t, Config{}), testkit.Read(t, signWasm)), cfg, b, f)
	}
	if n.Load() != asked {
		t.Errorf("the replays asked for %d signatures", n.Load()-asked)
	}

	for _, c := range []struct {
		name   string
		change func(*StageConfig, *record.Record, *record.Replay)
		reason string
	}{
		{"another body", func(_ *StageConfig, r *record.Record, _ *record.Replay) { r.Value = []byte("two") }, "signature 1 is of another message"},
		{"another key", func(c *StageConfig, _ *record.Record, _ *record.Replay) {
			c.Config = json.RawMessage(`{"refuse":true,"key":1}`)
		}, "by key 1 and algorithm 3, and by key 0 and algorithm 3 was recorded"},
		{"more signatures", func(c *StageConfig, _ *record.Record, _ *record.Replay) {
			c.Config = json.RawMessage(`{"refuse":true,"times":4}`)
		}, "it asks for 4 signatures, and 3 were recorded"},
		{"none recorded", func(_ *StageConfig, _ *record.Record, r *record.Replay) { r.Signatures = nil }, "it asks for 1 signatures, and 0 were recorded"},
	} {
		cfg, rec, replay := cfg, b.Records[0], *f.Replay
		c.change(&cfg, &rec, &replay)
		_, err := m.Replay(t.Context(), cfg, &rec, &replay)
		none, ok := errors.AsType[*UnrepeatableError](err)
		if !ok || !strings.Contains(none.Reason, c.reason) || !errors.Is(err, ErrNotRecorded) || record.AsError(none.Err).Class != record.Protocol {
			t.Errorf("%s: got %v, want that it cannot be repeated: %s", c.name, err, c.reason)
		}
	}
	// Less than was recorded is another plugin's or configuration's right.
	fewer := cfg
	fewer.Config = json.RawMessage(`{"refuse":true,"times":2}`)
	if got, err := m.Replay(t.Context(), fewer, &b.Records[0], f.Replay); err != nil || !strings.HasSuffix(got.Results.Failures[0].Err.Message, hex.EncodeToString([]byte("2 over one"))) {
		t.Errorf("got %+v, %v", got, err)
	}
}

func TestSignReplayIsBounded(t *testing.T) {
	m := compile(t, open(t, Config{Workers: 1}), testkit.Read(t, signWasm))
	for _, c := range []struct {
		times  int
		reason string
	}{
		{record.MaxSignatures, ""},
		{record.MaxSignatures + 1, "it asked for more than 64 signatures"},
	} {
		cfg := StageConfig{Stage: "s", Sign: oneKey, Config: json.RawMessage(fmt.Sprintf(`{"refuse":true,"times":%d}`, c.times))}
		// Among others a record is judged alone, which asks anew.
		b := requests("one", "two")
		for _, f := range testkit.Process(t, newStage(t, m, cfg), b).Failures {
			if f.NoReplay != c.reason {
				t.Errorf("%d signatures: got %q, want %q", c.times, f.NoReplay, c.reason)
			} else if c.reason == "" {
				sameAgain(t, m, cfg, b, &f)
			}
		}
	}
}

// TestSignBeforeTheFirstRecord: the image is the same with keys and without,
// and nobody is asked for signatures before there is a record.
func TestSignBeforeTheFirstRecord(t *testing.T) {
	m := compile(t, open(t, Config{Workers: 1}), testkit.Read(t, signWasm))
	without := newStage(t, m, StageConfig{Stage: "s"})
	asked := 0
	with := newStage(t, m, StageConfig{Stage: "s", Sign: func(handle, alg uint32, message []byte) ([]byte, error) {
		asked++
		return oneKey(handle, alg, message)
	}})
	if asked != 0 {
		t.Errorf("%d signatures were asked for before the first record", asked)
	}
	if !without.image.equal(with.image) {
		t.Error("the image depends on the keys")
	}
	testkit.Process(t, with, requests("a"))
	if asked != 1 {
		t.Errorf("%d signatures were asked for one record", asked)
	}
	zeros := bytes.Repeat([]byte("0"), 2*warmSignatureBytes)
	if !bytes.Contains(with.image.memory, zeros) {
		t.Error("the warm-up signed nothing: its image does not hold the signature in hex")
	}
}

// TestSignCosts: what a signature costs depends on its family and the length
// of the message, and on nothing that a key could change.
func TestSignCosts(t *testing.T) {
	for _, c := range []struct {
		alg    uint32
		length int
		want   int64
	}{
		{3, 0, 250}, {5, 8_000, 1_250}, {0, 7, 250}, {16, 0, 300_000}, {34, 80, 300_010}, {48, 0, 50_000}, {66, 0, 50_000}, {80, 0, 50_000}, {1 << 31, 0, 50_000}, {3, MaxSignedBytes, 250 + 2<<20},
	} {
		if got := fuelForSignature(c.alg, c.length); got != c.want {
			t.Errorf("algorithm %d, %d bytes: got %d units, want %d", c.alg, c.length, got, c.want)
		}
	}
	m := compile(t, open(t, Config{Workers: 1}), testkit.Read(t, signWasm))
	s := newStage(t, m, StageConfig{Stage: "s", Sign: oneKey, Config: json.RawMessage(`{"times":1000000}`)})
	out := testkit.Process(t, s, requests("a"))
	if len(out.Failures) != 1 || out.Failures[0].Err.Class != record.Fuel {
		t.Errorf("got %+v, want one failure of class fuel", out)
	}
}

// TestSignModes: only plugins of call mode sign.
func TestSignModes(t *testing.T) {
	rt := open(t, Config{Workers: 1})
	program := command()
	program.imports = []asmImport{{hostModule, importSign, hostModules[hostModule][importSign]}}
	info, err := Inspect(program.build())
	if err != nil {
		t.Fatal(err)
	}
	if info.Signs || len(info.Refusals) != 1 || !strings.Contains(info.Refusals[0].Reason, "a program that reads STDIN cannot sign") {
		t.Errorf("got signs %v, refusals %v", info.Signs, info.Refusals)
	}
	_, err = compile(t, rt, testkit.Read(t, linesWasm)).NewStage(t.Context(), StageConfig{Stage: "s", Sign: oneKey})
	if err == nil || !strings.Contains(err.Error(), "a program that reads STDIN cannot sign") {
		t.Errorf("a program with keys: got %v", err)
	}
	if compile(t, rt, testkit.Read(t, upperWasm)).Info().Signs {
		t.Error("upper does not sign")
	}
}

// TestCheck judges responses as a validate plugin does.
func TestCheck(t *testing.T) {
	s := stageOf(t, open(t, Config{Workers: 1}), checkWasm, StageConfig{Stage: "s"})
	for _, c := range []struct {
		status, body string
		want         *record.Error // nil: emitted
	}{
		{"200", `{"code":0}`, nil},
		{"503", `{"code":0}`, nil},
		{"200", `{"code":429}`, &record.Error{Class: record.Retryable, Code: 429, Message: "code 429", RetryAfter: time.Second}},
		{"200", `{"code":7,"message":"no such order"}`, &record.Error{Class: record.Rejected, Code: 7, Message: "no such order"}},
		{"200", `{"message":"?"}`, &record.Error{Class: record.Rejected, Code: 1, Message: "no code"}},
		{"502", `<html>`, &record.Error{Class: record.Retryable, Code: 502, Message: "status 502: "}},
		{"two", `{"code":0}`, &record.Error{Class: record.Rejected, Code: 1, Message: `:status is "two"`}},
	} {
		b := testkit.Batch(c.body)
		b.Records[0].Headers = []record.Header{{Key: ":status", Value: []byte(c.status)}}
		out := testkit.Process(t, s, b)
		switch {
		case c.want == nil && len(out.Emits) != 1:
			t.Errorf("%s %s: got %+v, want it emitted", c.status, c.body, out)
		case c.want == nil:
		case len(out.Failures) != 1:
			t.Errorf("%s %s: got %+v, want %v", c.status, c.body, out, c.want)
		default:
			if e := out.Failures[0].Err; e.Class != c.want.Class || e.Code != c.want.Code || e.RetryAfter != c.want.RetryAfter || !strings.HasPrefix(e.Message, c.want.Message) {
				t.Errorf("%s %s: got %v after %v, want %v", c.status, c.body, e, e.RetryAfter, c.want)
			}
		}
	}
}

// TestGate: as many as there are places are in at once; shutting waits for
// them and lets nobody in.
func TestGate(t *testing.T) {
	g := NewGate(2)
	for range 2 {
		if err := g.Enter(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := g.Enter(ended); !errors.Is(err, context.Canceled) {
		t.Errorf("a third call: got %v, want context.Canceled", err)
	}
	waiting := make(chan error)
	go func() { waiting <- g.Enter(context.Background()) }()
	shut := make(chan error)
	g.Leave()
	if err := <-waiting; err != nil {
		t.Fatal(err)
	}
	go func() { shut <- g.Shut(context.Background()) }()
	for !g.IsShut() {
		if err := g.Enter(ended); err == nil {
			t.Fatal("a call is in that has no place")
		}
	}
	if err := g.Enter(t.Context()); !errors.Is(err, ErrClosed) {
		t.Errorf("after it was shut: got %v, want ErrClosed", err)
	}
	select {
	case err := <-shut:
		t.Fatalf("it did not wait: %v", err)
	default:
	}
	g.Leave()
	g.Leave()
	if err := <-shut; err != nil {
		t.Error(err)
	}
}
