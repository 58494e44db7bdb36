package twin

import (
	"time"

	"github.com/millrace-io/millrace/runtime/expr"
)

// Defaults of a file.
const (
	// DefaultListen is where a twin listens if nothing else is said.
	DefaultListen = "127.0.0.1:8088"
	// DefaultControl is the path that the control API begins with.
	DefaultControl = "/_twin"
	// DefaultKeep is how many observations are kept in memory.
	DefaultKeep = 10_000

	defaultMaxBody = 10 << 20
	defaultKeys    = 1_000_000
	maxItems       = 4_000_000 // whose attempts are counted, a route
	maxClients     = 10_000    // whose rate is counted, a route
	maxTokens      = 10_000
	maxNonces      = 1_000_000
	maxRate        = 100_000 // requests a window
)

// File is a partner as Parse read it. It is immutable; several twins may be
// made of one.
type File struct {
	// Name of the partner, for people.
	Name string
	// Listen is HOST:PORT.
	Listen string
	// Log is the path of the log's file, "" if there is none.
	Log string
	// Control is the path that the control API begins with.
	Control string

	seed    uint64
	keep    int
	maxBody int64
	oauth   *oauthConfig
	outages []scheduled
	routes  []routeConfig
}

// routeConfig is how the partner treats the requests of a method and path.
type routeConfig struct {
	id     string
	method string // "" is any
	path   []string

	latency     *latency
	rate        *rate
	concurrent  int // 0: any number
	tooMany     int // the status of a request above concurrent
	auth        *auth
	signature   *signature
	idempotency *idempotency
	items       *items
	bursts      []scheduled
	answers     []answer
}

// scheduled is an answer that all requests get at certain times or counts.
type scheduled struct {
	// From is when it begins, and Every how often it comes again, 0 for
	// once. It lasts For, at the end of each period; 0 is without end.
	from, every, length time.Duration
	// By count of requests instead, if ofEvery is not 0: the last count of
	// each ofEvery.
	ofEvery, count int64
	answer         answer
}

// on reports whether it is time: since is from the twin's start, n counts the
// requests from 1.
func (s *scheduled) on(since time.Duration, n int64) bool {
	if s.ofEvery > 0 {
		return (n-1)%s.ofEvery >= s.ofEvery-s.count
	}
	since -= s.from
	switch {
	case since < 0:
		return false
	case s.every > 0:
		return since%s.every >= s.every-s.length
	}
	return s.length == 0 || since < s.length
}

// latency is a distribution of waits.
type latency struct {
	// quantile is the wait at a part u of all, 0 <= u < 1.
	quantile func(u float64) time.Duration
	max      time.Duration // 0: no bound
}

func (l *latency) at(u float64) time.Duration {
	if l == nil {
		return 0
	}
	d := max(l.quantile(u), 0)
	if l.max > 0 {
		d = min(d, l.max)
	}
	return d
}

// rate bounds the requests within any window of a client, or of all.
type rate struct {
	requests int
	window   time.Duration
	by       *expr.Program // nil: all together
	// after is the form of Retry-After: "seconds", "date" or "none".
	after  string
	status int
}

// auth is who may call.
type auth struct {
	kind   string // oauth, bearer, basic, header
	user   string
	header string
	secret *secret
}

// signature is how a request has to be signed.
type signature struct {
	hash     string
	key      *secret
	over     *expr.Template // or
	overExpr *expr.Program
	header   string
	prefix   string
	encoding string
	// time gives the time that was signed, which may differ by within; nonce
	// what must not be seen twice.
	time   *expr.Program
	within time.Duration
	nonce  *expr.Program
}

// oauthConfig is the partner's token endpoint.
type oauthConfig struct {
	path    string
	id      string
	secret  *secret
	expires time.Duration
	claims  time.Duration // what expires_in says
	latency *latency
}

type idempotency struct {
	header   string
	required bool
	keep     int
	forget   time.Duration // 0: never
	mismatch int           // status for another body under a known key; 0: none
}

// items are the parts of a request that the partner judges one by one.
type items struct {
	in       string   // body, json_array, ndjson
	at       []string // where the list stands in the JSON
	id, key  *expr.Program
	verdicts []verdict
	results  map[string]*body // by verdict
	partial  int              // status if some item is not ok; 0: the answer's
}

// Verdicts of an item.
const (
	verdictOK     = "ok"
	verdictRetry  = "retry"
	verdictReject = "reject"
)

type verdict struct {
	verdict string
	when    *expr.Program
	chance  float64 // 0: always
	every   int64   // 0: each
	result  *body   // nil: the one of items
}

// Ways in which an answer does not get there as it is.
const (
	resetBefore = "before"
	resetBody   = "body"

	brokenTruncated = "truncated"
	brokenHTML      = "html"
	brokenEmpty     = "empty"
)

// answer is one thing that the partner may do with a request.
type answer struct {
	weight  float64 // 0: not drawn
	when    *expr.Program
	status  int // 0: 200
	headers []header
	body    *body // nil: the default
	applied *bool // nil: follows from the rest
	reset   string
	broken  string
	hang    time.Duration
	slow    time.Duration
	latency *latency
}

type header struct {
	name  string
	value *expr.Template
}

func (a *answer) code() int {
	if a.status == 0 {
		return 200
	}
	return a.status
}

// applies reports whether the partner does what the request asks for.
func (a *answer) applies() bool {
	if a.applied != nil {
		return *a.applied
	}
	return a.code() < 300 && a.reset != resetBefore && a.hang == 0 && a.broken != brokenHTML
}

// trouble names what happens to the answer on its way, "" if nothing.
func (a *answer) trouble() string {
	switch {
	case a.reset != "":
		return "reset_" + a.reset
	case a.hang > 0:
		return "hang"
	case a.broken != "":
		return a.broken
	case a.slow > 0:
		return "slow"
	}
	return ""
}
