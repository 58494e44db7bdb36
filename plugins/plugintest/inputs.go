package plugintest

import (
	"fmt"
	"strings"

	"github.com/millrace-io/millrace/runtime/record"
)

// sampleTime is the clock of all batches and records that are made up.
const sampleTime = 1_764_547_200_000

// topic is that of all records that do not say another.
const topic = "orders"

// made are the records that a plugin is tried with which says nothing of its
// own: one JSON object each.
func made() []record.Record {
	var records []record.Record
	for i := range 16 {
		records = append(records, record.Record{
			Key:   fmt.Appendf(nil, "key-%d", i),
			Value: fmt.Appendf(nil, `{"id":%d,"name":"order %d","amount":%d.50,"paid":%t,"tags":["a","b"],"note":null}`, i, i, i*7, i%2 == 0),
		})
	}
	return records
}

// batch repeats records to n, with offsets of their own.
func batch(records []record.Record, n int) *record.Batch {
	b := &record.Batch{Partition: record.Partition{Topic: topic}, Now: sampleTime, Next: int64(n)}
	for i := range n {
		r := records[i%len(records)]
		r.Topic, r.Partition, r.Offset = topic, 0, int64(i)
		if r.Timestamp == 0 {
			r.Timestamp = sampleTime
		}
		if r.Attempt == 0 {
			r.Attempt = 1
		}
		r.To = -1
		b.Records = append(b.Records, r)
	}
	return b
}

// odd is an input that few plugins are made for, and all must survive.
type odd struct {
	check   string
	what    string // for a sentence
	records []record.Record
}

// odds are the odd inputs, made of a record that the plugin is made for.
func odds(r record.Record) []odd {
	with := func(change func(*record.Record)) record.Record {
		c := r
		change(&c)
		return c
	}
	value := func(v string) record.Record { return with(func(c *record.Record) { c.Value = []byte(v) }) }
	headers := func(n int, key func(int) string, v []byte) record.Record {
		return with(func(c *record.Record) {
			c.Headers = nil
			for i := range n {
				c.Headers = append(c.Headers, record.Header{Key: key(i), Value: v})
			}
		})
	}
	bytes := make([]byte, 256)
	for i := range bytes {
		bytes[i] = byte(i)
	}
	return []odd{
		{"null", "a null key or value", []record.Record{
			with(func(c *record.Record) { c.Value = nil }),
			with(func(c *record.Record) { c.Key = nil }),
			with(func(c *record.Record) { c.Key, c.Value, c.Headers = nil, nil, nil }),
		}},
		{"empty", "an empty key or value", []record.Record{
			value(""),
			with(func(c *record.Record) { c.Key = []byte{} }),
			with(func(c *record.Record) { c.Key, c.Value, c.Headers = []byte{}, []byte{}, nil }),
		}},
		{"unicode", "unusual text", []record.Record{
			value(`{"name":"\u00e9\u4e2d\ud83d\ude00"}`),
			value("\"\u00e9\u4e2d\U0001f600\u202e\u0000\u2028\ufeff\""),
			with(func(c *record.Record) { c.Key = []byte("cl\u00e9-\U0001f511") }),
		}},
		{"binary", "bytes that are no text", []record.Record{
			with(func(c *record.Record) { c.Value = bytes }),
			with(func(c *record.Record) { c.Key = bytes }),
			value("\xff\xfe\x00"),
			headers(1, func(int) string { return "binary" }, bytes),
		}},
		{"lines", "line ends in the value", []record.Record{value("{\n  \"id\": 1\r\n}\n"), value("\n")}},
		{"json", "JSON at its limits", []record.Record{
			value("{}"), value("[]"), value("null"), value("0"), value(`""`), value("{"), value(`{"id":1}trailing`),
			value(`{"id":1e999,"big":123456789012345678901234567890,"id":2}`),
			value(strings.Repeat("[", 500) + strings.Repeat("]", 500)),
			value(`{"s":"` + strings.Repeat(`\u0041`, 100) + `\ud800"}`),
		}},
		{"headers", "many headers", []record.Record{
			headers(1000, func(i int) string { return fmt.Sprintf("h%d", i) }, []byte("v")),
			headers(100, func(int) string { return "same" }, []byte{}),
			headers(3, func(int) string { return "" }, nil),
			headers(1, func(int) string { return strings.Repeat("k", 60_000) }, []byte(strings.Repeat("v", 100_000))),
		}},
		{"time", "unusual timestamps and offsets", []record.Record{
			with(func(c *record.Record) { c.Timestamp = -1 }),
			with(func(c *record.Record) { c.Timestamp = 253_402_300_800_000 }),
			with(func(c *record.Record) { c.Attempt, c.Redelivered = 4_000_000_000, true }),
		}},
		{"large", "1 MiB", []record.Record{
			value(`{"id":1,"text":"` + strings.Repeat("abcdefghijklmno ", 1<<16) + `"}`),
			value(strings.Repeat("x", 1<<20)),
			with(func(c *record.Record) { c.Key = []byte(strings.Repeat("k", 1<<20)) }),
		}},
	}
}
