package expr

import (
	"errors"
	"strings"
)

func trimmed(space func(string) string, cut func(s, t string) string) function {
	return func(e *Env, a []any) (any, error) {
		s, err := texts(a)
		if err != nil {
			return nil, err
		}
		if err := e.work(len(s[0])); err != nil || len(s) == 1 {
			return space(s[0]), err
		}
		return cut(s[0], s[1]), nil
	}
}

func mapped(f func(string) string) function {
	return func(e *Env, a []any) (any, error) {
		s, err := text(a, 0)
		if err != nil {
			return nil, err
		}
		if err := e.grow(3 * len(s)); err != nil {
			return nil, err
		}
		return f(s), nil
	}
}

func tested(f func(s, t string) bool) function {
	return func(_ *Env, a []any) (any, error) {
		s, err := texts(a)
		if err != nil {
			return nil, err
		}
		return f(s[0], s[1]), nil
	}
}

func located(f func(s, t string) int) function {
	return func(e *Env, a []any) (any, error) {
		s, err := texts(a)
		if err != nil {
			return nil, err
		}
		return int64(f(s[0], s[1])), e.work(len(s[0]))
	}
}

func split(e *Env, a []any) (any, error) {
	s, err := texts(a[:2])
	if err != nil {
		return nil, err
	}
	n := -1
	if len(a) > 2 {
		if n, err = whole(a[2]); err != nil {
			return nil, err
		}
	}
	if err := e.grow(product(32, strings.Count(s[0], s[1])+1)); err != nil {
		return nil, err
	}
	return anys(strings.SplitN(s[0], s[1], n)), nil
}

func anys(s []string) []any {
	out := make([]any, len(s))
	for i := range s {
		out[i] = s[i]
	}
	return out
}

func join(e *Env, a []any) (any, error) {
	list, err := listOf(a[0])
	if err != nil {
		return nil, err
	}
	sep := ""
	if len(a) > 1 {
		if sep, err = text(a, 1); err != nil {
			return nil, err
		}
	}
	var b strings.Builder
	for i := range list {
		s, err := text(list, i)
		if err != nil {
			return nil, err
		}
		if err := e.grow(len(s) + len(sep) + 1); err != nil {
			return nil, err
		}
		if i > 0 {
			b.WriteString(sep)
		}
		b.WriteString(s)
	}
	return b.String(), nil
}

func replace(e *Env, a []any) (any, error) {
	s, err := texts(a[:3])
	if err != nil {
		return nil, err
	}
	n := -1
	if len(a) > 3 {
		if n, err = whole(a[3]); err != nil {
			return nil, err
		}
	}
	count := strings.Count(s[0], s[1])
	if n >= 0 {
		count = min(count, n)
	}
	if err := e.grow(len(s[0]) + product(count, len(s[2]))); err != nil {
		return nil, err
	}
	return strings.Replace(s[0], s[1], s[2], n), nil
}

func repeat(e *Env, a []any) (any, error) {
	s, err := text(a, 0)
	if err != nil {
		return nil, err
	}
	n, err := whole(a[1])
	if err != nil {
		return nil, err
	}
	if n < 0 {
		return nil, errors.New("takes a count of 0 or more")
	}
	if err := e.grow(product(len(s), n)); err != nil {
		return nil, err
	}
	return strings.Repeat(s, n), nil
}
