package batch

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/millrace-io/millrace/runtime/expr"
	"github.com/millrace-io/millrace/runtime/record"
)

var noon = time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)

func rec(offset int64, value string) *record.Record {
	return &record.Record{Topic: "orders", Offset: offset, Value: []byte(value)}
}

func batcher(t testing.TB, cfg Config) *Batcher {
	t.Helper()
	b, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func program(t testing.TB, src string) *expr.Program {
	t.Helper()
	p, err := expr.Compile(src, expr.Scope{Roots: expr.RecordRoots})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func template(t testing.TB, src string) *expr.Template {
	t.Helper()
	p, err := expr.CompileTemplate(src, expr.Scope{Roots: expr.RecordRoots})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func add(t testing.TB, b *Batcher, now time.Time, recs ...*record.Record) []*Batch {
	t.Helper()
	var out []*Batch
	for _, r := range recs {
		ready, err := b.Add(r, now)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, ready...)
	}
	return out
}

// bodies are the bodies of batches.
func bodies(t testing.TB, bs []*Batch) string {
	t.Helper()
	var out []string
	for _, b := range bs {
		body, err := b.Body()
		if err != nil {
			t.Fatal(err)
		}
		if len(body) != b.Size() {
			t.Errorf("size %d, and the body is %d bytes: %s", b.Size(), len(body), body)
		}
		out = append(out, string(body))
	}
	return strings.Join(out, " | ")
}

func TestForms(t *testing.T) {
	tombstone := rec(2, "")
	tombstone.Value = nil
	recs := []*record.Record{rec(0, "{ \"a\" : 1.10 }"), rec(1, "[1,\r\n \"x\\n\"]\n"), tombstone, rec(3, `"s"`)}
	for _, tc := range []struct {
		name, want, contentType string
		cfg                     Config
	}{
		{"json array", "[{ \"a\" : 1.10 },[1,\r\n \"x\\n\"]\n,null,\"s\"]", "application/json", Config{}},
		{"ndjson", "{ \"a\" : 1.10 }\n[1, \"x\\n\"]\nnull\n\"s\"\n", "application/x-ndjson", Config{As: NDJSON}},
		{"text", "<os><o n='0'/>,<o n='1'/>,<o n='2'/>,<o n='3'/></os>", "", Config{As: Text, Item: template(t, "<o n='${offset}'/>"), Head: "<os>", Between: ",", Tail: "</os>"}},
		{"own content type", "[{ \"a\" : 1.10 },[1,\r\n \"x\\n\"]\n,null,\"s\"]", "application/vnd.acme+json", Config{ContentType: "application/vnd.acme+json"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b := batcher(t, tc.cfg)
			if ready := add(t, b, noon, recs...); len(ready) != 0 {
				t.Fatalf("%d batches are ready", len(ready))
			}
			bs := b.Flush()
			if got := bodies(t, bs); got != tc.want {
				t.Errorf("got  %q\nwant %q", got, tc.want)
			}
			var hs []string
			for _, h := range bs[0].Header() {
				hs = append(hs, h.Key+": "+string(h.Value))
			}
			if got := strings.TrimPrefix(strings.Join(hs, ","), "Content-Type: "); got != tc.contentType {
				t.Errorf("headers %q, want %q", got, tc.contentType)
			}
		})
	}
}

func TestGzip(t *testing.T) {
	b := batcher(t, Config{Gzip: true})
	add(t, b, noon, rec(0, "1"), rec(1, "2"))
	one := b.Flush()[0]
	body, err := one.Body()
	if err != nil {
		t.Fatal(err)
	}
	r, err := gzip.NewReader(bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(r)
	if err != nil || string(text) != "[1,2]" || one.Size() != 5 {
		t.Errorf("got %q, %v, size %d", text, err, one.Size())
	}
	if hs := fmt.Sprintf("%s", one.Header()); hs != "[{Content-Type application/json} {Content-Encoding gzip}]" {
		t.Errorf("headers %s", hs)
	}
	if again, _ := one.Body(); &again[0] != &body[0] {
		t.Error("another attempt has another body")
	}
}

func TestBounds(t *testing.T) {
	t.Run("records", func(t *testing.T) {
		b := batcher(t, Config{Records: 2})
		got := add(t, b, noon, rec(0, "1"), rec(1, "2"), rec(2, "3"), rec(3, "4"), rec(4, "5"))
		if bodies(t, got) != "[1,2] | [3,4]" {
			t.Errorf("got %s", bodies(t, got))
		}
		if n, size := b.Waiting(); n != 1 || size != 1 {
			t.Errorf("%d records and %d bytes wait", n, size)
		}
	})
	t.Run("bytes", func(t *testing.T) {
		b := batcher(t, Config{Bytes: 7})
		if got := bodies(t, add(t, b, noon, rec(0, "11"), rec(1, "22"))); got != "[11,22]" {
			t.Errorf("filled to the byte: got %s", got)
		}
		if got := bodies(t, add(t, b, noon, rec(0, "11"), rec(1, "333"))); got != "[11]" {
			t.Errorf("the next does not fit: got %s", got)
		}
		if got := bodies(t, add(t, b, noon, rec(2, "55555"))); got != "[333] | [55555]" {
			t.Errorf("the next does not fit and fills one: got %s", got)
		}
		_, err := b.Add(rec(3, "666666"), noon)
		if e := record.AsError(err); e == nil || e.Class != record.TooLarge {
			t.Errorf("one alone: got %v, want class too_large", err)
		}
	})
	t.Run("wait", func(t *testing.T) {
		b := batcher(t, Config{Wait: 2 * time.Second, By: program(t, "value")})
		if _, ok := b.Due(); ok {
			t.Error("nothing waits, and something is due")
		}
		add(t, b, noon, rec(0, "1"))
		add(t, b, noon.Add(time.Second), rec(1, "2"), rec(2, "1"))
		if due, _ := b.Due(); !due.Equal(noon.Add(2 * time.Second)) {
			t.Errorf("due at %s", due)
		}
		if got := b.Ready(noon.Add(2*time.Second - 1)); len(got) != 0 {
			t.Errorf("too early: %s", bodies(t, got))
		}
		if got := bodies(t, b.Ready(noon.Add(2*time.Second))); got != "[1,1]" {
			t.Errorf("got %s", got)
		}
		if got := bodies(t, b.Ready(noon.Add(time.Hour))); got != "[2]" {
			t.Errorf("got %s", got)
		}
	})
	t.Run("a clock that goes back", func(t *testing.T) {
		b := batcher(t, Config{By: program(t, "value")})
		add(t, b, noon, rec(0, "1"))
		add(t, b, noon.Add(-time.Hour), rec(1, "2"))
		if got := bodies(t, b.Ready(noon.Add(-time.Minute))); got != "[2]" {
			t.Errorf("got %s", got)
		}
	})
}

func TestByKey(t *testing.T) {
	b := batcher(t, Config{By: program(t, "key"), Records: 2})
	keyed := func(offset int64, key []byte) *record.Record {
		r := rec(offset, fmt.Sprint(offset))
		r.Key = key
		return r
	}
	ready := add(t, b, noon, keyed(0, nil), keyed(1, []byte("a")), keyed(2, []byte{}), keyed(3, []byte("b")), keyed(4, []byte("a")))
	if got := bodies(t, ready); got != "[1,4]" || string(ready[0].By) != "a" {
		t.Errorf("got %s by %q", got, ready[0].By)
	}
	rest := b.Flush()
	if got := bodies(t, rest); got != "[0] | [2] | [3]" {
		t.Errorf("got %s: nil and empty keys are two", got)
	}
	if rest[0].By != nil || rest[1].By == nil {
		t.Errorf("by %v and %v", rest[0].By, rest[1].By)
	}
}

func TestGroupsCanBeEnded(t *testing.T) {
	b := batcher(t, Config{By: program(t, "value.k"), Wait: time.Minute})
	now := time.Unix(0, 0)
	one, two, none := rec(1, `{"k":"a"}`), rec(2, `{"k":"b"}`), rec(3, `{}`)
	add(t, b, now, one, two, none)
	group := func(r *record.Record) string {
		g, err := b.Group(r)
		if err != nil {
			t.Fatal(err)
		}
		return g
	}
	if group(one) == group(two) || group(two) == group(none) || group(one) != group(rec(9, `{"k":"a"}`)) {
		t.Errorf("groups %q, %q, %q", group(one), group(two), group(none))
	}
	if got := b.End(group(two)); got == nil || len(got.Items) != 1 || got.Items[0].Record != two {
		t.Errorf("ended %+v", got)
	}
	if b.End(group(two)) != nil {
		t.Error("a group ended twice")
	}
	if records, _ := b.Waiting(); records != 2 || len(b.Flush()) != 2 {
		t.Errorf("%d records wait", records)
	}
	if _, err := b.Group(rec(4, "{")); record.AsError(err) == nil {
		t.Error("no error for a value that is not JSON")
	}
}

func TestBadRecordsFailAlone(t *testing.T) {
	for _, as := range []As{JSONArray, NDJSON} {
		b := batcher(t, Config{As: as})
		add(t, b, noon, rec(0, "1"))
		for _, bad := range []string{"", "{", "1 2", "nope"} {
			ready, err := b.Add(rec(1, bad), noon)
			if e := record.AsError(err); e == nil || e.Class != record.Schema || len(ready) != 0 {
				t.Errorf("%q: got %v, %d batches; want class schema", bad, err, len(ready))
			}
		}
		add(t, b, noon, rec(2, "3"))
		if bs := b.Flush(); len(bs) != 1 || len(bs[0].Items) != 2 || bs[0].Items[1].ID != "orders/0/2" {
			t.Errorf("got %s", bodies(t, bs))
		}
	}
	b := batcher(t, Config{By: program(t, "value.shop + 1")})
	if _, err := b.Add(rec(0, `{}`), noon); record.AsError(err) == nil || record.AsError(err).Class != record.Schema {
		t.Errorf("a key that cannot be made: got %v", err)
	}
	b = batcher(t, Config{As: Text, Item: template(t, "${value.x}")})
	if _, err := b.Add(rec(0, `{}`), noon); record.AsError(err) == nil || record.AsError(err).Class != record.Schema {
		t.Errorf("a text that cannot be made: got %v", err)
	}
}

// TestIdentity holds what partners have seen as Idempotency-Key.
func TestIdentity(t *testing.T) {
	cfg := Config{ID: func(r *record.Record) string { return "uid/0/" + r.ID() }}
	b := batcher(t, cfg)
	recs := []*record.Record{rec(0, "1"), rec(1, "2"), rec(2, "3"), rec(3, "4")}
	add(t, b, noon, recs...)
	whole := b.Flush()[0]
	if want := "ad14b817859b28025cc7919ae81c8061"; whole.ID != want {
		t.Errorf("id %q, want %q", whole.ID, want)
	}
	if got := whole.Keep([]int{0, 1, 2, 3}); got != whole {
		t.Error("all items again are another batch")
	}
	if whole.Keep(nil) != nil {
		t.Error("no items are a batch")
	}
	part := whole.Keep([]int{1, 3})
	if part.ID == whole.ID || bodies(t, []*Batch{part}) != "[2,4]" {
		t.Errorf("a part: id %s, body %s", part.ID, bodies(t, []*Batch{part}))
	}
	if rest := part.Keep([]int{1}); rest.ID == part.ID || bodies(t, []*Batch{rest}) != "[4]" {
		t.Errorf("a part of a part: %s", bodies(t, []*Batch{rest}))
	}
	again, err := batcher(t, cfg).Rebuild([]*record.Record{recs[1], recs[3]})
	if err != nil || again.ID != part.ID || bodies(t, []*Batch{again}) != "[2,4]" {
		t.Errorf("rebuilt: %v, %v, want id %s", again, err, part.ID)
	}
	swapped, err := batcher(t, cfg).Rebuild([]*record.Record{recs[3], recs[1]})
	if err != nil || swapped.ID == part.ID {
		t.Errorf("another order has the same id, %v", err)
	}
	if identity([]Item{{ID: "ab"}, {ID: "c"}}) == identity([]Item{{ID: "a"}, {ID: "bc"}}) {
		t.Error("ids run into each other")
	}
	for _, bad := range [][]int{{0, 0}, {1, 0}, {4}, {-1}} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("keep %v was taken", bad)
				}
			}()
			whole.Keep(bad)
		}()
	}
}

