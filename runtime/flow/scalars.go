package flow

import (
	"fmt"
	"math"
	"regexp"
	"strconv"
	"strings"
	"time"
)

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

// most numbers that a rate may have, in a second.
const mostPerSecond = 1_000_000

var ratePattern = regexp.MustCompile(`^([0-9]+(?:\.[0-9]+)?)/(s|m|h)$`)

var rateUnits = map[string]float64{"s": 1, "m": 60, "h": 3600}

// rate is a number a second.
func (l *linter) rate(n *node, what string) (float64, bool) {
	s, ok := l.text(n, what)
	if !ok {
		return 0, false
	}
	m := ratePattern.FindStringSubmatch(strings.ReplaceAll(strings.ReplaceAll(s, "_", ""), " ", ""))
	if m == nil {
		help := "rates look like 800/s, 90/m or 5000/h"
		if n.typ != stringScalar {
			help = "write the unit: " + s + "/s, " + s + "/m or " + s + "/h"
		}
		l.fail(n, CodeValue, help, "%s cannot be %s", what, quoted(s))
		return 0, false
	}
	v, err := strconv.ParseFloat(m[1], 64)
	if v /= rateUnits[m[2]]; err != nil || v <= 0 || v > mostPerSecond {
		l.fail(n, CodeValue, "", "%s is more than 0 and at most %d/s", what, mostPerSecond)
		return 0, false
	}
	return v, true
}

// rateText is a rate as it is written in a document, in the largest unit that
// makes it whole; "" for none.
func rateText(v float64) string {
	if v == 0 {
		return ""
	}
	for _, unit := range []string{"s", "m", "h"} {
		if n := v * rateUnits[unit]; math.Abs(n-math.Round(n)) < 1e-9*n {
			return strconv.FormatFloat(math.Round(n), 'f', -1, 64) + "/" + unit
		}
	}
	return strconv.FormatFloat(v, 'g', -1, 64) + "/s"
}

// texts is a list of texts of vars and env; a single one needs no brackets.
func (l *linter) texts(n *node, what, example string, check func(at *node, text string, known bool) bool) []string {
	items := n.items
	if n.kind == scalarNode {
		items = []*node{n}
	} else if n.kind != listNode {
		l.fail(n, CodeType, "such as "+example, "%s is a list of texts", what)
		return nil
	}
	var out []string
	for _, it := range items {
		if s, known, ok := l.static(it, what); ok && check(it, s, known) {
			out = append(out, s)
		}
	}
	return out
}

// durationText is a duration as it is written in a document.
func durationText(d time.Duration) string {
	if d == 0 {
		return ""
	}
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}
