package expr

import (
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/millrace-io/millrace/runtime/record"
)

func orderRecord() *record.Record {
	return &record.Record{
		Topic: "orders", Partition: 3, Offset: 42, Timestamp: 1_793_491_200_123, Attempt: 2,
		Key: []byte("c-7"),
		Headers: []record.Header{
			{Key: "x", Value: []byte("1")}, {Key: "x", Value: []byte("2")}, {Key: "null"}},
		Value: []byte(`{"status":"PAID","amount":12.5,"n":7,"big":9007199254740993,"huge":123456789012345678901234567890,` +
			`"none":null,"flag":true,"esc":"a\u00e9\n","a":{"b":{"c":[1,2,{"d":"x"}]}},"items":[{"p":2,"q":"b"},{"p":3,"q":"a"}],"list":["x","y","x"],"dup":1,"dup":2,"a.b":5}`),
	}
}

var flowVars = map[string]any{"currency": "CNY", "min": int64(5), "rate": 0.5, "on": true}

func flowScope() Scope {
	return Scope{Roots: RecordRoots, Vars: flowVars, Env: map[string]string{"REGION": "eu"}}
}

func evaluate(t *testing.T, src string, r *record.Record) (string, error) {
	t.Helper()
	p, err := Compile(src, flowScope())
	if err != nil {
		t.Fatalf("compile %q: %v", src, err)
	}
	e := NewEnv()
	e.Reset(r)
	b, err := p.AppendJSON(nil, e)
	return string(b), err
}

