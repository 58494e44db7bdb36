package abi

import (
	"bytes"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/millrace-io/millrace/runtime/record"
)

var rewriteGolden = flag.Bool("rewrite", false, "rewrite the golden files in testdata")

func sampleRecords() []record.Record {
	return []record.Record{
		{Key: []byte("k-1"), Value: []byte(`{"a":1}`), Headers: []record.Header{{Key: "h1", Value: []byte("v1")}, {Key: "", Value: []byte{}}},
			Topic: "orders", Partition: 3, Offset: 41, Timestamp: 1_700_000_000_123, Trace: record.Trace{1, 2, 15: 16}, Attempt: 1, To: -1},
		{Key: nil, Value: []byte{}, Headers: nil, Topic: "orders", Partition: 3, Offset: 42, Timestamp: -1, Attempt: 7, Redelivered: true, To: -1},
		{Key: []byte{}, Value: nil, Topic: "other", Partition: -5, Offset: 1 << 40, Attempt: 1, To: -1},
	}
}

func encode(tb testing.TB, id uint64, now int64, records []record.Record) []byte {
	tb.Helper()
	var e Encoder
	n, err := e.Size(records)
	if err != nil {
		tb.Fatal(err)
	}
	dst := bytes.Repeat([]byte{0xaa}, n+16)
	if got := e.Encode(dst, id, now, records); got != n {
		tb.Fatalf("Encode wrote %d bytes, Size said %d", got, n)
	}
	if !bytes.Equal(dst[n:], bytes.Repeat([]byte{0xaa}, 16)) {
		tb.Fatal("Encode wrote past its size")
	}
	return dst[:n]
}

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	file := filepath.Join("testdata", name+".hex")
	text := hex.Dump(got)
	if *rewriteGolden {
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if text != string(want) {
		t.Errorf("%s: the layout changed; got\n%s", file, text)
	}
}

func TestRequestGolden(t *testing.T) {
	frame := encode(t, 0x0102030405060708, 1_700_000_000_999, sampleRecords())
	golden(t, "request", frame)
	q, err := DecodeRequest(frame)
	if err != nil {
		t.Fatal(err)
	}
	if q.BatchID != 0x0102030405060708 || q.Now != 1_700_000_000_999 {
		t.Errorf("got id %x now %d", q.BatchID, q.Now)
	}
	if want := sampleRecords(); !reflect.DeepEqual(q.Records, want) {
		t.Errorf("got %+v\nwant %+v", q.Records, want)
	}
	golden(t, "request-empty", encode(t, 1, 2, nil))
}

func TestResultGolden(t *testing.T) {
	answers := []Answer{
		{ID: 1, Outcome: Drop},
		{ID: 0, Outcome: Emit, Key: []byte("new"), Value: nil, Headers: []record.Header{{Key: "x", Value: []byte("y")}}, Timestamp: 5, Output: 1, Partition: 2},
		{ID: 0, Outcome: Emit, Same: SameKey | SameValue | SameHeaders | SameTimestamp, Partition: -1},
		{ID: 2, Outcome: Retry, Delay: 1500 * time.Millisecond, Code: 9, Message: "later"},
		{ID: 3, Outcome: Fail, Code: 400, Message: "bad"},
	}
	frame := AppendResult(nil, 7, 8, answers)
	golden(t, "result", frame)
	records := append(sampleRecords(), record.Record{Topic: "t", Offset: 9})
	d := Decoder{Outputs: []Output{{"default", true}, {"audit", true}}}
	var out record.Results
	if err := d.Decode(frame, 7, records, 100, &out); err != nil {
		t.Fatal(err)
	}
	first, second := records[0], records[0]
	first.Key, first.Value, first.Headers, first.Timestamp, first.To, first.Path = []byte("new"), nil, []record.Header{{Key: "x", Value: []byte("y")}}, 5, 2, "\x00\x00"
	second.Path = "\x00\x01"
	want := record.Results{
		Emits: []record.Emit{{In: 100, Output: 1, Record: first}, {In: 100, Record: second}},
		Drops: []int32{101},
		Failures: []record.Failure{
			{In: 102, Err: &record.Error{Class: record.Retryable, Code: 9, Message: "later", RetryAfter: 1500 * time.Millisecond}},
			{In: 103, Err: &record.Error{Class: record.Rejected, Code: 400, Message: "bad"}},
		},
	}
	if !reflect.DeepEqual(out, want) {
		t.Errorf("got %+v\nwant %+v", out, want)
	}
}