func TestRebuild(t *testing.T) {
	small := batcher(t, Config{Bytes: 5, Records: 1, By: program(t, "key")})
	a, b := rec(0, "12345678"), rec(1, "2")
	a.Key, b.Key = []byte("k"), []byte("k")
	got, err := small.Rebuild([]*record.Record{a, b})
	if err != nil || bodies(t, []*Batch{got}) != "[12345678,2]" || string(got.By) != "k" {
		t.Errorf("bounds do not count: got %v, %v", got, err)
	}
	_, err = small.Rebuild([]*record.Record{a, rec(7, "{")})
	if e := record.AsError(err); e == nil || e.Class != record.Schema || !strings.Contains(e.Message, "record orders/0/7: ") {
		t.Errorf("got %v", err)
	}
	if _, err := small.Rebuild(nil); err == nil {
		t.Error("nothing was made a batch")
	}
}

func TestValidate(t *testing.T) {
	err := Config{Records: -1, Bytes: -1, Wait: -1, As: 9}.Validate()
	for _, want := range []string{"-1 records", "-1 bytes", "negative", "form 9"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not say %q", err, want)
		}
	}
	if _, err := New(Config{As: Text}); err == nil {
		t.Error("a text without a template was taken")
	}
	if _, err := New(Config{Head: "x"}); err == nil {
		t.Error("a head of a JSON array was taken")
	}
}

