package flow

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/millrace-io/millrace/runtime/expr"
)

// linter turns one document after the other into its model and reports what
// is wrong with it.
type linter struct {
	src  *source
	opts Options
	// in is nil for Parse: the environment is not known then.
	in       *Inputs
	problems *Problems

	// Of the document at hand.
	project string
	vars    map[string]any
	env     map[string]string
	roots   expr.Roots // of expressions and templates here
	shapes  map[expr.Roots]expr.Shape
	// openVars: a var takes its value from an environment that is not known.
	openVars bool
}

func (l *linter) add(p *Problem) { l.problems.add(*p) }

func (l *linter) fail(n *node, code Code, help, format string, args ...any) {
	l.failAt(n.pos, n.end, code, help, format, args...)
}

func (l *linter) failAt(at Pos, end int, code Code, help, format string, args ...any) {
	l.add(l.src.problem(code, at, end, fmt.Sprintf(format, args...), help))
}

func (l *linter) warn(n *node, code Code, help, format string, args ...any) {
	p := l.src.problem(code, n.pos, n.end, fmt.Sprintf(format, args...), help)
	p.Level = LevelWarning
	l.add(p)
}

// hide keeps a value out of the source lines of all problems.
func (l *linter) hide(n *node) { l.src.hidden = append(l.src.hidden, hidden{n.pos, n.end}) }

func (l *linter) notSupported(n *node, what string) {
	l.fail(n, CodeNotSupported, "", "%s is not supported yet", what)
}

// each visits the keys of a map that the set knows and reports all others. It
// reports false if n is no map.
func (l *linter) each(n *node, set, where string, visit func(key, value *node)) bool {
	if n.kind == badNode {
		return false
	}
	if n.kind != mapNode {
		if slices.Contains(loginSets, set) {
			l.hide(n)
		}
		l.fail(n, CodeType, exampleOf(set), "%s is a map of keys and values", where)
		return false
	}
	ks := keySets[set]
	for _, f := range n.fields {
		switch {
		case slices.Contains(ks.known, f.key.text):
			if f.value.kind == nullNode && f.key.text != "stream" && f.key.text != "ingest" {
				l.fail(f.key, CodeType, "", "`%s` has no value", f.key.text)
				continue
			}
			if f.value.kind != badNode {
				visit(f.key, f.value)
			}
		case slices.Contains(ks.later, f.key.text):
			l.notSupported(f.key, "`"+f.key.text+"`")
		default:
			l.hidePasswords(f)
			l.unknownKey(f.key, set, where)
		}
	}
	return true
}

// loginSets are the maps that say who asks: what stands in place of one may be
// a password.
var loginSets = []string{"sasl", "login", "acl", "auth", "basic"}

// hidePasswords hides what stands under keys that nobody knows, where their
// names say that it is a secret.
func (l *linter) hidePasswords(f field) {
	if f.value.kind == scalarNode && passwordKey.MatchString(f.key.text) {
		l.hide(f.value)
	}
	for _, inner := range f.value.fields {
		l.hidePasswords(inner)
	}
}

// lacks reports whether a map of a set has no such key, and none that was
// meant to be it: that one has its message already.
func lacks(n *node, set, key string) bool {
	ks := keySets[set]
	return n.get(key) == nil && !slices.ContainsFunc(n.fields, func(f field) bool {
		return !slices.Contains(ks.all(), f.key.text) && expr.Nearest(f.key.text, ks.all()) == key
	})
}

// lacksKey reports whether a map of a set has no key that was meant to be one.
func lacksKey(n *node, set, key string) bool { return n.get(key) == nil && lacks(n, set, key) }

