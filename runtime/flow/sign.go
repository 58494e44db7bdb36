package flow

import (
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/millrace-io/millrace/runtime/expr"
)

// The ways to sign, each of which excludes the others.
var signKinds = []string{"hmac", "rsa", "ecdsa", "ed25519", "jwt", "oauth2", "api_key", "basic", "plugin"}

// signKeys are what stands beside each of them.
var signKeys = map[string][]string{
	"hmac":    {"key", "over", "header", "query", "value", "encoding", "canonical", "signed_headers", "key_encoding", "key_prefix", "derive", "headers", "params"},
	"rsa":     {"key", "over", "header", "query", "value", "encoding", "canonical", "signed_headers", "headers", "params"},
	"ecdsa":   {"key", "over", "header", "query", "value", "encoding", "canonical", "signed_headers", "headers", "params"},
	"ed25519": {"key", "over", "header", "query", "value", "encoding", "canonical", "signed_headers", "headers", "params"},
	"jwt":     {"headers", "params"},
	"oauth2":  {"headers", "params"},
	"api_key": {"header", "query", "prefix", "headers", "params"},
	"basic":   {"headers", "params"},
	"plugin":  {"with", "keys", "limits"},
}

// algorithms of each kind; with the kind before they are those of package sign.
var algorithms = map[string][]string{
	"hmac":  {"md5", "sha1", "sha256", "sha384", "sha512"},
	"rsa":   {"sha1", "sha256", "sha384", "sha512", "pss-sha256", "pss-sha384", "pss-sha512"},
	"ecdsa": {"sha256", "sha384", "sha512", "raw-sha256", "raw-sha384", "raw-sha512"},
}

var jwtAlgorithms = []string{"HS256", "HS384", "HS512", "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"}

// encodings of signatures and of keys, and their names in package sign.
var (
	encodings    = map[string]string{"base64": "base64", "base64url": "base64url", "base64url_padded": "base64url_padded", "hex": "hex", "HEX": "hex_upper"}
	keyEncodings = map[string]string{"plain": "plain", "base64": "base64", "base64url": "base64url", "hex": "hex"}
)

// requestShape are the fields of a request that is signed.
func requestShape(canonical, fresh bool) expr.Shape {
	names := []string{"method", "url", "scheme", "host", "path", "path_decoded", "path_encoded", "path_encoded_twice",
		"query", "query_sorted", "query_encoded", "query_form", "query_decoded", "header_lines", "header_names", "body"}
	digests := []string{"body"}
	if fresh {
		names = append(names, "nonce", "nonce_uuid")
	}
	if canonical {
		names, digests = append(names, "canonical"), append(digests, "canonical")
	}
	shape := expr.Shape{"params": expr.AnyKind, "headers": expr.AnyKind}
	for _, base := range digests {
		for _, d := range []string{"md5", "sha1", "sha256", "sha384", "sha512"} {
			names = append(names, base+"_"+d, base+"_"+d+"_base64")
		}
	}
	for _, name := range names {
		shape[name] = expr.TextKind
	}
	return shape
}

// signing reads a part of `sign` with the roots that it has.
func (l *linter) signing(shape expr.Shape, read func()) {
	l.within(expr.Request|expr.Time|expr.StaticRoots, map[expr.Roots]expr.Shape{expr.Request: shape}, read)
}

