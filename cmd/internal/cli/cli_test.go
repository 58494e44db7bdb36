package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/millrace-io/millrace/cmd/internal/api"
)

func TestSafe(t *testing.T) {
	for in, want := range map[string]string{
		"plain ünïcode ✓":      "plain ünïcode ✓",
		"two\nlines\tand tab":  `two\nlines\tand tab`,
		"\x1b[2Jcleared":       `\x1b[2Jcleared`,
		"bad \xff utf8":        `bad \xff utf8`,
		"right\u202eto left":   `right\u202eto left`,
		"replaced \ufffd rune": "replaced \ufffd rune",
	} {
		if got := Safe(in); got != want {
			t.Errorf("Safe(%q) = %q, want %q", in, got, want)
		}
	}
}

func TestText(t *testing.T) {
	now := time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	for d, want := range map[time.Duration]string{
		-time.Second: "0s", 59 * time.Second: "59s", 61 * time.Second: "1m", time.Hour: "1h", 90 * time.Minute: "1h30m", 25 * time.Hour: "1d", 240 * time.Hour: "10d",
	} {
		if got := Age(now, now.Add(-d).UnixMilli()); got != want {
			t.Errorf("age of %s: %s, want %s", d, got, want)
		}
	}
	if got := Age(now, 0); got != "" {
		t.Errorf("age of an unknown time: %q", got)
	}
	for n, want := range map[int64]string{0: "0 B", 1023: "1023 B", 1024: "1.0 KiB", 1 << 30: "1.0 GiB", 1<<63 - 1: "8.0 EiB"} {
		if got := Bytes(n); got != want {
			t.Errorf("Bytes(%d) = %s, want %s", n, got, want)
		}
	}
	if a, b := Plural(1, "entry"), Plural(2, "entry"); a != "1 entry" || b != "2 entries" {
		t.Error(a, b)
	}
	if got := Shorten("äöüß", 3); got != "äö…" {
		t.Error(got)
	}
	if got := Digest("sha256:0123456789"); got != "01234567" {
		t.Error(got)
	}
}

func TestNearest(t *testing.T) {
	names := []string{"flow", "queue", "plugin", "connection"}
	for in, want := range map[string]string{"flwo": "flow", "QUEUE": "queue", "plugins": "plugin", "conection": "connection", "replay": "", "x": ""} {
		if got := Nearest(in, names); got != want {
			t.Errorf("Nearest(%q) = %q, want %q", in, got, want)
		}
	}
}

func TestProgram(t *testing.T) {
	for arg0, want := range map[string]string{
		"":                                  "flowctl",
		"flowctl":                           "flowctl",
		"bin/flowctl":                       "bin/flowctl",
		"/opt/flowctl":                      "/opt/flowctl",
		"/tmp/go-build123/b001/exe/flowctl": "go run ./cmd/flowctl",
		"/root/cache/7b/7bc0000000000000000000000000000000000000000000000000000000000000-d/flowctl":           "go run ./cmd/flowctl",
		"/root/.cache/go-build/7b/7bc0000000000000000000000000000000000000000000000000000000000000-d/flowctl": "go run ./cmd/flowctl",
	} {
		if got := Program(arg0, "flowctl"); got != want {
			t.Errorf("Program(%q) = %q, want %q", arg0, got, want)
		}
	}
	there := func(string) bool { return true }
	for arg0, want := range map[string]string{"flowctl": "flowd", "bin/flowctl": "bin/flowd", "/tmp/go-build123/b001/exe/flowctl": "go run ./cmd/flowd"} {
		if got := Sibling(arg0, "flowd", there); got != want {
			t.Errorf("Sibling(%q) = %q, want %q", arg0, got, want)
		}
	}
	if got := Sibling("bin/flowctl", "flowd", func(string) bool { return false }); got != "flowd" {
		t.Errorf("a program that is not there: %q", got)
	}
}

type thing struct {
	Name string `json:"name"`
	Note string `json:"note,omitempty"`
	N    int64  `json:"n"`
}