func TestBatchIDGolden(t *testing.T) {
	p := record.Partition{Topic: "orders", Num: 3}
	seen := map[uint64]string{}
	for _, c := range []struct {
		name string
		id   uint64
		want uint64
	}{
		{"plain", BatchID(1, "s", p, 10, 5), 0xfd9a4fa07edf157c},
		{"flow", BatchID(2, "s", p, 10, 5), 0},
		{"stage", BatchID(1, "t", p, 10, 5), 0},
		{"partition", BatchID(1, "s", record.Partition{Topic: "orders", Num: 4}, 10, 5), 0},
		{"broker", BatchID(1, "s", record.Partition{Topic: "orders", Broker: "b", Num: 3}, 10, 5), 0},
		{"moved border", BatchID(1, "sorders", record.Partition{Num: 3}, 10, 5), 0},
		{"offset", BatchID(1, "s", p, 11, 5), 0},
		{"count", BatchID(1, "s", p, 10, 1), 0},
	} {
		if c.want != 0 && c.id != c.want {
			t.Errorf("%s: batch id %#x, want %#x", c.name, c.id, c.want)
		}
		if other, ok := seen[c.id]; ok {
			t.Errorf("%s and %s have the same batch id", c.name, other)
		}
		seen[c.id] = c.name
	}
}

func TestEncodeTooLarge(t *testing.T) {
	var e Encoder
	for name, r := range map[string]record.Record{
		"headers":    {Headers: make([]record.Header, 1<<16)},
		"header key": {Headers: []record.Header{{Key: strings.Repeat("k", 1<<16)}}},
		"topic":      {Topic: strings.Repeat("t", 1<<16)},
	} {
		_, err := e.Size([]record.Record{r})
		if re, ok := errors.AsType[*record.Error](err); !ok || re.Class != record.TooLarge {
			t.Errorf("%s: got %v, want class too_large", name, err)
		}
	}
}

// u32, u16 and so on change one field of a frame.
func u32(b []byte, at int, v uint32) { le.PutUint32(b[at:], v) }

