package flow

import (
	"net/url"
	"strings"

	"github.com/millrace-io/millrace/runtime/expr"
)

func (l *linter) oauth2(key, n *node) *OAuth2 {
	o := &OAuth2{}
	if !l.each(n, "oauth2", "oauth2", func(key, v *node) {
		switch key.text {
		case "token_url":
			s, known, ok := l.static(v, "token_url")
			if u, err := url.Parse(s); ok && known && (err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil) {
				if err == nil && u.User != nil {
					l.hide(v)
				}
				l.fail(v, CodeValue, "write https://HOST/PATH", "token_url is no URL of an HTTP service without a user")
			}
			o.TokenURL = s
		case "client_id":
			o.ClientID, _, _ = l.static(v, "client_id")
		case "client_secret":
			if k := l.secret(v, "a client secret"); k != nil {
				o.ClientSecret = *k
			}
		case "scopes":
			o.Scopes = l.texts(v, "scopes", "scopes: [orders.write]", func(*node, string, bool) bool { return true })
		case "params":
			l.within(expr.StaticRoots, nil, func() {
				for _, p := range l.params(v, "params", l.paramName) {
					text := node{kind: scalarNode, pos: v.pos, end: v.end, text: p.Value}
					if s, _, ok := l.static(&text, "params"); ok {
						o.Params = append(o.Params, Param{p.Name, s})
					}
				}
			})
		case "in_body":
			o.InBody, _ = l.boolean(v, "in_body")
		case "header":
			o.Header = l.fieldName(v, "header")
		}
	}) {
		return o
	}
	for _, name := range []string{"token_url", "client_id"} {
		if lacks(n, "oauth2", name) {
			l.fail(key, CodeKeyMissing, "write "+map[string]string{"token_url": "token_url: https://HOST/PATH", "client_id": "client_id: ID"}[name], "oauth2 has no `%s`", name)
		}
	}
	if lacks(n, "oauth2", "client_secret") {
		l.fail(key, CodeKeyMissing, "write client_secret: { secret: NAME }", "oauth2 has no `client_secret`")
	}
	return o
}

// apiKey reads a key that is sent as it is; in is the map around it.
func (l *linter) apiKey(key, n, in *node) *APIKey {
	a := &APIKey{}
	if k := l.secret(n, "an API key"); k != nil {
		a.Key = *k
	}
	if v := in.get("header"); v != nil && v.kind == scalarNode {
		a.Header = l.fieldName(v, "header")
	}
	if v := in.get("query"); v != nil && v.kind == scalarNode {
		a.Query = l.fieldName(v, "query")
	}
	if v := in.get("prefix"); v != nil && v.kind == scalarNode {
		a.Prefix, _, _ = l.static(v, "prefix")
	}
	l.onePlace(key, in, false)
	return a
}

func (l *linter) basic(key, n *node) *Basic {
	b := &Basic{}
	if !l.each(n, "basic", "basic", func(key, v *node) {
		if key.text == "password" {
			if k := l.secret(v, "a password"); k != nil {
				b.Password = *k
			}
			return
		}
		s, known, ok := l.static(v, "user")
		if ok && known && (s == "" || strings.ContainsFunc(s, func(r rune) bool { return r == ':' || r < ' ' || r == 0x7f })) {
			l.fail(v, CodeValue, "", "a user is not empty and holds no colon")
		}
		b.User = s
	}) {
		return b
	}
	for _, name := range []string{"user", "password"} {
		if lacks(n, "basic", name) {
			l.fail(key, CodeKeyMissing, "write basic: { user: NAME, password: { secret: NAME } }", "basic has no `%s`", name)
		}
	}
	return b
}
