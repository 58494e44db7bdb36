package main

import (
	"testing"

	"github.com/millrace-io/millrace/cmd/internal/jsonvalue"
	"github.com/millrace-io/millrace/examples/orders/gen"
	"github.com/millrace-io/millrace/examples/orders/orderstage"

	"encoding/json"
)

// The stage with encoding/json makes the same JSON as the one by hand.
func TestOrderJSON(t *testing.T) {
	g := gen.New(3)
	canonical := func(b []byte) string {
		v, ok := jsonvalue.Decode(b)
		if !ok {
			t.Fatalf("no JSON: %s", b)
		}
		out, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return string(out)
	}
	for range 5000 {
		e := g.Next()
		want, o := orderstage.Order(nil, e.Value)
		got, emit := orderJSON(nil, e.Value)
		if emit != (o == orderstage.Emit) {
			t.Fatalf("%s: emit %v, by hand %v", e.Value, emit, o)
		}
		if emit && canonical(got) != canonical(want) {
			t.Fatalf("%s:\n got %s\nwant %s", e.Value, got, want)
		}
	}
}
