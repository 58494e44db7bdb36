// Package capture makes a twin's file from captured exchanges with a partner:
// routes, the mix of answers, and latency. It keeps no request, and of answers
// nothing that is called like a secret.
//
// It does not capture: it reads HAR files and exchanges as JSON, one a line.
package capture

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"regexp"
	"strings"
	"time"
)

// MaxSize is the longest capture that Read takes, in bytes.
const MaxSize = 256 << 20

// Exchange is one captured request with its answer, in the form that a line of
// a capture has.
type Exchange struct {
	Time time.Time `json:"time"`
	// Millis is from the request to the end of the answer.
	Millis   float64  `json:"ms"`
	Request  Request  `json:"request"`
	Response Response `json:"response"`
	// Verdict is what the answer meant to who asked: ok, retry, reject, or
	// items for some of each; "" if that is not known.
	Verdict string `json:"verdict,omitempty"`
	// Error is why there was no answer; Response is empty then.
	Error string `json:"error,omitempty"`
}

// Request of an exchange. Body is text; what is not is left out.
type Request struct {
	Method  string            `json:"method"`
	URL     string            `json:"url"`
	Headers map[string]string `json:"headers,omitempty"`
	Body    string            `json:"body,omitempty"`
}

// Response of an exchange.
type Response struct {
	Status  int               `json:"status"`
	Headers map[string]string `json:"headers,omitempty"`
	Body    string            `json:"body,omitempty"`
}

// Read reads a HAR file or lines of exchanges. The error says where the
// capture is none.
func Read(r io.Reader) ([]Exchange, error) {
	src, err := io.ReadAll(io.LimitReader(r, MaxSize+1))
	switch {
	case err != nil:
		return nil, err
	case len(src) > MaxSize:
		return nil, fmt.Errorf("longer than %d MiB", MaxSize>>20)
	}
	var har struct {
		Log *struct {
			Entries []harEntry `json:"entries"`
		} `json:"log"`
	}
	var out []Exchange
	if err := json.Unmarshal(src, &har); err == nil && har.Log != nil {
		for i := range har.Log.Entries {
			out = append(out, har.Log.Entries[i].exchange())
		}
	} else if out, err = readLines(src); err != nil {
		return nil, err
	}
	if len(out) == 0 {
		return nil, errors.New("no exchange in it")
	}
	for i := range out {
		u, err := url.Parse(out[i].Request.URL)
		if err != nil || !method.MatchString(out[i].Request.Method) || !strings.HasPrefix(u.Path, "/") && u.Path != "" {
			return nil, fmt.Errorf("exchange %d has no method and URL", i+1)
		}
		if s := out[i].Response.Status; out[i].Error == "" && s != 0 && (s < 200 || s > 599) {
			return nil, fmt.Errorf("exchange %d: %d is no status of an answer", i+1, s)
		}
	}
	return out, nil
}

var method = regexp.MustCompile(`^[A-Za-z]+$`)

func readLines(src []byte) ([]Exchange, error) {
	var out []Exchange
	lines := bufio.NewScanner(bytes.NewReader(src))
	lines.Buffer(nil, 64<<20)
	for n := 1; lines.Scan(); n++ {
		line := bytes.TrimSpace(lines.Bytes())
		if len(line) == 0 {
			continue
		}
		dec := json.NewDecoder(bytes.NewReader(line))
		dec.DisallowUnknownFields()
		var x Exchange
		if err := dec.Decode(&x); err != nil {
			return nil, fmt.Errorf("line %d is no exchange, and the whole no HAR: %w", n, err)
		}
		out = append(out, x)
	}
	return out, lines.Err()
}

type harEntry struct {
	Started time.Time `json:"startedDateTime"`
	Time    float64   `json:"time"`
	Request struct {
		Method   string      `json:"method"`
		URL      string      `json:"url"`
		Headers  []harHeader `json:"headers"`
		PostData struct {
			Text string `json:"text"`
		} `json:"postData"`
	} `json:"request"`
	Response struct {
		Status  int         `json:"status"`
		Headers []harHeader `json:"headers"`
		Content struct {
			Type     string `json:"mimeType"`
			Text     string `json:"text"`
			Encoding string `json:"encoding"`
		} `json:"content"`
	} `json:"response"`
}

type harHeader struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

func (e *harEntry) exchange() Exchange {
	headers := func(list []harHeader) map[string]string {
		out := map[string]string{}
		for _, h := range list {
			out[h.Name] = h.Value
		}
		return out
	}
	x := Exchange{Time: e.Started, Millis: max(e.Time, 0)}
	x.Request = Request{e.Request.Method, e.Request.URL, headers(e.Request.Headers), e.Request.PostData.Text}
	x.Response = Response{e.Response.Status, headers(e.Response.Headers), e.Response.Content.Text}
	if e.Response.Content.Encoding == "base64" {
		b, err := base64.StdEncoding.DecodeString(e.Response.Content.Text)
		if err == nil {
			x.Response.Body = string(b)
		}
	}
	if x.Response.Headers["Content-Type"] == "" && e.Response.Content.Type != "" {
		x.Response.Headers["Content-Type"] = e.Response.Content.Type
	}
	if x.Response.Status <= 0 { // browsers say so when nothing came back
		x.Response, x.Error = Response{}, "no answer"
	}
	return x
}
