package sign

import (
	"crypto"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/millrace-io/millrace/runtime/expr"
	"github.com/millrace-io/millrace/runtime/record"
)

// wants are the costly fields that any text of a Signing names.
type wants map[string]bool

// digests by the names that fields have behind body_ and canonical_.
var digests = []struct {
	name string
	hash crypto.Hash
}{{"md5", crypto.MD5}, {"sha1", crypto.SHA1}, {"sha256", crypto.SHA256}, {"sha384", crypto.SHA384}, {"sha512", crypto.SHA512}}

var plainFields = []string{"method", "url", "scheme", "host", "path", "path_decoded", "path_encoded", "path_encoded_twice",
	"query", "query_sorted", "query_encoded", "query_form", "query_decoded", "params", "headers", "header_lines", "header_names",
	"body", "nonce", "nonce_uuid", "canonical", "signature"}

// fieldNames are the fields of request.
func fieldNames() []string {
	names := slices.Clone(plainFields)
	for _, base := range []string{"body", "canonical"} {
		for _, d := range digests {
			names = append(names, base+"_"+d.name, base+"_"+d.name+"_base64")
		}
	}
	return names
}

// wantsOf finds the names of fields among the words of the sources.
func wantsOf(sources []string) wants {
	w := wants{}
	for _, src := range sources {
		for _, word := range words.FindAllString(src, -1) {
			w[word] = true
		}
	}
	return w
}

var words = regexp.MustCompile(`\w+`)

var fieldUse = regexp.MustCompile(`(?:^|[^.\w])request\??\.(\w+)`)

// checkFields finds a mistyped field of request in an expression.
func checkFields(expression string) error {
	names := fieldNames()
	for _, m := range fieldUse.FindAllStringSubmatch(expression, -1) {
		if slices.Contains(names, m[1]) {
			continue
		}
		help := "the fields are " + strings.Join(plainFields, ", ") + ", and body_ and canonical_ with a digest behind"
		if near := expr.Nearest(m[1], names); near != "" {
			help = "did you mean `request." + near + "`?"
		}
		return fmt.Errorf("request has no field `%s`: %s", m[1], help)
	}
	return nil
}

// evaluation is what the texts of one signature are evaluated over.
type evaluation struct {
	env    *expr.Env
	now    time.Time
	nonce  [16]byte
	signed []string
	wants  wants
	fields map[string]any
}

// see makes r what texts see, with the costly fields that they want.
func (e *evaluation) see(r *Request, w wants) {
	e.wants = w
	e.env.Reset(&record.Record{Timestamp: e.now.UnixMilli()})
	e.fields = e.view(r)
	e.env.Bind(expr.Request, e.fields)
}

func (e *evaluation) view(r *Request) map[string]any {
	path := sentPath(r.URL)
	headers := headerValues(r)
	f := map[string]any{
		"method": r.Method, "url": r.URL.String(), "scheme": r.URL.Scheme, "host": headers["host"],
		"path": path, "path_decoded": decodedPath(r.URL), "query": r.URL.RawQuery, "headers": headers,
	}
	lazy := func(name string, make func() any) {
		if e.wants[name] {
			f[name] = make()
		}
	}
	lazy("path_encoded", func() any { return escapeSegments(decodedPath(r.URL)) })
	lazy("path_encoded_twice", func() any { return escapeSegments(path) })
	if e.wants["query_sorted"] {
		parts := strings.FieldsFunc(r.URL.RawQuery, func(c rune) bool { return c == '&' })
		slices.Sort(parts)
		f["query_sorted"] = strings.Join(parts, "&")
	}
	params := parameters(r.URL.RawQuery)
	lazy("query_encoded", func() any { return joinParameters(params, escape) })
	lazy("query_form", func() any { return joinParameters(params, url.QueryEscape) })
	lazy("query_decoded", func() any { return joinParameters(params, func(s string) string { return s }) })
	lazy("params", func() any {
		m := map[string]any{}
		for _, p := range params {
			if _, ok := m[p.name]; !ok {
				m[p.name] = p.value
			}
		}
		return m
	})
	if e.wants["header_lines"] || e.wants["header_names"] {
		var lines strings.Builder
		var missing bool
		for _, name := range e.signed {
			v, ok := headers[name].(string)
			missing = missing || !ok
			lines.WriteString(name + ":" + strings.Join(strings.Fields(v), " ") + "\n")
		}
		f["header_names"] = strings.Join(e.signed, ";")
		if !missing { // a text over a header that is not there fails
			f["header_lines"] = lines.String()
		}
	}
	lazy("body", func() any { return string(r.Body) })
	e.digests(f, "body", r.Body)
	f["nonce"] = hex.EncodeToString(e.nonce[:])
	lazy("nonce_uuid", func() any { return uuid(e.nonce) })
	return f
}