func TestDecodeRules(t *testing.T) {
	const h, r = HeaderSize, RecordSize
	pass := func(id uint32) Answer {
		return Answer{ID: id, Same: SameKey | SameValue | SameHeaders | SameTimestamp, Partition: -1}
	}
	two := []Answer{pass(0), pass(1)}
	emit := []Answer{{ID: 0, Key: []byte("12345678"), Value: []byte("12345678"), Headers: []record.Header{{Key: "ab", Value: []byte("12345678")}}, Partition: -1}, pass(1)}
	for _, c := range []struct {
		name    string
		answers []Answer
		spoil   func(b []byte) []byte
		want    string
	}{
		{"fine", two, func(b []byte) []byte { return b }, ""},
		{"any order", []Answer{pass(1), pass(0)}, func(b []byte) []byte { return b }, ""},
		{"advisory count", two, func(b []byte) []byte { u32(b, offCount, 77); return b }, ""},
		{"unknown flag and same bits", two, func(b []byte) []byte { b[h+recSame] |= 0xf0; b[h+recFlags+1] = 0xff; return b }, ""},
		{"topic table", two, func(b []byte) []byte {
			b = append(b[:h:h], append(make([]byte, 8), b[h:]...)...)
			u32(b, offTopics, 8)
			u32(b, offLength, uint32(len(b)))
			return b
		}, ""},
		{"no header", two, func(b []byte) []byte { return b[:31] }, "the result has 31 bytes"},
		{"empty", two, func(b []byte) []byte { return nil }, "the result has 0 bytes"},
		{"frame length", two, func(b []byte) []byte { u32(b, 0, 9); return b }, "says that it has 9 bytes"},
		{"version", two, func(b []byte) []byte { b[4] = 2; return b }, "frame version 2"},
		{"kind", two, func(b []byte) []byte { b[6] = 1; return b }, "frame of kind 1"},
		{"batch id", two, func(b []byte) []byte { b[16]++; return b }, "answers batch 0000000000000008, expected 0000000000000007"},
		{"odd topic table", two, func(b []byte) []byte { u32(b, offTopics, 4); return b }, "topic table has 4 bytes"},
		{"long topic table", two, func(b []byte) []byte { u32(b, offTopics, 1<<31); return b }, "topic table has 2147483648 bytes"},
		{"missing", two[:1], func(b []byte) []byte { return b }, "record 1 (t/0/1) is not answered"},
		{"none", nil, func(b []byte) []byte { return b }, "record 0 (t/0/0) is not answered"},
		{"two drops", []Answer{{ID: 0, Outcome: Drop}, {ID: 0, Outcome: Drop}, pass(1)}, func(b []byte) []byte { return b }, "record 0 is answered twice, with drop and drop"},
		{"emit and drop", []Answer{pass(0), {ID: 0, Outcome: Drop}, pass(1)}, func(b []byte) []byte { return b }, "record 0 is answered twice, with emit and drop"},
		{"fail and emit", []Answer{{ID: 0, Outcome: Fail}, pass(0), pass(1)}, func(b []byte) []byte { return b }, "record 0 is answered twice, with fail and emit"},
		{"unknown id", []Answer{pass(0), pass(2)}, func(b []byte) []byte { return b }, "answer 1 is for record 2, the batch has 2 (0 to 1)"},
		{"greatest id", two, func(b []byte) []byte { u32(b, h+recID, 1<<32-1); return b }, "record 4294967295"},
		{"unknown outcome", two, func(b []byte) []byte { b[h+recOutcome] = 4; return b }, "outcome 4 is unknown"},
		{"short length", two, func(b []byte) []byte { u32(b, h, 64); return b }, "its length is 64"},
		{"zero length", two, func(b []byte) []byte { u32(b, h, 0); return b }, "its length is 0"},
		{"odd length", two, func(b []byte) []byte { u32(b, h, 73); return b }, "its length is 73"},
		{"long length", two, func(b []byte) []byte { u32(b, h, 1<<31); return b }, "its length is 2147483648"},
		{"cut record", two, func(b []byte) []byte { b = b[:len(b)-8]; u32(b, 0, uint32(len(b))); return b }, "answer 1: 64 bytes are left"},
		{"key length", emit, func(b []byte) []byte { u32(b, h+recKeyLen, 1<<32-1); return b }, "key of 4294967295"},
		{"value length", emit, func(b []byte) []byte { u32(b, h+recValueLen, 1<<32-1); return b }, "value of 4294967295"},
		{"headers length", emit, func(b []byte) []byte { u32(b, h+recHeadersLen, 1<<32-1); return b }, "headers of 4294967295"},
		{"lengths together", emit, func(b []byte) []byte { u32(b, h+recKeyLen, 1<<31); u32(b, h+recValueLen, 1<<31); return b }, "do not fit"},
		{"header value length", emit, func(b []byte) []byte { u32(b, h+r+2, 1<<32-1); return b }, "header 0 of 1 does not fit"},
		{"header key length", emit, func(b []byte) []byte { b[h+r] = 0xff; return b }, "header 0 of 1 does not fit"},
		{"headers left over", emit, func(b []byte) []byte { u32(b, h+r+2, 1); return b }, "headers leave 7 of 16 bytes over"},
		{"more headers", emit, func(b []byte) []byte { b[h+recNumHeaders] = 2; return b }, "header 1 of 2 does not fit"},
		{"headers without bytes", two, func(b []byte) []byte { b[h+recSame] = 0; b[h+recNumHeaders] = 1; return b }, "header 0 of 1 does not fit"},
		{"same key sent", emit, func(b []byte) []byte { b[h+recSame] = SameKey; return b }, "its key is the input's, yet 8 bytes"},
		{"null value sent", emit, func(b []byte) []byte { b[h+recFlags] = 2; return b }, "its value is null, yet 8 bytes"},
		{"same headers sent", emit, func(b []byte) []byte { b[h+recSame] = SameHeaders; return b }, "its headers is the input's"},
		{"output", []Answer{{ID: 0, Output: 2, Partition: -1}, pass(1)}, func(b []byte) []byte { return b }, "emitted to output 2, the plugin's manifest has 2"},
		{"unbound output", []Answer{{ID: 0, Output: 1, Partition: -1}, pass(1)}, func(b []byte) []byte { return b }, `emitted to output "audit", which the flow binds to nothing`},
		{"partition", []Answer{{ID: 0, Partition: -2}, pass(1)}, func(b []byte) []byte { return b }, "emitted to partition -2"},
		{"delay", []Answer{{ID: 0, Outcome: Retry, Delay: -time.Second}, pass(1)}, func(b []byte) []byte { return b }, "retry with a delay of -1000 ms"},
	} {
		t.Run(c.name, func(t *testing.T) {
			records := []record.Record{{Topic: "t", Key: []byte("k"), Value: []byte("v")}, {Topic: "t", Offset: 1}}
			frame := c.spoil(AppendResult(nil, 7, 0, c.answers))
			d := Decoder{Outputs: []Output{{"default", true}, {"audit", false}}}
			out := record.Results{Drops: []int32{5}}
			err := d.Decode(frame, 7, records, 0, &out)
			if c.want == "" {
				if err != nil {
					t.Fatal(err)
				}
				return
			}
			re, ok := errors.AsType[*record.Error](err)
			if !ok || re.Class != record.Protocol || !strings.Contains(re.Message, c.want) {
				t.Errorf("got %v, want class protocol and %q", err, c.want)
			}
			if len(out.Emits) != 0 || len(out.Drops) != 1 || len(out.Failures) != 0 {
				t.Errorf("a refused frame left answers: %+v", out)
			}
		})
	}
}

