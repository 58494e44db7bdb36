package millrace

import (
	"errors"
	"math"
	"reflect"
	"strconv"
	"strings"
)

// decodeConfig reads a configuration into the value that target points to.
func decodeConfig(json []byte, target any) error {
	if own, ok := target.(unmarshaler); ok {
		if err := own.UnmarshalJSON(json); err != nil {
			return errors.New("with: " + err.Error())
		}
	} else {
		v, err := ReadValue(json)
		if err != nil {
			return errors.New("with: " + err.Error())
		}
		if err := decode(v, reflect.ValueOf(target).Elem(), "with"); err != nil {
			return err
		}
	}
	if c, ok := target.(interface{ Validate() error }); ok {
		if err := c.Validate(); err != nil {
			return errors.New("with: " + err.Error())
		}
	}
	return nil
}

type unmarshaler interface{ UnmarshalJSON(json []byte) error }

var jsonType = reflect.TypeOf(JSON(nil))

// decode reads the value of the setting at path into to.
func decode(v Value, to reflect.Value, path string) error {
	if own, ok := to.Addr().Interface().(unmarshaler); ok {
		if err := own.UnmarshalJSON(v.raw); err != nil {
			return errors.New(path + ": " + err.Error())
		}
		return nil
	}
	if to.Type() == jsonType {
		to.SetBytes(append([]byte(nil), v.raw...))
		return nil
	}
	switch to.Kind() {
	case reflect.Pointer:
		if v.IsNull() {
			to.SetZero()
			return nil
		}
		to.Set(reflect.New(to.Type().Elem()))
		return decode(v, to.Elem(), path)
	case reflect.Bool:
		b, ok := v.Bool()
		if !ok {
			return expected(path, v, "true or false")
		}
		to.SetBool(b)
	case reflect.String:
		s, ok := v.Text()
		if !ok {
			return expected(path, v, "a string")
		}
		to.SetString(strings.Clone(s))
	case reflect.Float32, reflect.Float64:
		f, ok := v.Float()
		if !ok || math.IsInf(f, 0) || to.OverflowFloat(f) {
			return expected(path, v, "a number of "+strconv.Itoa(to.Type().Bits())+" bits")
		}
		to.SetFloat(f)
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		n, ok := v.Int()
		if !ok || to.OverflowInt(n) {
			return expected(path, v, "an integer of "+strconv.Itoa(to.Type().Bits())+" bits")
		}
		to.SetInt(n)
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		n, ok := v.Uint()
		if !ok || to.OverflowUint(n) {
			return expected(path, v, "an integer from 0 on, of "+strconv.Itoa(to.Type().Bits())+" bits")
		}
		to.SetUint(n)
	case reflect.Slice:
		return decodeSlice(v, to, path)
	case reflect.Map:
		return decodeMap(v, to, path)
	case reflect.Struct:
		return decodeStruct(v, to, path)
	default:
		return errors.New(path + ": a configuration cannot have the type " + to.Type().String())
	}
	return nil
}

func decodeSlice(v Value, to reflect.Value, path string) error {
	if v.Kind() != KindArray {
		return expected(path, v, "a list")
	}
	items := v.Items()
	to.Set(reflect.MakeSlice(to.Type(), len(items), len(items)))
	for i, item := range items {
		if err := decode(item, to.Index(i), path+"["+strconv.Itoa(i)+"]"); err != nil {
			return err
		}
	}
	return nil
}

func decodeMap(v Value, to reflect.Value, path string) error {
	o, ok := v.Object()
	if !ok {
		return expected(path, v, "an object")
	}
	if to.Type().Key().Kind() != reflect.String {
		return errors.New(path + ": a configuration cannot have the type " + to.Type().String())
	}
	to.Set(reflect.MakeMap(to.Type()))
	for i := range o.Len() {
		name, member := o.Member(i)
		item := reflect.New(to.Type().Elem()).Elem()
		if err := decode(member, item, path+"."+name); err != nil {
			return err
		}
		to.SetMapIndex(reflect.ValueOf(strings.Clone(name)).Convert(to.Type().Key()), item)
	}
	return nil
}

func decodeStruct(v Value, to reflect.Value, path string) error {
	o, ok := v.Object()
	if !ok {
		return expected(path, v, "an object")
	}
	fields := settings(to.Type())
	for i := range o.Len() {
		name, _ := o.Member(i)
		if !known(fields, name) {
			return errors.New(path + ": there is no setting " + strconv.Quote(name) + "; there are " + names(fields))
		}
	}
	for _, f := range fields {
		member, place := o.Get(f.name), path+"."+f.name
		switch {
		case member.Exists():
		case f.hasDefault:
			text, err := f.defaultJSON()
			if err != nil {
				return errors.New(place + ": default: " + err.Error())
			}
			member = text
		case f.required:
			return errors.New(path + ": the setting " + strconv.Quote(f.name) + " is missing")
		default:
			continue
		}
		if err := decode(member, to.Field(f.index), place); err != nil {
			return err
		}
	}
	return nil
}

// setting is a field of a configuration.
type setting struct {
	name, doc, byDefault string
	hasDefault, required bool
	index                int
	fieldType            reflect.Type
}

func settings(t reflect.Type) []setting {
	var all []setting
	for i := range t.NumField() {
		f := t.Field(i)
		if !f.IsExported() {
			continue
		}
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if name == "-" {
			continue
		}
		if name == "" {
			name = snake(f.Name)
		}
		s := setting{name: name, doc: f.Tag.Get("doc"), index: i, fieldType: f.Type}
		s.byDefault, s.hasDefault = f.Tag.Lookup("default")
		s.required = !s.hasDefault && f.Type.Kind() != reflect.Pointer
		all = append(all, s)
	}
	return all
}

// defaultJSON is the default as a JSON value.
func (s *setting) defaultJSON() (Value, error) {
	if s.fieldType.Kind() == reflect.String {
		return Value{appendString(nil, s.byDefault)}, nil
	}
	return ReadValue([]byte(s.byDefault))
}

// snake is MaxAge as max_age.
func snake(name string) string {
	var b []byte
	for i := range len(name) {
		c := name[i]
		if c >= 'A' && c <= 'Z' {
			if i > 0 && (name[i-1] >= 'a' && name[i-1] <= 'z' || name[i-1]-'0' < 10) {
				b = append(b, '_')
			}
			c |= 0x20
		}
		b = append(b, c)
	}
	return string(b)
}

func known(fields []setting, name string) bool {
	for i := range fields {
		if fields[i].name == name {
			return true
		}
	}
	return false
}

func names(fields []setting) string {
	if len(fields) == 0 {
		return "none"
	}
	var all []string
	for i := range fields {
		all = append(all, fields[i].name)
	}
	return strings.Join(all, ", ")
}

func expected(path string, v Value, what string) error {
	text := string(v.raw)
	if len(text) > 40 {
		text = text[:40] + "..."
	}
	return errors.New(path + ": " + text + " where " + what + " is expected")
}
