package registry

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/millrace-io/millrace/runtime/record"
)

func payload(id uint32, text string) []byte { return framed(id, []byte(text)) }

func TestJSONSchema(t *testing.T) {
	f := newFake()
	f.add(1, typeJSON, `{"type":"object","properties":{"id":{"type":"integer"},"when":{"type":"string","format":"date"},"items":{"type":"array","items":{"required":["sku"]}}},"required":["id"]}`)
	f.add(2, typeJSON, `{"$schema":"https://json-schema.org/draft/2020-12/schema","prefixItems":[{"type":"string"}]}`)
	f.add(3, typeJSON, `{"type":"nonsense"}`)
	f.add(4, typeJSON, `{"type":`)
	f.add(5, typeJSON, `{"pattern":"(?=a)b"}`)
	f.add(6, typeJSON, `false`)
	d := decoder(t, serve(t, f, nil), JSONSchema)
	const same = ` {"id" : 12345678901234567890, "a":1.00,"items":[{"sku":null}]}`
	emits(t, d, payload(1, same), same) // byte for byte
	fails(t, d, payload(1, `{"id":"x","items":[{},{}],"when":"1 May"}`), record.Schema, "does not fit schema 1 (subject-1)", "id: got string, want integer; items.0: missing property 'sku'; items.1: missing property 'sku'; and 1 more")
	fails(t, d, payload(1, `{"id":1,"when":"1 May"}`), record.Schema, "when: '1 May' is not valid date")
	fails(t, d, payload(1, `{"id":1`), record.Schema, "it is not JSON")
	fails(t, d, payload(1, `{"id":1} {}`), record.Schema, "it is not JSON")
	fails(t, d, payload(1, "{\"id\":1,\"a\":\"\xff\"}"), record.Schema, "no UTF-8")
	fails(t, d, payload(1, ``), record.Schema, "it is not JSON")
	emits(t, d, payload(2, `["a",2]`), `["a",2]`)
	fails(t, d, payload(2, `[1]`), record.Schema, "got number, want string")
	fails(t, d, payload(3, `1`), record.Schema, "schema 3 (subject-3) cannot be used: its text is no JSON Schema")
	fails(t, d, payload(4, `1`), record.Schema, "cannot be used")
	fails(t, d, payload(5, `"b"`), record.Schema, "cannot be used", "(?=a)b")
	fails(t, d, payload(6, `1`), record.Schema, "false schema")
}

func TestJSONSchemaReferences(t *testing.T) {
	f := newFake()
	f.addVersion("money", 1, typeJSON, `{"type":"integer"}`)
	f.addVersion("address", 2, typeJSON, `{"$id":"https://x.test/address.json","properties":{"zip":{"$ref":"zip.json"}}}`, ref("https://x.test/zip.json", "zip", 1))
	f.addVersion("zip", 1, typeJSON, `{"type":"string"}`)
	f.add(1, typeJSON, `{"properties":{"sum":{"$ref":"money.json"}}}`, ref("money.json", "money", 1))
	f.add(2, typeJSON, `{"$id":"https://x.test/order.json","properties":{"a":{"$ref":"address.json"},"b":{"$ref":"#/definitions/n"}},"definitions":{"n":{"type":"number"}}}`,
		ref("address.json", "address", 2))
	f.add(3, typeJSON, `{"$ref":"file:///etc/passwd"}`)
	f.add(4, typeJSON, `{"$ref":"http://x.test/unlisted.json"}`)
	f.addVersion("none", 1, typeJSON, `{"$id":"https://y.test/none.json","type":"null"}`)
	f.add(5, typeJSON, `{"$ref":"https://y.test/none.json"}`, ref("another name", "none", 1))
	d := decoder(t, serve(t, f, nil), JSONSchema)
	emits(t, d, payload(5, `null`), `null`)
	emits(t, d, payload(1, `{"sum":1}`), `{"sum":1}`)
	fails(t, d, payload(1, `{"sum":"1"}`), record.Schema, "sum: got string, want integer")
	emits(t, d, payload(2, `{"a":{"zip":"1"},"b":2}`), `{"a":{"zip":"1"},"b":2}`)
	fails(t, d, payload(2, `{"a":{"zip":1}}`), record.Schema, "a.zip: got number, want string")
	fails(t, d, payload(2, `{"b":"2"}`), record.Schema, "b: got string, want number")
	fails(t, d, payload(3, `1`), record.Schema, `"file:///etc/passwd"`, "lists no reference of that name")
	fails(t, d, payload(4, `1`), record.Schema, `"http://x.test/unlisted.json"`, "lists no reference of that name")
}

