package quickstart

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
)

// field is a member of a JSON object.
type field struct{ name, value string }

// fields are the members of a JSON object, in their order.
func fields(object []byte) ([]field, error) {
	dec := json.NewDecoder(bytes.NewReader(object))
	if t, err := dec.Token(); err != nil || t != json.Delim('{') {
		return nil, fmt.Errorf("%.40q is no JSON object", object)
	}
	var out []field
	for dec.More() {
		name, err := dec.Token()
		if err != nil {
			return nil, err
		}
		var value json.RawMessage
		if err := dec.Decode(&value); err != nil {
			return nil, err
		}
		out = append(out, field{fmt.Sprint(name), string(value)})
	}
	return out, nil
}

// change is one line of a comparison of two objects. A field that is new has
// no before, one that is gone no after.
type change struct {
	Field  string
	Before string
	After  string
}

// diff lists what differs between two objects, in the order of the first one's
// fields, then the second one's. A field gone whose value appears under a new
// name was renamed: Field is "old → new".
func diff(before, after []byte) ([]change, error) {
	old, err := fields(before)
	if err != nil {
		return nil, err
	}
	now, err := fields(after)
	if err != nil {
		return nil, err
	}
	find := func(in []field, name string) int {
		return slices.IndexFunc(in, func(f field) bool { return f.name == name })
	}
	renamed := map[string]bool{}
	var out []change
	for _, f := range old {
		if i := find(now, f.name); i >= 0 {
			if now[i].value != f.value {
				out = append(out, change{f.name, f.value, now[i].value})
			}
			continue
		}
		i := slices.IndexFunc(now, func(g field) bool {
			return g.value == f.value && find(old, g.name) < 0 && !renamed[g.name]
		})
		if i < 0 {
			out = append(out, change{f.name, f.value, ""})
			continue
		}
		renamed[now[i].name] = true
		out = append(out, change{f.name + " → " + now[i].name, f.value, now[i].value})
	}
	for _, f := range now {
		if find(old, f.name) < 0 && !renamed[f.name] {
			out = append(out, change{f.name, "", f.value})
		}
	}
	return out, nil
}
