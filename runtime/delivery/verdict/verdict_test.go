package verdict

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/millrace-io/millrace/runtime/expr"
	"github.com/millrace-io/millrace/runtime/record"
)

var noon = time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)

func exchange(status int, body string, header ...string) *Exchange {
	x := &Exchange{What: "POST https://partner.example/v2", Items: 1, Now: noon, Response: Response{Status: status, Body: []byte(body)},
		Request: Request{Method: "POST", URL: "https://partner.example/v2", Header: []record.Header{{Key: "X-Kind", Value: []byte("order")}}, Body: []byte("sent")}}
	for i := 0; i < len(header); i += 2 {
		x.Response.Header = append(x.Response.Header, record.Header{Key: header[i], Value: []byte(header[i+1])})
	}
	return x
}

func rules(t testing.TB, cfg Config) *Rules {
	t.Helper()
	r, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// say is a verdict in short: ok, or its class.
func say(e *record.Error) string {
	if e == nil {
		return "ok"
	}
	return e.Class.String()
}

func sayAll(v Verdicts) string {
	if v.Items == nil {
		return say(v.All)
	}
	var out []string
	for _, e := range v.Items {
		out = append(out, say(e))
	}
	return strings.Join(out, " ")
}

func TestDefault(t *testing.T) {
	for status := 200; status < 600; status++ {
		want := "rejected"
		switch {
		case status < 300:
			want = "ok"
		case status == 401, status == 403:
			want = "config"
		case status == 408, status == 429, status >= 500:
			want = "retryable"
		}
		e := Default(exchange(status, "because\n of\tthis "+strings.Repeat("é", 200), "Retry-After", "7")).All
		if say(e) != want {
			t.Fatalf("status %d: got %v, want %s", status, e, want)
		}
		if e == nil {
			continue
		}
		if e.Code != uint32(status) || !strings.Contains(e.Message, fmt.Sprintf(": status %d", status)) || !strings.Contains(e.Message, ": because of this é") || len(e.Message) > 500 {
			t.Errorf("status %d: %+v", status, e)
		}
		if after := map[string]time.Duration{"retryable": 7 * time.Second}[want]; e.RetryAfter != after {
			t.Errorf("status %d: wait %s, want %s", status, e.RetryAfter, after)
		}
	}
}

const page = "<html>Bad gateway</html>"

func TestRules(t *testing.T) {
	example := Config{OK: "response.status == 200 && response.body.code == 0", Reject: "response.body.code in [4001, 4002]"}
	onlyReject := Config{Reject: `response.status == 400 || response.body.code == 1`}
	full := Config{OK: "response.body.ok", Retry: "response.body.busy == true", Reject: "response.body.bad == true"}
	headers := Config{OK: `response.headers["x-result"] == "0" && response.headers["X-Result"] == "0"`}
	sent := Config{OK: `request.method == "POST" && request.headers["x-kind"] == "order" && request.body == "sent" && request.url endsWith "/v2" && vars.v == 1 && env.E == "e"`,
		Vars: map[string]any{"v": 1}, Env: map[string]string{"E": "e"}}
	for _, tc := range []struct {
		name   string
		cfg    Config
		status int
		body   string
		want   string
		reason string
	}{
		{"no rules", Config{}, 204, "", "ok", ""},
		{"no rules", Config{}, 500, page, "retryable", "POST https://partner.example/v2: status 500 Internal Server Error: <html>Bad gateway</html>"},
		{"no rules", Config{}, 422, "", "rejected", "status 422 Unprocessable Entity"},

		{"ok", example, 200, `{"code":0}`, "ok", ""},
		{"an error in a 200", example, 200, `{"code":5000,"msg":"busy"}`, "retryable", `status 200 OK: no rule of ` + "`validate`" + ` takes it: {"code":5000,"msg":"busy"}`},
		{"a rejection in a 200", example, 200, `{"code":4002}`, "rejected", `status 200 OK: {"code":4002}`},
		{"a rejection in a 400", example, 400, `{"code":4001}`, "rejected", ""},
		{"all else is tried again", example, 400, `{"code":1}`, "retryable", `status 400 Bad Request: {"code":1}`},
		{"code without status", example, 201, `{"code":0}`, "retryable", "no rule"},
		{"a page with 200", example, 200, page, "retryable", "reject: the body is not JSON: '<' where a value should be at byte 0: <html>"},
		{"a page with 502", example, 502, page, "retryable", "the body is not JSON"},
		{"nothing with 200", example, 200, "", "retryable", "the body is not JSON: it is empty"},
		{"half of it with 200", example, 200, `{"code":0`, "retryable", "the body is not JSON: end of text"},
		{"null", example, 200, `null`, "retryable", "no rule"},
		{"unauthorized", example, 401, `{"code":1}`, "config", "correct the connection's auth"},
		{"unauthorized page", example, 403, page, "config", "the body is not JSON"},
		{"unauthorized and rejected", example, 403, `{"code":4001}`, "rejected", ""},
		{"too large a number stays", Config{OK: `response.body.n == 9007199254740993`}, 200, `{"n":9007199254740993}`, "ok", ""},

		{"no ok: the status", onlyReject, 201, `{}`, "ok", ""},
		{"no ok: the status", onlyReject, 500, `{}`, "retryable", ""},
		{"what is decided without the body", onlyReject, 400, page, "rejected", ""},
		{"a 200 that cannot be judged is not ok", onlyReject, 200, page, "retryable", "not JSON"},
		{"absence is no proof", Config{OK: "response.body.error == nil"}, 200, page, "retryable", "not JSON"},
		{"absence", Config{OK: "response.body.error == nil"}, 200, "{}", "ok", ""},
		{"ok that does not look", Config{OK: "response.status == 200 || response.body.code == 0"}, 200, page, "ok", ""},

		{"reject before retry", full, 200, `{"ok":true,"busy":true,"bad":true}`, "rejected", ""},
		{"retry before ok", full, 200, `{"ok":true,"busy":true}`, "retryable", ""},
		{"ok", full, 500, `{"ok":true}`, "ok", ""},
		{"no bool", full, 200, `{"ok":1}`, "retryable", "ok: `response.body.ok`: the result is an int, not true or false"},
		{"an expression that fails", Config{OK: `response.body.n + 1 > 2`}, 200, `{"n":"x"}`, "retryable", "ok: `response.body.n + 1 > 2`"},

		{"only retry: all else is rejected", Config{Retry: "response.status == 503"}, 500, ``, "rejected", "no rule"},
		{"only retry", Config{Retry: "response.status == 503"}, 503, ``, "retryable", ""},
		{"only retry: ok", Config{Retry: "response.status == 503"}, 200, ``, "ok", ""},
		{"only retry, undecided", Config{Retry: "response.body.busy"}, 400, page, "retryable", "not JSON"},
		{"only retry, unauthorized", Config{Retry: "response.status == 503"}, 401, ``, "config", ""},

		{"headers", headers, 200, ``, "ok", ""},
		{"raw", Config{OK: `response.raw contains "SUCCESS"`}, 200, `<r>SUCCESS</r>`, "ok", ""},
		{"raw", Config{OK: `response.raw contains "SUCCESS"`}, 200, `<r>ERROR</r>`, "retryable", ""},
		{"request, vars and env", sent, 200, "", "ok", ""},
	} {
		t.Run(fmt.Sprint(tc.name, " ", tc.status, " ", tc.body), func(t *testing.T) {
			x := exchange(tc.status, tc.body, "X-Result", "0", "Retry-After", "7")
			v := rules(t, tc.cfg).Judge(x)
			if sayAll(v) != tc.want {
				t.Fatalf("got %s (%v), want %s", sayAll(v), v.All, tc.want)
			}
			if v.All == nil {
				return
			}
			if !strings.Contains(v.All.Message, tc.reason) || v.All.Code != uint32(tc.status) {
				t.Errorf("got %+v, want the message to say %q", v.All, tc.reason)
			}
			if want := map[bool]time.Duration{true: 7 * time.Second}[v.All.Class == record.Retryable]; v.All.RetryAfter != want {
				t.Errorf("retry after %s, want %s", v.All.RetryAfter, want)
			}
		})
	}
}

func TestLongBodies(t *testing.T) {
	body := `{"code":0,"pad":"` + strings.Repeat("x", MaxBodyBytes) + `"}`
	r := rules(t, Config{OK: "response.body.code == 0"})
	x := exchange(200, body)
	if v := r.Judge(x); sayAll(v) != "retryable" || !strings.Contains(v.All.Message, "longer than what is read") {
		t.Errorf("a body of %d bytes: got %v", len(body), v.All)
	}
	x = exchange(200, `{"code":0}`)
	x.Response.Truncated = true
	if v := r.Judge(x); sayAll(v) != "retryable" || !strings.Contains(v.All.Message, "longer than what is read") {
		t.Errorf("a body that was cut: got %v", v.All)
	}
	x = exchange(200, body)
	if v := rules(t, Config{OK: `response.raw startsWith "{" && response.status == 200`}).Judge(x); sayAll(v) != "ok" {
		t.Errorf("rules that do not read it: got %v", v.All)
	}
	exact := `{"code":0,"pad":"` + strings.Repeat("x", MaxBodyBytes-19) + `"}`
	if v := r.Judge(exchange(200, exact)); len(exact) != MaxBodyBytes || sayAll(v) != "ok" {
		t.Errorf("a body of %d bytes: got %v", len(exact), v.All)
	}
}

func TestNoBodyIsNoJSON(t *testing.T) {
	x := exchange(200, "")
	x.Response.Body = nil
	v := rules(t, Config{OK: "response.body.error == nil"}).Judge(x)
	if sayAll(v) != "retryable" || !strings.Contains(v.All.Message, "it is empty") {
		t.Errorf("got %v", v.All)
	}
}

func TestItems(t *testing.T) {
	plain := Config{Each: "response.body.results"}
	byID := Config{Each: "response.body.results", ItemID: "id"}
	mapped := Config{OK: "response.body.code == 0", Each: `map(response.body.results, .code == 0 ? "ok" : .code in [4001] ? "reject" : "retry")`}
	for _, tc := range []struct {
		name   string
		cfg    Config
		items  int
		status int
		body   string
		want   string
	}{
		{"words", plain, 3, 200, `{"results":["ok","retry","reject"]}`, "ok retryable rejected"},
		{"bools", plain, 2, 200, `{"results":[true,false]}`, "ok retryable"},
		{"statuses", plain, 6, 207, `{"results":[200,201,429,503,422,401]}`, "ok ok retryable retryable rejected rejected"},
		{"maps", plain, 4, 200, `{"results":[{"status":"ok"},{"status":409},{"verdict":"retry","status":"broken"},{"status":true}]}`, "ok rejected retryable ok"},
		{"unreadable", plain, 5, 200, `{"results":["fine",{"x":1},null,7,1.5]}`, "retryable retryable retryable retryable retryable"},
		{"mapped", mapped, 3, 200, `{"code":0,"results":[{"code":0},{"code":4001},{"code":9}]}`, "ok rejected retryable"},
		{"items count where ok is false", mapped, 1, 200, `{"code":1,"results":[{"code":0}]}`, "ok"},
		{"too few", plain, 3, 200, `{"results":["ok"]}`, "retryable"},
		{"too many", plain, 1, 200, `{"results":["ok","ok"]}`, "retryable"},
		{"none of them", plain, 2, 200, `{"results":[]}`, "retryable"},
		{"none of them that matter", Config{Each: "filter(response.body.results, # == 1)"}, 2, 200, `{"results":[7]}`, "retryable"},
		{"an empty list is a list", Config{Each: "[]"}, 2, 200, `{}`, "retryable"},
		{"no list, a success", plain, 2, 200, `{}`, "retryable"},
		{"no list, and ok is true", Config{OK: "response.status == 200", Each: "response.body.result"}, 2, 200, `{"results":["reject"]}`, "retryable"},
		{"true instead of a list", Config{Each: "response.body.results ?? true"}, 2, 200, `{}`, "ok"},
		{"true, and ok is not", Config{OK: "response.body.code == 0", Each: "response.body.results ?? true"}, 2, 200, `{"code":1}`, "retryable"},
		{"false instead of a list", Config{Each: "response.body.results ?? false"}, 2, 200, `{}`, "retryable"},
		{"no list, no success", plain, 2, 500, `{}`, "retryable"},
		{"not a list", plain, 2, 200, `{"results":"ok"}`, "retryable"},
		{"a page", plain, 2, 200, page, "retryable"},
		{"reject first", Config{Reject: "response.status == 400", Each: "response.body.results"}, 2, 400, `{"results":["ok","ok"]}`, "rejected"},
		{"an undecided reject", Config{Reject: "response.body.n + 1 == 2", Each: "response.body.results"}, 2, 200, `{"results":["ok","ok"]}`, "retryable"},
		{"by id", byID, 3, 200, `{"results":[{"id":"i2","status":"reject"},{"id":"i0","status":"ok"},{"id":"other","status":"ok"},{"status":"ok"},"ok"]}`, "ok retryable rejected"},
		{"the worst counts", byID, 2, 200, `{"results":[{"id":"i0","status":"ok"},{"id":"i0","status":"retry"},{"id":"i1","status":"reject"},{"id":"i1","status":"ok"}]}`, "retryable rejected"},
		{"empty by id", byID, 2, 200, `{"results":[]}`, "retryable retryable"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			x := exchange(tc.status, tc.body)
			x.Items = tc.items
			x.ID = func(i int) string { return fmt.Sprint("i", i) }
			v := rules(t, tc.cfg).Judge(x)
			if got := sayAll(v); got != tc.want {
				t.Errorf("got %s (%v %v), want %s", got, v.All, v.Items, tc.want)
			}
		})
	}
	t.Run("what is told", func(t *testing.T) {
		x := exchange(200, `{"results":[{"status":"retry","message":"slow\ndown","code":17,"retry_after":3},{"status":422,"error":"no such shop"},{"status":"retry","retry_after":1e9},"retry"]}`, "retry-after", "5")
		x.Items = 4
		v := rules(t, plain).Judge(x)
		want := []record.Error{
			{Class: record.Retryable, Code: 17, RetryAfter: 3 * time.Second, Message: "POST https://partner.example/v2: the item is to be sent again: slow down"},
			{Class: record.Rejected, Code: 422, Message: "POST https://partner.example/v2: the item was refused: no such shop"},
			{Class: record.Retryable, Code: 200, RetryAfter: MaxRetryAfter, Message: "POST https://partner.example/v2: the item is to be sent again"},
			{Class: record.Retryable, Code: 200, RetryAfter: 5 * time.Second, Message: "POST https://partner.example/v2: the item is to be sent again"},
		}
		for i := range want {
			if *v.Of(i) != want[i] {
				t.Errorf("item %d:\ngot  %+v\nwant %+v", i, *v.Of(i), want[i])
			}
		}
		if got := fmt.Sprint(v.Again(4)); got != "[0 2 3]" {
			t.Errorf("again: %s", got)
		}
	})
	t.Run("numbers as ids", func(t *testing.T) {
		x := exchange(200, `{"results":[{"id":12345678901,"status":"ok"}]}`)
		x.ID = func(int) string { return "12345678901" }
		if got := sayAll(rules(t, byID).Judge(x)); got != "ok" {
			t.Errorf("got %s", got)
		}
	})
	t.Run("all in common", func(t *testing.T) {
		v := Verdicts{All: &record.Error{Class: record.Timeout}}
		if fmt.Sprint(v.Again(2), Verdicts{}.Again(2)) != "[0 1] []" {
			t.Errorf("again: %v %v", v.Again(2), Verdicts{}.Again(2))
		}
	})
}

