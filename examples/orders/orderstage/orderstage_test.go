package orderstage_test

import (
	"bytes"
	"os"
	"testing"

	"github.com/millrace-io/millrace/examples/orders/orderstage"
)

func TestOrder(t *testing.T) {
	for _, c := range []struct {
		name, in, out string
		outcome       orderstage.Outcome
	}{
		{"empty object", `{}`, `{}`, orderstage.Emit},
		{"plain members stay byte for byte", `{"a":1,"b":[{"c":"d,e"}],"é":"\"}"}`, `{"a":1,"b":[{"c":"d,e"}],"é":"\"}"}`, orderstage.Emit},
		{"white space between members goes", "\n{ \"a\" :\t1 ,\r\n\"b\": [1, 2] } ", `{"a":1,"b":[1, 2]}`, orderstage.Emit},
		{"renamed", `{"customer_id":"c-1"}`, `{"customer":"c-1"}`, orderstage.Emit},
		{"renamed on the top level only", `{"a":{"customer_id":"c-1"}}`, `{"a":{"customer_id":"c-1"}}`, orderstage.Emit},
		{"email masked", `{"email":"jane@example.com"}`, `{"email":"j***@example.com"}`, orderstage.Emit},
		{"email without @", `{"email":"jane"}`, `{"email":"j***"}`, orderstage.Emit},
		{"card masked", `{"card":"4111000448434750"}`, `{"card":"************4750"}`, orderstage.Emit},
		{"note removed", `{"internal_note":"x","a":1}`, `{"a":1}`, orderstage.Emit},
		{"note removed at the end", `{"a":1,"internal_note":"x"}`, `{"a":1}`, orderstage.Emit},
		{"cancelled", `{"status":"cancelled"}`, ``, orderstage.Drop},
		{"cancelled, then cut off", `{"status":"cancelled","a`, ``, orderstage.Drop},
		{"small", `{"amount":4.99}`, ``, orderstage.Drop},
		{"negative", `{"amount":-20}`, ``, orderstage.Drop},
		{"large enough", `{"amount":5}`, `{"amount":5}`, orderstage.Emit},
		{"trailing bytes are not read", `{"a":1}]x`, `{"a":1}`, orderstage.Emit},
		{"no bytes", ``, ``, orderstage.Fail},
		{"not an object", `[1]`, ``, orderstage.Fail},
		{"text", `hello`, ``, orderstage.Fail},
		{"cut off behind the brace", `{`, ``, orderstage.Fail},
		{"cut off in a key", `{"ord`, ``, orderstage.Fail},
		{"cut off behind a key", `{"a"`, ``, orderstage.Fail},
		{"cut off behind the colon", `{"a":`, ``, orderstage.Fail},
		{"cut off in a string", `{"a":"b`, ``, orderstage.Fail},
		{"cut off behind a backslash", `{"a":"b\`, ``, orderstage.Fail},
		{"cut off in a status", `{"status":"cancelled`, ``, orderstage.Fail},
		{"cut off in an amount", `{"amount":4`, ``, orderstage.Fail},
		{"cut off in an array", `{"a":[1,2`, ``, orderstage.Fail},
		{"cut off behind a value", `{"a":"b"`, ``, orderstage.Fail},
		{"empty value", `{"email":,"a":1}`, ``, orderstage.Fail},
		{"bracket in the wrong place", `{"a":1]`, ``, orderstage.Fail},
		{"two strings for a key", `{"a""b":1}`, ``, orderstage.Fail},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, outcome := orderstage.Order([]byte("x"), []byte(c.in))
			if outcome != c.outcome || string(got) != "x"+c.out {
				t.Errorf("%s: got %v %s, want %v x%s", c.in, outcome, got, c.outcome, c.out)
			}
		})
	}
}

func TestOrderFixture(t *testing.T) {
	in, err := os.ReadFile("../in.ndjson")
	if err != nil {
		t.Fatal(err)
	}
	want, err := os.ReadFile("../out.ndjson")
	if err != nil {
		t.Fatal(err)
	}
	var got []byte
	for line := range bytes.Lines(in) {
		var outcome orderstage.Outcome
		if got, outcome = orderstage.Order(got, bytes.TrimSpace(line)); outcome == orderstage.Emit {
			got = append(got, '\n')
		}
	}
	if !bytes.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func FuzzOrder(f *testing.F) {
	f.Add([]byte(`{"customer_id":"c-1","email":"a@b","card":"1234567","amount":9,"internal_note":"x"}`))
	f.Add([]byte(`{"status":"cancelled`))
	f.Fuzz(func(t *testing.T, b []byte) {
		got, outcome := orderstage.Order(nil, b)
		if outcome != orderstage.Emit && len(got) != 0 {
			t.Errorf("%q: %v with output %q", b, outcome, got)
		}
		if outcome == orderstage.Emit && (got[0] != '{' || got[len(got)-1] != '}') {
			t.Errorf("%q: output %q is no object", b, got)
		}
	})
}

func BenchmarkOrder(b *testing.B) {
	in, err := os.ReadFile("../in.ndjson")
	if err != nil {
		b.Fatal(err)
	}
	lines := bytes.Split(bytes.TrimSpace(in), []byte("\n"))
	var out []byte
	i := 0
	for b.Loop() {
		out, _ = orderstage.Order(out[:0], lines[i%len(lines)])
		i++
	}
}
