// Package preflight holds the answers of two versions of a plugin to the same
// records against each other, and says in what they differ.
//
// It is pure: it runs no plugin and knows neither flows nor nodes. Whoever has
// run both versions gives it their answers, one record at a time.
package preflight

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/millrace-io/millrace/cmd/internal/api"
	"github.com/millrace-io/millrace/runtime/record"
)

// Bounds of what a comparison remembers, whatever a plugin answers.
const (
	maxShown  = 20      // fields in a report
	maxFields = 1000    // fields that are counted; what comes later is not
	maxValue  = 1 << 20 // bytes of a JSON value that is looked into
	maxText   = 80      // runes of an example
	maxPath   = 120     // runes of a path
)

// Answer is what a stage made of one record.
type Answer struct {
	// Emits are the emissions in order; Failure is nil unless there are none. An
	// answer with neither is a drop.
	Emits   []record.Emit
	Failure *record.Error
	// Outputs are the names of the plugin's outputs, by number.
	Outputs []string
	// Fuel is what the answer cost; 0: not known.
	Fuel int64
}

// outcome is a word for the answer.
func (a *Answer) outcome() string {
	switch {
	case a.Failure != nil && a.Failure.Class.Transient():
		return "retry"
	case a.Failure != nil:
		return "fail"
	case len(a.Emits) == 0:
		return "drop"
	}
	return "emit"
}

// reason is why an answer is a failure, "" for one that is none. Where the
// plugin did not say it itself (a trap, fuel, memory) it is the class alone: the
// text names places in the module, which every version has of its own.
func (a *Answer) reason() string {
	e := a.Failure
	switch {
	case e == nil:
		return ""
	case e.Class != record.Rejected && e.Class != record.Retryable:
		return e.Class.String()
	case e.Code != 0:
		return fmt.Sprintf("%s (%d)", e.Class, e.Code)
	}
	return e.Class.String()
}

// message is what a plugin says itself of a failure.
func (a *Answer) message() string {
	if e := a.Failure; e != nil && (e.Class == record.Rejected || e.Class == record.Retryable) {
		return e.Message
	}
	return ""
}

// shown is an outcome in the words of an example.
func (a *Answer) shown() string {
	s := a.outcome()
	if r := a.reason(); r != "" {
		s += ": " + r
	}
	if m := a.message(); m != "" {
		s += ": " + m
	}
	return text(s)
}

// Comparison collects what differs between two versions of a stage. The zero
// value is ready; one goroutine uses it.
type Comparison struct {
	report         api.Preflight
	oldFuel, fuel  int64
	fields         map[fieldKey]*api.FieldDiff
	more           map[string]struct{}
	seen           map[fieldKey]bool // of the present record
	record         string            // its id
	outcomes       api.Outcomes
	comparesNobody bool
}

// fieldKey names a field. Outcomes are told apart by what they are.
type fieldKey struct{ path, kind, detail string }

// Add compares what the old and the new version made of a record with an id.
func (c *Comparison) Add(id string, old, now *Answer) {
	c.record = id
	if c.fields == nil {
		c.fields, c.more, c.seen = map[fieldKey]*api.FieldDiff{}, map[string]struct{}{}, map[fieldKey]bool{}
	}
	clear(c.seen)
	c.report.Records++
	c.oldFuel, c.fuel = c.oldFuel+old.Fuel, c.fuel+now.Fuel
	c.answers(old, now)
	switch {
	case len(c.seen) == 0:
		c.report.Identical++
	case now.Failure != nil && old.Failure == nil:
		c.report.NewFailures++
	default:
		c.report.Differ++
		if old.Failure != nil && now.Failure == nil {
			c.report.OldFailures++
		}
	}
}

// First counts what a version without an older one made of a record.
func (c *Comparison) First(now *Answer) {
	c.comparesNobody = true
	o := &c.outcomes
	switch now.outcome() {
	case "emit":
		o.Passed++
		o.Emissions += int64(len(now.Emits))
	case "drop":
		o.Dropped++
	case "fail":
		o.Failed++
	case "retry":
		o.Retried++
	}
	c.report.Records++
	if now.Failure != nil && o.Failure == "" {
		o.Failure = now.shown()
	}
}

// Report is what was found so far.
func (c *Comparison) Report() *api.Preflight {
	r := c.report
	if c.comparesNobody {
		o := c.outcomes
		r.First = &o
		return &r
	}
	if c.oldFuel > 0 && c.fuel > 0 {
		r.FuelRatio = float64(c.fuel) / float64(c.oldFuel)
	}
	all := slices.SortedFunc(maps.Values(c.fields), func(a, b *api.FieldDiff) int {
		return cmp.Or(cmp.Compare(b.Count, a.Count), cmp.Compare(a.Path, b.Path), cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Example[1], b.Example[1]))
	})
	for _, f := range all[:min(len(all), maxShown)] {
		r.Fields = append(r.Fields, *f)
	}
	r.More = int64(len(all) - len(r.Fields) + len(c.more))
	return &r
}