func TestValues(t *testing.T) {
	for src, want := range map[string]string{
		// Roots.
		"topic": `"orders"`, "partition": "3", "offset": "42", "attempt": "2", "key": `"c-7"`, "id": `"orders/3/42"`,
		"headers.x": `"2"`, `headers["x"]`: `"2"`, "headers.missing": "null", "headers.null": "null", "headers": `{"null":null,"x":"2"}`,
		"time.Year()": "2026", `time > date("2026-01-01")`: "true", "trace": `"00000000000000000000000000000000"`,
		"vars.currency": `"CNY"`, "vars.min + 1": "6", "env.REGION": `"eu"`, "len(raw) > 100": "true", "vars": `{"currency":"CNY","min":5,"on":true,"rate":0.5}`,
		// Paths.
		"value.n": "7", "value.a.b.c[2].d": `"x"`, `value["a.b"]`: "5", "value.a.b.c[-1].d": `"x"`, "value.a?.b?.c[0]": "1", "value.dup": "2", "value.esc": `"a\u00e9\n"`, "value.esc + value.esc": `"aé\naé\n"`,
		// Missing fields.
		"value.x": "null", "value.x.y.z": "null", "value.n.x": "null", "value.list[9]": "null", "value.list[-4]": "null", "value.x == nil": "true", "value.none == nil": "true",
		"value.x != nil": "false", "value.n != nil": "true", "nil == value.x.y": "true", "value.x == value.y": "false", "value.x != value.y": "false", "value.x != 1": "false",
		"value.x > 1": "false", "1 <= value.x": "false", "value.x == true": "false", `value.x in ["a"]`: "false", `value.x contains "a"`: "false", `value.x matches "a"`: "false", `value.x startsWith "a"`: "false",
		`value.x ?? "d"`: `"d"`, "value.a.x ?? value.n": "7", "(value.x ?? 0) + 1": "1", `"a" in value.x`: "false", `not (value.x in ["a"])`: "true",
		// Numbers stay what they are.
		"value.big": "9007199254740993", "value.big + 1": "9007199254740994", "value.big == 9007199254740993": "true", "value.big == 9007199254740992.0": "false", "value.big > 9007199254740992": "true",
		"value.huge": "123456789012345678901234567890", "value.n / 2": "3.5", "value.n * 2": "14", "value.n % 4": "3", "-value.n": "-7", "2 ** 3": "8", "value.n == 7.0": "true", "value.amount == 12.5": "true", "value.amount > 12": "true", "12 < value.amount": "true", "value.n - 7 == 0": "true",
		// Types that differ are not equal.
		`value.n == "7"`: "false", `value.n != "7"`: "true", `value.status == "PAID"`: "true", `value.status != "PAID"`: "false", `"PAID" == value.status`: "true", "value.flag == true": "true", `value.esc == "aé\n"`: "true",
		"value.a == {b: {c: [1, 2, {d: \"x\"}]}}": "true", "[1, 2] == [1.0, 2]": "true",
		// Logic.
		"value.flag && value.n > 1": "true", "!value.flag": "false", "value.flag or value.x": "true", `value.flag ? "a" : "b"`: `"a"`, "let q = value.n; q * q": "49",
		`value.status in ["PAID", "SHIPPED"]`: "true", `value.n in [1, 7]`: "true", `value.n in 1..9`: "true", `value.status not in ["X"]`: "true", `"b" in value.a`: "true",
		`value.status matches "^P.*D$"`: "true", `value.status contains "AI"`: "true", `value.status endsWith "ID"`: "true",
		// Lists.
		"all(value.items, .p > 1)": "true", "any(value.items, .p > 2)": "true", "none(value.items, .p > 5)": "true", "one(value.items, .p == 2)": "true", "count(value.items, .p > 2)": "1", "map(value.items, .q)": `["b","a"]`,
		"reduce(value.items, #acc + #index, 0)": "1", "sum(value.items, .p)": "5", "sum([1, 2])": "3", "find(value.items, .p == 3).q": `"a"`, "findIndex(value.items, .p == 3)": "1", "findLastIndex(value.list, # == \"x\")": "2",
		"reduce(value.items, #acc + #.p, 10)": "15", "sortBy(value.items, .q)[0].p": "3", `map(sortBy(value.items, .p, "desc"), .p)`: "[3,2]", "groupBy(value.list, #)": `{"x":["x","x"],"y":["y"]}`, "uniq(value.list)": `["x","y"]`,
		"value.list[1:]": `["y","x"]`, "value.status[0:2]": `"PA"`, "value.status[-1:]": `"D"`, "first(value.list)": `"x"`, "last([])": "null", "take(value.list, 2)": `["x","y"]`, "reverse([1,2])": "[2,1]", "sort([3,1,2])": "[1,2,3]", "flatten([1,[2,[3]]])": "[1,2,3]", "concat([1],[2])": "[1,2]", "keys(value.a)": `["b"]`, "values({b: 1, a: 2})": "[2,1]", "max(1, value.n)": "7", "min([3, 2.5])": "2.5", "mean([1,2])": "1.5",
		// any of a list inside any of a list sees its own element.
		"all(value.items, any([1, 2, 3], # == 2) && .p > 1)": "true",
		// Functions.
		"len(value.esc)": "3", "len(value.list)": "3", "upper(value.list[0])": `"X"`, `lower("A")`: `"a"`, `trim(" a ")`: `"a"`, `trimPrefix("ab", "a")`: `"b"`, `split("a,b", ",")`: `["a","b"]`, `join(value.list, "-")`: `"x-y-x"`, `replace("aa", "a", "b")`: `"bb"`, `repeat("a", 3)`: `"aaa"`, `indexOf("abc", "c")`: "2", `hasPrefix("abc", "a")`: "true",
		"string(value.n)": `"7"`, `int("12")`: "12", "int(2.9)": "2", `float("1.5")`: "1.5", "abs(-3)": "3", "round(2.5)": "3", "floor(value.n)": "7", "type(value.n)": `"int"`, "type(value.x)": `"nil"`, "toJSON(value.items[0])": `"{\"p\":2,\"q\":\"b\"}"`, `fromJSON("[1]")[0]`: "1", `toBase64("a")`: `"YQ=="`, `fromBase64("YQ==")`: `"a"`, `duration("90s")`: `"1m30s"`, `date("2026-01-02").Day()`: "2", `string(date("2026-01-02"))`: `"2026-01-02T00:00:00Z"`, `get(value, "n")`: "7",
	} {
		got, err := evaluate(t, src, orderRecord())
		if err != nil {
			t.Errorf("%s: %v", src, err)
		} else if got != want {
			t.Errorf("%s: got %s, want %s", src, got, want)
		}
	}
}

