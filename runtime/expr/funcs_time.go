package expr

import (
	"errors"
	"fmt"
	"time"
)

func toDuration(_ *Env, a []any) (any, error) {
	s, err := text(a, 0)
	if err != nil {
		return nil, err
	}
	d, err := time.ParseDuration(s)
	if err != nil {
		return nil, errors.New("the string is no duration, such as 90s or 1h30m")
	}
	return d, nil
}

var dateLayouts = []string{time.RFC3339, time.DateTime, time.DateOnly, "2006-01-02T15:04:05", time.RFC1123Z, time.RFC1123}

func toDate(_ *Env, a []any) (any, error) {
	s, err := text(a, 0)
	if err != nil {
		return nil, err
	}
	layouts := dateLayouts
	switch len(a) {
	case 1:
	case 2:
		layout, err := text(a, 1)
		if err != nil {
			return nil, err
		}
		layouts = []string{layout}
	default:
		return nil, errors.New("takes a string and at most a layout; zones stand in the string")
	}
	for _, layout := range layouts {
		if t, err := time.Parse(layout, s); err == nil {
			return t.UTC(), nil
		}
	}
	return nil, errors.New("the string is no date, such as 2026-11-01 or 2026-11-01T08:00:00Z")
}

// timeMethods are what can be called on a time, as in `time.Year()`.
var timeMethods = map[string]func(v any, args []any) (any, error){
	"Year":      onTime(func(t time.Time) any { return int64(t.Year()) }),
	"Month":     onTime(func(t time.Time) any { return int64(t.Month()) }),
	"Day":       onTime(func(t time.Time) any { return int64(t.Day()) }),
	"Hour":      onTime(func(t time.Time) any { return int64(t.Hour()) }),
	"Minute":    onTime(func(t time.Time) any { return int64(t.Minute()) }),
	"Second":    onTime(func(t time.Time) any { return int64(t.Second()) }),
	"Unix":      onTime(func(t time.Time) any { return t.Unix() }),
	"UnixMilli": onTime(func(t time.Time) any { return t.UnixMilli() }),
	"Format": func(v any, args []any) (any, error) {
		t, ok := v.(time.Time)
		if !ok {
			return nil, fmt.Errorf("only times have methods, and this is %s", describe(v))
		}
		if len(args) != 1 {
			return nil, errors.New("takes a layout, such as 2006-01-02")
		}
		layout, err := text(args, 0)
		if err != nil {
			return nil, err
		}
		if len(layout) > maxPattern {
			return nil, fmt.Errorf("a layout longer than %d bytes", maxPattern)
		}
		return t.Format(layout), nil
	},
}

func onTime(f func(time.Time) any) func(any, []any) (any, error) {
	return func(v any, args []any) (any, error) {
		t, ok := v.(time.Time)
		if !ok {
			return nil, fmt.Errorf("only times have methods, and this is %s", describe(v))
		}
		if len(args) != 0 {
			return nil, errors.New("takes no arguments")
		}
		return f(t), nil
	}
}
