package preflight

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/millrace-io/millrace/cmd/internal/api"
	"github.com/millrace-io/millrace/runtime/record"
)

// emits answers with records of these values.
func emits(values ...string) *Answer {
	a := &Answer{Outputs: []string{"default", "audit"}, Fuel: 100}
	for _, v := range values {
		a.Emits = append(a.Emits, record.Emit{Record: record.Record{Key: []byte("k"), Value: []byte(v), To: -1}})
	}
	return a
}

func fails(c record.Class, code uint32, message string) *Answer {
	return &Answer{Failure: &record.Error{Class: c, Code: code, Message: message}, Fuel: 100}
}

// with changes the first emission.
func with(a *Answer, change func(e *record.Emit)) *Answer {
	change(&a.Emits[0])
	return a
}

// lines writes a report as a test reads it.
func lines(r *api.Preflight) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d identical, %d differ, %d new, %d old", r.Identical, r.Differ, r.NewFailures, r.OldFailures)
	for _, f := range r.Fields {
		fmt.Fprintf(&b, "\n%s %s (%d) %s -> %s", f.Kind, f.Path, f.Count, f.Example[0], f.Example[1])
	}
	if r.More > 0 {
		fmt.Fprintf(&b, "\nand %d", r.More)
	}
	return b.String()
}

