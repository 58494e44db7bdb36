package expr

import (
	"encoding/base64"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/millrace-io/millrace/runtime/expr/jsondoc"
)

// function is a function of the language. Its arguments were checked for
// their number by the checker of expr-lang.
type function func(e *Env, args []any) (any, error)

var functions = map[string]function{
	"len": length, "type": func(_ *Env, a []any) (any, error) { return typeOf(a[0]), nil },
	"abs": absolute, "ceil": rounded(math.Ceil), "floor": rounded(math.Floor), "round": rounded(math.Round),
	"int": toInt, "float": toFloatValue, "string": toText,
	"trim": trimmed(strings.TrimSpace, strings.Trim), "trimPrefix": trimmed(strings.TrimSpace, strings.TrimPrefix), "trimSuffix": trimmed(strings.TrimSpace, strings.TrimSuffix),
	"upper": mapped(strings.ToUpper), "lower": mapped(strings.ToLower),
	"hasPrefix": tested(strings.HasPrefix), "hasSuffix": tested(strings.HasSuffix),
	"indexOf": located(strings.Index), "lastIndexOf": located(strings.LastIndex),
	"split": split, "join": join, "replace": replace, "repeat": repeat,
	"toJSON": toJSON, "fromJSON": fromJSON, "toBase64": toBase64, "fromBase64": fromBase64,
	"duration": toDuration, "date": toDate,
	"max": extreme(1), "min": extreme(-1), "mean": mean,
	"first": first, "last": last, "get": func(_ *Env, a []any) (any, error) { return fetch(a[0], a[1]) }, "take": take,
	"keys": keys, "values": values, "reverse": reverse, "uniq": uniq, "concat": concat, "flatten": flatten, "sort": sorted,
}

// predicates are the functions that take an expression over each element.
var predicates = []string{"all", "none", "any", "one", "filter", "map", "find", "findIndex", "findLast", "findLastIndex", "count", "sum", "groupBy", "sortBy", "reduce"}

var functionNames = slices.Sorted(slices.Values(append(slices.Collect(maps.Keys(functions)), predicates...)))

func wants(want string, got any) error { return fmt.Errorf("takes %s, not %s", want, describe(got)) }

func text(args []any, i int) (string, error) {
	s, ok := args[i].(string)
	if !ok {
		return "", wants("a string", args[i])
	}
	return s, nil
}

func texts(args []any) ([]string, error) {
	out := make([]string, len(args))
	for i := range args {
		s, err := text(args, i)
		if err != nil {
			return nil, err
		}
		out[i] = s
	}
	return out, nil
}

func listOf(v any) ([]any, error) {
	l, ok := v.([]any)
	if !ok {
		return nil, wants("a list", v)
	}
	return l, nil
}

func whole(v any) (int, error) {
	i, ok := v.(int64)
	if !ok {
		return 0, wants("a whole number", v)
	}
	return int(i), nil
}

func length(e *Env, a []any) (any, error) {
	switch v := a[0].(type) {
	case string:
		return int64(utf8.RuneCountInString(v)), e.work(len(v))
	case []any:
		return int64(len(v)), nil
	case map[string]any:
		return int64(len(v)), nil
	}
	return nil, wants("a string, a list or a map", a[0])
}

func absolute(_ *Env, a []any) (any, error) {
	switch v := a[0].(type) {
	case int64:
		if v < 0 {
			return subInt(0, v)
		}
		return v, nil
	case float64:
		return math.Abs(v), nil
	}
	return nil, wants("a number", a[0])
}

func rounded(f func(float64) float64) function {
	return func(_ *Env, a []any) (any, error) {
		switch v := a[0].(type) {
		case int64:
			return v, nil
		case float64:
			return f(v), nil
		}
		return nil, wants("a number", a[0])
	}
}

