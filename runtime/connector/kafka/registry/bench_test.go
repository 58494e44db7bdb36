//go:build unix

package registry

import (
	"context"
	"encoding/json"
	"fmt"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/avro"

	"github.com/millrace-io/millrace/runtime/record"
)

const orderSchema = `{"type":"record","name":"Order","namespace":"shop","fields":[
	{"name":"order_id","type":"long"},
	{"name":"customer","type":{"type":"record","name":"Customer","fields":[{"name":"id","type":"string"},{"name":"email","type":"string"},{"name":"vip","type":"boolean"}]}},
	{"name":"created","type":{"type":"long","logicalType":"timestamp-millis"}},
	{"name":"status","type":{"type":"enum","name":"Status","symbols":["NEW","PAID","SHIPPED"]}},
	{"name":"items","type":{"type":"array","items":{"type":"record","name":"Item","fields":[
		{"name":"sku","type":"string"},{"name":"quantity","type":"int"},{"name":"price","type":{"type":"bytes","logicalType":"decimal","precision":9,"scale":2}}]}}},
	{"name":"weight","type":"double"},
	{"name":"note","type":["null","string"]},
	{"name":"tags","type":{"type":"map","values":"string"}}]}`

// orders is a batch of n orders with schema 1, and the value of each.
func orders(t testing.TB, n int, schema string) (*record.Batch, []byte) {
	t.Helper()
	item := func(sku string, quantity int, cents byte) map[string]any {
		return map[string]any{"sku": sku, "quantity": quantity, "price": fmt.Sprintf("%d.%02d", cents, cents%100)}
	}
	payload, err := avro.MustParse(schema).Encode(map[string]any{
		"order_id": int64(90071992547409931), "created": int64(1763769600123), "status": "PAID", "weight": 12.625, "note": "leave it at the door",
		"customer": map[string]any{"id": "c-4711", "email": "alice@example.com", "vip": true},
		"items":    []any{item("SKU-0001", 2, 19), item("SKU-0002", 1, 99), item("SKU-0003", 7, 5)},
		"tags":     map[string]any{"channel": "web"},
	})
	if err != nil {
		t.Fatal(err)
	}
	value := framed(1, payload)
	b := &record.Batch{}
	for i := range n {
		b.Records = append(b.Records, record.Record{Value: value, Offset: int64(i)})
	}
	return b, value
}

// The decoder takes one allocation a record, which is the value itself, and a
// few a batch.
func TestAllocations(t *testing.T) {
	const n = 256
	d := avroDecoder(t, orderSchema)
	b, _ := orders(t, n, orderSchema)
	out := &record.Results{}
	run := func() {
		out.Reset()
		if err := d.Process(context.Background(), b, out); err != nil || len(out.Emits) != n {
			t.Fatalf("%d emits, %v", len(out.Emits), err)
		}
	}
	run()
	if got := testing.AllocsPerRun(20, run); got > n+8 {
		t.Errorf("got %.0f allocations for %d records, want %d at most", got, n, n+8)
	}
}

// cpu is what the process used until now.
func cpu() time.Duration {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkDecode reports the CPU that a record takes besides the time, which
// tells little on a busy machine.
func BenchmarkDecode(b *testing.B) {
	const n = 256
	d := avroDecoder(b, orderSchema)
	batch, value := orders(b, n, orderSchema)
	out := &record.Results{}
	if err := d.Process(context.Background(), batch, out); err != nil {
		b.Fatal(err)
	}
	text := out.Emits[0].Record.Value
	b.Run("avro", func(b *testing.B) {
		b.ReportAllocs()
		begin := cpu()
		for b.Loop() {
			out.Reset()
			if err := d.Process(context.Background(), batch, out); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(float64(cpu()-begin)/float64(b.N*n), "cpu-ns/record")
	})
	// What the library's way over Go values takes for the same.
	b.Run("avro-by-library", func(b *testing.B) {
		s := avro.MustParse(orderSchema)
		b.ReportAllocs()
		begin := cpu()
		for b.Loop() {
			for range n {
				var v any
				if _, err := s.Decode(value[headerSize:], &v); err != nil {
					b.Fatal(err)
				}
				if _, err := s.EncodeJSON(v); err != nil {
					b.Fatal(err)
				}
			}
		}
		b.ReportMetric(float64(cpu()-begin)/float64(b.N*n), "cpu-ns/record")
	})
	// The same data as JSON, read and written again.
	b.Run("encoding-json", func(b *testing.B) {
		b.ReportAllocs()
		begin := cpu()
		for b.Loop() {
			for range n {
				var v any
				if err := json.Unmarshal(text, &v); err != nil {
					b.Fatal(err)
				}
				if _, err := json.Marshal(v); err != nil {
					b.Fatal(err)
				}
			}
		}
		b.ReportMetric(float64(cpu()-begin)/float64(b.N*n), "cpu-ns/record")
	})
	b.Run("json-schema", func(b *testing.B) {
		f := newFake()
		f.add(2, typeJSON, `{"type":"object","properties":{"order_id":{"type":"integer"},"status":{"enum":["NEW","PAID"]},"items":{"items":{"required":["sku"]}}}}`)
		d := decoder(b, serve(b, f, nil), JSONSchema)
		batch := &record.Batch{}
		for range n {
			batch.Records = append(batch.Records, record.Record{Value: framed(2, text)})
		}
		b.ReportAllocs()
		begin := cpu()
		for b.Loop() {
			out.Reset()
			if err := d.Process(context.Background(), batch, out); err != nil || len(out.Failures) > 0 {
				b.Fatal(err, out.Failures)
			}
		}
		b.ReportMetric(float64(cpu()-begin)/float64(b.N*n), "cpu-ns/record")
	})
}
