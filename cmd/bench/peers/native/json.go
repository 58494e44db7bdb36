package main

import (
	"bytes"
	"encoding/json"
	"strings"
)

// orderJSON is the order stage as one writes it with encoding/json: the whole
// record becomes a map, and the map a record. Numbers stay as they were
// written; members come out in alphabetical order. A record that is not one
// whole object is passed over.
func orderJSON(dst, value []byte) ([]byte, bool) {
	d := json.NewDecoder(bytes.NewReader(value))
	d.UseNumber()
	var o map[string]any
	if d.Decode(&o) != nil || o == nil {
		return dst, false
	}
	amount, isNumber := o["amount"].(json.Number)
	if f, err := amount.Float64(); o["status"] == "cancelled" || isNumber && (err != nil || f < 5) {
		return dst, false
	}
	delete(o, "internal_note")
	if id, ok := o["customer_id"]; ok {
		o["customer"] = id
		delete(o, "customer_id")
	}
	if email, ok := o["email"].(string); ok && email != "" {
		at := max(strings.IndexByte(email, '@'), 0)
		o["email"] = email[:1] + "***" + email[at:]
	}
	if card, ok := o["card"].(string); ok {
		o["card"] = "************" + card[max(0, len(card)-4):]
	}
	b, err := json.Marshal(o)
	if err != nil {
		return dst, false
	}
	return append(dst, b...), true
}
