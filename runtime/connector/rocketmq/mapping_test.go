package rocketmq

import (
	"encoding/binary"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"

	"github.com/millrace-io/millrace/runtime/record"
)

// stored is a message as a broker gives it.
func stored(offset int64, body []byte, properties string) []byte {
	b := make([]byte, storedFixed+8+8+8+12)
	binary.BigEndian.PutUint64(b[20:], uint64(offset))
	binary.BigEndian.PutUint64(b[40:], 1_600_000_000_000)
	b = binary.BigEndian.AppendUint32(b, uint32(len(body)))
	b = append(b, body...)
	b = append(append(b, 1), 't')
	b = binary.BigEndian.AppendUint16(b, uint16(len(properties)))
	b = append(b, properties...)
	binary.BigEndian.PutUint32(b, uint32(len(b)))
	return b
}

// there sends a record there and back. Brokers keep properties in an order of
// their own.
func there(t *testing.T, rng *rand.Rand, r *record.Record, tag, idempotency string) record.Record {
	t.Helper()
	out, err := toMessage(r, tag, idempotency, 0)
	if err != nil {
		t.Fatal(err)
	}
	parts := strings.SplitAfter(out.properties, string(valueEnd))
	rng.Shuffle(len(parts), func(i, j int) { parts[i], parts[j] = parts[j], parts[i] })
	m, rest, err := decodeMessage(stored(r.Offset, out.body, strings.Join(parts, "")))
	if err != nil || len(rest) != 0 {
		t.Fatalf("decode: %v, %d bytes left", err, len(rest))
	}
	return fromMessage(&m)
}

// awkward are names and values that properties cannot be as they are.
var awkward = []string{"", "a", "b", "TAGS", "KEYS", "MILLRACE", TagHeader, "a || b", " x", "é世\U0001F600", "\x00", "x\x01y", "x\x02y", "\xff\xfe", `{"key":1}`, "a b", "UNIQ_KEY", "__RMQ.x", "*", "<&>"}

func TestRecordsSurviveTheWayRound(t *testing.T) {
	seed := rand.Uint64()
	rng := rand.New(rand.NewPCG(seed, 0))
	value := func() []byte {
		if rng.IntN(5) == 0 {
			return nil
		}
		return []byte(awkward[rng.IntN(len(awkward))])
	}
	for range 3000 {
		r := record.Record{Key: value(), Value: value(), Offset: rng.Int64(), Timestamp: 1 + rng.Int64N(1<<41), Attempt: 1, To: -1}
		for range rng.IntN(5) {
			r.Headers = append(r.Headers, record.Header{Key: awkward[rng.IntN(len(awkward))], Value: value()})
		}
		idempotency := ""
		if rng.IntN(2) == 0 {
			idempotency = "flow/a/0/1"
		}
		if got := there(t, rng, &r, "", idempotency); !reflect.DeepEqual(got, r) {
			t.Fatalf("seed %d: a record came back as\n%#v, was\n%#v", seed, got, r)
		}
	}
}

