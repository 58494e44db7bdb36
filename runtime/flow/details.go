package flow

import (
	"encoding/json"
	"maps"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// longestText is about how many bytes of a value a change shows.
const longestText = 120

// notShown stands for a value that is called, or looks, like a credential.
const notShown = "(not shown)"

// detail is a key of a part of a document and its value as it is written there.
type detail struct {
	path, text string
	// order: the text are the names of a list's elements, which are details of
	// their own. plain: it is no credential, whatever it is called.
	order, plain bool
}

// told are the keys that the description of a stage, delivery, source or
// exception tells in full.
var told = map[string]bool{
	"filter": true, "ref": true, "function": true, "every": true, "else.drop": true, "when": true,
	"push.connection": true, "push.topic": true, "push.webhook": true, "push.method": true, "push.path": true,
	"connection": true, "topics": true, "pattern": true, "topic": true, "start": true, "path": true,
}

// hoisted are fields of the model that a document does not have, or has under
// another name.
var hoisted = map[string]string{
	"plugin": "", "branch": "", "kafka": "push", "rocketmq": "push", "http": "push", "file": "push",
	"sign.signature": "sign", "sign.jwt": "sign", "sign.oauth2": "sign", "sign.api_key": "sign", "sign.basic": "sign", "sign.plugin": "sign", "validate.plugin": "validate",
}

// details lists the keys of a part that change when old becomes new, but for
// those that its description tells. There is at least one if the parts differ
// and their descriptions, as alike says, do not.
func details(what string, alike bool, old, new any) []Change {
	was, is := flatten(old), flatten(new)
	find := func(ds []detail, path string) detail {
		if i := slices.IndexFunc(ds, func(d detail) bool { return d.path == path }); i >= 0 {
			return ds[i]
		}
		return detail{}
	}
	var cs []Change
	add := func(was, is detail) {
		path := was.path
		if is.text != "" {
			path = is.path
		}
		if was.text == is.text || told[path] || (was.order || is.order) && !samePermuted(was.text, is.text) {
			return
		}
		c := Change{Op: op(was.text, is.text), What: what + "." + path}
		c.Old, c.New = shown(path, was.text, is.text, was.plain || is.plain)
		cs = append(cs, c)
	}
	for _, d := range is {
		add(find(was, d.path), d)
	}
	for _, d := range was {
		if find(is, d.path).text == "" {
			add(d, detail{})
		}
	}
	if len(cs) == 0 && alike && !sameJSON(old, new) {
		cs = append(cs, Change{Op: "~", What: what, New: "changed"})
	}
	return cs
}

func sameJSON(a, b any) bool {
	x, err1 := json.Marshal(a)
	y, err2 := json.Marshal(b)
	return err1 == nil && err2 == nil && string(x) == string(y)
}

// samePermuted reports whether two lists of names have the same ones.
func samePermuted(a, b string) bool {
	x, y := strings.Split(a, ", "), strings.Split(b, ", ")
	slices.Sort(x)
	slices.Sort(y)
	return slices.Equal(x, y)
}

// flatten lists the keys of a part that are said, in the order of the model.
func flatten(v any) []detail {
	var out []detail
	var walk func(path, name string, v reflect.Value)
	fields := func(path string, v reflect.Value, from int) {
		for i := from; i < v.NumField(); i++ {
			name, _, _ := strings.Cut(v.Type().Field(i).Tag.Get("json"), ",")
			if name == "otherwise" {
				aside, _ := v.FieldByName("Aside").Interface().(*Topic)
				out = append(out, detail{path: join(path, name), text: v.Field(i).Interface().(Otherwise).describe(aside)})
			}
			if name != "-" && name != "otherwise" && name != "aside" && name != "id" {
				walk(under(path, name), name, v.Field(i))
			}
		}
	}
	walk = func(path, name string, v reflect.Value) {
		switch x := v.Interface().(type) {
		case Secret:
			out = append(out, detail{path: path, text: "secret " + x.Name, plain: true})
			return
		case json.RawMessage:
			out = append(out, jsonDetails(path, x)...)
			return
		case PluginRef:
			out = append(out, detail{path: path, text: x.String()})
			return
		}
		switch v.Kind() {
		case reflect.Pointer:
			if !v.IsNil() && v.Elem().Kind() == reflect.String {
				out = append(out, detail{path: path, text: strconv.Quote(v.Elem().String())})
			} else if !v.IsNil() {
				walk(path, name, v.Elem())
			}
		case reflect.Struct:
			fields(path, v, 0)
		case reflect.Slice:
			if v.Type().Elem().Kind() == reflect.String {
				if v.Len() > 0 {
					out = append(out, detail{path: path, text: "[" + strings.Join(v.Convert(reflect.TypeFor[[]string]()).Interface().([]string), ", ") + "]"})
				}
				return
			}
			names, named := elementNames(v)
			for i := range v.Len() {
				switch e := v.Index(i); {
				case named && e.NumField() == 2:
					walk(join(path, names[i]), "", e.Field(1))
				case named:
					fields(join(path, names[i]), e, 1)
				default:
					walk(join(path, names[i]), "", e)
				}
			}
			if named && v.Len() > 1 {
				out = append(out, detail{path: path, text: strings.Join(names, ", "), order: true})
			}
		default:
			if t := scalarText(name, v); t != "" {
				out = append(out, detail{path: path, text: t})
			}
		}
	}
	walk("", "", reflect.ValueOf(v))
	return out
}

// scalarText is a value as it is written in a document; "" for one that is not
// said.
func scalarText(name string, v reflect.Value) string {
	switch x := v.Interface().(type) {
	case time.Duration:
		return durationText(x)
	case bool:
		if !x {
			return ""
		}
		return "true"
	case int:
		return number(x)
	case int64:
		if name == "bytes" || strings.HasSuffix(name, "_bytes") || x == 0 {
			return bytesText(x)
		}
		return strconv.FormatInt(x, 10)
	case float64:
		return rateText(x)
	}
	return v.String()
}

// jsonDetails are the keys of a plugin's settings.
func jsonDetails(path string, raw json.RawMessage) (out []detail) {
	var object map[string]json.RawMessage
	if len(raw) == 0 {
		return nil
	}
	if json.Unmarshal(raw, &object) != nil || len(object) == 0 {
		return []detail{{path: path, text: string(raw)}}
	}
	for _, k := range slices.Sorted(maps.Keys(object)) {
		out = append(out, jsonDetails(join(path, k), object[k])...)
	}
	return out
}

func join(path, name string) string { return strings.Trim(path+"."+name, ".") }

// under is the path of a field, as near to that in a document as can be.
func under(path, name string) string {
	for _, unit := range []string{"_ns", "_bytes", "_per_second"} {
		name = strings.TrimSuffix(name, unit)
	}
	p := join(path, name)
	inside, pushed := strings.CutPrefix(p, "push.")
	to, ok := hoisted[p]
	if pushed && !ok { // the push of an exception
		if to, ok = hoisted[inside]; ok && to != "push" {
			to = "push." + to
		}
	}
	if ok {
		return to
	}
	return p
}

// elementNames are what the elements of a list are called: by their first field
// if that is a name, else (named is false) by number.
func elementNames(v reflect.Value) (names []string, named bool) {
	seen := map[string]bool{}
	for i := range v.Len() {
		e := v.Index(i)
		if _, ok := e.Interface().(BranchCase); ok || e.Kind() != reflect.Struct || e.Field(0).Kind() != reflect.String || seen[e.Field(0).String()] {
			names = nil
			for n := range v.Len() {
				names = append(names, strconv.Itoa(n+1))
			}
			return names, false
		}
		seen[e.Field(0).String()] = true
		names = append(names, e.Field(0).String())
	}
	return names, true
}

var (
	credentialName = regexp.MustCompile(`(?i)pass(word|wd|phrase)|secret|token|authorization|api_?-?key|access_?-?key|private_?-?key|credential|session|cookie|signature`)
	credentialText = regexp.MustCompile(`(?i)\b(bearer|basic)\s+[a-z0-9+/=._~-]{8,}|eyJ[a-z0-9_-]{4,}\.[a-z0-9_-]+\.|://[^/\s@]*:[^/\s@]+@`)
)

// shown are two values of a key as a change tells them: on one line, of bounded
// length, and none that may be a credential unless plain says that it is not.
func shown(path, was, is string, plain bool) (old, new string) {
	name := path[strings.LastIndexByte(path, '.')+1:]
	if !plain && name != "token_url" && (credentialName.MatchString(name) || credentialText.MatchString(was) || credentialText.MatchString(is)) {
		if was != "" {
			old = notShown
		}
		if is != "" {
			new = notShown
		}
		return old, new
	}
	from := 0
	for from < min(len(was), len(is)) && was[from] == is[from] {
		from++
	}
	return excerpt(was, from), excerpt(is, from)
}

// excerpt is a text on one line, cut around a place of it.
func excerpt(s string, at int) string {
	if len(s) > longestText {
		from := max(0, min(at-longestText/4, len(s)-longestText))
		cut := strings.ToValidUTF8(s[from:from+longestText], "")
		if from > 0 {
			cut = "..." + cut
		}
		if from+longestText < len(s) {
			cut += "..."
		}
		s = cut
	}
	if s != strings.TrimSpace(s) || strings.ContainsFunc(s, func(r rune) bool { return !strconv.IsPrint(r) }) {
		return strconv.Quote(s)
	}
	return s
}
