package delivery

import (
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/millrace-io/millrace/runtime/delivery/sign"
	"github.com/millrace-io/millrace/runtime/record"
)

func callOf(change func(*record.Call)) *record.Call {
	c := &record.Call{
		Stage: "deliver.sign", Message: "said", Input: record.Record{Value: []byte("body"), Headers: []record.Header{
			{Key: ":url", Value: []byte("https://p.example/o?page=1&token=abcdef&flag")}, {Key: "X-Api-Key", Value: []byte("12345")}, {Key: "X-Own", Value: []byte("own")}}},
		Replay: &record.Replay{Logs: []string{"log"}, Signatures: []record.Signature{{Signature: []byte("sig")}}},
	}
	change(c)
	return c
}

// What a call keeps is exactly what the plugin got but for the values of
// credentials, or nothing.
func TestCallsKeepNoCredentials(t *testing.T) {
	u, err := url.Parse("https://p.example/o")
	if err != nil {
		t.Fatal(err)
	}
	cfg := RedactConfig{Headers: []string{"X-Own"}, Text: func(s string) string { return strings.ReplaceAll(s, "secret-of-the-node", hidden) }}
	red := cfg.of(&sign.Request{URL: u, Header: []record.Header{{Key: "Authorization", Value: []byte("Bearer abcdefgh")}}})
	if red.call(nil) != nil {
		t.Error("no call became one")
	}
	was := callOf(func(*record.Call) {})
	got := red.call(was)
	want := []string{"https://p.example/o?page=1&token=******&flag", "*****", "***"}
	for i, h := range got.Input.Headers {
		if string(h.Value) != want[i] {
			t.Errorf("%s: %q, want %q", h.Key, h.Value, want[i])
		}
	}
	if !slices.Equal(got.Hidden, []string{"token", "X-Api-Key", "X-Own"}) || got.Replay != was.Replay || string(got.Input.Value) != "body" || got.Message != "said" {
		t.Errorf("%+v", got)
	}
	if string(was.Input.Headers[1].Value) != "12345" {
		t.Error("the record of the call itself was changed")
	}
	for name, change := range map[string]func(*record.Call){
		"body":                func(c *record.Call) { c.Input.Value = []byte("x secret-of-the-node y") },
		"body, of a header":   func(c *record.Call) { c.Input.Value = []byte("abcdefgh") },
		"body, escaped":       func(c *record.Call) { c.Input.Value = []byte(`{"a":"\u0061bcdefgh"}`) },
		"end of a large body": func(c *record.Call) { c.Input.Value = []byte(strings.Repeat("x", 500_000) + "abcdefgh") },
		"header":              func(c *record.Call) { c.Input.Headers[2] = record.Header{Key: "X-Echo", Value: []byte("abcdefgh")} },
		"url":                 func(c *record.Call) { c.Input.Headers[0].Value = []byte("https://p.example/abcdefgh") },
		"message":             func(c *record.Call) { c.Message = "you sent abcdefgh" },
		"log":                 func(c *record.Call) { c.Replay.Logs = append(c.Replay.Logs, "abcdefgh") },
	} {
		got := red.call(callOf(change))
		if got.Replay != nil || got.NoReplay != secretCall || len(got.Input.Value) != 0 || got.Input.Headers != nil || strings.Contains(got.Message, "abcdefgh") {
			t.Errorf("%s: kept %+v", name, got)
		}
	}
	e := red.error(&record.Error{Class: record.Rejected, Message: "as it was", Call: was})
	if e.Call == was || e.Message != "as it was" || len(e.Call.Hidden) != 3 {
		t.Errorf("error %+v", e)
	}
}

// The entries of a batch keep the call that all of them failed in once.
func TestCallOfABatchIsKeptOnce(t *testing.T) {
	call := callOf(func(c *record.Call) { c.Input.Value = make([]byte, 1000); c.Hidden = []string{"X"} })
	r := result{all: &record.Error{Class: record.Rejected, Message: "no", Call: call}}
	if r.of(0).Call != call {
		t.Error("the first one has lost the call")
	}
	for i := 1; i < 3; i++ {
		e := r.of(i)
		if e.Message != "no" || e.Call == nil || e.Call.Stage != call.Stage || !e.Call.InputOmitted || e.Call.InputHash == 0 || e.Call.NoReplay != calledBefore || e.Call.Size() > 300 {
			t.Errorf("the call of entry %d: %+v", i, e.Call)
		}
	}
	if len(call.Input.Value) != 1000 || call.Replay == nil {
		t.Error("the call itself was changed")
	}
}
