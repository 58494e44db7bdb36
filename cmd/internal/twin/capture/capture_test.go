package capture

import (
	"flag"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/millrace-io/millrace/cmd/internal/twin"
)

var rewrite = flag.Bool("rewrite", false, "write the golden files anew")

const har = `{"log":{"version":"1.2","creator":{"name":"proxy"},"entries":[
{"startedDateTime":"2026-11-21T12:00:00.000Z","time":41.5,
 "request":{"method":"POST","url":"https://partner.example/v2/orders?token=q1","headers":[{"name":"Authorization","value":"Bearer abcdefghijkl"}],"postData":{"mimeType":"application/json","text":"[{\"id\":1}]"}},
 "response":{"status":200,"headers":[{"name":"Content-Type","value":"application/json"},{"name":"Set-Cookie","value":"sid=hidden1"}],"content":{"mimeType":"application/json","text":"{\"code\":0,\"session_id\":\"hidden2\",\"user\":{\"email\":\"hidden3\",\"phone_home\":\"hidden4\"}}"}}},
{"startedDateTime":"2026-11-21T12:00:01.000Z","time":0,"request":{"method":"GET","url":"https://partner.example/v2/orders/1234567","headers":[]},
 "response":{"status":0,"headers":[],"content":{}}},
{"startedDateTime":"2026-11-21T12:00:02.000Z","time":20,"request":{"method":"GET","url":"https://partner.example/v2/orders/A-10023","headers":[]},
 "response":{"status":200,"headers":[],"content":{"mimeType":"text/plain","encoding":"base64","text":"ZmluZQ=="}}}
]}}`

// TestGolden: what is made of a capture, and that nothing secret is in it.
func TestGolden(t *testing.T) {
	lines := strings.Join([]string{
		`{"time":"2026-11-21T12:00:00Z","ms":10,"request":{"method":"POST","url":"https://partner.example/o","body":"{}"},"response":{"status":200,"headers":{"content-type":"application/json"},"body":"{\"price\":12.50,\"t\":\"${value}\",\"it's\":1}"}}`,
		`{"ms":20,"request":{"method":"POST","url":"https://partner.example/o"},"response":{"status":429,"headers":{"Retry-After":"3"},"body":"slow down\nplease"}}`,
		`{"ms":30,"request":{"method":"POST","url":"https://partner.example/o"},"response":{"status":503,"body":"api_key=hidden5; Bearer hidden6hidden6 eyJhbGciOi.eyJzdWIi.hidden7"}}`,
		`{"ms":99,"request":{"method":"POST","url":"https://partner.example/o"},"response":{"status":0},"error":"connection reset"}`,
		`{"ms":5,"request":{"method":"POST","url":"https://partner.example/o"},"response":{"status":500,"body":"` + strings.Repeat("x", 9000) + `"}}`,
	}, "\n")
	for name, c := range map[string]struct {
		src string
		o   Options
	}{
		"har":   {har, Options{Redact: []string{"user.email", "*phone*"}}},
		"lines": {lines, Options{Name: "the: partner's"}},
	} {
		x, err := Read(strings.NewReader(c.src))
		if err != nil {
			t.Fatal(err)
		}
		got, sum, err := Twin(x, c.o)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(got), "hidden") || strings.Contains(string(got), "q1") {
			t.Errorf("%s: a secret is in it:\n%s", name, got)
		}
		if _, err := twin.Parse(name, got); err != nil {
			t.Errorf("%s: %v\n%s", name, err, got)
		}
		if name == "har" && (sum.Exchanges != 3 || sum.Routes != 2 || sum.Answers != 3 || !slices.Equal(sum.Fields, []string{"session_id", "user.email", "user.phone_home"})) {
			t.Errorf("summary %+v", sum)
		}
		if name == "lines" && sum.LeftOut != 1 {
			t.Errorf("summary %+v", sum)
		}
		path := filepath.Join("testdata", name+".golden")
		if *rewrite {
			if err := os.MkdirAll("testdata", 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, got, 0o644); err != nil {
				t.Fatal(err)
			}
			continue
		}
		want, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if string(got) != strings.ReplaceAll(string(want), "\r\n", "\n") {
			t.Errorf("%s differs; rewrite it with: go test ./cmd/internal/twin/capture -rewrite\n%s", path, got)
		}
	}
}

