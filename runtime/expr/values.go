package expr

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/millrace-io/millrace/runtime/expr/jsondoc"
)

// typeOf is the language's name of a value's type.
func typeOf(v any) string {
	switch v.(type) {
	case nil:
		return "nil"
	case bool:
		return "bool"
	case int64:
		return "int"
	case float64:
		return "float"
	case string:
		return "string"
	case []any:
		return "list"
	case map[string]any:
		return "map"
	case time.Time:
		return "time"
	case time.Duration:
		return "duration"
	}
	return fmt.Sprintf("%T", v)
}

// describe names a value in a message, without showing what a record holds.
func describe(v any) string {
	switch v.(type) {
	case nil:
		return "nil (a missing field?)"
	case int64:
		return "an int"
	}
	return "a " + typeOf(v)
}

// equal compares two values that are not nil.
func (e *Env) equal(a, b any) (bool, error) {
	switch x := a.(type) {
	case string:
		y, ok := b.(string)
		return ok && x == y, e.work(len(x))
	case bool:
		y, ok := b.(bool)
		return ok && x == y, nil
	case int64, float64:
		switch b.(type) {
		case int64, float64:
			c, ok := compareNumbers(a, b)
			return ok && c == 0, nil
		}
		return false, nil
	case time.Time:
		y, ok := b.(time.Time)
		return ok && x.Equal(y), nil
	case time.Duration:
		y, ok := b.(time.Duration)
		return ok && x == y, nil
	case []any:
		y, ok := b.([]any)
		if !ok || len(x) != len(y) {
			return false, nil
		}
		for i := range x {
			if eq, err := e.inner(x[i], y[i]); err != nil || !eq {
				return false, err
			}
		}
		return true, nil
	case map[string]any:
		y, ok := b.(map[string]any)
		if !ok || len(x) != len(y) {
			return false, nil
		}
		for k, v := range x {
			w, ok := y[k]
			if !ok {
				return false, nil
			}
			if eq, err := e.inner(v, w); err != nil || !eq {
				return false, err
			}
		}
		return true, nil
	}
	return false, nil
}

// inner compares elements: here nil equals nil.
func (e *Env) inner(a, b any) (bool, error) {
	if err := e.step(); err != nil {
		return false, err
	}
	if a == nil || b == nil {
		return a == nil && b == nil, nil
	}
	return e.equal(a, b)
}

// order compares two values that are not nil; ok is false for NaN.
func order(a, b any) (c int, ok bool, err error) {
	switch x := a.(type) {
	case int64, float64:
		switch b.(type) {
		case int64, float64:
			c, ok := compareNumbers(a, b)
			return c, ok, nil
		}
	case string:
		if y, ok := b.(string); ok {
			return strings.Compare(x, y), true, nil
		}
	case time.Time:
		if y, ok := b.(time.Time); ok {
			return x.Compare(y), true, nil
		}
	case time.Duration:
		if y, ok := b.(time.Duration); ok {
			return cmp.Compare(x, y), true, nil
		}
	}
	return 0, false, fmt.Errorf("%s has no order with %s", describe(a), describe(b))
}

func compareInt(a, b int64) int { return cmp.Compare(a, b) }

// compareNumbers compares int64 and float64 exactly.
func compareNumbers(a, b any) (int, bool) {
	switch x := a.(type) {
	case int64:
		switch y := b.(type) {
		case int64:
			return cmp.Compare(x, y), true
		case float64:
			return compareIntFloat(x, y)
		}
	case float64:
		switch y := b.(type) {
		case int64:
			c, ok := compareIntFloat(y, x)
			return -c, ok
		case float64:
			return cmp.Compare(x, y), x == x && y == y
		}
	}
	return 0, false
}

func compareIntFloat(i int64, f float64) (int, bool) {
	switch {
	case f != f:
		return 0, false
	case f >= 1<<63:
		return -1, true
	case f < -1<<63:
		return 1, true
	}
	whole := math.Floor(f)
	if c := cmp.Compare(i, int64(whole)); c != 0 {
		return c, true
	}
	if f > whole {
		return -1, true
	}
	return 0, true
}

func (e *Env) in(a, b any) (bool, error) {
	switch list := b.(type) {
	case []any:
		for _, v := range list {
			if err := e.step(); err != nil {
				return false, err
			}
			if v == nil {
				continue
			}
			if eq, err := e.equal(a, v); err != nil || eq {
				return eq, err
			}
		}
		return false, nil
	case map[string]any:
		k, ok := a.(string)
		if !ok {
			return false, nil
		}
		_, ok = list[k]
		return ok, nil
	}
	return false, fmt.Errorf("in needs a list or a map on its right, not %s", describe(b))
}

