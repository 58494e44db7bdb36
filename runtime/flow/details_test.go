package flow

import (
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

// changes are the lines of a diff.
func changes(old, new *Flow) string {
	var lines []string
	for _, c := range Diff(old, new) {
		lines = append(lines, c.String())
	}
	return strings.Join(lines, "\n")
}

func TestDiffTellsValues(t *testing.T) {
	parse := func(stage string) *Flow {
		docs, ps := Parse("a.yaml", []byte("flow: v1\nname: a\nsource: kafka://main/in\nstages:\n"+stage), Options{})
		if ps.HasErrors() {
			t.Fatal(ps.Render())
		}
		return docs[0].Flow
	}
	push := func(parts string) string {
		return "  - { id: out, push: { http: { connection: partner, post: /" + parts + " } } }\n"
	}
	const end = "  - { id: out, push: kafka://main/out }\n"
	long := strings.Repeat("a", 200)
	for _, c := range []struct{ name, old, new, want string }{
		{"headers", push(", headers: { A: x, B: y }"), push(", headers: { A: z, C: y }"), "~ out.push.headers.A: x -> z\n+ out.push.headers.C: y\n- out.push.headers.B: y"},
		{"order of headers", push(", headers: { A: x, B: y }"), push(", headers: { B: y, A: x }"), "~ out.push.headers: A, B -> B, A"},
		{"a credential", push(", headers: { X-Api-Key: abc, A: Bearer 0123456789 }"), push(", headers: { X-Api-Key: def, A: Bearer 0123456780 }"), "~ out.push.headers.X-Api-Key: (not shown)\n~ out.push.headers.A: (not shown)"},
		{"several lines", push(", body: \"a\\nb\""), push(", body: \"a\\nc\""), `~ out.push.body: "a\nb" -> "a\nc"`},
		{"a long text", push(", body: " + long + "1" + long), push(", body: " + long + "2" + long), "~ out.push.body: ..." + long[:30] + "1" + long[:89] + "... -> ..." + long[:30] + "2" + long[:89] + "..."},
		{"settings", "  - { id: m, map: x@^1, with: { a: { b: 1, c: [1] }, db_password: p } }\n" + end, "  - { id: m, map: x@^1, with: { a: { b: 2, c: [1, 2] }, db_password: q } }\n" + end, "~ m.with.a.b: 1 -> 2\n~ m.with.a.c: [1] -> [1,2]\n~ m.with.db_password: (not shown)"},
		{"set", "  - { id: m, map: { set: { a: value.x, b: value.y } } }\n" + end, "  - { id: m, map: { set: { a: value.z, b: value.y } } }\n" + end, "~ m.map.set.a: value.x -> value.z"},
		{"a reason", "  - { id: s, branch: [ { when: value.a == 1, stages: [] }, { else: drop, reason: one } ] }\n" + end, "  - { id: s, branch: [ { when: value.a == 1, stages: [] }, { else: drop, reason: two } ] }\n" + end, "~ s.else.reason: one -> two"},
		{"another way to sign", "  - { id: out, push: { http: { connection: partner, post: / } }, sign: { basic: { user: u, password: { secret: a } } } }\n", "  - { id: out, push: { http: { connection: partner, post: / } }, sign: { api_key: { secret: b }, header: X } }\n",
			"~ out: push POST partner:/ (sign basic) -> push POST partner:/ (sign api_key)\n+ out.sign.key: secret b\n+ out.sign.header: X\n- out.sign.user: u\n- out.sign.password: secret a"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := changes(parse(c.old), parse(c.new)); got != c.want {
				t.Errorf("got\n%s\nwant\n%s", got, c.want)
			}
		})
	}
	was, is := parse(end), parse(end)
	was.Vars, is.Vars = map[string]any{"api_token": "a", "n": int64(1)}, map[string]any{"api_token": "b", "n": int64(2)}
	was.Env, is.Env = map[string]string{"PASSWORD": "a"}, map[string]string{"PASSWORD": "b"}
	if got, want := changes(was, is), "~ vars.api_token: (not shown)\n~ vars.n: 1 -> 2\n~ env.PASSWORD: (not shown)"; got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// Whatever a document says, another value of it is a change that says which.
func TestDiffMissesNothing(t *testing.T) {
	files, err := filepath.Glob("testdata/valid/*.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var docs []*Document
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		more, ps := Parse(file, text, Options{})
		if ps.HasErrors() {
			t.Fatal(ps.Render())
		}
		docs = append(docs, more...)
	}
	seen := 0
	for _, d := range docs {
		if d.Flow == nil {
			continue
		}
		b, err := json.Marshal(d.Flow)
		if err != nil {
			t.Fatal(err)
		}
		for n := 0; ; n++ {
			next := &Flow{}
			if err := json.Unmarshal(b, next); err != nil {
				t.Fatal(err)
			}
			at := n
			place := alter(reflect.ValueOf(next), "", &at)
			if place == "" {
				break
			}
			seen++
			if got := changes(d.Flow, next); got == "" || strings.HasSuffix(got, "changed") {
				t.Errorf("%s: %q", place, got)
			}
		}
	}
	if seen < 200 {
		t.Errorf("%d values were changed", seen)
	}
}

// alter changes the n-th value that a flow says, but for its name and what
// follows from other values, and says which it was; "" if there are not as many.
func alter(v reflect.Value, path string, n *int) string {
	switch v.Kind() {
	case reflect.Pointer:
		if !v.IsNil() {
			return alter(v.Elem(), path, n)
		}
	case reflect.Struct:
		for i := range v.NumField() {
			f := v.Type().Field(i)
			skip := f.Tag.Get("json") == "-" || path == "" && (f.Name == "Project" || f.Name == "Name") || f.Name == "ID" && strings.HasSuffix(path, ".Push")
			switch x := v.Interface().(type) {
			case PluginRef:
				skip = x.Path != "" && f.Name != "Path"
			case HTTPPush:
				skip = x.Webhook && f.Name == "Method"
			}
			if skip {
				continue
			}
			if p := alter(v.Field(i), path+"."+f.Name, n); p != "" {
				return p
			}
		}
	case reflect.Slice:
		if v.Type() == reflect.TypeFor[json.RawMessage]() && v.Len() > 0 {
			if *n--; *n < 0 {
				v.SetBytes([]byte(`{"other":1}`))
				return path
			}
			return ""
		}
		for i := range v.Len() {
			if p := alter(v.Index(i), path+"[]", n); p != "" {
				return p
			}
		}
	case reflect.String, reflect.Bool, reflect.Int, reflect.Int64, reflect.Float64:
		if v.IsZero() {
			return ""
		}
		if *n--; *n >= 0 {
			return ""
		}
		switch v.Kind() {
		case reflect.String:
			v.SetString(v.String() + "x")
		case reflect.Bool:
			v.SetBool(!v.Bool())
		case reflect.Float64:
			v.SetFloat(v.Float() + 1)
		default:
			v.SetInt(v.Int() + 1)
		}
		return path
	}
	return ""
}