func TestDecodeTooManyEmissions(t *testing.T) {
	answers := make([]Answer, 1<<16+1)
	for i := range answers {
		answers[i] = Answer{Same: 15, Partition: -1}
	}
	var d Decoder
	var out record.Results
	err := d.Decode(AppendResult(nil, 1, 0, answers), 1, make([]record.Record, 1), 0, &out)
	if re, ok := errors.AsType[*record.Error](err); !ok || re.Class != record.Protocol || len(out.Emits) != 0 {
		t.Errorf("got %v with %d emits, want class protocol and none", err, len(out.Emits))
	}
}

func TestDecodeBounds(t *testing.T) {
	records := sampleRecords()[:1]
	answers := []Answer{
		{ID: 0, Headers: []record.Header{{Key: "a"}, {Key: "b"}}, Value: []byte("v")},
		{ID: 0, Headers: []record.Header{{Key: "c"}}, Value: []byte("v")},
	}
	frame := AppendResult(nil, 7, 0, answers)
	for _, c := range []struct {
		emits, headers int
		want           string
	}{{0, 0, ""}, {2, 3, ""}, {1, 0, "more than 1 emissions"}, {0, 2, "more than 2 headers"}} {
		d := Decoder{MaxEmits: c.emits, MaxHeaders: c.headers}
		var out record.Results
		err := d.Decode(frame, 7, records, 0, &out)
		switch {
		case c.want == "" && (err != nil || len(out.Emits) != 2):
			t.Errorf("%+v: got %v, %d emits", c, err, len(out.Emits))
		case c.want != "" && (err == nil || record.AsError(err).Class != record.TooLarge || !strings.Contains(err.Error(), c.want) || len(out.Emits) != 0):
			t.Errorf("%+v: got %v, %d emits", c, err, len(out.Emits))
		}
	}
}

func TestDecodeMessageIsBounded(t *testing.T) {
	frame := AppendResult(nil, 1, 0, []Answer{{Outcome: Fail, Message: strings.Repeat("é", maxMessage)}})
	var d Decoder
	var out record.Results
	if err := d.Decode(frame, 1, make([]record.Record, 1), 0, &out); err != nil {
		t.Fatal(err)
	}
	if n := len(out.Failures[0].Err.Message); n > maxMessage+32 {
		t.Errorf("message of %d bytes", n)
	}
	u32(frame, HeaderSize+recValueLen, 2)
	frame[HeaderSize+RecordSize] = 0xff
	out.Reset()
	if err := d.Decode(frame, 1, make([]record.Record, 1), 0, &out); err != nil {
		t.Fatal(err)
	}
	if got, want := out.Failures[0].Err.Message, "\uFFFD"; got != want {
		t.Errorf("got message %q, want %q", got, want)
	}
}