func TestRetryAfter(t *testing.T) {
	for v, want := range map[string]time.Duration{
		"7": 7 * time.Second, " 0 ": 0, "-5": 0, "soon": 0, "99999999999999999999": 0, "9999999999": MaxRetryAfter,
		"Sun, 01 Nov 2026 12:01:30 GMT": 90 * time.Second, "Sun, 01 Nov 2026 11:00:00 GMT": 0, "Mon, 02 Nov 2026 12:00:00 GMT": MaxRetryAfter,
	} {
		if got := Default(exchange(429, "", "Retry-After", v)).All.RetryAfter; got != want {
			t.Errorf("%q: got %s, want %s", v, got, want)
		}
	}
}

func TestPluginsGetAnswers(t *testing.T) {
	x := exchange(503, "down", "Retry-After", "7")
	rec := x.Response.Record()
	if got := fmt.Sprintf("%s %s", rec.Value, rec.Headers); got != "down [{:status 503} {Retry-After 7}]" {
		t.Errorf("got %s", got)
	}
	if rec := (&Response{Status: 204}).Record(); rec.Value == nil {
		t.Error("no body is a null value")
	}
}

func TestRulesThatDoNotCompile(t *testing.T) {
	for _, tc := range []struct {
		name   string
		cfg    Config
		offset int
		want   string
	}{
		{"syntax", Config{OK: "response.status = 200"}, 16, "a single ="},
		{"no condition", Config{Retry: "1 + 1"}, 0, "must be true or false"},
		{"a root that is not there", Config{Reject: "value.x == 1"}, 0, "value"},
		{"a typo behind the body", Config{OK: "response.body.x == 1 && response.staus == 200"}, 33, "did you mean `response.status`?"},
		{"the whole response", Config{Each: "[response]"}, 1, "response is used by its fields only"},
		{"in brackets", Config{OK: `response["body"].x == 1`}, 0, "response is used by its fields only"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := New(tc.cfg)
			e, ok := errors.AsType[*expr.Error](err)
			if !ok || e.Offset != tc.offset || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %+v (%v), want offset %d and %q", e, err, tc.offset, tc.want)
			}
		})
	}
	_, err := New(Config{OK: "1", Retry: "(", ItemID: "id"})
	for _, want := range []string{"validate: ok:", "validate: retry:", "ids of items without each"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not say %q", err, want)
		}
	}
}

