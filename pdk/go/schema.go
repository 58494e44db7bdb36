package millrace

import "reflect"

// appendSchema appends the JSON Schema of the configuration that target points
// to. What reads itself by UnmarshalJSON may be any value.
func appendSchema(b []byte, target any) []byte {
	return appendTypeSchema(b, reflect.TypeOf(target).Elem(), "", "")
}

// appendTypeSchema appends the schema of t with its description, and its default
// as JSON.
func appendTypeSchema(b []byte, t reflect.Type, doc, byDefault string) []byte {
	b = append(b, '{')
	if doc != "" {
		b = append(appendString(append(b, `"description":`...), doc), ',')
	}
	if byDefault != "" {
		b = append(append(append(b, `"default":`...), byDefault...), ',')
	}
	null := ""
	for t.Kind() == reflect.Pointer {
		t, null = t.Elem(), `,"null"`
	}
	at := len(b)
	b = appendTypeRules(b, t, null)
	if len(b) == at && b[at-1] == ',' {
		b = b[:at-1]
	}
	return append(b, '}')
}

// appendTypeRules appends the rules of t without the braces; null is behind the
// type's name where null is allowed.
func appendTypeRules(b []byte, t reflect.Type, null string) []byte {
	if _, ok := reflect.New(t).Interface().(unmarshaler); ok || t == jsonType {
		return b
	}
	word := func(name string) []byte {
		if null != "" {
			return append(b, `"type":["`+name+`"`+null+`]`...)
		}
		return append(b, `"type":"`+name+`"`...)
	}
	switch t.Kind() {
	case reflect.Bool:
		return word("boolean")
	case reflect.String:
		return word("string")
	case reflect.Float32, reflect.Float64:
		return word("number")
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return word("integer")
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return append(word("integer"), `,"minimum":0`...)
	case reflect.Slice:
		b = append(word("array"), `,"items":`...)
		return appendTypeSchema(b, t.Elem(), "", "")
	case reflect.Map:
		b = append(word("object"), `,"additionalProperties":`...)
		return appendTypeSchema(b, t.Elem(), "", "")
	case reflect.Struct:
		b = append(word("object"), `,"properties":{`...)
		required := []byte(nil)
		for i, f := range settings(t) {
			if i > 0 {
				b = append(b, ',')
			}
			b = append(appendString(b, f.name), ':')
			byDefault := ""
			if f.hasDefault {
				if v, err := f.defaultJSON(); err == nil {
					byDefault = view(v.raw)
				}
			}
			b = appendTypeSchema(b, f.fieldType, f.doc, byDefault)
			if f.required {
				required = appendString(append(required, ','), f.name)
			}
		}
		b = append(b, '}')
		if len(required) > 0 {
			b = append(append(append(b, `,"required":[`...), required[1:]...), ']')
		}
		return append(b, `,"additionalProperties":false`...)
	}
	return b
}