// TestDecodeDoesNotReferToFrame scribbles over the frame, as a guest would.
func TestDecodeDoesNotReferToFrame(t *testing.T) {
	frame := AppendResult(nil, 1, 0, []Answer{{Key: []byte("key"), Value: []byte("value"), Headers: []record.Header{{Key: "hk", Value: []byte("hv")}}, Partition: -1}})
	var d Decoder
	var out record.Results
	if err := d.Decode(frame, 1, make([]record.Record, 1), 0, &out); err != nil {
		t.Fatal(err)
	}
	for i := range frame {
		frame[i] = '!'
	}
	r := out.Emits[0].Record
	if got := fmt.Sprintf("%s %s %s %s", r.Key, r.Value, r.Headers[0].Key, r.Headers[0].Value); got != "key value hk hv" {
		t.Errorf("got %q", got)
	}
}

// TestRoundTrip compares both directions on random records with what went in.
func TestRoundTrip(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 1))
	blob := func() []byte {
		switch rng.IntN(4) {
		case 0:
			return nil
		case 1:
			return []byte{}
		}
		b := make([]byte, rng.IntN(40))
		for i := range b {
			b[i] = byte(rng.Uint32())
		}
		return b
	}
	headers := func() []record.Header {
		var hs []record.Header
		for range rng.IntN(3) {
			hs = append(hs, record.Header{Key: string(blob()), Value: append([]byte{}, blob()...)})
		}
		return hs
	}
	var d Decoder
	for range 200 {
		records := make([]record.Record, rng.IntN(20))
		var answers []Answer
		var want record.Results
		for i := range records {
			records[i] = record.Record{Key: blob(), Value: blob(), Headers: headers(), Topic: "t" + string(rune('a'+rng.IntN(3))), Partition: int32(rng.Uint32()),
				Offset: int64(rng.Uint64()), Timestamp: int64(rng.Uint64()), Attempt: rng.Uint32(), Redelivered: rng.IntN(2) == 0, To: -1}
			a := Answer{ID: uint32(i), Key: blob(), Value: blob(), Headers: headers(), Timestamp: int64(rng.Uint64()), Partition: int32(rng.IntN(4)) - 1, Same: uint8(rng.IntN(16))}
			answers = append(answers, a)
			r := records[i]
			r.To = a.Partition
			if a.Same&SameKey == 0 {
				r.Key = a.Key
			}
			if a.Same&SameValue == 0 {
				r.Value = a.Value
			}
			if a.Same&SameHeaders == 0 {
				r.Headers = a.Headers
			}
			if a.Same&SameTimestamp == 0 {
				r.Timestamp = a.Timestamp
			}
			want.Emits = append(want.Emits, record.Emit{In: int32(i), Record: r})
		}
		q, err := DecodeRequest(encode(t, 3, 4, records))
		if err != nil {
			t.Fatal(err)
		}
		if len(records) > 0 && !reflect.DeepEqual(q.Records, records) {
			t.Fatalf("request: got %+v\nwant %+v", q.Records, records)
		}
		var out record.Results
		if err := d.Decode(AppendResult(nil, 3, 4, answers), 3, records, 0, &out); err != nil {
			t.Fatal(err)
		}
		if len(records) > 0 && !reflect.DeepEqual(out, want) {
			t.Fatalf("result: got %+v\nwant %+v", out, want)
		}
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(AppendResult(nil, 7, 0, []Answer{{ID: 0, Same: 15, Partition: -1}, {ID: 1, Outcome: Drop}, {ID: 2, Outcome: Fail, Message: "m"}}))
	f.Add(AppendResult(nil, 7, 0, []Answer{{ID: 0, Key: []byte("k"), Value: []byte("v"), Headers: []record.Header{{Key: "h", Value: []byte("v")}}, Partition: -1},
		{ID: 0, Partition: 1}, {ID: 1, Outcome: Retry, Delay: time.Second}, {ID: 2, Output: 1, Partition: -1}}))
	f.Add([]byte{})
	records := sampleRecords()
	d := Decoder{Outputs: []Output{{"default", true}, {"audit", true}}}
	f.Fuzz(func(t *testing.T, frame []byte) {
		var out record.Results
		keep := bytes.Clone(frame)
		err := d.Decode(frame, 7, records, 0, &out)
		if !bytes.Equal(frame, keep) {
			t.Fatal("the frame was written")
		}
		if err != nil {
			if re, ok := errors.AsType[*record.Error](err); !ok || re.Class != record.Protocol {
				t.Fatalf("got %v, want class protocol", err)
			}
			if len(out.Emits)+len(out.Drops)+len(out.Failures) != 0 {
				t.Fatalf("%v, yet there are answers", err)
			}
			return
		}
		emits, finals := map[int32]int{}, map[int32]int{}
		for _, e := range out.Emits {
			emits[e.In]++
			_ = e.Record.Size()
			_ = e.Record.ID()
		}
		for _, i := range out.Drops {
			finals[i]++
		}
		for _, fl := range out.Failures {
			finals[fl.In]++
		}
		for i := range int32(len(records)) {
			if e, n := emits[i], finals[i]; !(e > 0 && n == 0 || e == 0 && n == 1) {
				t.Fatalf("record %d: %d emits, %d others", i, e, n)
			}
		}
	})
}