func TestRunTimeFailuresAreSchema(t *testing.T) {
	for src, want := range map[string]string{
		"value.x + 1":                              "+ does not go between nil (a missing field?) and an int",
		"!value.x":                                 "! needs true or false, not nil",
		"value.x && true":                          "&& needs true or false, not nil",
		"value.status > 1":                         "> : ",
		"value.n / 0":                              "/ by zero",
		"value.n % 0":                              "% by zero",
		"9223372036854775807+1":                    "does not fit into 64 bits",
		"len(value.x)":                             "len: takes a string, a list or a map, not nil",
		"all(value.x, true)":                       "all takes a list, not nil",
		"filter(value.list, #)":                    "the condition of filter gives a string",
		"value.n in value.list[0]":                 "in needs a list or a map",
		`int("x")`:                                 "int: the string is no whole number",
		"value.list[0].Year()":                     "only times have methods",
		`fromJSON("{")`:                            "the string is not JSON",
		`value.x matches value.status + "("`:       "",
		`value.status matches value.list[0] + "("`: "the pattern is wrong",
	} {
		got, err := evaluate(t, src, orderRecord())
		if want == "" {
			if err != nil {
				t.Errorf("%s: %v", src, err)
			}
			continue
		}
		want = strings.Replace(want, "> : ", ">: a string has no order with an int", 1)
		if err == nil {
			t.Errorf("%s: got %s, want an error", src, got)
			continue
		}
		e := record.AsError(err)
		if e.Class != record.Schema || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "expression `"+src+"`") {
			t.Errorf("%s: got %v, want %q", src, err, want)
		}
	}
}

func TestValueThatIsNotJSON(t *testing.T) {
	for _, c := range []struct {
		name, value, src, want string
		null                   bool
	}{
		{name: "cut off", value: `{"a":`, src: "value.a == 1", want: "the value is not JSON: end of text where a value should be at byte 5"},
		{name: "empty", value: "", src: "value == nil", want: "the value is not JSON: it is empty"},
		{name: "two values", value: "1 2", src: "value == 1", want: "text after the end of the value at byte 2"},
		{name: "not needed", value: "no json", src: `raw contains "json"`},
		{name: "tombstone is nil", null: true, src: "value == nil && value.a.b == nil && raw == \"\""},
		{name: "a bare number", value: "5", src: "value == 5"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := &record.Record{Value: []byte(c.value)}
			if c.null {
				r.Value = nil
			}
			p, err := CompileBool(c.src, flowScope())
			if err != nil {
				t.Fatal(err)
			}
			e := NewEnv()
			for range 2 {
				e.Reset(r)
				ok, err := p.Bool(e)
				switch {
				case c.want == "" && (err != nil || !ok):
					t.Fatalf("got %v, %v, want true", ok, err)
				case c.want != "" && (err == nil || record.AsError(err).Class != record.Schema || !strings.Contains(err.Error(), c.want)):
					t.Fatalf("got %v, want %q", err, c.want)
				}
			}
		})
	}
}

func TestCompileErrors(t *testing.T) {
	for _, c := range []struct {
		src, at, msg, help string
		cond               bool
	}{
		{src: `valeu.status == "PAID"`, at: "valeu", msg: "unknown name `valeu`", help: "did you mean `value`? names here: value raw key headers topic partition offset time attempt trace id vars env"},
		{src: `value.a == null`, at: "null", msg: "unknown name `null`", help: "write nil"},
		{src: `é == "é" && tpoic == "a"`, at: "é", msg: "unknown name `é`"},
		{src: `value.é == "é" && tpoic == "a"`, at: "tpoic", msg: "unknown name `tpoic`", help: "did you mean `topic`?"},
		{src: `response.status == 200`, at: "response", msg: "`response` is not known here", help: "names here: value"},
		{src: `vars.curency == "a"`, at: "curency", msg: "the flow has no var `curency`", help: "did you mean `currency`? vars: currency min on rate"},
		{src: `env.HOME == "a"`, at: "HOME", msg: "the environment variable `HOME` is not set"},
		{src: `value.amount + 1`, at: "value.amount + 1", msg: "a condition must be true or false, and this is a number", help: "compare it, such as `value.amount + 1 > 0`", cond: true},
		{src: `topic`, at: "topic", msg: "this is a string", cond: true},
		{src: `vars.min`, at: "vars.min", msg: "this is a number", cond: true},
		{src: `topic > 5`, at: ">", msg: "> does not go between a string and a number"},
		{src: `vars.currency == 5`, at: "==", msg: "== does not go between a string and a number"},
		{src: `!topic`, at: "!", msg: "! does not go with a string"},
		{src: `value.a = 1`, at: "=", msg: "a single = has no meaning here", help: "write == to compare"},
		{src: `value.a ==`, at: "", msg: "the expression ends too early"},
		{src: `value.a == (1`, at: "", msg: "the expression ends"},
		{src: `value.a == 1)`, at: ")", msg: ") does not belong here"},
		{src: `lenn(value.a) > 1`, at: "lenn", msg: "unknown function `lenn`", help: "did you mean `len`?"},
		{src: `now() > time`, at: "now", msg: "unknown function `now`", help: "an expression reads no clock"},
		{src: `value.name.upper()`, at: "upper", msg: "only times have methods"},
		{src: `value.a matches "("`, at: "matches", msg: "the pattern is wrong: missing closing ): `(`"},
		{src: `  `, at: " ", msg: "the expression is empty"},
		{src: `$env.value`, at: "$env", msg: "unknown name `$env`"},
		{src: `let value = 1; value`, at: "value", msg: "`value` is taken"},
		{src: `env["A"+"B"]`, at: "", msg: "must be named"},
		{src: strings.Repeat("1+", 1500) + "1", at: "", msg: "more than 1000 operations"},
		{src: strings.Repeat("(", 9000), at: "(", msg: "longer than 8192 bytes"},
		{src: strings.Repeat("(", 8000), at: "", msg: "the expression ends"},
	} {
		var err error
		if c.cond {
			_, err = CompileBool(c.src, flowScope())
		} else {
			_, err = Compile(c.src, flowScope())
		}
		var e *Error
		if !errors.As(err, &e) {
			t.Errorf("%.60s: got %v, want an *Error", c.src, err)
			continue
		}
		rs := []rune(c.src)
		at := ""
		if e.Offset+e.Length <= len(rs) {
			at = string(rs[e.Offset : e.Offset+e.Length])
		} else if e.Offset > len(rs) {
			t.Errorf("%.60s: offset %d is behind the end", c.src, e.Offset)
		}
		if c.at != "" && at != c.at || !strings.Contains(e.Message, c.msg) || !strings.Contains(e.Help, c.help) {
			t.Errorf("%.60s:\n got %q: %s (%s)\nwant %q: %s (%s)", c.src, at, e.Message, e.Help, c.at, c.msg, c.help)
		}
	}
}

