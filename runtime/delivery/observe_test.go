package delivery

import (
	"net/url"
	"strings"
	"testing"

	"github.com/millrace-io/millrace/runtime/delivery/sign"
	"github.com/millrace-io/millrace/runtime/delivery/verdict"
	"github.com/millrace-io/millrace/runtime/record"
)

// What an observer is shown is the request before it was signed, and an answer
// without what the signature has added, wherever it repeats it.
func TestObservedHoldsNoSignature(t *testing.T) {
	request := &sign.Request{Method: "POST", URL: &url.URL{Scheme: "https", Host: "p", Path: "/o", RawQuery: "page=one"}, Body: []byte("body"),
		Header: []record.Header{{Key: "X-Plain", Value: []byte("plain-value")}, {Key: "X-Token", Value: []byte("token-value")}}}
	a := &sign.Additions{Header: []sign.Field{{Name: "X-Mac", Value: "mac-of-header"}}, Query: []sign.Field{{Name: "proof", Value: "mac of query"}}}
	o := &Observed{request: request, sent: a.Apply(request), cfg: &RedactConfig{}, response: &verdict.Response{Status: 200,
		Header: []record.Header{{Key: "X-Echo", Value: []byte("mac-of-header")}}, Body: []byte("mac-of-header mac of query mac+of+query plain-value one token-value fine")}}
	x := o.Exchange(1000)
	if x.URL != "https://p/o?page=one" || len(x.RequestHeaders) != 2 || string(x.RequestHeaders[0].Value) != "plain-value" || string(x.RequestHeaders[1].Value) != hidden || string(x.RequestBody) != "body" {
		t.Errorf("request %+v", x)
	}
	if got := string(x.ResponseBody); got != "*** *** *** plain-value one *** fine" || string(x.ResponseHeaders[0].Value) != hidden {
		t.Errorf("answer %q, %q", x.ResponseBody, x.ResponseHeaders)
	}
	if x := o.Exchange(5); len(x.ResponseBody) > 5 || !x.ResponseCut || string(x.RequestBody) != "body" {
		t.Errorf("cut %+v", x)
	}
	if o.Size() < len(o.response.Body)+4 {
		t.Errorf("size %d", o.Size())
	}
	o.response = nil
	if x := o.Exchange(1000); x.Status != 0 || strings.Contains(string(x.ResponseBody), "x") {
		t.Errorf("no answer became %+v", x)
	}
}

func TestVerdictsAsTheyAreObserved(t *testing.T) {
	again, no := record.Errorf(record.Retryable, "later"), record.Errorf(record.Rejected, "no")
	for _, c := range []struct {
		v    verdict.Verdicts
		want string
	}{
		{verdict.Verdicts{}, VerdictOK},
		{verdict.Verdicts{All: again}, VerdictRetry},
		{verdict.Verdicts{All: no}, VerdictReject},
		{verdict.Verdicts{All: record.Errorf(record.Config, "401")}, VerdictReject},
		{verdict.Verdicts{Items: []*record.Error{nil, nil}}, VerdictOK},
		{verdict.Verdicts{Items: []*record.Error{again, again}}, VerdictRetry},
		{verdict.Verdicts{Items: []*record.Error{nil, no}}, VerdictItems},
	} {
		if got := verdictOf(c.v); got != c.want {
			t.Errorf("%+v: %s, want %s", c.v, got, c.want)
		}
	}
}