func (l *linter) sign(key, n *node) *Sign {
	s := &Sign{}
	if n.kind == scalarNode {
		if !l.isPluginRef(n) || slices.Contains(signKinds, n.text) {
			l.fail(n, CodeType, exampleOf("sign"), "sign is a map, or a plugin")
			return nil
		}
		s.Plugin = &PluginStage{}
		l.pluginPart("sign", n, nil, s.Plugin)
		return s
	}
	var kind, second *node
	for _, f := range n.fields {
		switch {
		case !slices.Contains(signKinds, f.key.text):
		case kind == nil:
			kind = f.key
		case second == nil:
			second = f.key
		}
	}
	keys := map[string]*node{}
	if !l.each(n, "sign", "sign", func(key, _ *node) { keys[key.text] = key }) {
		return nil
	}
	switch {
	case kind == nil:
		if !slices.ContainsFunc(n.fields, func(f field) bool { return !slices.Contains(keySets["sign"].known, f.key.text) }) {
			l.fail(key, CodeKeyMissing, "such as hmac: sha256; there are "+strings.Join(signKinds, ", "), "`sign` does not say how")
		}
		return nil
	case second != nil:
		l.fail(second, CodeStageKey, "keep one", "a request is signed in one way, and this one is by `%s` already", kind.text)
		return nil
	}
	for _, f := range n.fields {
		if name := f.key.text; name != kind.text && keys[name] != nil && !slices.Contains(signKeys[kind.text], name) {
			l.fail(f.key, CodeStageKey, "beside it stand "+strings.Join(signKeys[kind.text], ", "), "`%s` does not go with `%s`", name, kind.text)
		}
	}
	l.signing(requestShape(false, true), func() {
		if kind.text != "plugin" {
			s.Headers = l.params(n.get("headers"), "headers", l.headerName)
			s.Params = l.params(n.get("params"), "params", l.paramName)
		}
	})
	v := n.get(kind.text)
	switch kind.text {
	case "hmac", "rsa", "ecdsa", "ed25519":
		s.Signature = l.signature(kind, v, n, false)
	case "jwt":
		s.JWT = l.jwt(kind, v)
	case "oauth2":
		s.OAuth2 = l.oauth2(kind, v)
	case "api_key":
		s.APIKey = l.apiKey(kind, v, n)
	case "basic":
		s.Basic = l.basic(kind, v)
	case "plugin":
		l.signPlugin(v, n, keys, s)
	}
	return s
}

// signature reads a signature with a key; of the sender of a request it has to
// be known from the request alone.
func (l *linter) signature(kind, v, n *node, sender bool) *Signature {
	s := &Signature{Encoding: "base64"}
	if kind.text == "hmac" {
		s.Encoding = "hex"
	}
	if kind.text == "ed25519" {
		if on, ok := l.boolean(v, "ed25519"); ok && !on {
			l.fail(v, CodeValue, "write ed25519: true", "ed25519 has no other value")
		}
		s.Algorithm = kind.text
	} else if alg, ok := l.oneOf(v, kind.text, algorithms[kind.text], nil); ok {
		s.Algorithm = kind.text + "-" + alg
	}
	canonical, signed := n.get("canonical"), n.get("signed_headers")
	read := func(shape expr.Shape, read func()) { l.signing(shape, read) }
	if sender {
		read = func(shape expr.Shape, read func()) {
			l.within(expr.Request|expr.StaticRoots, map[expr.Roots]expr.Shape{expr.Request: shape}, read)
		}
	}
	early, shape := requestShape(false, !sender), requestShape(true, !sender)
	// names checks that what a text names of the signature is there.
	names := func(v *node, what, text string) {
		if canonical == nil && namesField.MatchString(text) {
			l.fail(v, CodeKeyMissing, "write canonical: TEMPLATE beside it", "`%s` names request.canonical, and there is no `canonical`", what)
		}
		if signed == nil && namesHeaders.MatchString(text) {
			l.fail(v, CodeKeyMissing, "write signed_headers: [host, x-date] beside it", "`%s` names the signed headers, and there are no `signed_headers`", what)
		}
	}
	for _, f := range n.fields {
		v := f.value
		if v.kind == badNode || v.kind == nullNode {
			continue
		}
		switch f.key.text {
		case "key":
			if k := l.secret(v, "a key"); k != nil {
				s.Key = *k
			}
		case "key_encoding":
			s.KeyEncoding = l.encoding(v, "key_encoding", keyEncodings)
		case "key_prefix":
			s.KeyPrefix, _, _ = l.static(v, "key_prefix")
		case "derive":
			read(early, func() { s.Derive = l.derive(v) })
		case "signed_headers":
			s.SignedHeaders = l.texts(v, "signed_headers", "signed_headers: [host, x-date]", func(at *node, name string, known bool) bool {
				return !known || l.headerNamed(at, name)
			})
		case "canonical":
			read(early, func() { s.Canonical, _ = l.textOrExpression(v, "canonical") })
			names(v, "canonical", s.Canonical)
		case "over":
			read(shape, func() { s.Over, _ = l.textOrExpression(v, "over") })
			names(v, "over", s.Over)
		case "encoding":
			s.Encoding = l.encoding(v, "encoding", encodings)
		case "header":
			s.Header = l.fieldName(v, "header")
		case "query":
			s.Query = l.fieldName(v, "query")
		case "value":
			with := requestShape(true, !sender)
			with["signature"] = expr.TextKind
			read(with, func() { s.Value, _ = l.template(v, "value") })
			names(v, "value", s.Value)
			if s.Value != "" && !strings.Contains(s.Value, "request.signature") {
				l.fail(v, CodeValue, "write ${request.signature} where it stands", "the signature is not in what is sent")
			}
		}
	}
	where := "`" + kind.text + "`"
	if n.get("key") == nil {
		l.fail(kind, CodeKeyMissing, "write key: { secret: NAME }", "%s has no `key`", where)
	}
	if n.get("over") == nil {
		l.fail(kind, CodeKeyMissing, "write over: request.body, or a template of what is signed", "%s does not say what is signed: there is no `over`", where)
	}
	l.onePlace(kind, n, sender)
	return s
}

