package tests

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"

	millrace "github.com/millrace-io/millrace/pdk/go"
	"github.com/millrace-io/millrace/pdk/go/internal/bridge"
	mt "github.com/millrace-io/millrace/pdk/go/millracetest"
)

func TestConfigIsRead(t *testing.T) {
	rate := 2.5
	for _, c := range []struct {
		config string
		want   rules
	}{
		{`{}`, rules{Remove: []string{}, Email: "***", MaxAge: 30, Names: map[string]string{}, Nested: struct{ On bool }{true}, Any: millrace.JSON("null")}},
		{` {"remove":["a","b\n"],"email":"x","max_age":65535,"rate":2.5,"names":{"k":"v"},"nested":{"on":false},"any":{"a":[1, 2]},"email":"y"} `, rules{
			Remove: []string{"a", "b\n"}, Email: "y", MaxAge: 65535, Rate: &rate, Names: map[string]string{"k": "v"}, Any: millrace.JSON(`{"a":[1, 2]}`)}},
		{`{"rate":null}`, rules{Remove: []string{}, Email: "***", MaxAge: 30, Names: map[string]string{}, Nested: struct{ On bool }{true}, Any: millrace.JSON("null")}},
	} {
		var got rules
		current = func(_ *millrace.Record, out *millrace.Out, c *rules) error {
			got = *c
			return out.Drop()
		}
		mt.New(t, c.config).Value(t, "")
		if !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s:\ngot  %+v\nwant %+v", c.config, got, c.want)
		}
	}
}

func TestConfigIsRefused(t *testing.T) {
	for config, want := range map[string]string{
		`[]`:                      `with: [] where an object is expected`,
		`{`:                       `with: cut off before a key at byte 1`,
		`{"removes":[]}`:          `with: there is no setting "removes"; there are remove, email, max_age, rate, names, nested, any`,
		`{"remove":["a",7]}`:      `with.remove[1]: 7 where a string is expected`,
		`{"remove":{}}`:           `with.remove: {} where a list is expected`,
		`{"max_age":65536}`:       `with.max_age: 65536 where an integer from 0 on, of 16 bits is expected`,
		`{"max_age":1.5}`:         `with.max_age: 1.5 where an integer from 0 on, of 16 bits is expected`,
		`{"rate":"fast"}`:         `with.rate: "fast" where a number of 64 bits is expected`,
		`{"rate":1e400}`:          `with.rate: 1e400 where a number of 64 bits is expected`,
		`{"names":{"a":true}}`:    `with.names.a: true where a string is expected`,
		`{"nested":{}}`:           `with.nested: the setting "on" is missing`,
		`{"nested":{"on":"yes"}}`: `with.nested.on: "yes" where true or false is expected`,
		`{"email":""}`:            `with: email is empty`,
	} {
		if _, err := mt.Configure(config); err == nil || err.Error() != want {
			t.Errorf("%s: got %v, want %s", config, err, want)
		}
	}
}

func TestManifest(t *testing.T) {
	text := string(bridge.Manifest())
	if !json.Valid([]byte(text)) {
		t.Fatalf("no JSON: %s", text)
	}
	for _, want := range []string{
		`{"abi":1,"mode":"call","name":"acme/kit-test","version":"1.2.3-dev","outputs":["default","audit","late"],"sample":[`,
		`{"key":"k","value":"{\"a\":\"\\n\"}","headers":[{"key":"a","value":{"base64":"/w=="}},{"key":"b","value":"2"}]}`,
		`{"value":{"base64":"AP8="}},{"value":null}]`,
		`"memory_mb":8,"fuel_per_record":1000,"deterministic":false,"config":{"type":"object","properties":{`,
		`"remove":{"description":"Fields that go.","default":[],"type":"array","items":{"type":"string"}}`,
		`"email":{"default":"***","type":"string"}`, `"max_age":{"default":30,"type":"integer","minimum":0}`, `"rate":{"type":["number","null"]}`,
		`"names":{"default":{},"type":"object","additionalProperties":{"type":"string"}}`,
		`"nested":{"default":{"on":true},"type":"object","properties":{"on":{"type":"boolean"}},"required":["on"],"additionalProperties":false}`,
		`"any":{"default":null}},"additionalProperties":false}}`,
	} {
		if !strings.Contains(text, want) {
			t.Errorf("the manifest lacks %s:\n%s", want, text)
		}
	}
}

// failing collects what a helper of millracetest reports.
type failing struct {
	testing.TB
	said []string
}

func (f *failing) Helper()                           {}
func (f *failing) Errorf(format string, args ...any) { f.said = append(f.said, format) }

func TestCheckSamples(t *testing.T) {
	current = func(r *millrace.Record, out *millrace.Out, _ *rules) error { return out.Pass() }
	mt.CheckSamples(t, "")
	current = func(r *millrace.Record, out *millrace.Out, _ *rules) error {
		if string(r.Key()) == "k" {
			return millrace.Fail(3, "no")
		}
		return out.Drop()
	}
	f := &failing{TB: t}
	mt.CheckSamples(f, "")
	if len(f.said) != 1 || f.said[0] != "sample %d fails with code %d: %s" {
		t.Errorf("got %q", f.said)
	}
}