func TestMessageOfARecord(t *testing.T) {
	h := func(kv ...string) (hs []record.Header) {
		for i := 0; i < len(kv); i += 2 {
			hs = append(hs, record.Header{Key: kv[i], Value: []byte(kv[i+1])})
		}
		return hs
	}
	for _, c := range []struct {
		name             string
		key              []byte
		headers          []record.Header
		tag, idempotency string
		delay            int
		want             string
	}{
		{"bare", nil, nil, "", "", 0, "MILLRACE={}"},
		{"key", []byte("k 1"), nil, "", "", 0, `KEYS=k 1 MILLRACE={"key":"k 1"}`},
		{"key and idempotency key", []byte("k"), nil, "", "i/1", 0, `KEYS=k i/1 MILLRACE={"key":"k"}`},
		{"idempotency key with a space", []byte("k"), nil, "", "my file/1", 0, `KEYS=k my%20file/1 MILLRACE={"key":"k"}`},
		{"no key", nil, nil, "", "i/1", 0, `KEYS=i/1 MILLRACE={}`},
		{"binary key", []byte("\xff"), nil, "", "i", 0, `KEYS=i MILLRACE={"key64":"/w=="}`},
		{"headers in order", nil, h("a", "1", "b", "2"), "", "", 0, `a=1 b=2 MILLRACE={}`},
		{"headers in another order", nil, h("b", "2", "a", "1"), "", "", 0, `b=2 a=1 MILLRACE={"headers":[{"n":"b"},{"n":"a"}]}`},
		{"a reserved name", nil, h("TTL", "1"), "", "", 0, `MILLRACE={"headers":[{"n":"TTL","v":"1"}]}`},
		{"a tag from a header", nil, h("a", "1", TagHeader, "paid"), "", "", 0, `a=1 TAGS=paid MILLRACE={}`},
		{"a tag instead of the header's", nil, h("a", "1", TagHeader, "paid"), "late", "", 0, `a=1 TAGS=late MILLRACE={}`},
		{"delay", nil, nil, "", "", 3, "DELAY=3 MILLRACE={}"},
	} {
		out, err := toMessage(&record.Record{Key: c.key, Value: []byte("v"), Headers: c.headers}, c.tag, c.idempotency, c.delay)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		got := strings.NewReplacer("\x01", "=", "\x02", " ").Replace(out.properties)
		if got = strings.TrimSpace(got); got != c.want {
			t.Errorf("%s: properties are %s, want %s", c.name, got, c.want)
		}
	}
}

func TestMessagesThatCannotBe(t *testing.T) {
	for _, c := range []struct {
		name             string
		rec              record.Record
		tag, idempotency string
		class            record.Class
	}{
		{"a tag of two", record.Record{}, "a||b", "", record.Rejected},
		{"a tag with an end in it", record.Record{}, "a\x02b", "", record.Rejected},
		{"an idempotency key that is no text", record.Record{}, "", "a\xff", record.Rejected},
		{"a key that is too long", record.Record{Key: []byte(strings.Repeat("k", 40_000))}, "", "", record.TooLarge},
		{"headers that are too long", record.Record{Headers: []record.Header{{Key: "a", Value: []byte(strings.Repeat("\xff", 30_000))}}}, "", "", record.TooLarge},
	} {
		_, err := toMessage(&c.rec, c.tag, c.idempotency, 0)
		if e := record.AsError(err); e == nil || e.Class != c.class {
			t.Errorf("%s: %v, want class %s", c.name, err, c.class)
		}
	}
}

func TestJavaHash(t *testing.T) {
	// The sums are those of Java's String.hashCode.
	for s, want := range map[string]int32{"": 0, "a": 97, "order-1": -1207111310, "世界": 649718, "\U0001F600": 1772899, "polygenelubricants": -2147483648} {
		if got := javaHash([]byte(s)); got != want {
			t.Errorf("hash of %q is %d, want %d", s, got, want)
		}
	}
}

func FuzzDecodeMessage(f *testing.F) {
	f.Add(stored(7, []byte("body"), "a\x01b\x02"))
	f.Add(append(stored(1, nil, ""), stored(2, []byte("x"), "")...))
	v6 := stored(3, []byte("body"), "")
	binary.BigEndian.PutUint32(v6[36:], flagBornV6|flagStoreV6|flagCompressed|codecZstd<<codecShift)
	f.Add(v6)
	f.Fuzz(func(t *testing.T, b []byte) {
		for len(b) > 0 {
			m, rest, err := decodeMessage(b)
			if err == nil {
				_ = fromMessage(&m)
			}
			if len(rest) >= len(b) {
				t.Fatalf("%d bytes left of %d", len(rest), len(b))
			}
			b = rest
		}
	})
}

func FuzzReadFrame(f *testing.F) {
	ok, err := (&frame{Code: reqPull, Fields: map[string]string{"topic": "t"}, body: []byte("body")}).encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(ok)
	f.Add([]byte("\x00\x00\x00\x08\x00\x00\x00\xff"))
	f.Fuzz(func(t *testing.T, b []byte) {
		fr, err := readFrame(strings.NewReader(string(b)))
		if err == nil && len(fr.body) > len(b) {
			t.Fatalf("a body of %d bytes in %d", len(fr.body), len(b))
		}
	})
}