func FuzzDecodeRequest(f *testing.F) {
	f.Add(encode(f, 1, 2, sampleRecords()))
	f.Add(encode(f, 1, 2, nil))
	f.Fuzz(func(t *testing.T, frame []byte) {
		q, err := DecodeRequest(frame)
		if err != nil {
			return
		}
		again, err := DecodeRequest(encode(t, q.BatchID, q.Now, q.Records))
		if err != nil || !reflect.DeepEqual(q, again) {
			t.Fatalf("read again: %v\n%+v\n%+v", err, q, again)
		}
	})
}

func benchRecords(n int) ([]record.Record, []Answer) {
	records := make([]record.Record, n)
	answers := make([]Answer, n)
	value := bytes.Repeat([]byte("x"), 302)
	for i := range records {
		records[i] = record.Record{Key: []byte("c-123456"), Value: value, Topic: "orders", Partition: 1, Offset: int64(i), Attempt: 1}
		answers[i] = Answer{ID: uint32(i), Same: SameKey | SameHeaders | SameTimestamp, Value: value, Partition: -1}
	}
	return records, answers
}

func BenchmarkEncode(b *testing.B) {
	records, _ := benchRecords(128)
	var e Encoder
	dst := make([]byte, 1<<20)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := e.Size(records); err != nil {
			b.Fatal(err)
		}
		e.Encode(dst, 1, 2, records)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*128), "ns/record")
}

func BenchmarkDecode(b *testing.B) {
	records, answers := benchRecords(128)
	for _, c := range []string{"same", "value"} {
		b.Run(c, func(b *testing.B) {
			as := append([]Answer(nil), answers...)
			if c == "same" {
				for i := range as {
					as[i].Same |= SameValue
				}
			}
			frame := AppendResult(nil, 1, 2, as)
			var d Decoder
			var out record.Results
			b.ReportAllocs()
			for b.Loop() {
				out.Reset()
				if err := d.Decode(frame, 1, records, 0, &out); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*128), "ns/record")
		})
	}
}

func TestAllocations(t *testing.T) {
	records, answers := benchRecords(128)
	frame := AppendResult(nil, 1, 2, answers)
	var e Encoder
	var d Decoder
	var out record.Results
	dst := make([]byte, 1<<20)
	got := testing.AllocsPerRun(20, func() {
		out.Reset()
		if _, err := e.Size(records); err != nil {
			t.Fatal(err)
		}
		e.Encode(dst, 1, 2, records)
		if err := d.Decode(frame, 1, records, 0, &out); err != nil {
			t.Fatal(err)
		}
	})
	if got > 1 {
		t.Errorf("%v allocations for a batch of 128, want at most 1: the copy of the frame", got)
	}
}
