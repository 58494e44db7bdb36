package pdktest

import (
	"bytes"
	"encoding/json"
	"math/rand/v2"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/millrace-io/millrace/plugins/sandbox"
	"github.com/millrace-io/millrace/runtime/record"
)

// rewritten is what outcomes_as makes of an object by its command "rewrite", the
// slow way: member by member, by encoding/json.
func rewritten(text []byte) (string, bool) {
	d := json.NewDecoder(bytes.NewReader(text))
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return "", false
	}
	var out []string
	for d.More() {
		from := d.InputOffset()
		t, err := d.Token()
		name, ok := t.(string)
		if err != nil || !ok {
			return "", false
		}
		key := strings.TrimLeft(string(text[from:d.InputOffset()]), ", \t\r\n")
		var raw json.RawMessage
		if d.Decode(&raw) != nil {
			return "", false
		}
		value := string(raw)
		switch name {
		case "remove":
			continue
		case "rename":
			key = `"re\"named"`
		case "set":
			value = "[1,2]"
		case "both":
			key, value = `"b"`, "null"
		case "splice":
			value = value[:1] + "é" + value[len(value)-1:]
		case "größe":
			value = "true"
		}
		out = append(out, key+":"+value)
		if name == "add" {
			out = append(out, `"added":0.5`)
		}
	}
	return "{" + strings.Join(out, ",") + "}", true
}

// Copies are byte for byte what the slow way makes, whatever stands between the
// members.
func TestASRewriteAgreesWithTheSlowWay(t *testing.T) {
	const seed = 36
	rng := rand.New(rand.NewPCG(seed, 0))
	pick := func(from ...string) string { return from[rng.IntN(len(from))] }
	space := func() string { return pick("", "", "", "", " ", "\n", "\t  ", "\r\n") }
	s := newStage(t, newRuntime(t), asOutcomes, sandbox.StageConfig{})
	for range 60 {
		records := make([]record.Record, 128)
		for i := range records {
			text := space() + "{"
			for k, n := 0, rng.IntN(7); k < n; k++ {
				if k > 0 {
					text += ","
				}
				text += space() + `"` + pick("remove", "rename", "set", "both", "splice", "add", "größe", "gr\\u00f6\\u00dfe", "re\\u006dove", "a", "keep", "", "beyond a window of sixteen bytes", "é") + `"` +
					space() + ":" + space() + pick(`"x"`, `""`, `"}"`, `"a\"b,{"`, `{}`, `{ "a" : [1, "}"] }`, `[]`, `"long: beyond a window of sixteen bytes"`, `"größe"`, `[ 1 , 2 ]`) + space()
			}
			text += "}" + space()
			records[i] = act("rewrite", text)
		}
		out := runRecords(t, s, records...)
		if len(out.Emits) != len(records) {
			t.Fatalf("seed %d: %d emits, failures %v", seed, len(out.Emits), out.Failures)
		}
		for i, e := range out.Emits {
			want, ok := rewritten(records[i].Value)
			if !ok || !utf8.ValidString(want) {
				t.Fatalf("%s is no object", records[i].Value)
			}
			if string(e.Record.Value) != want {
				t.Fatalf("seed %d: %q:\ngot  %q\nwant %q", seed, records[i].Value, e.Record.Value, want)
			}
		}
	}
}