func TestHostileExpressionsEnd(t *testing.T) {
	// chain is 40 variables, each made of two of the one before it.
	chain := func(pair string) string {
		var b strings.Builder
		b.WriteString("let v0 = value.s; ")
		for i := range 40 {
			prev := fmt.Sprintf("v%d", i)
			fmt.Fprintf(&b, "let v%d = %s; ", i+1, strings.ReplaceAll(pair, "P", prev))
		}
		return b.String()
	}
	for name, src := range map[string]string{
		"nested loops":    "all(1..1000, all(1..1000, all(1..1000, # > 0)))",
		"long range":      "len(1..900000000)",
		"doubling string": chain("P + P") + "1",
		"shared lists":    chain("[P, P]") + "toJSON(v40)",
		"compared lists":  chain("[P, P]") + "v40 == v40",
		"flattened lists": chain("[P, P]") + "flatten(v40)",
		"replace":         `replace(repeat("a", 4000000), "", repeat("b", 4000000))`,
		"repeat":          `repeat(value.s, 9000000000000000000)`,
		"join":            `join(map(1..100000, repeat("a", 100000)), "")`,
		"pairs":           "uniq(1..100000)",
	} {
		t.Run(name, func(t *testing.T) {
			p, err := Compile(src, flowScope())
			if err != nil {
				t.Fatal(err)
			}
			e := NewEnv()
			e.Reset(&record.Record{Value: []byte(`{"s":"0123456789abcdef"}`)})
			_, err = p.Any(e)
			var limit *LimitError
			if !errors.As(err, &limit) || record.AsError(err).Class != record.Schema {
				t.Fatalf("got %v, want a LimitError", err)
			}
		})
	}
}

