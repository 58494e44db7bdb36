package tests

import (
	"bytes"
	"encoding/json"
	"math/rand/v2"
	"strings"
	"testing"
)

// slowly is what the stage rewritten makes of an object, member by member, by
// encoding/json.
func slowly(text []byte) (string, bool) {
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
			key = `"ren\"amed"`
		case "set":
			value = `"***"`
		case "both":
			key, value = `"b"`, "7"
		case "splice":
			value = value[:1] + "<" + value[2:3] + ">" + value[3:]
		}
		out = append(out, key+":"+value)
		if name == "add" {
			out = append(out, `"added":true`)
		}
	}
	return "{" + strings.Join(out, ",") + "}", true
}

// Copies are byte for byte what the slow way makes, whatever stands between the
// members.
func TestRewriteAgreesWithTheSlowWay(t *testing.T) {
	const seed = 32
	rng := rand.New(rand.NewPCG(seed, 0))
	pick := func(from ...string) string { return from[rng.IntN(len(from))] }
	space := func() string { return pick("", "", "", "", " ", "\n", "\t  ", "\r\n") }
	s := stage(t, rewritten)
	for range 10_000 {
		text := space() + "{"
		for k, n := 0, rng.IntN(7); k < n; k++ {
			if k > 0 {
				text += ","
			}
			text += space() + `"` + pick("remove", "rename", "set", "both", "splice", "add", "re\\u006dove", "a", "keep", "", "é") + `"` +
				space() + ":" + space() + pick(`"xyz"`, `"}}"`, `{"a":1}`, `{ "a" : [1, "}"] }`, `[ ]`, `1.5`, `null`, `-1e5`, `true`) + space()
		}
		text += "}" + space()
		want, ok := slowly([]byte(text))
		if !ok {
			t.Fatalf("%s is no object", text)
		}
		if got := s.Value(t, text).Value(0); got != want {
			t.Fatalf("seed %d: %q:\ngot  %q\nwant %q", seed, text, got, want)
		}
	}
}
