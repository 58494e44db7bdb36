package api

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"
)

// IdempotencyKey is the header by which a change that is asked for again is
// made once. The node remembers it for ten minutes and not across a restart.
const IdempotencyKey = "Idempotency-Key"

const (
	// rememberFor is how long the answer of a change is given again.
	rememberFor = 10 * time.Minute
	// remembered is how many answers are kept at most, the latest.
	remembered = 1000
	// maxRemembered is the largest answer that is kept, in bytes.
	maxRemembered = 1 << 20
	maxKeyLength  = 255
)

// once answers a repeated change as the first time. It lies behind the guard,
// whose bounds of the body it relies on.
type once struct {
	next http.Handler

	mu      sync.Mutex
	answers map[string]*answer // guarded by mu
	order   []string           // guarded by mu; keys of answers, oldest first
}

func newOnce(next http.Handler) *once { return &once{next: next, answers: map[string]*answer{}} }

// answer is what a request was answered, or will be.
type answer struct {
	request [sha256.Size]byte
	at      time.Time
	done    chan struct{} // closed when the fields below are set
	// status is 0 if the answer is not one to give again.
	status int
	kind   string
	body   []byte
}

// takesKey tells the requests that change something by more than their own
// bytes: plugins and imported entries are the same however often they come,
// and sources of requests know their senders' keys by themselves.
func takesKey(r *http.Request) bool {
	return r.Method != http.MethodGet && r.Method != http.MethodHead && r.Header.Get(IdempotencyKey) != "" &&
		r.URL.Path != pluginsPath && !strings.HasPrefix(r.URL.Path, ingestPrefix) && !strings.HasSuffix(r.URL.Path, "/failures/import")
}

func (o *once) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !takesKey(r) {
		o.next.ServeHTTP(w, r)
		return
	}
	key := r.Header.Get(IdempotencyKey)
	if len(key) > maxKeyLength {
		writeError(w, &Error{Code: CodeUsage, Detail: fmt.Sprintf("%s is longer than %d bytes", IdempotencyKey, maxKeyLength)})
		return
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		if cause := bodyFailure(r); cause != nil {
			err = cause
		}
		writeError(w, err)
		return
	}
	requestOf(r.Context()).Body = io.NopCloser(bytes.NewReader(body))
	r.Body = io.NopCloser(bytes.NewReader(body))
	request := sha256.Sum256(fmt.Appendf(nil, "%s %s\n%s", r.Method, r.URL.RequestURI(), body))
	for {
		a, first := o.claim(key, request)
		if first {
			o.serve(w, r, key, a)
			return
		}
		select {
		case <-a.done:
		case <-r.Context().Done():
			writeError(w, r.Context().Err())
			return
		}
		switch {
		case a.request != request:
			writeError(w, &Error{Code: CodeInvalid, Detail: fmt.Sprintf("%s %q came with another request", IdempotencyKey, key), Next: "use a new key for each change"})
			return
		case a.status != 0:
			w.Header().Set("Content-Type", a.kind)
			w.WriteHeader(a.status)
			_, _ = w.Write(a.body)
			return
		}
	}
}

// claim is the answer to a key, and whether the caller is to give it.
func (o *once) claim(key string, request [sha256.Size]byte) (a *answer, first bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	now := time.Now()
	for len(o.order) > 0 && (len(o.order) > remembered || now.Sub(o.answers[o.order[0]].at) > rememberFor) {
		delete(o.answers, o.order[0])
		o.order = o.order[1:]
	}
	if a := o.answers[key]; a != nil {
		return a, false
	}
	a = &answer{request: request, at: now, done: make(chan struct{})}
	o.answers[key], o.order = a, append(o.order, key)
	return a, true
}

// serve lets the request through and keeps its answer.
func (o *once) serve(w http.ResponseWriter, r *http.Request, key string, a *answer) {
	copied := &copier{ResponseWriter: w}
	defer func() {
		if final(copied.status) && copied.body.Len() <= maxRemembered {
			a.status, a.kind, a.body = copied.status, w.Header().Get("Content-Type"), copied.body.Bytes()
		} else {
			o.forget(key, a)
		}
		close(a.done)
	}()
	o.next.ServeHTTP(copied, r)
}

// final tells an answer that would be the same again; 0 is none.
func final(status int) bool {
	return status != 0 && status < 500 && status != http.StatusRequestTimeout && status != http.StatusTooManyRequests
}

func (o *once) forget(key string, a *answer) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.answers[key] == a {
		delete(o.answers, key)
		o.order = slices.DeleteFunc(o.order, func(k string) bool { return k == key })
	}
}

// copier keeps what is answered.
type copier struct {
	http.ResponseWriter
	status int
	body   bytes.Buffer
}

func (c *copier) WriteHeader(status int) {
	c.status = status
	c.ResponseWriter.WriteHeader(status)
}

func (c *copier) Write(b []byte) (int, error) {
	if c.status == 0 {
		c.status = http.StatusOK
	}
	if c.body.Len() <= maxRemembered {
		c.body.Write(b)
	}
	return c.ResponseWriter.Write(b)
}

func (c *copier) Unwrap() http.ResponseWriter { return c.ResponseWriter }