func textTest(op, s, t string, fixed *regexp.Regexp) (bool, error) {
	switch op {
	case "contains":
		return strings.Contains(s, t), nil
	case "startsWith":
		return strings.HasPrefix(s, t), nil
	case "endsWith":
		return strings.HasSuffix(s, t), nil
	}
	if fixed == nil {
		re, err := compilePattern(t)
		if err != nil {
			return false, err
		}
		fixed = re
	}
	return fixed.MatchString(s), nil
}

var errOverflow = errors.New("the result does not fit into 64 bits; float(x) counts on without exactness")

func addInt(a, b int64) (any, error) {
	c := a + b
	if (c > a) != (b > 0) && b != 0 {
		return nil, errOverflow
	}
	return c, nil
}

func subInt(a, b int64) (any, error) {
	c := a - b
	if (c < a) != (b > 0) && b != 0 {
		return nil, errOverflow
	}
	return c, nil
}

func mulInt(a, b int64) (any, error) {
	if a == 0 || b == 0 {
		return int64(0), nil
	}
	c := a * b
	if c/b != a || a == -1 && b == math.MinInt64 || b == -1 && a == math.MinInt64 {
		return nil, errOverflow
	}
	return c, nil
}

func toFloat(v any) (float64, bool) {
	switch v := v.(type) {
	case int64:
		return float64(v), true
	case float64:
		return v, true
	}
	return 0, false
}

func (e *Env) arithmetic(op string, a, b any) (any, error) {
	if x, ok := a.(int64); ok {
		if y, ok := b.(int64); ok {
			switch op {
			case "+":
				return addInt(x, y)
			case "-":
				return subInt(x, y)
			case "*":
				return mulInt(x, y)
			case "%":
				if y == 0 {
					return nil, errors.New("% by zero")
				}
				if y == -1 {
					return int64(0), nil
				}
				return x % y, nil
			case "..":
				return e.count(x, y)
			}
		}
	}
	if x, ok := toFloat(a); ok {
		if y, ok := toFloat(b); ok {
			switch op {
			case "+":
				return x + y, nil
			case "-":
				return x - y, nil
			case "*":
				return x * y, nil
			case "/":
				if y == 0 {
					return nil, errors.New("/ by zero")
				}
				return x / y, nil
			case "**", "^":
				return math.Pow(x, y), nil
			}
		}
	}
	switch x := a.(type) {
	case string:
		if y, ok := b.(string); ok && op == "+" {
			if err := e.grow(len(x) + len(y)); err != nil {
				return nil, err
			}
			return x + y, nil
		}
	case time.Time:
		switch y := b.(type) {
		case time.Duration:
			switch op {
			case "+":
				return x.Add(y), nil
			case "-":
				return x.Add(-y), nil
			}
		case time.Time:
			if op == "-" {
				return x.Sub(y), nil
			}
		}
	case time.Duration:
		switch y := b.(type) {
		case time.Duration:
			switch op {
			case "+":
				return x + y, nil
			case "-":
				return x - y, nil
			}
		case time.Time:
			if op == "+" {
				return y.Add(x), nil
			}
		}
	}
	return nil, fmt.Errorf("%s does not go between %s and %s", op, describe(a), describe(b))
}

func (e *Env) count(from, to int64) (any, error) {
	if to < from {
		return []any{}, nil
	}
	n := uint64(to) - uint64(from) + 1
	if n == 0 || n > MaxMemoryBytes/24 {
		return nil, &LimitError{"memory"}
	}
	if err := e.grow(24 * int(n)); err != nil {
		return nil, err
	}
	list := make([]any, n)
	for i := range list {
		list[i] = from + int64(i)
	}
	return list, nil
}

// charge counts about how long v is as JSON, before it is written, so
// that a list which holds another many times over cannot grow without limit.
func (e *Env) charge(v any) error {
	if err := e.grow(2); err != nil {
		return err
	}
	switch v := v.(type) {
	case string:
		return e.grow(len(v))
	case []any:
		for _, x := range v {
			if err := e.charge(x); err != nil {
				return err
			}
		}
	case map[string]any:
		for k, x := range v {
			if err := e.grow(len(k) + 4); err != nil {
				return err
			}
			if err := e.charge(x); err != nil {
				return err
			}
		}
	}
	return nil
}

func (e *Env) appendJSON(b []byte, v any) ([]byte, error) {
	if err := e.charge(v); err != nil {
		return b, err
	}
	return jsondoc.Append(b, v)
}

func (e *Env) appendText(b []byte, v any) ([]byte, error) {
	switch v := v.(type) {
	case string:
		return append(b, v...), nil
	case int64:
		return strconv.AppendInt(b, v, 10), nil
	case bool:
		return strconv.AppendBool(b, v), nil
	case float64:
		return jsondoc.AppendFloat(b, v)
	case time.Time:
		return v.AppendFormat(b, time.RFC3339Nano), nil
	case time.Duration:
		return append(b, v.String()...), nil
	}
	return e.appendJSON(b, v)
}
