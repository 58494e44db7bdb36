package flow

import (
	"fmt"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

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

// keySet is what a map may hold: keys that this version reads, and keys of the
// format that it does not.
type keySet struct {
	known, later []string
}

func (k keySet) all() []string { return append(slices.Clone(k.known), k.later...) }

// keySets are the maps of the format. The published JSON Schema has the same.
var keySets = map[string]keySet{
	"flow": {
		known: []string{"flow", "name", "project", "description", "labels", "vars", "source", "order", "slots", "limits", "otherwise", "stages"},
		later: []string{"exceptions", "requeue", "observe", "trigger", "run", "reconcile", "concurrent"},
	},
	"limits":       {known: []string{"in_flight"}, later: []string{"records", "pause_at", "resume_at"}},
	"source":       {known: []string{"kafka", "file", "stream"}, later: []string{"rocketmq", "http", "http_poll", "ingest"}},
	"source.kafka": {known: []string{"connection", "topics", "start"}, later: []string{"decode"}},
	"file":         {known: []string{"path"}},
	"stream":       {},
	"stage.filter": {known: []string{"id", "filter", "otherwise"}, later: []string{"schema"}},
	"stage.map":    {known: []string{"id", "map", "otherwise", "with", "function", "hosts", "lines", "envelope", "isolation", "limits"}, later: []string{"outputs", "schema"}},
	"stage.push":   {known: []string{"id", "push", "otherwise", "retry"}, later: []string{"batch", "sign", "validate", "schema", "concurrent"}},
	"stage.limits": {known: []string{"memory", "fuel"}},
	"map":          {known: []string{"plugin", "set", "rename", "drop", "keep"}, later: []string{"script"}},
	"push":         {known: []string{"kafka", "http", "file", "stream"}, later: []string{"rocketmq"}},
	"push.kafka":   {known: []string{"connection", "topic", "key"}},
	"push.http":    {known: []string{"connection", "get", "post", "put", "patch", "delete", "headers", "body", "timeout"}, later: []string{"concurrent"}},
	"retry":        {known: []string{"first", "max", "attempts", "within"}},
	"connection":   {known: []string{"connection", "name", "project", "kafka", "http"}, later: []string{"rocketmq"}},
	"conn.kafka":   {known: []string{"brokers"}, later: []string{"tls", "sasl"}},
	"conn.http":    {known: []string{"base", "timeout", "concurrent", "auth", "headers"}, later: []string{"requests", "tls"}},
	"auth":         {known: []string{"bearer"}, later: []string{"basic", "oauth2"}},
	"secret":       {known: []string{"secret"}},
}

// verbs in the order in which messages list them.
var (
	verbs      = []string{"filter", "map", "push"}
	laterVerbs = []string{"branch", "cleanup"}
	// deliveryKeys make a stage a delivery even if push is missing.
	deliveryKeys = []string{"batch", "sign", "validate"}
)

// each visits the keys of a map that the set knows and reports all others. It
// reports false if n is no map.
func (l *linter) each(n *node, set, where string, visit func(key, value *node)) bool {
	if n.kind == badNode {
		return false
	}
	if n.kind != mapNode {
		l.fail(n, CodeType, exampleOf(set), "%s is a map of keys and values", where)
		return false
	}
	ks := keySets[set]
	for _, f := range n.fields {
		switch {
		case slices.Contains(ks.known, f.key.text):
			if f.value.kind == nullNode && f.key.text != "stream" {
				l.fail(f.key, CodeType, "", "`%s` has no value", f.key.text)
				continue
			}
			if f.value.kind != badNode {
				visit(f.key, f.value)
			}
		case slices.Contains(ks.later, f.key.text):
			l.notSupported(f.key, "`"+f.key.text+"`")
		default:
			l.unknownKey(f.key, set, where)
		}
	}
	return true
}

// lacks reports whether a map of a set has no such key, and none that was
// meant to be it: that one has its message already.
func lacks(n *node, set, key string) bool {
	ks := keySets[set]
	return n.get(key) == nil && !slices.ContainsFunc(n.fields, func(f field) bool {
		return !slices.Contains(ks.all(), f.key.text) && expr.Nearest(f.key.text, ks.all()) == key
	})
}

func exampleOf(set string) string {
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
		help = "it stands beside `push`"
		if slices.Contains(keySets["stage.push"].later, key.text) {
			help += ", and is not supported yet"
		}
		l.fail(key, CodeStageKey, help, "`%s` does not stand in %s", key.text, where)
		return
	case key.text == "schedule" && set == "flow":
		help = "it is called `trigger`, which is not supported yet"
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

func (l *linter) integer(n *node, what string, least, most int64) (int64, bool) {
	if n.kind == badNode {
		return 0, false
	}
	v, err := parseInt(n)
	if err != nil || v < least || v > most {
		l.fail(n, CodeValue, "", "%s is a whole number from %d to %d", what, least, most)
		return 0, false
	}
	return v, true
}

func parseInt(n *node) (int64, error) {
	if n.kind != scalarNode || n.typ != intScalar {
		return 0, fmt.Errorf("no number")
	}
	s := strings.ReplaceAll(n.text, "_", "")
	base := 10
	digits := strings.TrimLeft(s, "+-")
	if len(digits) > 1 && digits[0] == '0' {
		base = 0
	}
	return strconv.ParseInt(strings.TrimPrefix(s, "+"), base, 64)
}

func (l *linter) boolean(n *node, what string) (bool, bool) {
	if n.kind == scalarNode && n.typ == boolScalar {
		return strings.EqualFold(n.text, "true"), true
	}
	if n.kind != badNode {
		l.fail(n, CodeValue, "", "%s is true or false", what)
	}
	return false, false
}

func (l *linter) duration(n *node, what string) (time.Duration, bool) {
	s, ok := l.text(n, what)
	if !ok {
		return 0, false
	}
	d, err := time.ParseDuration(s)
	switch {
	case err != nil && n.typ != stringScalar:
		l.fail(n, CodeValue, "write the unit: "+s+"s, "+s+"ms or "+s+"m", "%s is a duration", what)
	case err != nil:
		help := "durations look like 500ms, 3s, 10m, 24h or 1h30m"
		if strings.HasSuffix(s, "d") {
			help = "there is no unit for days; write hours: 24h"
		}
		l.fail(n, CodeValue, help, "%s cannot be %s", what, quoted(s))
	case d <= 0:
		l.fail(n, CodeValue, "", "%s must be more than 0", what)
	default:
		return d, true
	}
	return 0, false
}

var sizePattern = regexp.MustCompile(`^([0-9]+)\s*(|B|KiB|MiB|GiB|KB|MB|GB|K|M|G)$`)

func (l *linter) size(n *node, what string, least, most int64) (int64, bool) {
	s, ok := l.text(n, what)
	if !ok {
		return 0, false
	}
	m := sizePattern.FindStringSubmatch(strings.ReplaceAll(s, "_", ""))
	if m == nil {
		l.fail(n, CodeValue, "sizes look like 65536, 512KiB or 32MiB", "%s cannot be %s", what, quoted(s))
		return 0, false
	}
	unit := int64(1)
	switch m[2] {
	case "KiB":
		unit = 1 << 10
	case "MiB":
		unit = 1 << 20
	case "GiB":
		unit = 1 << 30
	case "", "B":
	default:
		l.fail(n, CodeValue, "did you mean "+m[1]+m[2][:1]+"iB?", "%s cannot be %s", what, quoted(s))
		return 0, false
	}
	v, err := strconv.ParseInt(m[1], 10, 64)
	if err != nil || v > math.MaxInt64/unit || v*unit < least || v*unit > most {
		l.fail(n, CodeValue, "", "%s is from %s to %s", what, sizeText(least), sizeText(most))
		return 0, false
	}
	return v * unit, true
}

func sizeText(n int64) string {
	switch {
	case n%(1<<30) == 0:
		return strconv.FormatInt(n>>30, 10) + "GiB"
	case n%(1<<20) == 0:
		return strconv.FormatInt(n>>20, 10) + "MiB"
	}
	return strconv.FormatInt(n>>10, 10) + "KiB"
}

var (
	namePattern   = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,62}$`)
	varPattern    = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)
	topicPattern  = regexp.MustCompile(`^[A-Za-z0-9._-]{1,249}$`)
	headerPattern = regexp.MustCompile("^[!#$%&'*+.^_`|~0-9A-Za-z-]{1,256}$")
	secretPattern = regexp.MustCompile(`^[A-Za-z0-9_-][A-Za-z0-9._-]*(/[A-Za-z0-9_-][A-Za-z0-9._-]*)*$`)
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
	return expr.Scope{Roots: roots, Vars: l.vars}
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
	p, err := compile(s, l.scope(expr.RecordRoots))
	if err != nil {
		if e, ok := err.(*expr.Error); ok && !n.quoted && e.Offset == 0 && e.Length == len([]rune(s)) && strings.HasPrefix(e.Message, "unknown name") && !cond {
			e.Help = "this is an expression; for the text write '\"" + s + "\"'. " + e.Help
		}
		l.exprError(n, err)
		return "", false
	}
	return s, l.lookUp(n, p.EnvNames())
}

// template checks a text with ${...} of a record and returns it.
func (l *linter) template(n *node, what string) (string, bool) {
	s, ok := l.text(n, what)
	if !ok {
		return "", false
	}
	t, err := expr.CompileTemplate(s, l.scope(expr.RecordRoots))
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
		if !secretPattern.MatchString(name) {
			l.fail(v, CodeName, "names look like partner/token", "a secret cannot be called %s", quoted(name))
			return
		}
		s = &Secret{Name: name}
	})
	if s == nil && n.kind == mapNode && len(n.fields) == 0 {
		l.fail(n, CodeKeyMissing, "write { secret: NAME }", "%s has no name", what)
	}
	return s
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