func TestBindBody(t *testing.T) {
	for src, want := range map[string]string{
		"response.body.code == 0":                              "value.code == 0",
		"response?.body?.code":                                 "value?.code",
		"response . body":                                      "value",
		"response.status":                                      "response.status",
		`"response.body" == response.raw`:                      `"response.body" == response.raw`,
		"request.response.body == response.body":               "request.response.body == value",
		`ü == "ü" || response.body.ü == response.body["body"]`: `ü == "ü" || value.ü == value["body"]`,
		"len(response.body) /* response.body */ > 1":           "len(value) /* response.body */ > 1",
		"{response: 1}.response":                               "{response: 1}.response",
	} {
		if got, err := bindBody(src); err != nil || got != want {
			t.Errorf("%s\ngot  %s, %v\nwant %s", src, got, err, want)
		}
	}
}

func FuzzBindBody(f *testing.F) {
	f.Add("response.body.code == 0", `{"code":0}`)
	f.Add("response . /* x */ body?.a[0]", `{"a":[true]}`)
	f.Fuzz(func(t *testing.T, src, body string) {
		r, err := New(Config{OK: src})
		if err != nil {
			return
		}
		v := r.Judge(exchange(200, body))
		if v.Items != nil || v.All != nil && v.All.Class != record.Retryable {
			t.Errorf("%q over %q: %v", src, body, v)
		}
	})
}