// examples are for maps whose list of keys would be no help.
var examples = map[string]string{
	"sign":          "such as { hmac: sha256, key: { secret: NAME }, over: request.body, header: X-Sign }, or ./sign.wasm",
	"push.webhook":  "such as { url: https://HOST/PATH, secret: { secret: NAME } }",
	"source.ingest": "such as { body: 1MiB, wait: 30s }",
	"requeue":       "such as { every: 1h, at_most: 3 }",
	"auth":          "such as { bearer: { secret: NAME } }",
	"tls":           "such as { ca: ca.pem }, or {} for the system's certificates",
	"sasl":          "such as { scram-sha-512: { user: NAME, password: { secret: NAME } } }",
	"login":         "such as { user: NAME, password: { secret: NAME } }",
	"registry":      "such as { url: http://HOST:8081 }",
	"acl":           "such as { access_key: NAME, secret_key: { secret: NAME } }",
	"batch":         "such as { records: 100, wait: 1s }",
	"validate":      "such as { ok: response.status == 200 }, or ./check.wasm",
}

func exampleOf(set string) string {
	if s := examples[set]; s != "" {
		return s
	}
	if ks := keySets[set].known; len(ks) > 0 {
		return "its keys: " + strings.Join(ks, ", ")
	}
	return ""
}

func (l *linter) unknownKey(key *node, set, where string) {
	ks := keySets[set]
	help := "keys here: " + strings.Join(ks.known, ", ")
	if len(ks.known) == 0 {
		help = "it has no keys"
	}
	near := expr.Nearest(key.text, ks.all())
	switch {
	case strings.HasPrefix(set, "push") && key.text != "push" && slices.Contains(keySets["stage.push"].all(), key.text):
		l.fail(key, CodeStageKey, "it stands beside `push`", "`%s` does not stand in %s", key.text, where)
		return
	case key.text == "schedule" && set == "flow":
		help = "it is called `trigger`, which is not supported yet"
	case set == "sasl" && (key.text == "mechanism" || key.text == "user" || key.text == "username" || key.text == "password"):
		help = "write " + strings.TrimPrefix(exampleOf(set), "such as ") + "; the mechanism is the key: " + strings.Join(ks.known, ", ")
	case set == "conn.rocketmq" && (strings.HasPrefix(key.text, "broker") || strings.HasPrefix(key.text, "namesrv")):
		help = "did you mean `name_servers`? They tell where the brokers are"
	case key.text == "env" && set == "flow":
		help = "environment variables are named where they are used: ${env.NAME}"
	case near != "":
		help = "did you mean `" + near + "`?"
	}
	l.fail(key, CodeKeyUnknown, help, "unknown key in %s", where)
}

// text is a scalar as it is written.
func (l *linter) text(n *node, what string) (string, bool) {
	if n.kind == badNode {
		return "", false
	}
	if n.kind != scalarNode {
		l.fail(n, CodeType, "", "%s is a text", what)
		return "", false
	}
	return n.text, true
}

// oneOf is a scalar with one of a few values; later ones are not supported yet.
func (l *linter) oneOf(n *node, what string, known, later []string) (string, bool) {
	s, ok := l.text(n, what)
	if !ok || slices.Contains(known, s) {
		return s, ok
	}
	if slices.Contains(later, s) {
		l.notSupported(n, "`"+what+": "+s+"`")
		return "", false
	}
	help := "values: " + strings.Join(known, ", ")
	if near := expr.Nearest(s, append(slices.Clone(known), later...)); near != "" {
		help = "did you mean `" + near + "`?"
	}
	l.fail(n, CodeValue, help, "%s cannot be %s", what, quoted(s))
	return "", false
}

// quoted is s in a message, not too long.
func quoted(s string) string {
	if r := []rune(s); len(r) > 60 {
		s = string(r[:57]) + "..."
	}
	return strconv.Quote(s)
}

