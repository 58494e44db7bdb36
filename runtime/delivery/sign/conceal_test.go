package sign

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"html"
	"net/url"
	"strings"
	"testing"
	"unicode/utf16"
)

// echoes are forms in which partners send back what they were sent.
var echoes = map[string]func(string) string{
	"as it is":    func(s string) string { return s },
	"JSON":        jsonText,
	"JSON of PHP": phpText,
	"JSON twice":  func(s string) string { return jsonText(jsonText(s)) },
	"JSON of .NET": func(s string) string {
		return strings.NewReplacer("+", `\u002B`, "&", `\u0026`, `"`, `\u0022`, "<", `\u003C`, `\\`, `\\`).Replace(s)
	},
	"a query":       url.QueryEscape,
	"a path":        url.PathEscape,
	"RFC 3986":      escape,
	"URL of .NET":   func(s string) string { return strings.ToLower(url.QueryEscape(s)) },
	"a query twice": func(s string) string { return escape(escape(s)) },
	"HTML":          html.EscapeString,
	"base64":        func(s string) string { return base64.RawStdEncoding.EncodeToString([]byte(s)) },
	"base64url":     func(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) },
	"URL in JSON":   func(s string) string { return jsonText(url.QueryEscape(s)) },
	"base64 in PHP": func(s string) string {
		return strings.ReplaceAll(base64.RawStdEncoding.EncodeToString([]byte(s)), "/", `\/`)
	},
	"small letters": strings.ToLower,
}

// phpText is plain ASCII and escapes a slash.
func phpText(s string) string {
	var b strings.Builder
	for _, u := range utf16.Encode([]rune(s)) {
		switch {
		case u > 0x7e:
			fmt.Fprintf(&b, `\u%04x`, u)
		case u == '"' || u == '\\' || u == '/':
			b.WriteString(`\` + string(rune(u)))
		default:
			b.WriteRune(rune(u))
		}
	}
	return b.String()
}

func quoted(s string) string { return s[1 : len(s)-1] }

func jsonText(s string) string {
	b, err := json.Marshal(s)
	if err != nil {
		panic(err)
	}
	return quoted(string(b))
}

func TestConcealFindsEchoes(t *testing.T) {
	for _, value := range []string{"hunter2-hunter2", "abcdefgh+/12345=", `pa"ss&wo<rd>'12`, "pass word 12", "päss-wörd-😀-1", "100%-%41-sure", "a+b&c=d%/e;f+g", `C:\keys\new`, "????>>>>////"} {
		for name, echo := range echoes {
			if name == "JSON twice" && strings.Contains(value, `\`) {
				continue // a run of backslashes has no one reading
			}
			text := "you sent " + echo(value) + ", no"
			if got := Conceal(text, value); got != "you sent ***, no" {
				t.Errorf("%s of %s: %s", name, value, got)
			}
		}
	}
}

func TestConcealLeavesTheRest(t *testing.T) {
	for _, tc := range []struct{ text, value, want string }{
		{"abc and abc", "abc", "abc and abc"},
		{"abcd", "", "abcd"},
		{"Test test", "Test", "*** test"},
		{`\u00`, "&&&&&&&&", `\u00`},
		{`a\`, "a&&&&&&&", `a\`},
		{`a\ud83d\u`, "a😀😀", `a\ud83d\u`},
		{"a%2", "a&&&&&&&", "a%2"},
		{"hunter2-hunter", "hunter2-hunter2", "hunter2-hunter"},
		{"hunter2-hunter2hunter2-hunter2", "hunter2-hunter2", "******"},
	} {
		if got := Conceal(tc.text, tc.value); got != tc.want {
			t.Errorf("%s in %s: %s", tc.value, tc.text, got)
		}
	}
	if got := Conceal("user:password1 password1", "password1", "user:password1"); got != "*** ***" {
		t.Errorf("one within another: %s", got)
	}
}

// A text that could be searched for long is hidden instead.
func TestConcealGivesUpSafely(t *testing.T) {
	value := strings.Repeat("a", 16<<10) + "b"
	got := Conceal("before "+strings.Repeat("a", 64<<10)+url.QueryEscape("=")+value, value)
	if strings.Contains(got, value) || !strings.HasPrefix(got, "before ") || len(got) > 64<<10 {
		t.Errorf("%d bytes are left", len(got))
	}
}

func FuzzConceal(f *testing.F) {
	f.Add("you sent ", "hunter2", `\u0`)
	f.Add(`%2`, "a&b\"c", `&am`)
	f.Fuzz(func(t *testing.T, before, value, after string) {
		if len(value) < minConcealed {
			return
		}
		for name, echo := range map[string]func(string) string{"as it is": echoes["as it is"], "query": url.QueryEscape} {
			form := echo(value)
			got := Conceal(before+form+after, value)
			if strings.Contains(got, value) && !strings.Contains(hidden, value) && !strings.Contains(before+hidden+after, value) {
				t.Errorf("%s: %q is shown: %q", name, value, got)
			}
		}
	})
}