func TestDifferences(t *testing.T) {
	header := func(key, value string) func(e *record.Emit) {
		return func(e *record.Emit) {
			e.Record.Headers = append(e.Record.Headers, record.Header{Key: key, Value: []byte(value)})
		}
	}
	both := func(a *Answer) *Answer { return with(with(a, header("a", "1")), header("b", "2")) }
	for name, tt := range map[string]struct {
		old, now *Answer
		want     string
	}{
		"same":              {emits(`{"a":1}`), emits(`{"a":1}`), "1 identical, 0 differ, 0 new, 0 old"},
		"both drop":         {&Answer{}, &Answer{}, "1 identical, 0 differ, 0 new, 0 old"},
		"a number":          {emits(`{"a":{"b":10.005}}`), emits(`{"a":{"b":10.01}}`), "0 identical, 1 differ, 0 new, 0 old\n~ a.b (1) 10.005 -> 10.01"},
		"a number's text":   {emits(`{"a":12}`), emits(`{"a":12.0}`), "0 identical, 1 differ, 0 new, 0 old\n~ a (1) 12 -> 12.0"},
		"a type":            {emits(`{"a":1}`), emits(`{"a":"1"}`), "0 identical, 1 differ, 0 new, 0 old\n~ a (1) 1 -> \"1\""},
		"null and missing":  {emits(`{"a":null}`), emits(`{}`), "0 identical, 1 differ, 0 new, 0 old\n- a (1) null -> "},
		"a new field":       {emits(`{}`), emits(`{"cents":5}`), "0 identical, 1 differ, 0 new, 0 old\n+ cents (1)  -> 5"},
		"a new object":      {emits(`{}`), emits(`{"a":{"b":1,"c":2}}`), "0 identical, 1 differ, 0 new, 0 old\n+ a (1)  -> {2 members}"},
		"object and number": {emits(`{"a":{"b":1}}`), emits(`{"a":1}`), "0 identical, 1 differ, 0 new, 0 old\n~ a (1) {1 member} -> 1"},
		"elements":          {emits(`{"l":[{"p":1},{"p":2}]}`), emits(`{"l":[{"p":3},{"p":4},{"p":5}]}`), "0 identical, 1 differ, 0 new, 0 old\n+ l[] (1)  -> {1 member}\n~ l[].p (1) 1 -> 3"},
		"an odd name":       {emits(`{"a b":1}`), emits(`{"a b":2}`), "0 identical, 1 differ, 0 new, 0 old\n~ [\"a b\"] (1) 1 -> 2"},
		"no name of ours":   {emits(`{"(key)":1}`), emits(`{"(key)":2}`), "0 identical, 1 differ, 0 new, 0 old\n~ [\"(key)\"] (1) 1 -> 2"},
		"order of members":  {emits(`{"a":1,"b":2}`), emits(`{"b":2,"a":1}`), "0 identical, 1 differ, 0 new, 0 old\n~ (text) (1) 13 bytes 43258cff -> 13 bytes 3fb75453"},
		"a list for one":    {emits(`{"a":1}`), emits(`[1]`), "0 identical, 1 differ, 0 new, 0 old\n~ (value) (1) {1 member} -> [1 element]"},
		"other bytes":       {emits("a\x00"), emits("b\x00"), "0 identical, 1 differ, 0 new, 0 old\n~ (value) (1) 2 bytes ffe9aaea -> 2 bytes 1e57b933"},
		"broken JSON":       {emits(`{"a":1}`), emits(`{"a":1`), "0 identical, 1 differ, 0 new, 0 old\n~ (value) (1) 7 bytes 015abd7f -> 6 bytes 8b0f0d75"},
		"two documents":     {emits(`{"a":1}`), emits(`{"a":1}{"b":2}`), "0 identical, 1 differ, 0 new, 0 old\n~ (value) (1) 7 bytes 015abd7f -> 14 bytes dad3c0d0"},
		"null value":        {with(emits(""), func(e *record.Emit) { e.Record.Value = nil }), emits(""), "0 identical, 1 differ, 0 new, 0 old\n+ (value) (1) null -> 0 bytes e3b0c442"},
		"a secret":          {emits(`{"api_key":"abc","user":{"password":{"x":1}}}`), emits(`{"api_key":"abd","user":{"password":{"x":2}}}`), "0 identical, 1 differ, 0 new, 0 old\n~ api_key (1) *** -> ***\n~ user.password.x (1) *** -> ***"},
		"a key":             {emits("v"), with(emits("v"), func(e *record.Emit) { e.Record.Key = []byte("l") }), "0 identical, 1 differ, 0 new, 0 old\n~ (key) (1) k -> l"},
		"no key":            {emits("v"), with(emits("v"), func(e *record.Emit) { e.Record.Key = nil }), "0 identical, 1 differ, 0 new, 0 old\n- (key) (1) k -> null"},
		"a header":          {both(emits("v")), with(both(emits("v")), func(e *record.Emit) { e.Record.Headers[1].Value = []byte("3") }), "0 identical, 1 differ, 0 new, 0 old\n~ (header b) (1) 2 -> 3"},
		"a secret header":   {emits("v"), with(emits("v"), header("X-Auth-Token", "s3cret")), "0 identical, 1 differ, 0 new, 0 old\n+ (header X-Auth-Token) (1)  -> ***"},
		"order of headers":  {both(emits("v")), with(with(emits("v"), header("b", "2")), header("a", "1")), "0 identical, 1 differ, 0 new, 0 old\n~ (headers) (1) in another order -> "},
		"a timestamp":       {emits("v"), with(emits("v"), func(e *record.Emit) { e.Record.Timestamp = 5 }), "0 identical, 1 differ, 0 new, 0 old\n~ (timestamp) (1) 0 -> 5"},
		"a partition":       {emits("v"), with(emits("v"), func(e *record.Emit) { e.Record.To = 3 }), "0 identical, 1 differ, 0 new, 0 old\n~ (partition) (1) by key -> 3"},
		"an output":         {emits("v"), with(emits("v"), func(e *record.Emit) { e.Output = 1 }), "0 identical, 1 differ, 0 new, 0 old\n~ (output) (1) default -> audit"},
		"emissions":         {emits("v"), emits("w", "v"), "0 identical, 1 differ, 0 new, 0 old\n~ (emissions) (1) 1 -> 2"},
		"second emission":   {emits(`{"a":1}`, `{"a":2}`), emits(`{"a":1}`, `{"a":3}`), "0 identical, 1 differ, 0 new, 0 old\n~ a (1) 2 -> 3"},
		"now dropped":       {emits("v"), &Answer{}, "0 identical, 1 differ, 0 new, 0 old\n~ (outcome) (1) emit -> drop"},
		"new failure":       {emits("v"), fails(record.Rejected, 7, "odd\nline"), "0 identical, 0 differ, 1 new, 0 old\n~ (outcome) (1) emit -> fail: rejected (7): odd line"},
		"new trap":          {&Answer{}, fails(record.Trap, 0, "unreachable in f12"), "0 identical, 0 differ, 1 new, 0 old\n~ (outcome) (1) drop -> fail: trap"},
		"wanted later":      {emits("v"), fails(record.Retryable, 0, ""), "0 identical, 0 differ, 1 new, 0 old\n~ (outcome) (1) emit -> retry: retryable"},
		"mended":            {fails(record.Rejected, 7, "odd"), emits("v"), "0 identical, 1 differ, 0 new, 1 old\n~ (outcome) (1) fail: rejected (7): odd -> emit"},
		"same failure":      {fails(record.Rejected, 7, "odd"), fails(record.Rejected, 7, "odd"), "1 identical, 0 differ, 0 new, 0 old"},
		"same trap":         {fails(record.Trap, 0, "unreachable in f12"), fails(record.Trap, 0, "unreachable in f13"), "1 identical, 0 differ, 0 new, 0 old"},
		"another code":      {fails(record.Rejected, 7, "odd"), fails(record.Rejected, 8, "odd"), "0 identical, 1 differ, 0 new, 0 old\n~ (failure) (1) fail: rejected (7): odd -> fail: rejected (8): odd"},
		"another message":   {fails(record.Rejected, 7, "odd"), fails(record.Rejected, 7, "even"), "0 identical, 1 differ, 0 new, 0 old\n~ (failure) (1) fail: rejected (7): odd -> fail: rejected (7): even"},
		"another class":     {fails(record.Trap, 0, ""), fails(record.Fuel, 0, ""), "0 identical, 1 differ, 0 new, 0 old\n~ (failure) (1) fail: trap -> fail: fuel"},
		"final, not later":  {fails(record.Retryable, 0, ""), fails(record.Rejected, 0, "no"), "0 identical, 1 differ, 0 new, 0 old\n~ (outcome) (1) retry: retryable -> fail: rejected: no"},
		"another wait":      {&Answer{Failure: &record.Error{Class: record.Retryable, RetryAfter: time.Second}}, &Answer{Failure: &record.Error{Class: record.Retryable, RetryAfter: time.Minute}}, "0 identical, 1 differ, 0 new, 0 old\n~ (retry after) (1) 1s -> 1m0s"},
	} {
		t.Run(name, func(t *testing.T) {
			var c Comparison
			c.Add("in/0/1", tt.old, tt.now)
			if got := lines(c.Report()); got != tt.want {
				t.Errorf("got\n%s\nwant\n%s", got, tt.want)
			}
		})
	}
}