// TestEveryRecordOnce drives a batcher with random records, times and
// settings against what it promises.
func TestEveryRecordOnce(t *testing.T) {
	by := program(t, "key")
	rapid.Check(t, func(t *rapid.T) {
		cfg := Config{
			Records: rapid.IntRange(1, 6).Draw(t, "records"), Bytes: rapid.IntRange(8, 60).Draw(t, "bytes"),
			Wait: time.Duration(rapid.IntRange(1, 50).Draw(t, "wait")) * time.Millisecond,
			As:   rapid.SampledFrom([]As{JSONArray, NDJSON}).Draw(t, "as"),
		}
		if rapid.Bool().Draw(t, "keyed") {
			cfg.By = by
		}
		b, err := New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		now := noon
		since := map[string]time.Time{} // when a record was taken
		var accepted, out []string
		lastOf := map[string]int64{} // the last offset of a key that came out
		collect := func(bs []*Batch) {
			for _, one := range bs {
				body, err := one.Body()
				if err != nil {
					t.Fatal(err)
				}
				if len(one.Items) == 0 || len(one.Items) > cfg.Records || len(body) > cfg.Bytes || len(body) != one.Size() {
					t.Fatalf("a batch of %d items and %d bytes (it says %d); at most %d and %d", len(one.Items), len(body), one.Size(), cfg.Records, cfg.Bytes)
				}
				if items := readBody(t, cfg.As, body); items != len(one.Items) {
					t.Fatalf("%d items in the body of %d: %s", items, len(one.Items), body)
				}
				for _, item := range one.Items {
					key := ""
					if cfg.By != nil {
						key = string(item.Record.Key)
						if key != string(one.By) || (item.Record.Key == nil) != (one.By == nil) {
							t.Fatalf("record %s with key %q in the batch of %q", item.ID, item.Record.Key, one.By)
						}
						key = fmt.Sprint(item.Record.Key == nil, key)
					}
					if before, ok := lastOf[key]; ok && before >= item.Record.Offset {
						t.Fatalf("key %q: offset %d comes out behind %d", key, item.Record.Offset, before)
					}
					lastOf[key] = item.Record.Offset
					out = append(out, item.ID)
				}
				again, err := b.Rebuild(records(one))
				if err != nil || again.ID != one.ID {
					t.Fatalf("rebuilt: %v, %v; want %s", again, err, one.ID)
				}
			}
		}
		for offset := range int64(rapid.IntRange(0, 60).Draw(t, "steps")) {
			switch rapid.IntRange(0, 5).Draw(t, "step") {
			case 0:
				now = now.Add(time.Duration(rapid.IntRange(0, 40).Draw(t, "ms")) * time.Millisecond)
				collect(b.Ready(now))
				for id, at := range since {
					if !contains(out, id) && now.Sub(at) >= cfg.Wait {
						t.Fatalf("record %s waits since %s", id, now.Sub(at))
					}
				}
				if due, ok := b.Due(); ok && !due.After(now) {
					t.Fatalf("what is due at %s is still there at %s", due, now)
				}
			case 1:
				collect(b.Flush())
				if n, size := b.Waiting(); n != 0 || size != 0 {
					t.Fatalf("%d records and %d bytes wait after a flush", n, size)
				}
			default:
				r := rec(offset, rapid.SampledFrom([]string{"1", `{"a":"bcdef"}`, "[1,\n2]", "null", "{", strings.Repeat("7", 59), strings.Repeat("8", 20)}).Draw(t, "value"))
				r.Key = rapid.SampledFrom([][]byte{nil, {}, []byte("a"), []byte("b")}).Draw(t, "key")
				ready, err := b.Add(r, now)
				if err == nil {
					accepted = append(accepted, r.ID())
					since[r.ID()] = now
				} else if len(ready) > 0 {
					t.Fatal("a record that failed moved a batch")
				}
				collect(ready)
			}
		}
		collect(b.Flush())
		if len(out) != len(accepted) {
			t.Fatalf("%d records came out of %d", len(out), len(accepted))
		}
		for _, id := range accepted {
			if !contains(out, id) {
				t.Fatalf("record %s is in no batch", id)
			}
		}
	})
}

