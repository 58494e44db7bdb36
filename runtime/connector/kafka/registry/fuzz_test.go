package registry

import (
	"bytes"
	"encoding/json"
	"math"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/millrace-io/millrace/runtime/expr/jsondoc"
)

func FuzzAvro(f *testing.F) {
	list := `{"type":"record","name":"L","fields":[{"name":"v","type":"int"},{"name":"next","type":["null","L"]}]}`
	for _, s := range []struct {
		schema string
		value  []byte
	}{
		{list, framed(1, 1, 1, 2, 0)},
		{`{"type":"array","items":"null"}`, framed(1, math.MaxInt64, 0)},
		{`{"type":"array","items":["null",{"type":"map","values":"bytes"}]}`, framed(1, 1, 1, 1, "k", "v", 0, 0)},
		{`{"type":"record","name":"A","fields":[{"name":"a","type":"A"}]}`, framed(1)},
		{`{"type":"fixed","name":"D","size":9,"logicalType":"decimal","precision":20,"scale":3}`, framed(1, make([]byte, 9))},
		{`{"type":"enum","name":"E","symbols":["A","B"]}`, framed(1, 1)},
		{`["null",{"type":"record","name":"n.A","namespace":"x","fields":[{"name":"b","type":"B"},{"name":"c","type":{"type":"error","name":"B","fields":[]}}]}]`, framed(1, 1)},
		{`{"type":"record","name":"R","fields":[{"name":"f","type":"float"},{"name":"d","type":{"type":"bytes","logicalType":"decimal","precision":4,"scale":2}},{"name":"u","type":{"type":"fixed","name":"U","size":16,"logicalType":"uuid"}}]}`, framed(1, make([]byte, 30))},
	} {
		f.Add(s.schema, s.value)
	}
	f.Fuzz(func(t *testing.T, schema string, value []byte) {
		if len(schema) > 1<<16 || len(value) > 1<<16 || len(value) < headerSize {
			return
		}
		s, err := compileAvro([]text{{text: schema}})
		if err != nil {
			return
		}
		out, fault := s.decode(nil, value)
		if most := maxJSON(len(value)) + len(schema) + 1<<17; len(out) > most {
			t.Fatalf("%d bytes of JSON from %d of the value", len(out), len(value))
		}
		again, fault2 := s.decode(make([]byte, 10), value)
		if !bytes.Equal(out, again) || (fault == nil) != (fault2 == nil) {
			t.Fatal("the same value was decoded otherwise")
		}
		if fault != nil {
			if fault.at < 0 || fault.at > len(value) || fault.msg == "" || fault.place() != fault2.place() {
				t.Fatalf("got %+v", fault)
			}
			return
		}
		var doc jsondoc.Doc
		if err := doc.Parse(out); err != nil {
			t.Fatalf("%v in %.200q", err, out)
		}
	})
}

func FuzzJSONSchema(f *testing.F) {
	f.Add(`{"properties":{"a":{"type":"integer","minimum":1e3,"multipleOf":0.1}},"patternProperties":{"^b+$":{"enum":[1,"x"]}}}`, `{"a":1,"b":"x"}`)
	f.Add(`{"$schema":"https://json-schema.org/draft/2020-12/schema","$defs":{"n":{"$dynamicRef":"#m"}},"unevaluatedItems":false,"anyOf":[{"$ref":"#/$defs/n"}]}`, `[[1]]`)
	f.Add(`{"definitions":{"a":{"allOf":[{"$ref":"#/definitions/a"},{"not":{}}]}},"$ref":"#/definitions/a"}`, `1e400`)
	f.Add(strings.Repeat(`{"items":`, 20)+`{}`+strings.Repeat(`}`, 20), strings.Repeat("[", 20)+strings.Repeat("]", 20))
	f.Fuzz(func(t *testing.T, schema, value string) {
		if len(schema) > 1<<12 || len(value) > 1<<12 {
			return
		}
		s, err := compileJSON([]text{{text: schema}})
		if err != nil {
			return
		}
		first, second := s.validate([]byte(value)), s.validate([]byte(value))
		if (first == nil) != (second == nil) || first != nil && first.Error() != second.Error() {
			t.Fatalf("got %v, then %v", first, second)
		}
		if first == nil && (!json.Valid([]byte(value)) || !utf8.ValidString(value)) {
			t.Fatal("what is no JSON was taken")
		}
	})
}