// TestCounts counts records, not places, and puts what most have first.
func TestCounts(t *testing.T) {
	var c Comparison
	for i := range 1000 {
		old, now := emits(`{"amount":10.00,"x":[1,2]}`), emits(`{"amount":10.00,"x":[1,2]}`)
		now.Fuel = 103
		switch {
		case i < 12:
			now = emits(`{"amount":10.01,"x":[1,2]}`)
		case i < 15:
			now = emits(`{"amount":10.00,"x":[3,4]}`)
		case i < 17:
			now = fails(record.Rejected, 7, fmt.Sprintf("odd %d", i))
		}
		c.Add(fmt.Sprintf("in/0/%d", i), old, now)
	}
	r := c.Report()
	want := "983 identical, 15 differ, 2 new, 0 old\n~ amount (12) 10.00 -> 10.01\n~ x[] (3) 1 -> 3\n~ (outcome) (2) emit -> fail: rejected (7): odd 15"
	if got := lines(r); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if r.Fields[0].Record != "in/0/0" || r.Fields[1].Record != "in/0/12" || fmt.Sprintf("%.3f", r.FuelRatio) != "1.029" || r.Records != 1000 {
		t.Errorf("%+v", r)
	}
}

func TestFirst(t *testing.T) {
	var c Comparison
	for _, a := range []*Answer{emits("a"), emits("a", "b"), {}, fails(record.Trap, 0, "x"), fails(record.Retryable, 3, "busy")} {
		c.First(a)
	}
	r := c.Report()
	if r.First == nil || *r.First != (api.Outcomes{Passed: 2, Emissions: 3, Dropped: 1, Failed: 1, Retried: 1, Failure: "fail: trap"}) || r.Records != 5 || r.Identical+r.Differ+r.NewFailures != 0 {
		t.Errorf("%+v, first %+v", r, r.First)
	}
}

