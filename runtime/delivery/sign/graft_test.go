package sign

import (
	"net/url"
	"testing"

	"github.com/millrace-io/millrace/runtime/record"
)

func TestGraft(t *testing.T) {
	request := func(query string, hs ...string) *Request {
		r := &Request{Method: "POST", URL: &url.URL{Scheme: "https", Host: "p", Path: "/o", RawQuery: query}, Body: []byte("b")}
		for i := 0; i < len(hs); i += 2 {
			r.Header = append(r.Header, record.Header{Key: hs[i], Value: []byte(hs[i+1])})
		}
		return r
	}
	a := &Additions{Header: []Field{{Name: "Authorization", Value: "Bearer x"}}, Query: []Field{{Name: "k", Value: "v"}}}
	none := &Additions{}
	for _, c := range []struct {
		name     string
		from, on *Request
		a        *Additions
		query    string
		header   []string
	}{
		{"both", request("p=1", "A", "1"), request("p=1&sig=s", "A", "2", "authorization", "own"), a, "p=1&sig=s&k=v", []string{"A", "2", "Authorization", "Bearer x"}},
		{"no query before", request("", "A", "1"), request(""), a, "k=v", []string{"Authorization", "Bearer x"}},
		{"nothing", request("p=1", "A", "1"), request("q=2", "A", "3"), none, "q=2", []string{"A", "3"}},
	} {
		before := c.on.URL.RawQuery
		got := Graft(c.from, c.a.Apply(c.from), c.on)
		want := request(c.query, c.header...)
		if got.URL.RawQuery != c.query || len(got.Header) != len(want.Header) || string(got.Body) != "b" {
			t.Errorf("%s: got %s %q", c.name, got.URL.RawQuery, got.Header)
			continue
		}
		for i, h := range want.Header {
			if g := got.Header[i]; g.Key != h.Key || string(g.Value) != string(h.Value) {
				t.Errorf("%s: header %d is %s %s", c.name, i, g.Key, g.Value)
			}
		}
		if c.on.URL.RawQuery != before {
			t.Errorf("%s: the request itself was changed", c.name)
		}
	}
}