var (
	namesField   = regexp.MustCompile(`\brequest\??\.canonical`)
	namesHeaders = regexp.MustCompile(`\brequest\??\.header_(lines|names)\b`)
)

// onePlace checks that a value is sent by one header or one parameter.
func (l *linter) onePlace(kind, n *node, headerOnly bool) {
	header, query := n.get("header"), n.get("query")
	switch {
	case header == nil && query == nil && headerOnly:
		l.fail(kind, CodeKeyMissing, "write header: NAME", "`%s` does not say which `header` the signature comes by", kind.text)
	case header == nil && query == nil:
		l.fail(kind, CodeKeyMissing, "write header: NAME, or query: NAME", "`%s` does not say by which `header` it is sent", kind.text)
	case header != nil && query != nil:
		l.fail(query, CodeValue, "keep one of `header` and `query`", "it is sent by one header or one parameter")
	}
}

func (l *linter) encoding(n *node, what string, known map[string]string) string {
	names := make([]string, 0, len(known))
	for name := range known {
		names = append(names, name)
	}
	slices.Sort(names)
	s, _ := l.oneOf(n, what, names, nil)
	return known[s]
}

func (l *linter) derive(n *node) []string {
	if n.kind != listNode {
		l.fail(n, CodeType, "such as derive: ['${time.Format(\"20060102\")}', '\"region\"']", "derive is a list of texts")
		return nil
	}
	var out []string
	for _, it := range n.items {
		if s, ok := l.textOrExpression(it, "derive"); ok {
			out = append(out, s)
		}
	}
	return out
}

// fieldName reads the name of a header or of a parameter of the query.
func (l *linter) fieldName(n *node, what string) string {
	s, known, ok := l.static(n, what)
	if !ok || known && what == "header" && !l.headerNamed(n, s) {
		return ""
	}
	if known && s == "" {
		l.fail(n, CodeName, "", "a %s has a name", what)
	}
	return s
}

func (l *linter) headerNamed(at *node, s string) bool {
	if !headerPattern.MatchString(s) {
		l.fail(at, CodeName, "", "a header cannot be called %s", quoted(s))
		return false
	}
	return true
}

func (l *linter) paramName(key *node) bool { return key.text != "" }