// digests adds the digests of b that are wanted.
func (e *evaluation) digests(f map[string]any, base string, b []byte) {
	for _, d := range digests {
		name := base + "_" + d.name
		if !e.wants[name] && !e.wants[name+"_base64"] {
			continue
		}
		s := sum(d.hash, b)
		f[name], f[name+"_base64"] = hex.EncodeToString(s), base64.StdEncoding.EncodeToString(s)
	}
}

// uuid is random bytes as a UUID of version 4.
func uuid(b [16]byte) string {
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

func sentPath(u *url.URL) string {
	if p := u.EscapedPath(); p != "" {
		return p
	}
	return "/"
}

func decodedPath(u *url.URL) string {
	if u.Path == "" {
		return "/"
	}
	return u.Path
}

// headerValues has each header as it is written and in lower case, host among
// them.
func headerValues(r *Request) map[string]any {
	all := map[string]string{}
	written := map[string]string{}
	for _, h := range r.Header {
		name, v := strings.ToLower(h.Key), strings.Trim(string(h.Value), " \t")
		if before, ok := all[name]; ok && name != "host" {
			v = before + "," + v
		}
		all[name], written[h.Key] = v, name
	}
	if _, ok := all["host"]; !ok {
		all["host"] = r.URL.Host
	}
	out := make(map[string]any, 2*len(all))
	for name, v := range all {
		out[name] = v
	}
	for name, lower := range written {
		out[name] = all[lower]
	}
	return out
}

func signedHeaders(names []string) []string {
	out := make([]string, len(names))
	for i, n := range names {
		out[i] = strings.ToLower(strings.TrimSpace(n))
	}
	slices.Sort(out)
	return slices.Compact(out)
}

type parameter struct{ name, value string }

// parameters are those of a raw query, decoded. What cannot be decoded stays
// as it is.
func parameters(raw string) []parameter {
	decode := func(s string) string {
		if d, err := url.QueryUnescape(s); err == nil {
			return d
		}
		return s
	}
	var out []parameter
	for part := range strings.SplitSeq(raw, "&") {
		if part == "" {
			continue
		}
		name, value, _ := strings.Cut(part, "=")
		out = append(out, parameter{decode(name), decode(value)})
	}
	return out
}

// joinParameters writes parameters sorted by name and value as written.
func joinParameters(params []parameter, write func(string) string) string {
	type pair struct{ name, value string }
	pairs := make([]pair, len(params))
	for i, p := range params {
		pairs[i] = pair{write(p.name), write(p.value)}
	}
	slices.SortStableFunc(pairs, func(a, b pair) int {
		if c := strings.Compare(a.name, b.name); c != 0 {
			return c
		}
		return strings.Compare(a.value, b.value)
	})
	var b strings.Builder
	for i, p := range pairs {
		if i > 0 {
			b.WriteByte('&')
		}
		b.WriteString(p.name + "=" + p.value)
	}
	return b.String()
}

const upperHex = "0123456789ABCDEF"

// escape escapes all but the unreserved characters of RFC 3986.
func escape(s string) string {
	var b strings.Builder
	for i := range len(s) {
		switch c := s[i]; {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '-', c == '.', c == '_', c == '~':
			b.WriteByte(c)
		default:
			b.WriteByte('%')
			b.WriteByte(upperHex[c>>4])
			b.WriteByte(upperHex[c&15])
		}
	}
	return b.String()
}

func escapeSegments(path string) string {
	parts := strings.Split(path, "/")
	for i := range parts {
		parts[i] = escape(parts[i])
	}
	return strings.Join(parts, "/")
}