var (
	namePattern  = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,62}$`)
	varPattern   = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)
	topicPattern = regexp.MustCompile(`^[A-Za-z0-9._-]{1,249}$`)
	// As RocketMQ's own clients check them; the broker's own topics have a %.
	rocketmqTopicPattern = regexp.MustCompile(`^[A-Za-z0-9_%|-]{1,127}$`)
	tagPattern           = regexp.MustCompile(`^[^|\s\x00-\x1f\x7f]{1,255}$`)
	headerPattern        = regexp.MustCompile("^[!#$%&'*+.^_`|~0-9A-Za-z-]{1,256}$")
	passwordKey          = regexp.MustCompile(`(?i)pass|pwd|secret|token|credential|jaas`)
	secretPattern        = regexp.MustCompile(`^[A-Za-z0-9_-][A-Za-z0-9._-]*(/[A-Za-z0-9_-][A-Za-z0-9._-]*)*$`)
)

func (l *linter) name(n *node, what string) (string, bool) {
	s, ok := l.text(n, what)
	if !ok {
		return "", false
	}
	if !namePattern.MatchString(s) {
		help := "letters a to z, digits and . _ -, at most 63 of them, a letter or digit first"
		if lower := strings.ToLower(strings.NewReplacer(" ", "-", "/", "-").Replace(s)); lower != s && namePattern.MatchString(lower) {
			help = "did you mean `" + lower + "`? " + help
		}
		l.fail(n, CodeName, help, "%s cannot be %s", what, quoted(s))
		return "", false
	}
	return s, true
}

// scope is what the document's expressions may name, of the given roots.
func (l *linter) scope(roots expr.Roots) expr.Scope {
	return expr.Scope{Roots: roots, Vars: l.vars, Shapes: l.shapes}
}

// within reads a part of the document whose expressions have other roots than
// those of a record.
func (l *linter) within(roots expr.Roots, shapes map[expr.Roots]expr.Shape, read func()) {
	was, shaped := l.roots, l.shapes
	l.roots, l.shapes = roots, shapes
	read()
	l.roots, l.shapes = was, shaped
}

// exprError reports an error of package expr inside a scalar.
func (l *linter) exprError(n *node, err error) {
	e, ok := err.(*expr.Error)
	if !ok {
		l.fail(n, CodeExpr, "", "%v", err)
		return
	}
	at, end := n.within(e.Offset, e.Length)
	l.failAt(at, end, CodeExpr, e.Help, "%s", e.Message)
}

// lookUp notes the environment variables that a text names. It reports false
// if one is not set.
func (l *linter) lookUp(n *node, names []string) bool {
	if l.in == nil {
		return true
	}
	ok := true
	for _, name := range names {
		v, set := "", false
		if l.in.Env != nil {
			v, set = l.in.Env(name)
		}
		if !set {
			l.fail(n, CodeEnvMissing, "set it where you run apply", "the environment variable `%s` is not set", name)
			ok = false
			continue
		}
		l.env[name] = v
	}
	return ok
}

// expression checks an expression and returns its text.
func (l *linter) expression(n *node, what string, cond bool) (string, bool) {
	s, ok := l.text(n, what)
	if !ok {
		return "", false
	}
	compile := expr.Compile
	if cond {
		compile = expr.CompileBool
	}
	p, err := compile(s, l.scope(l.roots))
	if err != nil {
		if e, ok := err.(*expr.Error); ok && !n.quoted && e.Offset == 0 && e.Length == len([]rune(s)) && strings.HasPrefix(e.Message, "unknown name") && !cond {
			e.Help = "this is an expression; for the text write '\"" + s + "\"'. " + e.Help
		} else if ok && strings.HasPrefix(s, "${") && strings.HasSuffix(s, "}") {
			e.Help = "the whole is an expression: write " + s[2:len(s)-1] + ", without ${ }"
		}
		l.exprError(n, err)
		return "", false
	}
	return s, l.lookUp(n, p.EnvNames())
}

// textOrExpression checks a template if there is a ${ in it, else an
// expression, and returns it.
func (l *linter) textOrExpression(n *node, what string) (string, bool) {
	if n.kind == scalarNode && strings.Contains(n.text, "${") {
		return l.template(n, what)
	}
	return l.expression(n, what, false)
}

