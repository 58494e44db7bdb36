// Package verdict judges the answer to a request: taken, to be sent again, or
// refused for good, for all that was sent or item by item.
//
// It is pure: the answer and the time are given to it. What is done about a
// verdict is for `runtime/retry` and the delivery.
//
// # Rules
//
// Without rules the status decides: 200 to 299 is ok; 408, 429 and 5xx are
// tried again; 401 and 403 are of class config and pause the flow; any other
// status is a rejection.
//
// With rules the first of these that applies decides:
//
//  1. reject is true: all is rejected.
//  2. retry is true: all is tried again.
//  3. each gives a list: a verdict for each item, see below.
//  4. ok is true, or there is no ok and the status is 200 to 299; not if there
//     is an each: an answer without its list says nothing about the items.
//  5. The status is 401 or 403: class config.
//  6. There is a retry and no reject: all is rejected.
//  7. All is tried again.
//
// The roots are response and request, vars and env. response.status is an int;
// response.headers a map from each header's name, as it was sent and in lower
// case, to its last value; response.raw the body as a string; response.body
// the body as JSON, read once and when a rule comes to it. request has method,
// url, headers and body (a string).
//
// A rule that comes to response.body when the body is not JSON, is longer than
// MaxBodyBytes or was cut off, and one that fails, is undecided: it does not
// apply, and neither does what would make the answer ok (3, 4) nor 6. So a 200
// with an HTML page is tried again, with the reason, and a 400 with one is
// still rejected by `response.status == 400`.
//
// # Items
//
// each gives one element for each item, in their order, or, with a field of
// the elements as ItemID, in any order: an item is found by its id. An element
// is
//
//   - "ok", "retry" or "reject";
//   - true (ok) or false (retry);
//   - a whole number: an HTTP status, judged as if there were no rules, but
//     401 and 403 reject the item;
//   - a map with such a value as verdict or, without one, as status; beside it
//     a message (message, error or reason), a code (an int) and retry_after
//     (seconds).
//
// nil is no list, and then the answer is not ok; true in its place says that
// there is nothing to say about single items, and the other rules decide:
// `response.body.results ?? true`. An element that is none of these, an item without one, and
// all items when a list without ids has not their number, are tried again with
// the reason. Where several elements have one id the worst counts.
package verdict

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/millrace-io/millrace/runtime/record"
)

// MaxBodyBytes is the longest body that rules see as JSON.
const MaxBodyBytes = 1 << 20

// MaxRetryAfter bounds the wait that an answer may ask for.
const MaxRetryAfter = 10 * time.Minute

// excerpt is how much of an answer's body an error quotes.
const excerpt = 300

// Response is an answer.
type Response struct {
	Status int
	Header []record.Header
	Body   []byte
	// Truncated says that Body is only the beginning.
	Truncated bool
}

// Record is the answer as a plugin gets it: the value is the body, and :status
// stands before the answer's headers. It shares r's bytes.
func (r *Response) Record() record.Record {
	hs := make([]record.Header, 0, len(r.Header)+1)
	hs = append(hs, record.Header{Key: ":status", Value: strconv.AppendInt(nil, int64(r.Status), 10)})
	body := r.Body
	if body == nil {
		body = []byte{}
	}
	return record.Record{Value: body, Headers: append(hs, r.Header...)}
}

// Exchange is what is judged.
type Exchange struct {
	// What names the request in messages: POST https://partner.example/v2.
	// It holds no credentials.
	What     string
	Request  Request
	Response Response
	// Items is how many items the request carried; at least 1.
	Items int
	// Redact hides secrets in what is quoted of the answer; nil: there are
	// none. It is given more than is quoted, so that the quote's end cuts no
	// secret.
	Redact func(string) string
	// ID is the id of an item, "" if it has none; rules with ItemID call it.
	ID func(item int) string
	// Now is when the answer came.
	Now time.Time
}

// Request is what rules see of the request.
type Request struct {
	Method, URL string
	Header      []record.Header
	Body        []byte
}

// Verdicts are the answer's meaning. A nil error is ok; else it is of class
// retryable, rejected or config, with the status as its Code and, where it is
// retryable, the wait that the answer asks for, at most MaxRetryAfter.
type Verdicts struct {
	// All is the verdict on everything, unless Items is set.
	All *record.Error
	// Items has one verdict for each item; nil if they have All in common.
	Items []*record.Error
}