func TestTemplates(t *testing.T) {
	for src, want := range map[string]string{
		"":                                 "",
		"plain $ text }":                   "plain $ text }",
		"$${vars.x}":                       "${vars.x}",
		"/o/${value.n}?c=${vars.currency}": "/o/7?c=CNY",
		"${value.amount}":                  "12.5",
		"${value.items[0]} ${value.flag}":  `{"p":2,"q":"b"} true`,
		`${value.x ?? "}"}!`:               "}!",
		`${ {a: 1}.a }`:                    "1",
		"${time}":                          "2026-11-01T00:00:00.123Z",
	} {
		tpl, err := CompileTemplate(src, flowScope())
		if err != nil {
			t.Errorf("%s: %v", src, err)
			continue
		}
		e := NewEnv()
		e.Reset(orderRecord())
		if got, err := tpl.Text(e); err != nil || got != want {
			t.Errorf("%s: got %q, %v, want %q", src, got, err, want)
		}
		if _, ok := tpl.Const(); ok == (strings.Contains(src, "${") && !strings.Contains(src, "$${")) {
			t.Errorf("%s: Const reports %v", src, ok)
		}
	}
	tpl, err := CompileTemplate("a ${value.x} b", flowScope())
	if err != nil {
		t.Fatal(err)
	}
	e := NewEnv()
	e.Reset(orderRecord())
	if _, err := tpl.Text(e); err == nil || !strings.Contains(err.Error(), "the result is nil") {
		t.Errorf("nil in a template: got %v", err)
	}
	for src, offset := range map[string]int{"é ${valu.x}": 4, "a ${value.x": 2, "${1 +}": 5} {
		_, err := CompileTemplate(src, flowScope())
		var te *Error
		if !errors.As(err, &te) || te.Offset != offset || te.Source != src {
			t.Errorf("%s: got %+v, want offset %d", src, te, offset)
		}
	}
	static, err := CompileTemplate("${vars.currency}-${env.REGION}", flowScope())
	if err != nil {
		t.Fatal(err)
	}
	if s, ok := static.Static(); !ok || s != "CNY-eu" {
		t.Errorf("Static: got %q, %v", s, ok)
	}
}

func TestKey(t *testing.T) {
	e := NewEnv()
	e.Reset(orderRecord())
	for src, want := range map[string]string{"value.n": "7", "key": "c-7", "value.x": "<nil>", `""`: "", "value.items[1].q": "a"} {
		p, err := Compile(src, flowScope())
		if err != nil {
			t.Fatal(err)
		}
		got, err := p.Key(e)
		s := string(got)
		if got == nil {
			s = "<nil>"
		}
		if err != nil || s != want {
			t.Errorf("%s: got %q, %v, want %q", src, s, err, want)
		}
	}
}