func toInt(_ *Env, a []any) (any, error) {
	switch v := a[0].(type) {
	case int64:
		return v, nil
	case float64:
		if v != v || v >= 1<<63 || v < -1<<63 {
			return nil, errOverflow
		}
		return int64(v), nil
	case string:
		i, err := strconv.ParseInt(v, 10, 64)
		if err != nil {
			return nil, errors.New("the string is no whole number of 64 bits")
		}
		return i, nil
	}
	return nil, wants("a number or a string", a[0])
}

func toFloatValue(_ *Env, a []any) (any, error) {
	if f, ok := toFloat(a[0]); ok {
		return f, nil
	}
	s, ok := a[0].(string)
	if !ok {
		return nil, wants("a number or a string", a[0])
	}
	f, err := strconv.ParseFloat(s, 64)
	if err != nil {
		return nil, errors.New("the string is no number")
	}
	return f, nil
}

func toText(e *Env, a []any) (any, error) {
	if a[0] == nil {
		return nil, wants("a value", nil)
	}
	b, err := e.appendText(nil, a[0])
	return string(b), err
}

func toJSON(e *Env, a []any) (any, error) {
	b, err := e.appendJSON(nil, a[0])
	return string(b), err
}

func fromJSON(e *Env, a []any) (any, error) {
	s, err := text(a, 0)
	if err != nil {
		return nil, err
	}
	if err := e.grow(8 * len(s)); err != nil {
		return nil, err
	}
	var d jsondoc.Doc
	if err := d.Parse([]byte(s)); err != nil {
		return nil, fmt.Errorf("the string is not JSON: %w", err)
	}
	return d.Value(d.Root())
}

func toBase64(e *Env, a []any) (any, error) {
	s, err := text(a, 0)
	if err != nil {
		return nil, err
	}
	if err := e.grow(2 * len(s)); err != nil {
		return nil, err
	}
	return base64.StdEncoding.EncodeToString([]byte(s)), nil
}

func fromBase64(e *Env, a []any) (any, error) {
	s, err := text(a, 0)
	if err != nil {
		return nil, err
	}
	if err := e.grow(len(s)); err != nil {
		return nil, err
	}
	b, err := base64.StdEncoding.DecodeString(s)
	if err != nil {
		return nil, errors.New("the string is not base64")
	}
	return string(b), nil
}

// extreme is max (1) or min (-1), of the arguments or of a list.
func extreme(sign int) function {
	return func(e *Env, a []any) (any, error) {
		if len(a) == 1 {
			list, ok := a[0].([]any)
			if !ok {
				return a[0], nil
			}
			a = list
		}
		var best any
		for _, v := range a {
			if err := e.step(); err != nil {
				return nil, err
			}
			if v == nil {
				return nil, wants("numbers", nil)
			}
			if best == nil {
				best = v
				continue
			}
			c, ok, err := order(v, best)
			if err != nil {
				return nil, err
			}
			if ok && c*sign > 0 {
				best = v
			}
		}
		return best, nil
	}
}

func mean(e *Env, a []any) (any, error) {
	if len(a) == 1 {
		if list, ok := a[0].([]any); ok {
			a = list
		}
	}
	if len(a) == 0 {
		return nil, nil
	}
	sum := 0.0
	for _, v := range a {
		f, ok := toFloat(v)
		if !ok {
			return nil, wants("numbers", v)
		}
		if err := e.step(); err != nil {
			return nil, err
		}
		sum += f
	}
	return sum / float64(len(a)), nil
}

func first(_ *Env, a []any) (any, error) {
	list, err := listOf(a[0])
	if err != nil || len(list) == 0 {
		return nil, err
	}
	return list[0], nil
}

func last(_ *Env, a []any) (any, error) {
	list, err := listOf(a[0])
	if err != nil || len(list) == 0 {
		return nil, err
	}
	return list[len(list)-1], nil
}

func take(_ *Env, a []any) (any, error) {
	list, err := listOf(a[0])
	if err != nil {
		return nil, err
	}
	n, err := whole(a[1])
	if err != nil {
		return nil, err
	}
	n = max(0, min(n, len(list)))
	return list[:n:n], nil
}