// note counts a difference of the present record, once for each field.
func (c *Comparison) note(kind, path, detail, old, now string) {
	k := fieldKey{cut(path, maxPath), kind, detail}
	if c.seen[k] || len(c.seen) >= maxFields {
		return
	}
	c.seen[k] = true
	f := c.fields[k]
	if f == nil {
		if len(c.fields) >= maxFields {
			if len(c.more) < maxFields {
				c.more[k.kind+k.path+k.detail] = struct{}{}
			}
			return
		}
		f = &api.FieldDiff{Path: k.path, Kind: kind, Example: [2]string{old, now}, Record: c.record}
		c.fields[k] = f
	}
	f.Count++
}

func (c *Comparison) changed(path, old, now string) {
	if old != now {
		c.note("~", path, "", text(old), text(now))
	}
}

func (c *Comparison) answers(old, now *Answer) {
	a, b := old.outcome(), now.outcome()
	switch {
	case a != b:
		c.note("~", "(outcome)", a+old.reason()+">"+b+now.reason(), old.shown(), now.shown())
		return
	case old.reason() != now.reason() || old.message() != now.message():
		c.note("~", "(failure)", old.reason()+">"+now.reason(), old.shown(), now.shown())
		return
	case a == "retry" && old.Failure.RetryAfter != now.Failure.RetryAfter:
		c.changed("(retry after)", old.Failure.RetryAfter.String(), now.Failure.RetryAfter.String())
		return
	case len(old.Emits) != len(now.Emits):
		// Which of them belong together nobody can say.
		c.changed("(emissions)", strconv.Itoa(len(old.Emits)), strconv.Itoa(len(now.Emits)))
		return
	}
	for i := range old.Emits {
		x, y := &old.Emits[i], &now.Emits[i]
		c.changed("(output)", output(old.Outputs, x.Output), output(now.Outputs, y.Output))
		c.records(&x.Record, &y.Record)
	}
}

func output(names []string, n uint16) string {
	if int(n) < len(names) {
		return names[n]
	}
	return strconv.Itoa(int(n))
}

func (c *Comparison) records(a, b *record.Record) {
	c.changed("(partition)", partition(a.To), partition(b.To))
	c.changed("(timestamp)", strconv.FormatInt(a.Timestamp, 10), strconv.FormatInt(b.Timestamp, 10))
	if !same(a.Key, b.Key) {
		c.note(presence(a.Key != nil, b.Key != nil), "(key)", "", shownBytes(a.Key), shownBytes(b.Key))
	}
	c.headers(a.Headers, b.Headers)
	if !same(a.Value, b.Value) {
		c.values(a.Value, b.Value)
	}
}

func partition(to int32) string {
	if to < 0 {
		return "by key"
	}
	return strconv.Itoa(int(to))
}

// same keeps null apart from empty.
func same(a, b []byte) bool { return bytes.Equal(a, b) && (a == nil) == (b == nil) }

func presence(old, now bool) string {
	switch {
	case !old && now:
		return "+"
	case old && !now:
		return "-"
	}
	return "~"
}

// headers compares headers by name, and their order if nothing else differs.
func (c *Comparison) headers(a, b []record.Header) {
	if slices.EqualFunc(a, b, func(x, y record.Header) bool { return x.Key == y.Key && same(x.Value, y.Value) }) {
		return
	}
	x, y := byName(a), byName(b)
	all := maps.Clone(x)
	maps.Copy(all, y)
	differs := false
	for _, name := range slices.Sorted(maps.Keys(all)) {
		old, had := x[name]
		now, has := y[name]
		if had == has && slices.EqualFunc(old, now, same) {
			continue
		}
		differs = true
		shown := func(values [][]byte) string {
			if hidden(name) && len(values) > 0 {
				return stars
			}
			parts := make([]string, len(values))
			for i, v := range values {
				parts[i] = shownBytes(v)
			}
			return text(strings.Join(parts, ", "))
		}
		c.note(presence(had, has), "(header "+clean(name)+")", "", shown(old), shown(now))
	}
	if !differs {
		c.note("~", "(headers)", "", "in another order", "")
	}
}

func byName(hs []record.Header) map[string][][]byte {
	m := map[string][][]byte{}
	for _, h := range hs {
		m[h.Key] = append(m[h.Key], h.Value)
	}
	return m
}

// shownBytes is a short text as it is, and other bytes by their digest.
func shownBytes(b []byte) string {
	switch {
	case b == nil:
		return "null"
	case utf8.Valid(b) && utf8.RuneCount(b) <= maxText && !bytes.ContainsFunc(b, func(r rune) bool { return r < ' ' || r == 0x7f }):
		return string(b)
	}
	return digest(b)
}

// digest names bytes: their number and the beginning of their SHA-256.
func digest(b []byte) string {
	sum := sha256.Sum256(b)
	return fmt.Sprintf("%d bytes %s", len(b), hex.EncodeToString(sum[:4]))
}

// text is a text as an example shows it.
func text(s string) string { return cut(clean(s), maxText) }

// clean makes a text valid UTF-8 without control characters.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r >= 0x7f && r < 0xa0 {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, "\uFFFD"))
}

// cut is at most n runes of s.
func cut(s string, n int) string {
	if len(s) <= n || utf8.RuneCountInString(s) <= n {
		return s
	}
	at := 0
	for range n - 1 {
		_, w := utf8.DecodeRuneInString(s[at:])
		at += w
	}
	return s[:at] + "…"
}
