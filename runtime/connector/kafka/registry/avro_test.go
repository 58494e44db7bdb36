package registry

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/twmb/avro"

	"github.com/millrace-io/millrace/runtime/expr/jsondoc"
	"github.com/millrace-io/millrace/runtime/record"
)

func float32s(f float32) []byte {
	return binary.LittleEndian.AppendUint32(nil, math.Float32bits(f))
}

func float64s(f float64) []byte {
	return binary.LittleEndian.AppendUint64(nil, math.Float64bits(f))
}

// avroDecoder is a decoder with one schema, which has id 1.
func avroDecoder(t testing.TB, schema string) *Decoder {
	t.Helper()
	f := newFake()
	f.add(1, typeAvro, schema)
	return decoder(t, serve(t, f, nil), Avro)
}

func TestAvroToJSON(t *testing.T) {
	rec := func(fields string) string { return `{"type":"record","name":"R","fields":[` + fields + `]}` }
	for _, c := range []struct {
		name, schema string
		wire         []any
		want         string
	}{
		{"null", `"null"`, nil, `null`},
		{"boolean", `"boolean"`, []any{byte(1)}, `true`},
		{"int", `"int"`, []any{math.MinInt32}, `-2147483648`},
		{"long beyond 2^53", `"long"`, []any{math.MaxInt64}, `9223372036854775807`},
		{"long, smallest", `"long"`, []any{math.MinInt64}, `-9223372036854775808`},
		{"float", `"float"`, []any{float32s(0.1)}, `0.1`},
		{"float, whole", `"float"`, []any{float32s(3)}, `3.0`},
		{"double", `"double"`, []any{float64s(1.0 / 3)}, `0.3333333333333333`},
		{"double, whole", `"double"`, []any{float64s(-7)}, `-7.0`},
		{"double, large", `"double"`, []any{float64s(1e21)}, `1e+21`},
		{"double, small", `"double"`, []any{float64s(1e-7)}, `1e-07`},
		{"NaN", `"double"`, []any{float64s(math.NaN())}, `"NaN"`},
		{"infinity", `"float"`, []any{float32s(float32(math.Inf(-1)))}, `"-Infinity"`},
		{"string", `"string"`, []any{"a\"\\\n\t\x01/é€😀"}, `"a\"\\\n\t\u0001/é€😀"`},
		{"bytes in a record", rec(`{"name":"b","type":"bytes"}`), []any{"\x00\xff\x10"}, `{"b":"AP8Q"}`},
		{"bytes alone have no length", `"bytes"`, []any{[]byte{1, 2, 3}}, `"AQID"`},
		{"fixed", `{"type":"fixed","name":"F","size":2}`, []any{[]byte{255, 254}}, `"//4="`},
		{"enum", `{"type":"enum","name":"E","symbols":["A","B"]}`, []any{1}, `"B"`},
		{"array in blocks", `{"type":"array","items":"int"}`, []any{2, 1, 2, -1, 1, 3, 0}, `[1,2,3]`},
		{"array, empty", `{"type":"array","items":"int"}`, []any{0}, `[]`},
		{"array of nulls", `{"type":"array","items":"null"}`, []any{3, 0}, `[null,null,null]`},
		{"map", `{"type":"map","values":"long"}`, []any{2, "b", 1, "a\"", 2, 0}, `{"b":1,"a\"":2}`},
		{"union", `["null","string","int"]`, []any{2, 7}, `7`},
		{"union, null", `["null","string"]`, []any{0}, `null`},
		{"record without fields", rec(``), nil, `{}`},
		{"order of fields", rec(`{"name":"z","type":"int"},{"name":"a","type":"int"}`), []any{1, 2}, `{"z":1,"a":2}`},
		{"date and times stay integers", rec(`{"name":"d","type":{"type":"int","logicalType":"date"}},
			{"name":"t","type":{"type":"int","logicalType":"time-millis"}},
			{"name":"m","type":{"type":"long","logicalType":"timestamp-millis"}},
			{"name":"u","type":{"type":"long","logicalType":"timestamp-micros"}},
			{"name":"l","type":{"type":"long","logicalType":"local-timestamp-nanos"}}`),
			[]any{19000, 1, 1700000000000, 1700000000000001, 1700000000000000001},
			`{"d":19000,"t":1,"m":1700000000000,"u":1700000000000001,"l":1700000000000000001}`},
		{"decimal", `{"type":"array","items":{"type":"bytes","logicalType":"decimal","precision":30,"scale":2}}`,
			[]any{8, "\x30\x39", "\xcf\xc7", "\x05", "\xfb", "", "\x00\xff", "\x80\x00\x00\x00\x00\x00\x00\x00", "\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00", 0},
			`["123.45","-123.45","0.05","-0.05","0.00","2.55","-92233720368547758.08","47223664828696452136.96"]`},
		{"decimal below zero, large", rec(`{"name":"d","type":{"type":"bytes","logicalType":"decimal","precision":30}}`),
			[]any{"\xff\x00\x00\x00\x00\x00\x00\x00\x00"}, `{"d":"-18446744073709551616"}`},
		{"decimal, fixed", `{"type":"fixed","name":"D","size":3,"logicalType":"decimal","precision":5,"scale":5}`, []any{[]byte{0, 0, 7}}, `"0.00007"`},
		{"a logical type beside the field's type is not the type's", rec(`{"name":"d","type":"bytes","logicalType":"decimal","precision":4}`), []any{"\x07"}, `{"d":"Bw=="}`},
		{"uuid as string", rec(`{"name":"u","type":{"type":"string","logicalType":"uuid"}}`), []any{"7f1a"}, `{"u":"7f1a"}`},
		{"uuid as fixed", `{"type":"fixed","name":"U","size":16,"logicalType":"uuid"}`,
			[]any{[]byte{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 255}}, `"00010203-0405-0607-0809-0a0b0c0d0eff"`},
		{"duration", `{"type":"fixed","name":"D","size":12,"logicalType":"duration"}`,
			[]any{[]byte{1, 0, 0, 0, 2, 0, 0, 0, 255, 255, 255, 255}}, `{"months":1,"days":2,"millis":4294967295}`},
		{"named types, once defined and twice used", `{"type":"record","name":"a.R","fields":[
			{"name":"x","type":{"type":"fixed","name":"F","size":1}},{"name":"y","type":"F"},{"name":"z","type":"a.F"}]}`,
			[]any{byte(1), byte(2), byte(3)}, `{"x":"AQ==","y":"Ag==","z":"Aw=="}`},
		{"the namespace around goes before none", `{"type":"record","name":"R","fields":[
			{"name":"o","type":{"type":"enum","name":"E","symbols":["OUT"]}},
			{"name":"n","type":{"type":"record","name":"n.S","fields":[{"name":"i","type":{"type":"enum","name":"E","symbols":["IN"]}},{"name":"e","type":"E"}]}},
			{"name":"e","type":"E"}]}`, []any{0, 0, 0, 0}, `{"o":"OUT","n":{"i":"IN","e":"IN"},"e":"OUT"}`},
		{"recursive", `{"type":"record","name":"L","fields":[{"name":"v","type":"int"},{"name":"next","type":["null","L"]}]}`,
			[]any{1, 1, 2, 1, 3, 0}, `{"v":1,"next":{"v":2,"next":{"v":3,"next":null}}}`},
		{"used before it is defined", `["null",{"type":"record","name":"A","fields":[{"name":"b","type":"B"},{"name":"c","type":{"type":"enum","name":"B","symbols":["X"]}}]}]`,
			[]any{1, 0, 0}, `{"b":"X","c":"X"}`},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := avroDecoder(t, c.schema)
			emits(t, d, framed(1, c.wire...), c.want)
		})
	}
}

