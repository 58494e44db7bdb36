package twin

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/millrace-io/millrace/runtime/expr"
	"github.com/millrace-io/millrace/runtime/flow"
)

func (r *reader) list(v *value, what, example string) []*value {
	if v == nil {
		return nil
	}
	if v.kind != list {
		r.fail(v, flow.CodeType, "write "+example, "%s stands in a list, not in %s", what, v.kind)
		return nil
	}
	return v.items
}

func (r *reader) time(v *value, key, example string) time.Duration {
	d, err := time.ParseDuration(v.text)
	if v.kind == integer && v.text == "0" {
		return 0
	}
	if v.kind != text || err != nil || d < 0 {
		r.fail(v, flow.CodeValue, "write "+key+": "+example, "this is not a duration")
		return 0
	}
	return d
}

func (o object) duration(key, example string, def time.Duration) time.Duration {
	if v := o.get(key); v != nil {
		return o.r.time(v, key, example)
	}
	return def
}

func (o object) text(key, example, def string) string {
	v := o.get(key)
	if v == nil {
		return def
	}
	if v.kind == mapping || v.kind == list || v.kind == null || v.text == "" {
		o.r.fail(v, flow.CodeType, "write "+key+": "+example, "%s is a text, not %s", key, v.kind)
		return def
	}
	return v.text
}

func (o object) oneOf(key, def string, names ...string) string {
	v := o.get(key)
	if v == nil {
		return def
	}
	if v.kind != text || !slices.Contains(names, v.text) {
		help := "it is one of " + strings.Join(names, ", ")
		if near := expr.Nearest(v.text, names); near != "" {
			help = "did you mean `" + near + "`?"
		}
		o.r.fail(v, flow.CodeValue, help, "%s cannot be %q", key, v.text)
		return def
	}
	return v.text
}

func (o object) int(key string, example, lo, hi, def int64) int64 {
	v := o.get(key)
	if v == nil {
		return def
	}
	n, err := strconv.ParseInt(strings.ReplaceAll(v.text, "_", ""), 10, 64)
	if v.kind != integer || err != nil || n < lo || n > hi {
		o.r.fail(v, flow.CodeValue, "write "+key+": "+strconv.FormatInt(example, 10), "%s is a whole number from %d to %d", key, lo, hi)
		return def
	}
	return n
}

func (o object) number(key, example string, lo, hi, def float64) float64 {
	v := o.get(key)
	if v == nil {
		return def
	}
	n, err := strconv.ParseFloat(strings.ReplaceAll(v.text, "_", ""), 64)
	if v.kind != integer && v.kind != float || err != nil || n < lo || n > hi {
		o.r.fail(v, flow.CodeValue, "write "+key+": "+example, "%s is a number from %g to %g", key, lo, hi)
		return def
	}
	return n
}

func (o object) bool(key string, def bool) bool {
	v := o.get(key)
	if v == nil {
		return def
	}
	if v.kind != boolean {
		o.r.fail(v, flow.CodeType, "write "+key+": true", "%s is true or false, not %s", key, v.kind)
		return def
	}
	return v.text == "true"
}

func (o object) status(key string, def int) int {
	return int(o.int(key, 503, 200, 599, int64(def)))
}

func (o object) size(key, example string, def int64) int64 {
	v := o.get(key)
	if v == nil {
		return def
	}
	s, unit := v.text, int64(1)
	for suffix, n := range map[string]int64{"KiB": 1 << 10, "MiB": 1 << 20} {
		if rest, ok := strings.CutSuffix(s, suffix); ok {
			s, unit = strings.TrimSpace(rest), n
		}
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n < 1 || n > (1<<30)/unit {
		o.r.fail(v, flow.CodeValue, "write "+key+": "+example, "this is not a size of at most 1024MiB")
		return def
	}
	return n * unit
}
