package capture

import (
	"encoding/json"
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"
)

// Redacted stands in place of a text that may be secret.
const Redacted = "***"

// secretNames are parts of the names of fields whose values are not kept.
var secretNames = []string{"password", "passwd", "passphrase", "secret", "token", "authorization", "apikey", "accesskey", "privatekey", "credential", "session", "cookie", "signature", "jwt", "iban", "cardnumber", "cvv", "ssn"}

// secretValue are texts that are secret wherever they stand: a JWT, a bearer
// token, and name=value in what is not JSON.
var (
	secretToken = regexp.MustCompile(`eyJ[A-Za-z0-9_-]{4,}\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*`)
	secretAuth  = regexp.MustCompile(`(?i)\b(bearer|basic)\s+[A-Za-z0-9+/=._~-]{8,}`)
	secretPair  = regexp.MustCompile(`(?i)\b([a-z0-9_-]*(?:password|passwd|secret|token|api_?key|session|signature)[a-z0-9_-]*)("?\s*[=:]\s*"?)[^\s"&<,;]+`)
)

// redactor takes out of bodies what may be secret, and remembers the names.
type redactor struct {
	rules [][]string // path segments; one segment is a name anywhere
	names map[string]int
}

func newRedactor(rules []string) (*redactor, error) {
	r := &redactor{names: map[string]int{}}
	for _, rule := range rules {
		segments := strings.Split(rule, ".")
		for _, s := range segments {
			if _, err := path.Match(s, ""); err != nil || s == "" {
				return nil, fmt.Errorf("%q names no field: write a.b.c or a name such as *phone*", rule)
			}
		}
		r.rules = append(r.rules, segments)
	}
	return r, nil
}

// body is a body without what may be secret.
func (r *redactor) body(s string) string {
	dec := json.NewDecoder(strings.NewReader(s))
	dec.UseNumber()
	var v any
	if err := dec.Decode(&v); err == nil && !dec.More() {
		var out strings.Builder
		enc := json.NewEncoder(&out)
		enc.SetEscapeHTML(false)
		if err := enc.Encode(r.walk(v, nil)); err == nil {
			return strings.TrimSuffix(out.String(), "\n")
		}
	}
	return r.text(s, "text")
}

// Redact takes out of the bodies of an exchange what may be secret.
func Redact(x *Exchange) {
	r := &redactor{names: map[string]int{}}
	x.Request.Body, x.Response.Body = r.body(x.Request.Body), r.body(x.Response.Body)
}

func (r *redactor) walk(v any, at []string) any {
	switch v := v.(type) {
	case map[string]any:
		for k := range v {
			place := append(slices.Clone(at), k)
			if r.secret(place) {
				r.names[strings.Join(place, ".")]++
				v[k] = blank(v[k])
			} else {
				v[k] = r.walk(v[k], place)
			}
		}
	case []any:
		for i := range v {
			v[i] = r.walk(v[i], at)
		}
	case string:
		return r.text(v, strings.Join(at, "."))
	}
	return v
}

// blank is a value of the same type that says nothing.
func blank(v any) any {
	switch v := v.(type) {
	case json.Number:
		return json.Number("0")
	case bool:
		return false
	case nil:
		return nil
	case map[string]any:
		for k := range v {
			v[k] = blank(v[k])
		}
		return v
	case []any:
		for i := range v {
			v[i] = blank(v[i])
		}
		return v
	}
	return Redacted
}

// secret reports whether the field at a place is not kept: indices of lists
// are no part of it.
func (r *redactor) secret(place []string) bool {
	name := strings.NewReplacer("_", "", "-", "", " ", "").Replace(strings.ToLower(place[len(place)-1]))
	if slices.ContainsFunc(secretNames, func(s string) bool { return strings.Contains(name, s) }) {
		return true
	}
	for _, rule := range r.rules {
		tail := place
		if len(rule) == 1 {
			tail = place[len(place)-1:]
		}
		if len(tail) != len(rule) {
			continue
		}
		match := true
		for i := range rule {
			ok, _ := path.Match(strings.ToLower(rule[i]), strings.ToLower(tail[i]))
			match = match && ok
		}
		if match {
			return true
		}
	}
	return false
}

func (r *redactor) text(s, where string) string {
	out := secretToken.ReplaceAllString(s, Redacted)
	out = secretAuth.ReplaceAllString(out, "${1} "+Redacted)
	out = secretPair.ReplaceAllString(out, "${1}${2}"+Redacted)
	if out != s {
		r.names["in "+where]++
	}
	return out
}

// isText reports whether s can stand in a file.
func isText(s string) bool {
	return utf8.ValidString(s) && !strings.ContainsFunc(s, unprintable)
}

func unprintable(c rune) bool {
	return c < ' ' && c != '\n' && c != '\t' && c != '\r' || c == 0x7f || c == utf8.RuneError || c == '\ufeff' || c >= 0xe000 && c <= 0xf8ff
}
