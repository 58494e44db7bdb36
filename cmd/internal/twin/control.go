package twin

import (
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
)

func (t *Twin) isControl(path string) bool {
	return path == t.file.Control || strings.HasPrefix(path, t.file.Control+"/")
}

// control serves the control API: state and log are read with GET, switches
// are POSTs. It answers to this machine alone, and to no web page.
func (t *Twin) control(w http.ResponseWriter, req *http.Request) {
	if host, _, err := net.SplitHostPort(req.RemoteAddr); err == nil {
		if ip := net.ParseIP(host); ip == nil || !ip.IsLoopback() {
			controlError(w, http.StatusForbidden, "the control API answers to this machine alone")
			return
		}
	}
	if req.Header.Get("Origin") != "" {
		controlError(w, http.StatusForbidden, "the control API answers to no web page")
		return
	}
	call := req.Method + " " + strings.TrimPrefix(req.URL.Path, t.file.Control)
	switch call {
	case "GET /state":
	case "GET /log":
		t.sendLog(w, req)
		return
	case "POST /outage":
		var in struct {
			On     *bool `json:"on"`
			Status int   `json:"status"`
		}
		if !readControl(w, req, &in) {
			return
		}
		if in.On == nil || in.Status != 0 && (in.Status < 200 || in.Status > 599) {
			controlError(w, http.StatusBadRequest, `send {"on": true} or {"on": true, "status": 503}`)
			return
		}
		t.SetOutage(*in.On, in.Status)
	case "POST /calm":
		var in struct {
			On *bool `json:"on"`
		}
		if !readControl(w, req, &in) {
			return
		}
		if in.On == nil {
			controlError(w, http.StatusBadRequest, `send {"on": true}`)
			return
		}
		t.SetCalm(*in.On)
	case "POST /revoke":
		t.RevokeTokens()
	case "POST /reset":
		t.Reset()
	default:
		c := t.file.Control
		controlError(w, http.StatusNotFound, "there are GET "+c+"/state and "+c+"/log, POST "+c+"/outage, "+c+"/calm, "+c+"/revoke and "+c+"/reset")
		return
	}
	writeControl(w, http.StatusOK, t.State())
}

// sendLog sends the observations in memory as lines of JSON: those with a
// sequence number above `after`, at most `limit`.
func (t *Twin) sendLog(w http.ResponseWriter, req *http.Request) {
	number := func(name string, def int64) int64 {
		n, err := strconv.ParseInt(req.URL.Query().Get(name), 10, 64)
		if err != nil {
			return def
		}
		return n
	}
	after, limit := number("after", 0), number("limit", 1<<62)
	w.Header().Set("Content-Type", "application/x-ndjson")
	enc := json.NewEncoder(w)
	for _, o := range t.Observations() {
		if o.Seq <= after {
			continue
		}
		if limit--; limit < 0 || enc.Encode(o) != nil {
			return
		}
	}
}

func readControl(w http.ResponseWriter, req *http.Request, into any) bool {
	dec := json.NewDecoder(io.LimitReader(req.Body, 4096))
	dec.DisallowUnknownFields()
	if err := dec.Decode(into); err != nil && !errors.Is(err, io.EOF) {
		controlError(w, http.StatusBadRequest, "the body is not what is expected: "+err.Error())
		return false
	}
	return true
}

func controlError(w http.ResponseWriter, status int, detail string) {
	writeControl(w, status, map[string]string{"error": detail})
}

func writeControl(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	_ = enc.Encode(v) // whoever asked has left
}