// Of is the verdict on an item.
func (v Verdicts) Of(item int) *record.Error {
	if v.Items != nil {
		return v.Items[item]
	}
	return v.All
}

// Again are the items of n that are to be sent again, ascending.
func (v Verdicts) Again(n int) []int {
	var out []int
	for i := range n {
		if e := v.Of(i); e != nil && e.Class.Transient() {
			out = append(out, i)
		}
	}
	return out
}

// Default judges by the status alone.
func Default(x *Exchange) Verdicts {
	return Verdicts{All: byStatus(x, class(x.Response.Status))}
}

// class is the class of a status that is no success.
func class(status int) record.Class {
	switch {
	case status == http.StatusRequestTimeout, status == http.StatusTooManyRequests, status >= 500:
		return record.Retryable
	case status == http.StatusUnauthorized, status == http.StatusForbidden:
		return record.Config
	}
	return record.Rejected
}

func success(status int) bool { return status >= 200 && status <= 299 }

// byStatus is the verdict of a class that the status alone tells the reason
// of; nil for a success.
func byStatus(x *Exchange, c record.Class) *record.Error {
	if success(x.Response.Status) {
		return nil
	}
	return failure(x, c, "")
}

// failure is a verdict of a class for a reason; "" is the status's own.
func failure(x *Exchange, c record.Class, reason string) *record.Error {
	e := &record.Error{Class: c, Code: uint32(x.Response.Status)}
	e.Message = fmt.Sprintf("%s: status %d", x.What, x.Response.Status)
	if text := http.StatusText(x.Response.Status); text != "" {
		e.Message += " " + text
	}
	if reason != "" {
		e.Message += ": " + reason
	}
	if q := x.quote(x.Response.Body); q != "" {
		e.Message += ": " + q
	}
	switch c {
	case record.Retryable:
		e.RetryAfter = RetryAfter(x.Response.Header, x.Now)
	case record.Config:
		e.Message += ": correct the connection's auth or the delivery's `sign`"
	}
	return e
}

// quote is the beginning of a text in one line.
func (x *Exchange) quote(text []byte) string {
	q, _ := Beginning(text, excerpt, x.Redact)
	return strings.Join(strings.Fields(strings.ToValidUTF8(q, "\uFFFD")), " ")
}

// What Beginning looks through, and what of its end it never shows, as a
// secret may be cut there: no credential is longer.
const (
	lookedThrough = 64 << 10
	unsure        = 16 << 10
)

// Beginning is the beginning of a text, at most some bytes of it, after redact
// has hidden what is secret; nil: nothing is. No part of a secret of up to 16
// KiB stands at its end, and no part of a character. cut: it is not all.
func Beginning(text []byte, most int, redact func(string) string) (shown string, cut bool) {
	if redact == nil {
		shown = string(text[:min(len(text), most)])
		return whole(shown, len(text) > most), len(text) > most
	}
	cut = len(text) > lookedThrough
	shown = redact(string(text[:min(len(text), lookedThrough)]))
	if cut {
		shown = shown[:max(len(shown)-unsure, 0)]
	}
	if len(shown) > most {
		shown, cut = shown[:most], true
	}
	return whole(shown, cut), cut
}

// whole takes a character that was cut off a text's end.
func whole(s string, cut bool) string {
	for i := 1; cut && i < utf8.UTFMax && i < len(s); i++ {
		if utf8.RuneStart(s[len(s)-i]) {
			if !utf8.FullRuneInString(s[len(s)-i:]) {
				s = s[:len(s)-i]
			}
			break
		}
	}
	return s
}

// RetryAfter is the wait that an answer asks for, in seconds or as a date, at
// most MaxRetryAfter; 0 if it asks for none.
func RetryAfter(header []record.Header, now time.Time) time.Duration {
	for _, h := range header {
		if !strings.EqualFold(h.Key, "Retry-After") {
			continue
		}
		v := strings.TrimSpace(string(h.Value))
		if n, err := strconv.ParseUint(v, 10, 64); err == nil {
			return time.Duration(min(n, uint64(MaxRetryAfter/time.Second))) * time.Second
		}
		if at, err := http.ParseTime(v); err == nil {
			return min(max(at.Sub(now), 0), MaxRetryAfter)
		}
		return 0
	}
	return 0
}
