package twin

import (
	"path/filepath"
	"strings"
	"time"

	"github.com/millrace-io/millrace/runtime/flow"
)

func (r *reader) oauth(v *value) *oauthConfig {
	o, ok := r.object(v, "oauth", "oauth: { path: /token, id: me, secret: { env: NAME } }", "path", "id", "secret", "expires", "claims", "latency")
	if !ok {
		return nil
	}
	out := &oauthConfig{path: o.text("path", "/token", "/token"), id: o.text("id", "me", ""), secret: r.secret(o.get("secret"), v, "oauth")}
	if out.id == "" {
		r.fail(v, flow.CodeKeyMissing, "write id: me", "oauth needs the id of the client")
	}
	out.expires = o.duration("expires", "30s", time.Hour)
	out.claims = o.duration("claims", "1h", out.expires)
	out.latency = r.latency(o.get("latency"))
	return out
}

func (r *reader) auth(v *value) *auth {
	const example = "auth: oauth, or { bearer: { env: NAME } }"
	switch {
	case v == nil:
		return nil
	case v.kind == text && v.text == "oauth":
		return &auth{kind: "oauth"}
	case v.kind != mapping:
		r.fail(v, flow.CodeValue, "write "+example, "this is no way to say who may call")
		return nil
	}
	o, _ := r.object(v, "auth", example, "bearer", "basic", "header")
	switch {
	case len(v.fields) != 1:
		r.fail(v, flow.CodeValue, "write "+example, "auth is one of bearer, basic and header")
	case o.get("bearer") != nil:
		return &auth{kind: "bearer", secret: r.secret(o.get("bearer"), v, "bearer")}
	case o.get("basic") != nil:
		if b, ok := r.object(o.get("basic"), "basic", "basic: { user: me, password: { env: NAME } }", "user", "password"); ok {
			return &auth{kind: "basic", user: b.text("user", "me", ""), secret: r.secret(b.get("password"), b.v, "basic")}
		}
	case o.get("header") != nil:
		if h, ok := r.object(o.get("header"), "header", "header: { name: X-Api-Key, secret: { env: NAME } }", "name", "secret"); ok {
			return &auth{kind: "header", header: h.text("name", "X-Api-Key", "X-Api-Key"), secret: r.secret(h.get("secret"), h.v, "header")}
		}
	}
	return nil
}

func (r *reader) signature(v *value) *signature {
	if v == nil {
		return nil
	}
	o, ok := r.object(v, "signature", "signature: { hmac: sha256, key: { env: NAME }, over: request.body, header: X-Sign }",
		"hmac", "key", "over", "header", "prefix", "encoding", "time", "within", "nonce")
	if !ok {
		return nil
	}
	out := &signature{key: r.secret(o.get("key"), v, "signature")}
	out.hash = o.oneOf("hmac", "sha256", "sha1", "sha256", "sha512", "md5")
	out.header, out.prefix = o.text("header", "X-Sign", "X-Sign"), o.text("prefix", "sha256=", "")
	out.encoding = o.oneOf("encoding", "hex", "hex", "base64", "base64url")
	switch over := o.get("over"); {
	case over == nil:
		r.fail(v, flow.CodeKeyMissing, "write over: request.body", "a signature says what is signed")
	case strings.Contains(over.text, "${"):
		out.over = r.template(over, requestScope)
	default:
		out.overExpr = r.expression(over, requestScope)
	}
	if v := o.get("time"); v != nil {
		out.time = r.expression(v, requestScope)
	}
	if v := o.get("nonce"); v != nil {
		out.nonce = r.expression(v, requestScope)
	}
	out.within = o.duration("within", "5m", 5*time.Minute)
	if o.get("within") != nil && out.time == nil {
		r.fail(o.at("within"), flow.CodeKeyMissing, `write time: request.headers["x-time"]`, "within needs the time that was signed")
	}
	return out
}

func (r *reader) secret(v, at *value, what string) *secret {
	const example = "{ env: NAME }, { file: PATH } or, for one that is made up, { text: abc }"
	if v == nil {
		r.fail(at, flow.CodeKeyMissing, "write "+example, "%s needs a secret", what)
		return &secret{}
	}
	o, ok := r.object(v, "a secret", example, "env", "file", "text")
	if !ok {
		return &secret{}
	}
	s := &secret{env: o.text("env", "NAME", ""), file: filepath.FromSlash(o.text("file", "PATH", "")), text: o.text("text", "abc", "")}
	if len(v.fields) != 1 || s.env+s.file+s.text == "" {
		r.fail(v, flow.CodeSecret, "write "+example, "a secret comes from one place")
	}
	return s
}