func TestAvroFaults(t *testing.T) {
	const order = `{"type":"record","name":"Order","fields":[
		{"name":"id","type":"long"},
		{"name":"items","type":{"type":"array","items":{"type":"record","name":"Item","fields":[{"name":"sku","type":"string"},{"name":"n","type":"int"}]}}},
		{"name":"tags","type":{"type":"map","values":{"type":"enum","name":"T","symbols":["A"]}}},
		{"name":"paid","type":"boolean"},
		{"name":"note","type":["null","string"]},
		{"name":"sum","type":{"type":"bytes","logicalType":"decimal","precision":4}}]}`
	good := func() []any { return []any{7, 1, "x", 3, 0, 1, "k", 0, 0, byte(1), 0, "\x01"} }
	but := func(i int, part any) []byte {
		parts := append(good()[:i:i], part)
		return framed(1, append(parts, good()[i+1:]...)...)
	}
	d := avroDecoder(t, order)
	emits(t, d, framed(1, good()...), `{"id":7,"items":[{"sku":"x","n":3}],"tags":{"k":"A"},"paid":true,"note":null,"sum":"1"}`)
	for _, c := range []struct {
		name  string
		value []byte
		want  string
	}{
		{"number too long", but(0, bytes.Repeat([]byte{255}, 11)), "`id`: a number of more than 64 bits, at byte 5"},
		{"string longer than what is there", but(2, 1000), "`items[0].sku`: a length of 1000 bytes, and 11 are left, at byte 7"},
		{"string of negative length", but(2, -1), "`items[0].sku`: a length of -1 bytes"},
		{"string that is no UTF-8", but(2, "\xff"), "`items[0].sku`: a string that is no UTF-8, at byte 8"},
		{"int beyond 32 bits", but(3, 1<<31), "`items[0].n`: an int of more than 32 bits, 2147483648, at byte 9"},
		{"key that is no UTF-8", but(6, "\xc0"), "`tags`: the key of a map: a string that is no UTF-8"},
		{"unknown symbol", but(7, 1), "`tags.k`: symbol 1 of an enum that has 1"},
		{"boolean", but(9, byte(2)), "`paid`: a boolean that is neither 0 nor 1, 2"},
		{"unknown branch", but(10, 2), "`note`: branch 2 of a union that has 2"},
		{"negative branch", but(10, -1), "`note`: branch -1 of a union that has 2"},
		{"decimal too long", but(11, strings.Repeat("x", maxDecimal+1)), "`sum`: a decimal of 1025 bytes"},
		{"bytes left", framed(1, append(good(), "xyz")...), "4 bytes are left behind the value, at byte 20"},
		{"block of negative size", but(1, []byte{1, 1}), "a block of -1 bytes"},
		{"smallest block count", but(1, math.MinInt64), "a block of -9223372036854775808 items"},
	} {
		t.Run(c.name, func(t *testing.T) {
			fails(t, d, c.value, record.Schema, "the value does not fit schema 1 (subject-1):", c.want)
		})
	}
	whole := framed(1, good()...)
	for i := headerSize; i < len(whole); i++ {
		fails(t, d, whole[:i:i], record.Schema, "schema 1 (subject-1)")
	}
}