// params reads a map of names and templates; a nil n is none.
func (l *linter) params(n *node, what string, named func(*node) bool) []Param {
	if n == nil || n.kind == badNode || n.kind == nullNode {
		return nil
	}
	if n.kind != mapNode {
		example := "X-Date: \"${time.Unix()}\""
		if what == "claims" {
			example = "iss: me"
		}
		l.fail(n, CodeType, "such as "+what+": { "+example+" }", "%s is a map of names and texts", what)
		return nil
	}
	var out []Param
	for _, f := range n.fields {
		if !named(f.key) || f.value.kind == badNode {
			continue
		}
		if isSecret(f.value) {
			l.fail(f.value, CodeSecret, "a secret is a `key`, or a header of the connection", "a secret is not allowed here")
			continue
		}
		if what == "claims" && f.value.kind == scalarNode && f.value.typ != stringScalar {
			// A number, true or false stays one.
			if v, _, ok := l.scalar(f.value); ok {
				out = append(out, Param{Name: f.key.text, Value: "${" + textOf(v) + "}"})
			}
			continue
		}
		if s, ok := l.template(f.value, what); ok {
			out = append(out, Param{Name: f.key.text, Value: s})
		}
	}
	return out
}

func (l *linter) jwt(key, n *node) *JWT {
	j := &JWT{}
	if !l.each(n, "jwt", "jwt", func(key, v *node) {
		switch key.text {
		case "alg":
			j.Algorithm, _ = l.oneOf(v, "alg", jwtAlgorithms, nil)
		case "key":
			if k := l.secret(v, "a key"); k != nil {
				j.Key = *k
			}
		case "key_encoding":
			j.KeyEncoding = l.encoding(v, "key_encoding", keyEncodings)
		case "key_id":
			j.KeyID, _, _ = l.static(v, "key_id")
		case "type":
			j.Type, _, _ = l.static(v, "type")
		case "claims":
			l.signing(requestShape(false, true), func() { j.Claims = l.params(v, "claims", l.paramName) })
		case "lifetime":
			d, ok := l.duration(v, "lifetime")
			if ok && d < time.Second {
				l.fail(v, CodeValue, "", "a token lives a second or more")
			}
			j.Lifetime = d
		case "no_id":
			j.NoID, _ = l.boolean(v, "no_id")
		case "header":
			j.Header = l.fieldName(v, "header")
		case "prefix":
			if s, _, ok := l.static(v, "prefix"); ok {
				j.Prefix = &s
			}
		}
	}) {
		return j
	}
	if lacks(n, "jwt", "alg") {
		l.fail(key, CodeKeyMissing, "write alg: HS256", "the token has no `alg`")
	}
	if lacks(n, "jwt", "key") {
		l.fail(key, CodeKeyMissing, "write key: { secret: NAME }", "the token has no `key`")
	}
	return j
}

// signPlugin reads a plugin that signs, and the keys that it may use.
func (l *linter) signPlugin(v, n *node, keys map[string]*node, s *Sign) {
	s.Plugin = &PluginStage{}
	if v := n.get("with"); keys["with"] != nil && v.kind != badNode && v.kind != nullNode {
		s.Plugin.With = l.with(v)
	}
	if v := n.get("limits"); keys["limits"] != nil && v.kind != badNode && v.kind != nullNode {
		l.pluginLimits(v, s.Plugin)
	}
	if v := n.get("keys"); keys["keys"] != nil && v.kind != badNode && v.kind != nullNode {
		s.Keys = l.signKeys(v)
	}
	if v.kind != badNode && v.kind != nullNode {
		l.pluginPart("sign", v, keys, s.Plugin)
	}
}

func (l *linter) signKeys(n *node) []SignKey {
	if n.kind != mapNode || isSecret(n) {
		l.fail(n, CodeType, "such as keys: { partner: { secret: partner/hmac } }", "keys are a map of names and secrets")
		return nil
	}
	var out []SignKey
	for _, f := range n.fields {
		k := SignKey{Name: f.key.text}
		if f.value.kind != mapNode {
			l.secret(f.value, "a key")
			continue
		}
		l.each(f.value, "sign.key", "a key", func(key, v *node) {
			if key.text == "encoding" {
				k.Encoding = l.encoding(v, "encoding", keyEncodings)
				return
			}
			if name, ok := l.text(v, "a secret's name"); ok && l.secretName(v, name) {
				k.Secret.Name = name
			}
		})
		if lacks(f.value, "sign.key", "secret") {
			l.fail(f.key, CodeKeyMissing, "write "+f.key.text+": { secret: NAME }", "the key has no `secret`")
		}
		out = append(out, k)
	}
	return out
}