// TestWhateverAPluginAnswers is bounded.
func TestWhateverAPluginAnswers(t *testing.T) {
	var many strings.Builder
	many.WriteString(`{"":0`)
	for i := range 5_000 {
		fmt.Fprintf(&many, `,"f%d":%d`, i, i)
	}
	many.WriteString("}")
	var c Comparison
	for i := range 3 {
		c.Add("in/0/1", emits("{}"), emits(strings.ReplaceAll(many.String(), `"f`, fmt.Sprintf(`"g%d-`, i))))
	}
	deep := strings.Repeat("[", 9000) + strings.Repeat("]", 9000)
	c.Add("in/0/2", emits("[1]"), emits(deep))
	c.Add("in/0/3", emits(deep), emits(deep[:9000]+"1"+deep[9000:]))
	c.Add("in/0/4", emits(`{"a":1}`), emits(`{"a":"`+strings.Repeat("x", 2<<20)+`"}`))
	long := strings.Repeat("n", 5000)
	c.Add("in/0/5", emits("{}"), emits(`{"`+long+`":"`+strings.Repeat("\u00e9", 5000)+`"}`))
	c.Add("in/0/6", with(emits("v"), func(e *record.Emit) {
		e.Record.Headers = []record.Header{{Key: long + "\x1b\xff", Value: []byte("\xff")}}
	}), fails(record.Rejected, 1, strings.Repeat("\u00e9", 5000)))
	var large Comparison
	large.Add("in/0/1", emits(`{"a":1}`), emits(`{"a":"`+strings.Repeat("x", maxValue)+`"}`))
	if f := large.Report().Fields; len(f) != 1 || f[0].Path != "(value)" {
		t.Errorf("a large value: %+v", f)
	}
	r := c.Report()
	if r.Differ != 7 || r.NewFailures != 1 || len(r.Fields) != maxShown || r.More < maxFields-maxShown || len(c.fields) > maxFields || len(c.more) > maxFields {
		t.Errorf("%d fields shown, %d more, %d kept, %d beyond: %s", len(r.Fields), r.More, len(c.fields), len(c.more), lines(r)[:200])
	}
	for _, f := range c.fields {
		for _, s := range []string{f.Path, f.Example[0], f.Example[1]} {
			if len([]rune(s)) > maxPath || strings.ContainsAny(s, "\x1b\n") || !utf8.ValidString(s) {
				t.Errorf("field %q %q", f.Path, f.Example)
			}
		}
	}
}

// TestLongNames: what a comparison takes does not grow with the length of a
// name times what lies below it.
func TestLongNames(t *testing.T) {
	name := strings.Repeat("n", maxValue/2)
	list := func(last string) string { return `{"` + name + `":[` + strings.Repeat("0,", maxValue/8) + last + `]}` }
	nested := func(last string) string {
		name := strings.Repeat("n", 400)
		return strings.Repeat(`{"`+name+`":`, 2000) + last + strings.Repeat("}", 2000)
	}
	for what, of := range map[string]func(string) string{"list": list, "nested": nested} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		var c Comparison
		c.Add("in/0/1", emits(of("1")), emits(of("2")))
		runtime.ReadMemStats(&after)
		if took := after.TotalAlloc - before.TotalAlloc; took > 256<<20 {
			t.Errorf("%s: %d MiB", what, took>>20)
		}
		if f := c.Report().Fields; len(f) != 1 || f[0].Count != 1 || f[0].Example != [2]string{"1", "2"} || !strings.HasPrefix(f[0].Path, "nnn") {
			t.Errorf("%s: %+v", what, f)
		}
	}
}

// TestEveryRecordIsCountedOnce, whatever was answered.
func TestEveryRecordIsCountedOnce(t *testing.T) {
	seed := rand.Uint64()
	rnd := rand.New(rand.NewPCG(seed, 1))
	answer := func() *Answer {
		switch rnd.IntN(5) {
		case 0:
			return &Answer{}
		case 1:
			return fails([]record.Class{record.Rejected, record.Retryable, record.Trap}[rnd.IntN(3)], uint32(rnd.IntN(2)), "m")
		}
		a := emits()
		for range 1 + rnd.IntN(2) {
			a.Emits = append(a.Emits, emits(fmt.Sprintf(`{"a":%d}`, rnd.IntN(2))).Emits...)
		}
		return a
	}
	// dumb compares by what the answers print.
	dumb := func(a *Answer) string {
		if a.Failure != nil {
			return fmt.Sprintf("%s %d", a.Failure.Class, a.Failure.Code*uint32(min(1, len(a.message()))))
		}
		return fmt.Sprint(a.Emits)
	}
	var c Comparison
	var identical, fresh int64
	for range 2000 {
		old, now := answer(), answer()
		if dumb(old) == dumb(now) {
			identical++
		} else if old.Failure == nil && now.Failure != nil {
			fresh++
		}
		c.Add("id", old, now)
	}
	if r := c.Report(); r.Records != 2000 || r.Identical != identical || r.NewFailures != fresh || r.Identical+r.Differ+r.NewFailures != r.Records {
		t.Errorf("seed %d: %d identical, want %d; %d new failures, want %d: %+v", seed, r.Identical, identical, r.NewFailures, fresh, r)
	}
}
