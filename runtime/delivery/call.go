package delivery

import (
	"cmp"
	"net/url"
	"strings"

	"github.com/cespare/xxhash/v2"

	"github.com/millrace-io/millrace/runtime/record"
)

// secretCall is why a call has no Replay that was given, or told, what an entry
// must not hold.
const secretCall = "what it got or said holds a credential, and an entry keeps none"

// call is the call of a plugin that signs or validates as an entry may keep
// it; nil for nil. The values of what is called like a credential stand in its
// input as so many asterisks: a replay comes to the same as long as the plugin
// does not look at them. A credential anywhere else is a reason to keep neither
// the input nor what the guest said.
func (r *redaction) call(c *record.Call) *record.Call {
	if c == nil {
		return nil
	}
	out := *c
	in := &out.Input
	in.Headers = make([]record.Header, len(c.Input.Headers))
	open := r.clean(string(in.Value)) && r.clean(c.Message)
	for i, h := range c.Input.Headers {
		switch {
		case h.Key == ":url":
			h.Value = []byte(r.maskParams(string(h.Value), &out))
		case r.cfg.header(h.Key):
			h.Value = []byte(strings.Repeat("*", len(h.Value)))
			out.Hidden = append(out.Hidden, h.Key)
		}
		open = open && r.clean(string(h.Value))
		in.Headers[i] = h
	}
	if c.Replay != nil {
		for _, line := range c.Replay.Logs {
			open = open && r.clean(line)
		}
	}
	if !open {
		in.Value, in.Headers, out.Hidden, out.Replay = []byte{}, nil, nil, nil
		out.Message, out.NoReplay = r.text(c.Message), secretCall
	}
	return &out
}

// calledBefore is why a call has no Replay whose input stands in an entry before.
const calledBefore = "the entry of the first record of its batch has the call"

// named is a call without what it got and said.
func named(c *record.Call) *record.Call {
	out := *c
	if !out.InputOmitted {
		out.InputHash, out.InputOmitted = xxhash.Sum64(out.Input.Value), true
	}
	out.Input.Value, out.Input.Headers, out.Hidden = nil, nil, nil
	out.Replay, out.NoReplay = nil, cmp.Or(c.NoReplay, calledBefore)
	return &out
}

// clean reports whether nothing of a text is hidden.
func (r *redaction) clean(s string) bool { return r.text(s) == s }

// maskParams masks the values of a URL's parameters that are credentials.
func (r *redaction) maskParams(text string, c *record.Call) string {
	base, query, asks := strings.Cut(text, "?")
	if !asks {
		return text
	}
	parts := strings.Split(query, "&")
	for i, part := range parts {
		name, value, _ := strings.Cut(part, "=")
		if plain, err := url.QueryUnescape(name); err == nil && value != "" && r.cfg.param(plain) {
			parts[i] = name + "=" + strings.Repeat("*", len(value))
			c.Hidden = append(c.Hidden, plain)
		}
	}
	return base + "?" + strings.Join(parts, "&")
}