// template checks a text with ${...} and returns it.
func (l *linter) template(n *node, what string) (string, bool) {
	s, ok := l.text(n, what)
	if !ok {
		return "", false
	}
	t, err := expr.CompileTemplate(s, l.scope(l.roots))
	if err != nil {
		l.exprError(n, err)
		return "", false
	}
	return s, l.lookUp(n, t.EnvNames())
}

// static evaluates a text with ${...} of vars and env. known is false if its
// value depends on an environment that is not known; the text is the source
// then.
func (l *linter) static(n *node, what string) (s string, known, ok bool) {
	s, ok = l.text(n, what)
	if !ok || !strings.Contains(s, "${") {
		return s, true, ok
	}
	v, known, ok := l.staticValue(n)
	if !ok || !known {
		return s, false, ok
	}
	return textOf(v), true, true
}

func textOf(v any) string {
	switch v := v.(type) {
	case string:
		return v
	case int64:
		return strconv.FormatInt(v, 10)
	case float64:
		return strconv.FormatFloat(v, 'f', -1, 64)
	}
	return fmt.Sprint(v)
}

// staticValue is what the text of n means: the value of its expression if it
// is one and nothing else, a string otherwise.
func (l *linter) staticValue(n *node) (v any, known, ok bool) {
	t, err := expr.CompileTemplate(n.text, l.scope(expr.StaticRoots))
	if err != nil {
		l.exprError(n, err)
		return nil, false, false
	}
	if !l.lookUp(n, t.EnvNames()) {
		return nil, false, false
	}
	if l.in == nil && (len(t.EnvNames()) > 0 || l.openVars && t.Roots()&expr.Vars != 0) {
		return n.text, false, true
	}
	scope := l.scope(expr.StaticRoots)
	scope.Env = l.env
	if t, err = expr.CompileTemplate(n.text, scope); err != nil {
		l.exprError(n, err)
		return nil, false, false
	}
	if p := t.Single(); p != nil {
		v, ok = p.Static()
	} else {
		v, ok = t.Static()
	}
	if !ok || v == nil {
		l.fail(n, CodeExpr, "", "this has no value")
		return nil, false, false
	}
	return v, true, true
}

// secret reads {secret: name}.
func (l *linter) secret(n *node, what string) *Secret {
	if n.kind == scalarNode {
		l.hide(n)
		l.fail(n, CodeSecret, "write { secret: NAME } and put the value into the node's secrets", "%s must not stand in the file", what)
		return nil
	}
	var s *Secret
	l.each(n, "secret", what, func(_, v *node) {
		name, ok := l.text(v, "a secret's name")
		if !ok {
			return
		}
		if l.secretName(v, name) {
			s = &Secret{Name: name}
		}
	})
	if s == nil && n.kind == mapNode && len(n.fields) == 0 {
		l.fail(n, CodeKeyMissing, "write { secret: NAME }", "%s has no name", what)
	}
	return s
}

func (l *linter) secretName(at *node, name string) bool {
	if !secretPattern.MatchString(name) {
		l.fail(at, CodeName, "names look like partner/token", "a secret cannot be called %s", quoted(name))
		return false
	}
	return true
}

// secretHeaders are the headers whose values are secrets as a rule.
var secretHeaders = []string{"authorization", "proxy-authorization", "cookie", "x-api-key"}

// secretHeader warns of a text in the file that is most likely a secret.
func (l *linter) secretHeader(key, value *node, help string) {
	if value.kind == scalarNode && slices.Contains(secretHeaders, strings.ToLower(key.text)) {
		l.hide(value)
		l.warn(value, CodeSecret, help, "`%s` looks like a secret", key.text)
	}
}

// isSecret reports whether n looks like {secret: name}.
func isSecret(n *node) bool { return n.kind == mapNode && n.get("secret") != nil }