func records(b *Batch) (out []*record.Record) {
	for i := range b.Items {
		out = append(out, b.Items[i].Record)
	}
	return out
}

func contains(list []string, s string) bool {
	for _, x := range list {
		if x == s {
			return true
		}
	}
	return false
}

// readBody counts the items in a body with another reader than ours.
func readBody(t *rapid.T, as As, body []byte) int {
	if as == JSONArray {
		var list []json.RawMessage
		if err := json.Unmarshal(body, &list); err != nil {
			t.Fatalf("body %s: %v", body, err)
		}
		return len(list)
	}
	lines := strings.Split(strings.TrimSuffix(string(body), "\n"), "\n")
	for _, l := range lines {
		if !json.Valid([]byte(l)) {
			t.Fatalf("line %q is not JSON", l)
		}
	}
	return len(lines)
}

func BenchmarkAdd(b *testing.B) {
	by, err := expr.Compile("value.shop_id", expr.Scope{Roots: expr.RecordRoots})
	if err != nil {
		b.Fatal(err)
	}
	g, err := New(Config{Records: 100, By: by})
	if err != nil {
		b.Fatal(err)
	}
	recs := make([]*record.Record, 1000)
	for i := range recs {
		recs[i] = rec(int64(i), fmt.Sprintf(`{"shop_id":%d,"amount":%d,"note":%q}`, i%8, i, strings.Repeat("n", 200)))
	}
	b.ReportAllocs()
	n := 0
	for b.Loop() {
		ready, err := g.Add(recs[n%len(recs)], noon)
		if err != nil {
			b.Fatal(err)
		}
		for _, one := range ready {
			if _, err := one.Body(); err != nil {
				b.Fatal(err)
			}
		}
		n++
	}
	b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "records/s")
}