func TestPaths(t *testing.T) {
	for src, want := range map[string]Path{
		"a":         {"a"},
		"a.b c.d":   {"a", "b c", "d"},
		`a\.b.c\\d`: {"a.b", `c\d`},
		"a[0]":      {"a[0]"},
	} {
		got, err := ParsePath(src)
		if err != nil || strings.Join(got, "|") != strings.Join(want, "|") || got.String() != src {
			t.Errorf("%s: got %q, %v, want %q", src, got, err, want)
		}
	}
	for _, src := range []string{"", ".", "a.", ".a", "a..b", `a\`, `a\b`, strings.Repeat("a.", 64) + "a"} {
		if p, err := ParsePath(src); err == nil {
			t.Errorf("%s: got %q, want an error", src, p)
		}
	}
}

func TestNumbersCompareExactly(t *testing.T) {
	for _, c := range []struct {
		i    int64
		f    float64
		want int
		ok   bool
	}{
		{math.MaxInt64, 1 << 63, -1, true}, {math.MinInt64, -1 << 63, 0, true}, {9007199254740993, 9007199254740992, 1, true},
		{-1, -1.5, 1, true}, {1, 1.5, -1, true}, {0, math.NaN(), 0, false}, {5, math.Inf(1), -1, true}, {5, math.Inf(-1), 1, true},
	} {
		if got, ok := compareNumbers(c.i, c.f); got != c.want || ok != c.ok {
			t.Errorf("%d and %v: got %d, %v, want %d, %v", c.i, c.f, got, ok, c.want, c.ok)
		}
		if got, ok := compareNumbers(c.f, c.i); got != -c.want || ok != c.ok {
			t.Errorf("%v and %d: got %d, %v", c.f, c.i, got, ok)
		}
	}
}

func TestFilterDoesNotAllocate(t *testing.T) {
	p, e, r := filterBench(t)
	if n := testing.AllocsPerRun(100, func() {
		e.Reset(r)
		if ok, err := p.Bool(e); !ok || err != nil {
			t.Fatal(ok, err)
		}
	}); n != 0 {
		t.Errorf("got %v allocations for a filter of two comparisons, want 0", n)
	}
}

func filterBench(t testing.TB) (*Program, *Env, *record.Record) {
	p, err := CompileBool(`value.status == "PAID" && value.amount > 0`, flowScope())
	if err != nil {
		t.Fatal(err)
	}
	r := &record.Record{Value: []byte(`{"order_id":"o-00000001","customer_id":"c-000123","status":"PAID","amount":129.95,"currency":"EUR","email":"someone.long@example.com","card":"4111111111111111","internal_note":"called twice, prefers mail","items":[{"sku":"A-1","n":2},{"sku":"B-7","n":1}],"created":"2026-11-01T08:00:00Z","region":"CN"}`)}
	return p, NewEnv(), r
}

func BenchmarkFilter(b *testing.B) {
	p, e, r := filterBench(b)
	b.SetBytes(int64(len(r.Value)))
	b.ReportAllocs()
	for b.Loop() {
		e.Reset(r)
		if _, err := p.Bool(e); err != nil {
			b.Fatal(err)
		}
	}
}

func FuzzCompile(f *testing.F) {
	for _, s := range []string{`value.a == 1`, `all(value.list, .p > 1)`, `"${x}" + topic`, `let a = 1; a`, `value[1:2]`, `{a: 1}.a`, `value.x?.y ?? 1`, "1..5", `time.Format("2006")`, "#", ".a", "reduce([1], #acc)", "$env", "a | b", "if true {1} else {2}", "get(value)", "len()", "map([1], {# : 1})"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, src string) {
		p, err := Compile(src, flowScope())
		if err != nil {
			var e *Error
			if !errors.As(err, &e) || e.Message == "" || e.Offset < 0 || e.Length < 0 || e.Offset > len([]rune(src)) {
				t.Fatalf("%q: %#v", src, err)
			}
			return
		}
		e := NewEnv()
		e.Reset(orderRecord())
		if _, err := p.Any(e); err != nil && record.AsError(err).Class != record.Schema {
			t.Fatalf("%q: %v", src, err)
		}
	})
}

// What a request is made of keeps the record's own digits.
func TestTextsKeepNumbersAsTheyStand(t *testing.T) {
	r := record.Record{Value: []byte(`{"id":18446744073709551615,"price":19.90,"o":{"z":1,"a":12345678901234567890123}}`)}
	for src, want := range map[string]string{
		"/o/${value.id}":        "/o/18446744073709551615",
		"${value.price}":        "19.90",
		"${toJSON(value.o)}":    `{"z":1,"a":12345678901234567890123}`,
		"${toJSON(value.none)}": "null",
	} {
		tpl, err := CompileTemplate(src, Scope{Roots: RecordRoots})
		if err != nil {
			t.Fatal(err)
		}
		env := NewEnv()
		env.Reset(&r)
		if got, err := tpl.Text(env); err != nil || got != want {
			t.Errorf("%s: got %q, %v; want %q", src, got, err, want)
		}
	}
}

// What the roots of a request, an answer and a failure have is known, so that
// a mistyped name shows before there is one.
func TestShapes(t *testing.T) {
	scope := flowScope()
	scope.Roots |= Response | Failure
	scope.Shapes = map[Roots]Shape{Response: {"status": IntKind, "headers": AnyKind, "body": AnyKind}}
	for src, want := range map[string]string{
		"failure.clas":               "failure has no field `clas`; did you mean `class`?",
		"failure.stage > 1":          "> does not go between a string and a number",
		"failure.time.Year() > 2000": "",
		`failure.class == "timeout" && failure.attempts > 3 && value.n == failure.code && failure.plugin == nil`: "",
		`toJSON(failure)`:       "",
		`failure["class"]`:      "write failure.class",
		"response":              "`response` alone is no value",
		"response.sttus == 200": "did you mean `status`?",
		`response["status"]`:    "a field of response is named with a dot",
		`response.body.code == 0 || response?.body[0]`: "",
		`response.headers["x-a"] == "1"`:               "",
		"request.body":                                 "`request` is not known here",
	} {
		_, err := Compile(src, scope)
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: got %v, want %q", src, err, want)
		}
	}
	p, err := Compile("failure", scope)
	if err != nil {
		t.Fatal(err)
	}
	if p.Roots() != Failure {
		t.Errorf("roots: got %v", p.Roots().Names())
	}
	p, err = CompileBool("failure.attempts == 3 && failure.time.Year() == 2026", scope)
	if err != nil {
		t.Fatal(err)
	}
	e := NewEnv()
	e.Reset(orderRecord())
	e.Bind(Failure, map[string]any{"attempts": int64(3), "time": orderRecord().Time()})
	if ok, err := p.Bool(e); !ok || err != nil {
		t.Errorf("got %v, %v", ok, err)
	}
}
