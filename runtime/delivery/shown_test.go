package delivery

import (
	"bytes"
	"fmt"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/millrace-io/millrace/runtime/delivery/batch"
	"github.com/millrace-io/millrace/runtime/delivery/sign"
	"github.com/millrace-io/millrace/runtime/delivery/verdict"
	"github.com/millrace-io/millrace/runtime/flow"
	"github.com/millrace-io/millrace/runtime/record"
)

func asked(t *testing.T, header ...string) *sign.Request {
	t.Helper()
	u, err := url.Parse("http://partner.example/y")
	if err != nil {
		t.Fatal(err)
	}
	r := &sign.Request{Method: "POST", URL: u}
	for i := 0; i < len(header); i += 2 {
		r.Header = append(r.Header, record.Header{Key: header[i], Value: []byte(header[i+1])})
	}
	return r
}

// No cut goes through a secret that is sent back, wherever it lies.
func TestNoPartOfASecretIsShown(t *testing.T) {
	cfg := &RedactConfig{Text: func(s string) string { return sign.Conceal(s, strings.Repeat("Text-Secret-", 20)) }}
	for _, token := range []string{strings.Repeat("S3cr3t-", 60), strings.Repeat("S3cr3t-", 128), strings.Repeat("Text-Secret-", 20)} {
		req := asked(t, "Authorization", "Bearer "+token)
		for _, before := range []int{0, 1, 280, 900, MaxShown - 20, 8<<10 - 20, 48<<10 - 20, 64<<10 - 20} {
			for _, body := range [][]byte{
				[]byte(strings.Repeat("x", before) + token),
				[]byte(strings.Repeat("x", before) + strings.Repeat(token+"\n", 300)),
				bytes.Repeat([]byte("Bearer "+token+"\n"), 12+before/len(token)),
			} {
				resp := &verdict.Response{Status: 400, Body: body, Header: []record.Header{{Key: "X-Said", Value: body}}}
				x := cfg.of(req).exchange(req, resp)
				v := verdict.Default(&verdict.Exchange{What: "POST http://x/y", Response: *resp, Items: 1, Redact: cfg.Redactor(req)})
				shown := cfg.of(req).error(v.All)
				said := fmt.Sprintf("%s %s %q", x.ResponseBody, shown.Message, x.ResponseHeaders)
				if i := strings.Index(said, token[:10]); i >= 0 {
					t.Errorf("a token of %d bytes behind %d: %.60s", len(token), before, said[i:])
				}
			}
		}
	}
}

// What items are refused for is a text of the partner's too.
func TestNoPartOfASecretIsInAnItemsMessage(t *testing.T) {
	bubble(t, func(t *testing.T) {
		token := strings.Repeat("S3cr3t-", 60)
		p := &partner{answer: func(exchange) (int, string, time.Duration) {
			return 200, `[{"verdict":"reject","message":"no ` + token + `"},{"verdict":"` + token + `"}]`, 0
		}}
		rules, err := verdict.New(verdict.Config{Each: "response.body"})
		if err != nil {
			t.Fatal(err)
		}
		push := &flow.HTTPPush{Method: "POST", Path: "/", Headers: []flow.HeaderTemplate{{Name: "X-Api-Key", Value: token}}}
		e := engine(t, p, Config{Order: flow.OrderNone, Judge: rules, Build: builder(t, push), Batch: &batch.Config{Records: 2, Wait: time.Second}}, ConnectionConfig{})
		defer closeEngine(t, e)
		got := collect(t)
		e.Open(part, nil).Deliver(t.Context(), items(rec(0, "a"), rec(1, "b")), got.done)
		synctest.Wait()
		said := fmt.Sprint(got.got[0].Err, got.got[0].History, e.Problem())
		if !strings.Contains(said, "the item was refused: no ***") {
			t.Errorf("got %s", said)
		}
		if problem := e.Problem(); !strings.Contains(problem, `verdict is "***"`) || strings.Contains(said, "S3cr3t") {
			t.Errorf("got %s, problem %s", said, problem)
		}
	})
}

func TestSecretsAreHiddenInTheFormsOfAnEcho(t *testing.T) {
	for _, tc := range []struct{ header, value, echo, want string }{
		{"Authorization", "Basic dXNlcjpwYSJzcyZ3b3Jk", `{"user":"user","password":"pa\"ss&word"}`, `{"user":"user","password":"***"}`},
		{"X-Api-Key", `k"e&y<1234567>`, `{"key":"k\"e\u0026y\u003c1234567\u003e"}`, `{"key":"***"}`},
		{"X-Api-Key", `abcdefgh+/12345=`, `you sent abcdefgh%2B%2F12345%3D`, `you sent ***`},
		{"X-Api-Key", `abcdefgh+/12345=`, `{"sent":"abcdefgh\u002B\/12345\u003d"}`, `{"sent":"***"}`},
		{"X-Api-Key", `ABCDEFGH12345`, `unknown key abcdefgh12345`, `unknown key ***`},
		{"Cookie", `session=0123456789abcdef; a=b`, `session 0123456789abcdef is over`, `session *** is over`},
		{"Authorization", `Digest username="u", response="0123456789abcdef"`, `response 0123456789abcdef of u`, `response *** of u`},
	} {
		req := asked(t, tc.header, tc.value)
		x := (&RedactConfig{}).of(req).exchange(req, &verdict.Response{Status: 400, Body: []byte(tc.echo)})
		if string(x.ResponseBody) != tc.want {
			t.Errorf("%s: shown: %s, want %s", tc.value, x.ResponseBody, tc.want)
		}
	}
}

