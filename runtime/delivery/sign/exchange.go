package sign

import (
	"bytes"
	"net/url"
	"slices"
	"strings"

	"github.com/millrace-io/millrace/runtime/record"
)

// The headers of a record that a plugin signs, beside the request's own.
const (
	methodHeader = ":method"
	urlHeader    = ":url"
)

// Record is the request as a plugin gets it: the value is the body, and
// :method and :url stand before the request's headers. It shares r's bytes.
func (r *Request) Record() record.Record {
	hs := make([]record.Header, 0, len(r.Header)+2)
	hs = append(hs, record.Header{Key: methodHeader, Value: []byte(r.Method)}, record.Header{Key: urlHeader, Value: []byte(r.URL.String())})
	body := r.Body
	if body == nil {
		body = []byte{}
	}
	return record.Record{Value: body, Headers: append(hs, r.Header...)}
}

// Emitted is the request that a plugin made of r: the record's value,
// headers, :method and :url, of which each may be left out if it is r's. A
// plugin signs for the partner of its connection and no other: scheme, host
// and Host header are r's. The error is a *record.Error of class protocol.
func (r *Request) Emitted(rec *record.Record) (*Request, error) {
	out := &Request{Method: r.Method, URL: r.URL, Body: rec.Value}
	hosts := func(hs []record.Header) (all []string) {
		for _, h := range hs {
			if strings.EqualFold(h.Key, "Host") {
				all = append(all, string(h.Value))
			}
		}
		return all
	}
	for _, h := range rec.Headers {
		switch {
		case h.Key == methodHeader:
			out.Method = string(h.Value)
		case h.Key == urlHeader:
			u, err := url.Parse(string(h.Value))
			if err != nil || u.Scheme != r.URL.Scheme || u.Host != r.URL.Host || u.User != nil {
				return nil, record.Errorf(record.Protocol, "sign: the plugin's :url is not one of %s://%s: it may change the path and the query only", r.URL.Scheme, r.URL.Host)
			}
			u.Fragment, u.RawFragment = "", ""
			out.URL = u
		case h.Key == "" || strings.ContainsFunc(h.Key, func(c rune) bool { return !tokenRune(c) }):
			return nil, record.Errorf(record.Protocol, "sign: the plugin emits %q, which is no name of a header", h.Key)
		case strings.ContainsFunc(string(h.Value), controlRune):
			return nil, record.Errorf(record.Protocol, "sign: the plugin's value of header %s holds a line end or another control character", h.Key)
		default:
			out.Header = append(out.Header, h)
		}
	}
	if out.Method == "" || strings.ContainsFunc(out.Method, func(c rune) bool { return !tokenRune(c) }) {
		return nil, record.Errorf(record.Protocol, "sign: the plugin's :method %q is none", out.Method)
	}
	if strings.Join(hosts(out.Header), "\n") != strings.Join(hosts(r.Header), "\n") {
		return nil, record.Errorf(record.Protocol, "sign: the plugin changes the header Host: it may sign it only")
	}
	return out, nil
}

// Graft puts what to has beyond from onto on: header fields that are not from's
// replace those of the same name, parameters behind from's are appended. to is
// a request that Additions were applied to, from what they were applied to.
func Graft(from, to, on *Request) *Request {
	a := &Additions{}
	for _, h := range to.Header {
		if !slices.ContainsFunc(from.Header, func(f record.Header) bool { return f.Key == h.Key && bytes.Equal(f.Value, h.Value) }) {
			a.Header = append(a.Header, Field{Name: h.Key, Value: string(h.Value)})
		}
	}
	out := a.Apply(on)
	more := strings.TrimPrefix(strings.TrimPrefix(to.URL.RawQuery, from.URL.RawQuery), "&")
	if more == "" {
		return out
	}
	u := *out.URL
	if u.RawQuery != "" {
		u.RawQuery += "&"
	}
	u.RawQuery += more
	out.URL = &u
	return out
}

// controlRune reports whether a header's value must not hold c.
func controlRune(c rune) bool { return c < ' ' && c != '\t' || c == 0x7f }
