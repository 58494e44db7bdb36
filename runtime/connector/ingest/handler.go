package ingest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"github.com/cespare/xxhash/v2"

	"github.com/millrace-io/millrace/runtime/record"
)

// Codes of refusals, stable and language-neutral.
const (
	CodeUsage        = "E_USAGE"
	CodeUnauthorized = "E_UNAUTHORIZED"
	CodeTimeout      = "E_TIMEOUT"
	CodeTooLarge     = "E_TOO_LARGE"
	CodeKeyReused    = "E_KEY_REUSED" // the same key with another content
	CodeBusy         = "E_BUSY"       // no room, or the flow is held
	CodePending      = "E_PENDING"    // not settled in time
	CodeUnavailable  = "E_UNAVAILABLE"
	CodeInternal     = "E_INTERNAL"
)

// How long senders are asked to wait, in seconds.
const (
	soon  = 1
	later = 5
)

// Answer is the body of an answer with status 200.
type Answer struct {
	// ID is the record's identity.
	ID string `json:"id"`
	// Outcome says where the record is: delivered, dropped, failed (in the
	// failure queue or its topic), or waiting (in the state, for another
	// attempt). Of several emissions the one that is worst off counts. It is
	// empty where only that the record was settled is remembered.
	Outcome string `json:"outcome,omitempty"`
	// Repeated says that an earlier request with the same key made the record.
	Repeated bool `json:"repeated,omitempty"`
}

// refusal is an answer with another status: problem+json.
type refusal struct {
	Status int    `json:"status"`
	Code   string `json:"code"`
	Title  string `json:"title"`
	Detail string `json:"detail"`
	Next   string `json:"next,omitempty"`

	after int  // Retry-After in seconds, 0: none
	close bool // the body was not read to its end
}

func full() *refusal {
	return &refusal{Status: http.StatusTooManyRequests, Code: CodeBusy, Detail: "as many requests are under way as the flow takes", Next: "send the request again after a moment", after: soon, close: true}
}

func stopped() *refusal {
	return &refusal{Status: http.StatusServiceUnavailable, Code: CodeUnavailable, Detail: "the flow is not open on this node at the moment", Next: "send the request again after a moment", after: later, close: true}
}

func reused(ref string) *refusal {
	return &refusal{Status: http.StatusUnprocessableEntity, Code: CodeKeyReused, Detail: fmt.Sprintf("key %q was used for a request with another content", ref),
		Next: "give each request a key of its own, and repeat it unchanged"}
}

func pending(detail string) *refusal {
	return &refusal{Status: http.StatusServiceUnavailable, Code: CodePending, Detail: detail, Next: "send the request again with the same key to hear of its outcome", after: soon}
}

// outcomeText is the word for what became of a record, the worst first.
func outcomeText(o record.Settlement) string {
	switch {
	case o&(record.Filed|record.Aside) != 0:
		return "failed"
	case o&(record.Kept|record.Known) != 0:
		return "waiting"
	case o&record.Delivered != 0:
		return "delivered"
	case o&record.Dropped != 0:
		return "dropped"
	}
	return ""
}

// ServeHTTP takes one request in and answers once its record is settled:
//
//	200  an Answer: the record is where its outcome says, and stays there
//	400  the key's header is empty or there twice, or the body ended early
//	401  the sender's check failed
//	405  the method is not POST
//	408  the body did not come in time
//	413  the body is larger than it may be
//	422  the key was used for a request with another content
//	429  there is no room, or the flow is held; with Retry-After
//	503  the outcome is not known yet, or the flow has stopped; with Retry-After
//
// Bodies of refusals are problem+json. A request that was taken in is answered
// with its key in the header that keys come in, also when the sender gave
// none: with that the sender can ask again.
func (s *Source) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if a, refused := s.serve(w, r); refused != nil {
		s.refuse(w, refused)
	} else {
		s.answer(w, http.StatusOK, "application/json", a)
	}
}

func (s *Source) answer(w http.ResponseWriter, status int, kind string, body any) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	_ = enc.Encode(body)
	w.Header().Set("Content-Type", kind)
	w.WriteHeader(status)
	_, _ = w.Write(b.Bytes())
	s.cfg.Answered(status)
}

func (s *Source) refuse(w http.ResponseWriter, e *refusal) {
	e.Title = http.StatusText(e.Status)
	if e.after > 0 {
		w.Header().Set("Retry-After", fmt.Sprint(e.after))
	}
	if e.close {
		w.Header().Set("Connection", "close")
	}
	s.answer(w, e.Status, "application/problem+json", e)
}

