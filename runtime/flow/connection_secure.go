package flow

import (
	"strings"
)

func (l *linter) tls(key, n *node) *TLS {
	t := &TLS{}
	pem := func(v *node, what string) string {
		s, known, ok := l.static(v, what)
		if ok && known && IsPEM(s) && strings.Contains(s, "PRIVATE KEY") {
			l.hide(v)
			l.fail(v, CodeSecret, "write key: { secret: NAME } and put the key into the node's secrets", "a private key must not stand in the file")
			return ""
		}
		if ok && known && s == "" {
			l.fail(v, CodeValue, "name a file on the node, or write the PEM itself behind |", "%s is empty", what)
		}
		return s
	}
	if !l.each(n, "tls", "tls", func(key, v *node) {
		switch key.text {
		case "ca":
			t.CA = pem(v, "ca")
		case "cert":
			t.Cert = pem(v, "cert")
		case "key":
			t.Key = l.secret(v, "a private key")
		case "server_name":
			s, known, ok := l.static(v, "server_name")
			if ok && known && (s == "" || strings.ContainsAny(s, ":/ ") && !strings.Contains(s, "::")) {
				l.fail(v, CodeValue, "write the name alone, as it stands in the server's certificate", "server_name cannot be %s", quoted(s))
			}
			t.ServerName = s
		}
	}) {
		return t
	}
	if cert, private := n.get("cert") != nil, n.get("key") != nil; cert != private {
		l.fail(key, CodeKeyMissing, "write cert: FILE and key: { secret: NAME }", "a client certificate needs both `cert` and `key`")
	}
	return t
}

// sasl reads how a connection says to the brokers who it is.
func (l *linter) sasl(key, n *node, tls bool) *SASL {
	const example = "write sasl: { scram-sha-512: { user: NAME, password: { secret: NAME } } }"
	s := &SASL{}
	var kind *node
	if !l.each(n, "sasl", "sasl", func(key, v *node) {
		if kind != nil {
			l.fail(key, CodeValue, "keep one", "a connection has one mechanism of `sasl`, and this one has `%s` already", kind.text)
			return
		}
		kind = key
		s.Mechanism = key.text
		if key.text == SASLPlain && !tls {
			l.warn(key, CodeSecret, "write `tls: {}` beside `sasl`, or take scram-sha-512", "with `plain` and without `tls` the password goes over the network as it is")
		}
		l.login(key, v, s)
	}) {
		return s
	}
	if len(n.fields) == 0 {
		l.fail(key, CodeKeyMissing, example+"; there are "+strings.Join(saslMechanisms, ", "), "`sasl` names no mechanism")
	}
	return s
}

func (l *linter) login(key, n *node, s *SASL) {
	if !l.each(n, "login", key.text, func(key, v *node) {
		if key.text == "password" {
			if k := l.secret(v, "a password"); k != nil {
				s.Password = *k
			}
			return
		}
		user, known, ok := l.static(v, "user")
		if ok && known && (user == "" || strings.ContainsFunc(user, func(r rune) bool { return r < ' ' || r == 0x7f })) {
			l.fail(v, CodeValue, "", "a user is not empty, and one line")
		}
		s.User = user
	}) {
		return
	}
	for _, name := range keySets["login"].known {
		if lacks(n, "login", name) {
			l.fail(key, CodeKeyMissing, "write "+key.text+": { user: NAME, password: { secret: NAME } }", "%s has no `%s`", key.text, name)
		}
	}
}

// acl reads how a connection says to RocketMQ who it is.
func (l *linter) acl(key, n *node) *ACL {
	a := &ACL{}
	if !l.each(n, "acl", "acl", func(key, v *node) {
		if key.text == "secret_key" {
			if k := l.secret(v, "a secret key"); k != nil {
				a.SecretKey = *k
			}
			return
		}
		s, known, ok := l.static(v, "access_key")
		if ok && known && s == "" {
			l.fail(v, CodeValue, "", "access_key is empty")
		}
		a.AccessKey = s
	}) {
		return a
	}
	for _, name := range keySets["acl"].known {
		if lacks(n, "acl", name) {
			l.fail(key, CodeKeyMissing, "write acl: { access_key: NAME, secret_key: { secret: NAME } }", "acl has no `%s`", name)
		}
	}
	return a
}