func BenchmarkJudge(b *testing.B) {
	r := rules(b, Config{OK: "response.status == 200 && response.body.code == 0", Reject: "response.body.code in [4001, 4002]"})
	x := exchange(200, `{"code":0,"message":"ok","data":{"id":"123456","accepted":true}}`, "Content-Type", "application/json")
	b.ReportAllocs()
	for b.Loop() {
		if v := r.Judge(x); v.All != nil {
			b.Fatal(v.All)
		}
	}
}

// The end of what is quoted is no place for a part of a secret.
func TestBeginning(t *testing.T) {
	secret := strings.Repeat("s3cret", 100)
	redact := func(s string) string { return strings.ReplaceAll(s, secret, "***") }
	for _, tc := range []struct {
		text string
		most int
		want string
		cut  bool
	}{
		{"", 4, "", false}, {"abcd", 4, "abcd", false}, {"abcde", 4, "abcd", true}, {"abcé", 4, "abc", true},
		{"a" + secret, 10, "a***", false}, {"a" + secret + "bcdefghi", 10, "a***bcdefg", true},
		{strings.Repeat(" ", lookedThrough-9) + secret, lookedThrough, strings.Repeat(" ", lookedThrough-unsure), true},
		{strings.Repeat(secret, 200), 10, "", true},
	} {
		if got, cut := Beginning([]byte(tc.text), tc.most, redact); got != tc.want || cut != tc.cut {
			t.Errorf("%.20q, %d: got %.40q, %v", tc.text, tc.most, got, cut)
		}
	}
	if got, cut := Beginning([]byte("abcé"), 4, nil); got != "abc" || !cut {
		t.Errorf("without secrets: %q, %v", got, cut)
	}
}