func mapOf(v any) (map[string]any, error) {
	m, ok := v.(map[string]any)
	if !ok {
		return nil, wants("a map", v)
	}
	return m, nil
}

func keys(e *Env, a []any) (any, error) {
	m, err := mapOf(a[0])
	if err != nil {
		return nil, err
	}
	if err := e.grow(32 * len(m)); err != nil {
		return nil, err
	}
	return anys(slices.Sorted(maps.Keys(m))), nil
}

func values(e *Env, a []any) (any, error) {
	m, err := mapOf(a[0])
	if err != nil {
		return nil, err
	}
	if err := e.grow(32 * len(m)); err != nil {
		return nil, err
	}
	out := make([]any, 0, len(m))
	for _, k := range slices.Sorted(maps.Keys(m)) {
		out = append(out, m[k])
	}
	return out, nil
}

func reverse(e *Env, a []any) (any, error) {
	list, err := listOf(a[0])
	if err != nil {
		return nil, err
	}
	if err := e.grow(16 * len(list)); err != nil {
		return nil, err
	}
	out := slices.Clone(list)
	slices.Reverse(out)
	return out, nil
}

func uniq(e *Env, a []any) (any, error) {
	list, err := listOf(a[0])
	if err != nil {
		return nil, err
	}
	if err := e.grow(16 * len(list)); err != nil {
		return nil, err
	}
	out := []any{}
next:
	for _, v := range list {
		for _, w := range out {
			eq, err := e.inner(v, w)
			if err != nil {
				return nil, err
			}
			if eq {
				continue next
			}
		}
		out = append(out, v)
	}
	return out, nil
}

func concat(e *Env, a []any) (any, error) {
	out := []any{}
	for _, v := range a {
		list, err := listOf(v)
		if err != nil {
			return nil, err
		}
		if err := e.grow(16 * len(list)); err != nil {
			return nil, err
		}
		out = append(out, list...)
	}
	return out, nil
}

func flatten(e *Env, a []any) (any, error) {
	list, err := listOf(a[0])
	if err != nil {
		return nil, err
	}
	return e.flat([]any{}, list)
}

func (e *Env) flat(out, list []any) ([]any, error) {
	for _, v := range list {
		if err := e.grow(16); err != nil {
			return nil, err
		}
		if err := e.step(); err != nil {
			return nil, err
		}
		inner, ok := v.([]any)
		if !ok {
			out = append(out, v)
			continue
		}
		var err error
		if out, err = e.flat(out, inner); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func sorted(e *Env, a []any) (any, error) {
	list, err := listOf(a[0])
	if err != nil {
		return nil, err
	}
	desc := false
	if len(a) > 1 {
		if desc, err = descending(a[1]); err != nil {
			return nil, err
		}
	}
	return e.sortBy(list, list, desc)
}

func descending(v any) (bool, error) {
	switch v {
	case "asc":
		return false, nil
	case "desc":
		return true, nil
	}
	return false, errors.New(`the order is "asc" or "desc"`)
}

// sortBy sorts list, stably, by the keys at the same indexes.
func (e *Env) sortBy(list, by []any, desc bool) (any, error) {
	if err := e.grow(48 * len(list)); err != nil {
		return nil, err
	}
	idx := make([]int, len(list))
	for i := range idx {
		idx[i] = i
		if by[i] == nil {
			return nil, wants("values that have an order", nil)
		}
	}
	var failed error
	slices.SortStableFunc(idx, func(i, j int) int {
		if failed != nil {
			return 0
		}
		if failed = e.step(); failed != nil {
			return 0
		}
		c, _, err := order(by[i], by[j])
		if err != nil {
			failed = err
		}
		if desc {
			return -c
		}
		return c
	})
	if failed != nil {
		return nil, failed
	}
	out := make([]any, len(list))
	for i, k := range idx {
		out[i] = list[k]
	}
	return out, nil
}
