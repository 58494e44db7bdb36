// Package jsonvalue reads JSON to compare it: numbers stay the texts that they
// are written as, so that 12.0 is not 12 unless the caller says so.
package jsonvalue

import (
	"bytes"
	"encoding/json"
	"io"
)

// Decode is the one JSON value that b is, numbers as json.Number; false if b is
// none, or has anything but white space behind it.
func Decode(b []byte) (any, bool) {
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.UseNumber()
	var v any
	if dec.Decode(&v) != nil {
		return nil, false
	}
	_, err := dec.Token()
	return v, err == io.EOF
}

// Document is Decode for objects and arrays alone.
func Document(b []byte) (any, bool) {
	if t := bytes.TrimSpace(b); len(t) == 0 || t[0] != '{' && t[0] != '[' {
		return nil, false
	}
	return Decode(b)
}