func TestHostileAvro(t *testing.T) {
	forever := `{"type":"record","name":"A","fields":[{"name":"a","type":"A"}]}`
	deep := `{"type":"array","items":"R"}`
	long := strings.Repeat("n", 100_000)
	for _, c := range []struct {
		name, schema string
		wire         []any
		class        record.Class
	}{
		{"a type that holds itself", forever, nil, record.Schema},
		{"nested deeper than the limit", `{"type":"record","name":"R","fields":[{"name":"r","type":` + deep + `}]}`, []any{bytes.Repeat([]byte{2}, 100_000)}, record.Schema},
		{"countless nulls", `{"type":"array","items":"null"}`, []any{math.MaxInt64, 0}, record.TooLarge},
		{"countless nulls, counted below zero", `{"type":"array","items":"null"}`, []any{-math.MaxInt64, 0, 0}, record.TooLarge},
		{"countless records without fields", `{"type":"array","items":{"type":"record","name":"E","fields":[]}}`, []any{math.MaxInt64, 0}, record.TooLarge},
		{"long names", `{"type":"array","items":{"type":"record","name":"E","fields":[{"name":"` + long + `","type":"null"}]}}`, []any{math.MaxInt64}, record.TooLarge},
		{"long decimals", `{"type":"array","items":{"type":"bytes","logicalType":"decimal","precision":60000,"scale":60000}}`, []any{math.MaxInt32, make([]byte, 1000)}, record.TooLarge},
	} {
		t.Run(c.name, func(t *testing.T) {
			fails(t, avroDecoder(t, c.schema), framed(1, c.wire...), c.class)
		})
	}
}

// What is decoded at the limit of nesting can be read by expressions.
func TestDeepestIsRead(t *testing.T) {
	s, err := compileAvro([]text{{text: `{"type":"record","name":"R","fields":[{"name":"r","type":["null","R"]}]}`}})
	if err != nil {
		t.Fatal(err)
	}
	value := framed(1, bytes.Repeat([]byte{2}, MaxDepth-1), 0)
	out, fault := s.decode(nil, value)
	if fault != nil {
		t.Fatal(fault)
	}
	var doc jsondoc.Doc
	if err := doc.Parse(out); err != nil {
		t.Fatal(err)
	}
	if _, fault := s.decode(nil, framed(1, bytes.Repeat([]byte{2}, MaxDepth), 0)); fault == nil {
		t.Error("a level more was decoded")
	}
}

// random makes a schema, a value of it as the library takes it, and what its
// JSON must be.
type random struct {
	r     *rand.Rand
	names int
}

func (g *random) text() string {
	letters := []rune("ab\"\\\n\x00 é€😀{}")
	s := make([]rune, g.r.IntN(6))
	for i := range s {
		s[i] = letters[g.r.IntN(len(letters))]
	}
	return string(s)
}

func (g *random) name() string { g.names++; return fmt.Sprintf("N%d", g.names) }

