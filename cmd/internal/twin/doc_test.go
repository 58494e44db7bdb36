package twin

import (
	"encoding/json"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/millrace-io/millrace/cmd/internal/page"
)

// TestPage runs the reference page's example: its file, and its calls with
// their answers.
func TestPage(t *testing.T) {
	path := filepath.Join("..", "..", "..", "docs", "reference", "twin.md")
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	p := listen(t, page.First(t, string(text), "yaml"), Options{})
	calls := page.Calls(page.First(t, string(text), "console"))
	for _, c := range calls {
		var headers []string
		for name, values := range c.Header {
			headers = append(headers, name, values[0])
		}
		p.seen()
		if got := p.send(c.Method, strings.TrimPrefix(c.URL, "http://127.0.0.1:8088"), c.Body, headers...); got.err != nil || level(got.body) != level(c.Want) {
			t.Errorf("curl %s\n got: %s%v\nwant: %s", c.Command, level(got.body), got.err, level(c.Want))
		}
	}
	if len(calls) < 5 {
		t.Errorf("%d calls on the page", len(calls))
	}
}

// level puts the same in place of what is never the same.
func level(s string) string {
	s = regexp.MustCompile(`"time":"[^"]*"`).ReplaceAllString(s, `"time":"..."`)
	s = regexp.MustCompile(`"ms":[0-9.]+`).ReplaceAllString(s, `"ms":0`)
	return strings.TrimSpace(s)
}

// TestExample: the example with all troubles works, and shows each of them.
func TestExample(t *testing.T) {
	src, err := os.ReadFile(filepath.Join("..", "..", "..", "examples", "partner", "twin.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	f, err := Parse("twin.yaml", src)
	if err != nil {
		t.Fatal(err)
	}
	if f.Name != "regulator" || len(f.routes) != 2 || len(f.routes[0].answers) != 9 || f.seed != 7 {
		t.Errorf("%+v", f)
	}
	seen := map[string]bool{}
	for i := range f.routes[0].answers {
		a := &f.routes[0].answers[i]
		seen[a.trouble()] = true
		if a.trouble() == resetBody && a.body == nil {
			t.Error("an answer that is cut off has no words of its own")
		}
	}
	for _, want := range []string{"", "html", "truncated", "reset_before", "reset_body", "slow", "hang"} {
		if !seen[want] {
			t.Errorf("no %s", want)
		}
	}
	p := listen(t, string(src), Options{})
	p.SetCalm(true)
	body := `[{"id":"a","shop_id":"s","amount":1}]`
	if r := p.send("POST", "/v2/orders", body); r.status != http.StatusUnauthorized {
		t.Errorf("not signed: %d", r.status)
	}
	var out struct {
		Code    int
		Results []struct {
			ID   string
			Code int
		}
	}
	r := p.send("POST", "/v2/orders", body, "X-Sign", hexMAC("made-up", body))
	if err := json.NewDecoder(strings.NewReader(r.body)).Decode(&out); err != nil && err != io.EOF || r.status != 200 || out.Code != 0 || len(out.Results) != 1 || out.Results[0].ID != "a" {
		t.Errorf("%d %s", r.status, r.body)
	}
}