// An exchange is small whatever was sent and answered.
func TestExchangesAreBounded(t *testing.T) {
	long := strings.Repeat("é", 500<<10)
	var many []string
	for i := range 2000 {
		many = append(many, fmt.Sprint("X-", i), "value")
	}
	for name, header := range map[string][]string{
		"long values": {"A", long, "B", long, "Authorization", long}, "many": many, "a long name": {strings.Repeat("n", 1<<20), "v"},
		"many long values": {"A", long, "B", long, "C", long, "D", long, "E", long, "F", long, "G", long, "H", long, "I", long, "J", long, "K", long, "L", long, "M", long, "N", long, "O", long, "P", long, "Q", long, "R", long},
	} {
		req := asked(t, header...)
		req.Body, req.URL.RawQuery = []byte(long), long
		x := (&RedactConfig{}).of(req).exchange(req, &verdict.Response{Status: 400, Header: req.Header, Body: []byte(long)})
		for _, hs := range [][]record.Header{x.RequestHeaders, x.ResponseHeaders} {
			size := 0
			for _, h := range hs {
				size += len(h.Key) + len(h.Value)
				if len(h.Value) > 1<<10 || bytes.Contains(h.Value, []byte("\uFFFD")) {
					t.Errorf("%s: %.20s has %d bytes", name, h.Key, len(h.Value))
				}
			}
			if size > 16<<10 {
				t.Errorf("%s: %d bytes of headers", name, size)
			}
		}
		if len(x.RequestBody) > MaxShown || len(x.ResponseBody) > MaxShown || len(x.URL) > MaxShown || !x.RequestCut || !x.ResponseCut {
			t.Errorf("%s: bodies of %d and %d bytes, URL of %d", name, len(x.RequestBody), len(x.ResponseBody), len(x.URL))
		}
	}
	if e := (&RedactConfig{}).of(nil).error(record.Errorf(record.Rejected, "%s", long)); len(e.Message) > MaxShown || e.Class != record.Rejected {
		t.Errorf("a message of %d bytes", len(e.Message))
	}
	req := asked(t, "A", "b")
	x := (&RedactConfig{}).of(req).exchange(req, &verdict.Response{Status: 400, Header: req.Header})
	if x.RequestCut || x.ResponseCut || len(x.RequestHeaders) != 1 {
		t.Errorf("got %+v", x)
	}
}

// A partner that knows a request's key knows it after an offset reset too, if
// the record was read before.
func TestKeptRecordsHaveTheKeyOfTheirGeneration(t *testing.T) {
	kept := func(offset int64, generation uint32, group string) record.Item {
		r := rec(offset, "")
		return record.Item{Record: r, Retry: &record.Retry{Generation: generation, Group: group, GroupIndex: uint32(offset)}}
	}
	bubble(t, func(t *testing.T) {
		p := &partner{}
		e := engine(t, p, Config{Order: flow.OrderNone, Build: builderOf(t, 2)}, ConnectionConfig{})
		defer closeEngine(t, e)
		got := collect(t)
		e.Open(part, nil).Deliver(t.Context(), []record.Item{kept(0, 0, ""), kept(1, 1, ""), {Record: rec(2, "")}}, got.done)
		synctest.Wait()
		keys := map[string]bool{}
		for _, x := range p.requests() {
			keys[x.key] = true
		}
		if len(keys) != 3 || !keys["0000000000000001/0/t/0/0"] || !keys["0000000000000001/1/t/0/1"] || !keys["0000000000000001/2/t/0/2"] {
			t.Errorf("keys %v", keys)
		}
	})
	bubble(t, func(t *testing.T) {
		var of [3]string
		for i, generations := range [][2]uint32{{1, 1}, {0, 1}, {0, 0}} {
			p := &partner{}
			e := engine(t, p, Config{Order: flow.OrderNone, Build: builderOf(t, 2), Batch: &batch.Config{Records: 2, Wait: time.Second}}, ConnectionConfig{})
			got := collect(t)
			e.Open(part, nil).Deliver(t.Context(), []record.Item{kept(0, generations[0], "g"), kept(1, generations[1], "g")}, got.done)
			synctest.Wait()
			if p.offsets() != "0+1" {
				t.Fatalf("sent %s", p.offsets())
			}
			of[i] = p.requests()[0].key
			closeEngine(t, e)
		}
		if !strings.HasPrefix(of[0], "0000000000000001/1/") || of[1] != of[0] || !strings.HasPrefix(of[2], "0000000000000001/0/") {
			t.Errorf("keys %v", of)
		}
	})
}

type rejectAll struct{ ok bool }

func (r rejectAll) Judge(*verdict.Exchange) verdict.Verdicts {
	if r.ok {
		return verdict.Verdicts{}
	}
	return verdict.Verdicts{All: record.Errorf(record.Rejected, "invalid sku")}
}

// A partner that answers a rejection with status 500: validate says reject (or
// ok), so nothing of it is to be tried again, and the partner works.
func TestVerdictOnA500(t *testing.T) {
	for _, ok := range []bool{true, false} {
		bubble(t, func(t *testing.T) {
			p := &partner{answer: always(500)}
			e := engine(t, p, Config{Order: flow.OrderNone, Judge: rejectAll{ok}}, ConnectionConfig{})
			defer closeEngine(t, e)
			got := collect(t)
			var its []record.Item
			for i := range int64(200) {
				its = append(its, record.Item{Record: rec(i, "a")})
			}
			e.Open(part, nil).Deliver(t.Context(), its, got.done)
			synctest.Wait()
			if got.len() != 200 || len(p.requests()) != 200 || e.Held() != "" {
				t.Errorf("ok %v: %d of 200 records have their verdict after %d requests; held: %s", ok, got.len(), len(p.requests()), e.Held())
			}
		})
	}
}