var things = View[thing]{
	Name: func(v thing) string { return v.Name },
	Columns: []Column[thing]{
		{Title: "NAME", Cell: func(v thing) string { return v.Name }},
		{Title: "N", Wide: true, Cell: func(v thing) string { return Count(v.N) }},
		{Title: "NOTE", Cell: func(v thing) string { return v.Note }},
	},
}

func TestView(t *testing.T) {
	items := []thing{{"a", "x <y>\n", 1 << 60}, {"longer", "", -1}}
	for f, want := range map[Format]string{
		Table:  "NAME    NOTE\na       x <y>\\n\nlonger  -\n",
		Wide:   "NAME    N                    NOTE\na       1152921504606846976  x <y>\\n\nlonger  ?                    -\n",
		JSON:   "[\n  {\n    \"name\": \"a\",\n    \"note\": \"x <y>\\n\",\n    \"n\": 1152921504606846976\n  },\n  {\n    \"name\": \"longer\",\n    \"n\": -1\n  }\n]\n",
		NDJSON: "{\"name\":\"a\",\"note\":\"x <y>\\n\",\"n\":1152921504606846976}\n{\"name\":\"longer\",\"n\":-1}\n",
		YAML:   "- name: a\n  note: |\n    x <y>\n  \"n\": 1152921504606846976\n- name: longer\n  \"n\": -1\n",
		Name:   "a\nlonger\n",
	} {
		var buf bytes.Buffer
		if err := things.List(&buf, f, items); err != nil || buf.String() != want {
			t.Errorf("%s: %v\n%s\nwant\n%s", f, err, &buf, want)
		}
	}
	for f, want := range map[Format]string{Table: "NAME  NOTE\n", JSON: "[]\n", YAML: "[]\n", NDJSON: "", Name: ""} {
		var buf bytes.Buffer
		if err := things.List(&buf, f, nil); err != nil || buf.String() != want {
			t.Errorf("nothing as %s: %v, %q, want %q", f, err, &buf, want)
		}
	}
}

func TestExitCodes(t *testing.T) {
	for _, c := range []struct {
		err  error
		exit int
		code string
	}{
		{Usage("", "wrong"), 2, "E_USAGE"},
		{fmt.Errorf("around: %w", Usage("", "wrong")), 2, "E_USAGE"},
		{&api.Error{Code: api.CodeNotFound}, 1, "E_NOT_FOUND"},
		{&api.Error{Code: api.CodeInvalid}, 2, "E_INVALID"},
		{&api.Error{Code: api.CodeRefused}, 2, "E_PLUGIN_REFUSED"},
		{&api.Error{Code: api.CodeVersionTaken}, 1, "E_VERSION_TAKEN"},
		{&api.Error{Code: api.CodeUnreachable}, 3, "E_UNREACHABLE"},
		{&api.Error{Code: api.CodeUnavailable}, 3, "E_UNAVAILABLE"},
		{fmt.Errorf("ask: %w", context.Canceled), 130, "E_INTERRUPTED"},
		{errors.New("something"), 1, "E_FAILED"},
	} {
		if e := AsError(c.err); e.Exit != c.exit || e.Code != c.code {
			t.Errorf("%v: exit %d %s, want %d %s", c.err, e.Exit, e.Code, c.exit, c.code)
		}
	}
}

func TestPrint(t *testing.T) {
	e := &Error{Exit: 2, Code: "E_X", Detail: "a\x1b[1m b", Next: "do it", Problems: []api.Problem{{Code: "E_Y", Level: "error", Rendered: "E_Y here\n"}}}
	var text, obj bytes.Buffer
	e.Print(&text, false)
	if want := "E_Y here\n\nE_X: a\\x1b[1m b\nnext: do it\n"; text.String() != want {
		t.Errorf("%q, want %q", &text, want)
	}
	e.Print(&obj, true)
	if want := `{"exit":2,"code":"E_X","detail":"a\u001b[1m b","next":"do it","problems":[{"code":"E_Y","level":"error","message":"","rendered":"E_Y here\n"}]}` + "\n"; obj.String() != want {
		t.Errorf("%s, want %s", &obj, want)
	}
}
