package sign

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/millrace-io/millrace/runtime/record"
)

func TestRecordingIsReplayed(t *testing.T) {
	shared, err := SharedKey(NewSecret("a", []byte("Jefe")), Plain)
	if err != nil {
		t.Fatal(err)
	}
	private, err := PrivateKey(NewSecret("b", pemOf("PRIVATE KEY", keys().pkcs8["p256"])))
	if err != nil {
		t.Fatal(err)
	}
	rec := NewRecorder(Keys{shared, private})
	sign := func(s Signer) (out []string, err error) {
		for _, c := range []struct {
			handle  uint32
			alg     Algorithm
			message string
		}{{0, HMACMD5, "what do ya want for nothing?"}, {1, ECDSASHA256, "x"}, {1, ECDSASHA256, "x"}} {
			sig, err := s.Sign(c.handle, c.alg, []byte(c.message))
			if err != nil {
				return nil, err
			}
			out = append(out, string(sig))
		}
		return out, nil
	}
	live, err := sign(rec)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := rec.Sign(2, HMACMD5, nil); record.AsError(err).Class != record.Config {
		t.Errorf("no such handle: got %v", err)
	}
	if _, err := rec.Sign(0, RSASHA256, nil); record.AsError(err).Class != record.Config {
		t.Errorf("a key for another algorithm: got %v", err)
	}
	taken := rec.Take()
	if again := rec.Take(); len(taken) != 3 || len(again) != 0 {
		t.Fatalf("%d and then %d signatures were recorded", len(taken), len(again))
	}
	b, err := json.Marshal(taken)
	if err != nil {
		t.Fatal(err)
	}
	var stored Recording
	if err := json.Unmarshal(b, &stored); err != nil {
		t.Fatal(err)
	}
	replayed, err := sign(NewPlayer(stored))
	if err != nil {
		t.Fatal(err)
	}
	if strings.Join(replayed, "|") != strings.Join(live, "|") {
		t.Error("the replay has other signatures") // ECDSA's are random
	}

	for name, ask := range map[string]func(*Player) error{
		"another handle": func(p *Player) error {
			_, err := p.Sign(1, HMACMD5, []byte("what do ya want for nothing?"))
			return err
		},
		"another algorithm": func(p *Player) error {
			_, err := p.Sign(0, HMACSHA1, []byte("what do ya want for nothing?"))
			return err
		},
		"another message": func(p *Player) error { _, err := p.Sign(0, HMACMD5, []byte("x")); return err },
		"one too many": func(p *Player) error {
			_, _ = sign(p)
			_, err := p.Sign(0, HMACMD5, nil)
			return err
		},
	} {
		if err := ask(NewPlayer(stored)); !errors.Is(err, ErrNotRecorded) || record.AsError(err).Class != record.Protocol {
			t.Errorf("%s: got %v, want ErrNotRecorded", name, err)
		}
	}
}

func TestRecordingFormat(t *testing.T) {
	shared, err := SharedKey(NewSecret("a", []byte("Jefe")), Plain)
	if err != nil {
		t.Fatal(err)
	}
	rec := NewRecorder(Keys{shared})
	if _, err := rec.Sign(0, HMACMD5, []byte("what do ya want for nothing?")); err != nil {
		t.Fatal(err)
	}
	b, err := json.Marshal(rec.Take())
	want := `[{"handle":0,"alg":"hmac-md5","message":"b381e7fec653fc3ab9b178272366b8ac87fed8d31cb25ed1d0e1f3318644c89c","signature":"dQx4PmqwtQPqqG4xCl23OA=="}]`
	if err != nil || string(b) != want {
		t.Errorf("entries are stored as this:\ngot  %s, %v\nwant %s", b, err, want)
	}
	if b, err := json.Marshal(Recording(nil)); err != nil || string(b) != "[]" {
		t.Errorf("none: %s, %v", b, err)
	}
	for _, bad := range []string{`[{"alg":"x"}]`, `[{"alg":"hmac-md5","message":"00"}]`, `[{"alg":"hmac-md5","message":"zz"}]`} {
		if json.Unmarshal([]byte(bad), new(Recording)) == nil {
			t.Errorf("%s was read", bad)
		}
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