// TestServe: a twin that was made of a capture answers as the partner did, and
// as often.
func TestServe(t *testing.T) {
	var lines strings.Builder
	want := map[string]int{}
	const n = 2000
	for i := range n {
		status, body := 200, `{"text":"it's ${value} \\ \"q\""}`
		if i%4 == 0 {
			status, body = 503, "line one\nline \"two\"\t${"
		}
		want[fmt.Sprintf("%d %s", status, body)]++
		fmt.Fprintf(&lines, `{"request":{"method":"POST","url":"http://p/orders/%d"},"response":{"status":%d,"body":%q}}`+"\n", 1000+i, status, body)
	}
	x, err := Read(strings.NewReader(lines.String()))
	if err != nil {
		t.Fatal(err)
	}
	text, _, err := Twin(x, Options{})
	if err != nil {
		t.Fatal(err)
	}
	f, err := twin.Parse("p.yaml", text)
	if err != nil {
		t.Fatal(err)
	}
	tw, err := twin.New(f, twin.Options{})
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]int{}
	for i := range n {
		rec := httptest.NewRecorder()
		tw.ServeHTTP(rec, httptest.NewRequest(http.MethodPost, fmt.Sprintf("/orders/%d", i), nil))
		got[fmt.Sprintf("%d %s", rec.Code, rec.Body)]++
	}
	if len(got) != len(want) {
		t.Errorf("got %v, want %v", got, want)
	}
	for answer, count := range want {
		if d := got[answer] - count; d > n/20 || d < -n/20 {
			t.Errorf("%q: %d times, want about %d", answer, got[answer], count)
		}
	}
}

// TestMostFrequent: answers that are left out count for the one that stands
// for them.
func TestMostFrequent(t *testing.T) {
	var x []Exchange
	for i := range 30 {
		body := "often"
		if i%3 == 0 {
			body = fmt.Sprint("n", i)
		}
		x = append(x, Exchange{Request: Request{Method: "GET", URL: "/a"}, Response: Response{Status: 200, Body: body}})
	}
	text, sum, err := Twin(x, Options{Bodies: 2})
	if err != nil || sum.Answers != 2 || !strings.Contains(string(text), "weight: 29\n") || !strings.Contains(string(text), "weight: 1\n") {
		t.Errorf("%v %+v\n%s", err, sum, text)
	}
}

func TestPattern(t *testing.T) {
	for in, want := range map[string]string{
		"/v2/orders": "/v2/orders", "/v2/orders/17": "/v2/orders/{id}", "/a/17/b/18": "/a/{id}/b/{id2}", "": "/",
		"/o/6f1c2a0e-9d3b-4c55-8a7e-0123456789ab": "/o/{id}", "/o/A-10023": "/o/{id}", "/oauth2/token": "/oauth2/token", "/a b/c": "/{id}/c",
	} {
		if got, _ := patternOf(in); got != want {
			t.Errorf("%s: %s, want %s", in, got, want)
		}
	}
}

func TestRefused(t *testing.T) {
	for _, c := range []struct{ src, want string }{
		{"", "no exchange"},
		{`{"log":{"entries":[]}}`, "no exchange"},
		{"{\"request\":{\"method\":\"GET\",\"url\":\"/\"},\"response\":{\"status\":200}}\nnope", "line 2 is no exchange"},
		{`{"request":{"method":"GET","url":"/"},"reply":{}}`, "line 1 is no exchange"},
		{`{"request":{"url":"/"},"response":{"status":200}}`, "exchange 1 has no method"},
		{`{"request":{"method":"GET","url":"/"},"response":{"status":999}}`, "999 is no status"},
	} {
		if _, err := Read(strings.NewReader(c.src)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q: %v, want %q", c.src, err, c.want)
		}
	}
	x := []Exchange{{Request: Request{Method: "GET", URL: "/a"}}}
	for _, o := range []Options{{Bodies: 21}, {Redact: []string{"a..b"}}, {Redact: []string{"[a"}}} {
		if _, _, err := Twin(x, o); err == nil {
			t.Errorf("%+v is taken", o)
		}
	}
}

// FuzzTwin: whatever was captured, what is made of it can be read.
func FuzzTwin(f *testing.F) {
	f.Add([]byte(har))
	f.Add([]byte(`{"request":{"method":"P T","url":"/{a}/b...}"},"response":{"status":200,"body":"a: [b\u0000"}}`))
	f.Fuzz(func(t *testing.T, src []byte) {
		x, err := Read(strings.NewReader(string(src)))
		if err != nil {
			return
		}
		text, _, err := Twin(x, Options{})
		if err != nil {
			return
		}
		if _, err := twin.Parse("t.yaml", text); err != nil {
			t.Fatalf("%v\n%s", err, text)
		}
	})
}