func TestHostileJSONSchema(t *testing.T) {
	doubling := `{"definitions":{"d0":{"type":"integer"}`
	for i := range 40 {
		doubling += fmt.Sprintf(`,"d%d":{"allOf":[{"$ref":"#/definitions/d%d"},{"$ref":"#/definitions/d%d"}]}`, i+1, i, i)
	}
	doubling += `},"$ref":"#/definitions/d40"}`
	numbers := func(n int) string {
		b := []byte("[0")
		for i := range n {
			b = fmt.Appendf(b, ",%d", i+1)
		}
		return string(b) + "]"
	}
	for _, c := range []struct{ name, schema, value, want string }{
		{"doubling", doubling, `1`, "steps"},
		{"doubling, modern", `{"$schema":"https://json-schema.org/draft/2020-12/schema",` + doubling[1:], `1`, "steps"},
		{"doubling below not", strings.Replace(doubling, `"$ref":"#/definitions/d40"`, `"not":{"$ref":"#/definitions/d40"}`, 1), `1`, "steps"},
		{"schema that is itself", `{"allOf":[{"$ref":"#"}]}`, `1`, ""},
		{"large number in the value", `{"maximum":5}`, `1e999999999`, "exponent"},
		{"small number in the value", `{"type":"integer"}`, `1e-999999999`, "exponent"},
		{"long number in the value", `{"type":"integer"}`, strings.Repeat("1", 2000), "digits"},
		{"large number in the schema", `{"maximum":1e999999999}`, `1`, "exponent"},
		{"deep value", `{}`, strings.Repeat("[", 100_000), "nested"},
		{"deep schema", strings.Repeat(`{"not":`, 5000) + "{}" + strings.Repeat("}", 5000), `1`, "nested"},
		{"many large patterns", `{"properties":{"a":{"pattern":"a{1000}"},"b":{"pattern":"` + strings.Repeat("(a{999}|b)", 52) + `"}}}`, `1`, "patterns are too large"},
		{"pattern that grows", `{"pattern":"` + strings.Repeat("[ab]c|", 500) + strings.Repeat("(x{30}){30}", 100) + `"}`, `1`, "patterns are too large"},
		{"long enum and long value", `{"items":{"enum":` + numbers(40_000) + `}}`, numbers(40_000), "steps"},
		{"large pattern and long value", `{"pattern":"` + strings.Repeat("(a{999}|b)", 40) + `"}`, `"` + strings.Repeat("a", 1<<20) + `"`, "steps"},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := newFake()
			f.add(1, typeJSON, c.schema)
			begin := time.Now()
			fails(t, decoder(t, serve(t, f, nil), JSONSchema), payload(1, c.value), record.Schema, c.want)
			if took := time.Since(begin); took > 20*time.Second {
				t.Errorf("it took %v", took)
			}
		})
	}
}

// Lanes that validate at once do not share a count of steps.
func TestJSONSchemaAtOnce(t *testing.T) {
	var names []string
	for i := range 15 {
		names = append(names, fmt.Sprintf(`"n%d"`, i))
	}
	s, err := compileJSON([]text{{text: `{"items":{"required":[` + strings.Join(names, ",") + `]}}`}})
	if err != nil {
		t.Fatal(err)
	}
	value := []byte("[" + strings.TrimSuffix(strings.Repeat("7,", 20_000), ",") + "]")
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if err := s.validate(value); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if len(s.free) == 0 {
		t.Error("nothing is kept that was compiled")
	}
}
