package sign

import (
	"fmt"
	"testing"

	"github.com/millrace-io/millrace/runtime/record"
)

func TestKeysByHandle(t *testing.T) {
	shared, err := SharedKey(NewSecret("a", []byte("Jefe")), Plain)
	if err != nil {
		t.Fatal(err)
	}
	k := Keys{shared}
	sig, err := k.Sign(0, HMACMD5, []byte("what do ya want for nothing?"))
	if want := "750c783e6ab0b503eaa86e310a5db738"; err != nil || fmt.Sprintf("%x", sig) != want {
		t.Errorf("got %x, %v; RFC 2202 has %s", sig, err, want)
	}
	if _, err := k.Sign(1, HMACMD5, nil); record.AsError(err).Class != record.Config {
		t.Errorf("no such handle: got %v", err)
	}
	if _, err := k.Sign(0, RSASHA256, nil); record.AsError(err).Class != record.Config {
		t.Errorf("a key for another algorithm: got %v", err)
	}
}

func TestPluginsGetAndEmitRequests(t *testing.T) {
	r := request(t, "POST", "https://partner.example/a%2Fb?x=1", "body", "Host", "p", "X-A", "1", "X-A", "2")
	rec := r.Record()
	if got := fmt.Sprintf("%s %s", rec.Value, rec.Headers); got != "body [{:method POST} {:url https://partner.example/a%2Fb?x=1} {Host p} {X-A 1} {X-A 2}]" {
		t.Errorf("got %s", got)
	}
	back, err := r.Emitted(&rec)
	if err != nil || fmt.Sprintf("%v", back.Record()) != fmt.Sprintf("%v", rec) {
		t.Errorf("there and back: %+v, %v", back, err)
	}
	header := func(kv ...string) (hs []record.Header) {
		hs = append(hs, record.Header{Key: "Host", Value: []byte("p")})
		for i := 0; i < len(kv); i += 2 {
			hs = append(hs, record.Header{Key: kv[i], Value: []byte(kv[i+1])})
		}
		return hs
	}
	out, err := r.Emitted(&record.Record{Value: []byte("new"), Headers: header("X-Sign", "s", ":url", "https://partner.example/c?y=2#f", ":method", "PUT")})
	if err != nil || fmt.Sprintf("%s %s %s %s", out.Method, out.URL, out.Header, out.Body) != "PUT https://partner.example/c?y=2 [{Host p} {X-Sign s}] new" {
		t.Errorf("got %+v, %v", out, err)
	}
	if out, err = r.Emitted(&record.Record{Headers: header()}); err != nil || out.Method != "POST" || out.URL.String() != r.URL.String() || len(out.Body) != 0 {
		t.Errorf("what is left out: got %+v, %v", out, err)
	}
	for name, hs := range map[string][]record.Header{
		"another host":        header(":url", "https://elsewhere.example/"),
		"another port":        header(":url", "https://partner.example:1/"),
		"another scheme":      header(":url", "http://partner.example/"),
		"a user":              header(":url", "https://u@partner.example/"),
		"a path":              header(":url", "/a"),
		"no URL":              header(":url", "https://partner.example/%zz"),
		"another Host header": header("host", "q"),
		"no Host header":      {},
		"no method":           header(":method", ""),
		"method of two words": header(":method", "GET /"),
		"a pseudo header":     header(":path", "/"),
		"no name":             header("", "x"),
		"a line end":          header("X", "a\r\nY: b"),
	} {
		if _, err := r.Emitted(&record.Record{Headers: hs}); record.AsError(err) == nil || record.AsError(err).Class != record.Protocol {
			t.Errorf("%s: got %v, want class protocol", name, err)
		}
	}
}