func (s *Source) serve(w http.ResponseWriter, r *http.Request) (*Answer, *refusal) {
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		return nil, &refusal{Status: http.StatusMethodNotAllowed, Code: CodeUsage, Detail: "records are sent with POST, not with " + r.Method, close: true}
	}
	ref, named, refused := s.refOf(r)
	if refused != nil {
		return nil, refused
	}
	if r.ContentLength > s.cfg.Body {
		return nil, s.tooLarge()
	}
	if why := s.cfg.Held(); why != "" {
		return nil, &refusal{Status: http.StatusTooManyRequests, Code: CodeBusy, Detail: "the flow is held: " + why, Next: "send the request again later", after: later, close: true}
	}
	t, refused := s.begin(ref)
	if refused != nil {
		return nil, refused
	}
	defer t.release()
	body, refused := s.read(w, r, t)
	if refused != nil {
		return nil, refused
	}
	if refused := s.check(r, body); refused != nil {
		return nil, refused
	}
	rec, refused := s.recordOf(r, ref, body)
	if refused != nil {
		return nil, refused
	}
	id := rec.ID()
	f, refused := s.admit(t, ref, named, digest(&rec), rec)
	if refused != nil {
		return nil, refused
	}
	w.Header().Set(s.cfg.Key, ref)
	if f.request == nil {
		return &Answer{ID: id, Outcome: outcomeText(f.outcome), Repeated: true}, nil
	}
	outcome, refused := s.wait(r, f.request)
	return &Answer{ID: id, Outcome: outcomeText(outcome), Repeated: f.repeated}, refused
}

// digest is of what must not change when a request is repeated.
func digest(rec *record.Record) uint64 {
	d := xxhash.New()
	if rec.Key != nil {
		_, _ = fmt.Fprintf(d, "%d:", len(rec.Key))
		_, _ = d.Write(rec.Key)
	}
	_, _ = d.WriteString("\x00")
	_, _ = d.Write(rec.Value)
	return d.Sum64()
}

// wait is for a request to be settled. The sender's leaving ends it, too; the
// answer is then a refusal all the same, for a sender that has only closed its
// half of the connection still reads it.
func (s *Source) wait(r *http.Request, q *request) (record.Settlement, *refusal) {
	defer s.leave(q)
	limit := time.NewTimer(s.cfg.Wait)
	defer limit.Stop()
	select {
	case <-q.done:
	case <-r.Context().Done():
		return 0, pending("the sender closed the connection before the record was settled; it goes on")
	case <-limit.C:
		return 0, pending(fmt.Sprintf("the record is not settled after %s; it goes on", s.cfg.Wait))
	}
	if q.lost {
		return 0, &refusal{Status: http.StatusServiceUnavailable, Code: CodeUnavailable, Detail: "the flow stopped before the record was settled; it may have been delivered",
			Next: "send the request again with the same key", after: later}
	}
	return q.outcome, nil
}

func (s *Source) tooLarge() *refusal {
	return &refusal{Status: http.StatusRequestEntityTooLarge, Code: CodeTooLarge, Detail: fmt.Sprintf("the body is larger than the flow takes, %d bytes", s.cfg.Body), close: true}
}

// read reads the body as far as there is room for it.
func (s *Source) read(w http.ResponseWriter, r *http.Request, t *ticket) ([]byte, *refusal) {
	control := http.NewResponseController(w)
	if control.SetReadDeadline(time.Now().Add(bodyTime)) == nil {
		// net/http reads on to learn that the sender leaves, and would take
		// the limit's end for that.
		defer func() { _ = control.SetReadDeadline(time.Time{}) }()
	}
	body := http.MaxBytesReader(w, r.Body, s.cfg.Body)
	buf := []byte{}
	for {
		if len(buf) == cap(buf) {
			more := int64(max(512, cap(buf)))
			if r.ContentLength >= 0 {
				// One byte more lets the end be seen.
				more = max(512, min(int64(max(16<<10, cap(buf))), r.ContentLength-int64(cap(buf))+1))
			}
			if !t.grow(more) {
				return nil, full()
			}
			buf = append(make([]byte, 0, cap(buf)+int(more)), buf...)
		}
		n, err := body.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		if err == io.EOF {
			return buf, nil
		}
		if err != nil {
			return nil, s.unread(err)
		}
	}
}

func (s *Source) unread(err error) *refusal {
	if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return s.tooLarge()
	}
	if timeout, ok := errors.AsType[net.Error](err); ok && timeout.Timeout() {
		return &refusal{Status: http.StatusRequestTimeout, Code: CodeTimeout, Detail: "the body did not come in time", close: true}
	}
	return &refusal{Status: http.StatusBadRequest, Code: CodeUsage, Detail: "the body ended early", close: true}
}

func (s *Source) check(r *http.Request, body []byte) *refusal {
	if s.cfg.Check == nil {
		return nil
	}
	err := s.cfg.Check(r, body)
	if err == nil {
		return nil
	}
	if e := record.AsError(err); e.Class == record.Rejected {
		return &refusal{Status: http.StatusUnauthorized, Code: CodeUnauthorized, Detail: e.Message}
	}
	s.cfg.Logger.Error("sender cannot be checked", "err", err)
	return &refusal{Status: http.StatusInternalServerError, Code: CodeInternal, Detail: "the sender cannot be checked", Next: "look at the node's log"}
}