func (g *random) schema(depth int) any {
	kinds := []any{"boolean", "int", "long", "double", "string", "bytes", "enum", "fixed", "record", "array", "map", "union"}
	if depth == 0 {
		kinds = kinds[:8]
	}
	switch k := kinds[g.r.IntN(len(kinds))]; k {
	case "enum":
		return map[string]any{"type": "enum", "name": g.name(), "symbols": []any{"A", "B", "C"}}
	case "fixed":
		return map[string]any{"type": "fixed", "name": g.name(), "size": g.r.IntN(5) + 1}
	case "record":
		fields := make([]any, g.r.IntN(5))
		for i := range fields {
			fields[i] = map[string]any{"name": fmt.Sprintf("f%d", i), "type": g.schema(depth - 1)}
		}
		return map[string]any{"type": "record", "name": g.name(), "fields": fields}
	case "array":
		return map[string]any{"type": "array", "items": g.schema(depth - 1)}
	case "map":
		return map[string]any{"type": "map", "values": g.schema(depth - 1)}
	case "union":
		s := g.schema(depth - 1)
		if _, nested := s.([]any); nested {
			return s
		}
		return []any{"null", s}
	default:
		return k
	}
}

// value is one of schema s, and its JSON as encoding/json would read it.
func (g *random) value(s any) (v, want any) {
	number := func(format string, n any) json.Number { return json.Number(fmt.Sprintf(format, n)) }
	switch s := s.(type) {
	case []any:
		if g.r.IntN(2) == 0 {
			return nil, nil
		}
		return g.value(s[1])
	case string:
		switch s {
		case "boolean":
			b := g.r.IntN(2) == 0
			return b, b
		case "int":
			n := int32(g.r.Uint32())
			return n, number("%d", n)
		case "long":
			n := int64(g.r.Uint64()) >> g.r.IntN(64)
			return n, number("%d", n)
		case "double":
			f := float64(g.r.IntN(1000)) / 8
			if f == math.Trunc(f) {
				return f, number("%.1f", f)
			}
			return f, number("%v", f)
		case "string":
			t := g.text()
			return t, t
		}
		b := []byte(g.text())
		j, _ := json.Marshal(b)
		return b, strings.Trim(string(j), `"`)
	case map[string]any:
		switch s["type"] {
		case "enum":
			symbol := string('A' + rune(g.r.IntN(3)))
			return symbol, symbol
		case "fixed":
			b := make([]byte, s["size"].(int))
			for i := range b {
				b[i] = byte(g.r.Uint32())
			}
			j, _ := json.Marshal(b)
			return b, strings.Trim(string(j), `"`)
		case "record":
			v, want := map[string]any{}, map[string]any{}
			for _, f := range s["fields"].([]any) {
				name := f.(map[string]any)["name"].(string)
				v[name], want[name] = g.value(f.(map[string]any)["type"])
			}
			return v, want
		case "array":
			v, want := []any{}, []any{}
			for range g.r.IntN(4) {
				e, w := g.value(s["items"])
				v, want = append(v, e), append(want, w)
			}
			return v, want
		}
		v, want := map[string]any{}, map[string]any{}
		for range g.r.IntN(4) {
			k := g.text()
			v[k], want[k] = g.value(s["values"])
		}
		return v, want
	}
	panic("no such schema")
}

// Values that the library encodes come out as they went in.
func TestAvroAgainstLibrary(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	g := &random{r: rand.New(rand.NewPCG(seed, 0))}
	for range 3000 {
		s := g.schema(4)
		if s == "bytes" {
			continue // has another form on the wire when it is alone
		}
		schema, err := json.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		v, want := g.value(s)
		payload, err := avro.MustParse(string(schema)).Encode(v)
		if err != nil {
			t.Fatalf("encode %v as %s: %v", v, schema, err)
		}
		c, err := compileAvro([]text{{text: string(schema)}})
		if err != nil {
			t.Fatalf("compile %s: %v", schema, err)
		}
		out, fault := c.decode(nil, framed(1, payload))
		if fault != nil {
			t.Fatalf("decode %v as %s: %s at %d", v, schema, fault.msg, fault.at)
		}
		dec := json.NewDecoder(bytes.NewReader(out))
		dec.UseNumber()
		var got any
		if err := dec.Decode(&got); err != nil {
			t.Fatalf("%s is no JSON: %v", out, err)
		}
		if a, b := plain(got), plain(want); a != b {
			t.Fatalf("schema %s\ngot  %s\nwant %s", schema, a, b)
		}
	}
}

func plain(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		return err.Error()
	}
	return string(b)
}
