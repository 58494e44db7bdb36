// Package twin is a partner that does not exist: an HTTP API with trouble on
// purpose, described in one small file. It is slow, limited, wrong or down as
// the file says, checks signatures and tokens, applies what has the same
// Idempotency-Key once, and keeps a log of what it saw.
//
// A Twin is an http.Handler, so that a test can have one in process; a Server
// is one with an address. Its trouble is drawn from a seed: the same seed and
// the same sequence of requests give the same trouble. It reads time through
// package time alone and works in a synctest bubble.
//
// It is not a proxy, and not a mock that expects calls: who judges what was
// delivered reads the log. It speaks HTTP/1 without TLS, since only there a
// connection can be broken at a chosen byte.
package twin

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"os"
	"sync"
	"time"

	"github.com/cespare/xxhash/v2"
)

// DefaultSeed is the seed of a twin that is given none.
const DefaultSeed = 1

// Options are what a twin is given beside its file. The zero value works.
type Options struct {
	// Seed replaces the file's if it is not 0.
	Seed uint64
	// Log gets each observation as a line of JSON, if it is not nil. An
	// error of its ends the logging and is part of the state.
	Log io.Writer
	// Observe, if not nil, is called with each observation after Log, one
	// at a time, and blocks the request until it returns.
	Observe func(Observation)
	// Dir is the folder that the paths of the file's secrets begin at.
	// Default: the working folder.
	Dir string
	// Getenv reads the environment for the file's secrets. Default:
	// os.Getenv.
	Getenv func(string) string
}

// Twin is a partner. All its methods are safe for concurrent use.
type Twin struct {
	file    *File
	seed    uint64
	log     io.Writer
	observe func(Observation)
	routes  []*route
	oauth   *oauth
	// done is closed by Close: whoever waits on purpose stops.
	done  chan struct{}
	close sync.Once

	mu      sync.Mutex
	started time.Time // guarded by mu, as all below
	seq     int64
	outage  *answer // switched on by SetOutage
	calm    bool
	state   counters
	logErr  error
	memory  ring
	active  int           // exchanges under way
	quiet   chan struct{} // closed once there are none, if somebody waits

	// write keeps the order of observations between memory, log and observe.
	write sync.Mutex
}

// New makes a twin of a file that Parse read. The error says which secret
// cannot be had.
func New(f *File, o Options) (*Twin, error) {
	if o.Getenv == nil {
		o.Getenv = os.Getenv
	}
	t := &Twin{file: f, seed: f.seed, log: o.Log, observe: o.Observe, done: make(chan struct{})}
	if o.Seed != 0 {
		t.seed = o.Seed
	}
	if t.seed == 0 {
		t.seed = DefaultSeed
	}
	read := func(s *secret) ([]byte, error) { return s.read(o.Dir, o.Getenv) }
	var errs []error
	if f.oauth != nil {
		key, err := read(f.oauth.secret)
		errs = append(errs, err)
		t.oauth = &oauth{config: f.oauth, secret: key, seed: t.seed}
	}
	for i := range f.routes {
		r := &route{config: &f.routes[i]}
		if s := r.config.signature; s != nil {
			key, err := read(s.key)
			errs = append(errs, err)
			r.key = key
		}
		if a := r.config.auth; a != nil && a.secret != nil {
			key, err := read(a.secret)
			errs = append(errs, err)
			r.credential = key
		}
		t.routes = append(t.routes, r)
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	t.Reset()
	return t, nil
}

// Seed is the seed that the twin draws from.
func (t *Twin) Seed() uint64 { return t.seed }

// Reset forgets all that the twin saw and did: counters, memory, keys, items,
// tokens and switches. Its schedules begin anew now. Requests under way are
// counted to what comes after.
func (t *Twin) Reset() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.started = time.Now()
	t.seq, t.outage, t.calm = 0, nil, false
	underWay := t.state.InFlight
	t.state = counters{}
	t.state.InFlight, t.state.MaxInFlight = underWay, underWay
	t.memory = ring{max: t.file.keep}
	for _, r := range t.routes {
		r.reset()
	}
	if t.oauth != nil {
		t.oauth.reset()
	}
}

// SetOutage switches an outage of all routes on or off, beside those of the
// file. What a caller gets meanwhile: the answer of the given status, or, if
// it is 0, a connection that is reset.
func (t *Twin) SetOutage(on bool, status int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case !on:
		t.outage = nil
	case status == 0:
		t.outage = &answer{reset: resetBefore}
	default:
		t.outage = &answer{status: status}
	}
}

// SetCalm switches trouble off or, with false, on again: a calm twin has none
// of the file's outages and bursts, accepts every item and gives the first answer of a route
// that is a success. Latency, limits and checks stay.
func (t *Twin) SetCalm(calm bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.calm = calm
}

// RevokeTokens makes all OAuth2 tokens that were issued so far invalid.
func (t *Twin) RevokeTokens() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.oauth != nil {
		t.oauth.revoke()
	}
}

// Close ends every wait that the twin makes on purpose; requests under way are
// answered with a reset. It does not wait for them.
func (t *Twin) Close() { t.close.Do(func() { close(t.done) }) }

// Wait blocks until no exchange is under way: what the twin saw until then is
// counted and logged. The error is ctx's.
func (t *Twin) Wait(ctx context.Context) error {
	t.mu.Lock()
	if t.active == 0 {
		t.mu.Unlock()
		return nil
	}
	if t.quiet == nil {
		t.quiet = make(chan struct{})
	}
	quiet := t.quiet
	t.mu.Unlock()
	select {
	case <-quiet:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (t *Twin) begin() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.active++
}

func (t *Twin) end() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.active--; t.active == 0 && t.quiet != nil {
		close(t.quiet)
		t.quiet = nil
	}
}

// ServeHTTP implements http.Handler: control below the control prefix, the
// partner everywhere else. It blocks as long as the file says.
func (t *Twin) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	if t.isControl(req.URL.Path) {
		t.control(w, req)
		return
	}
	t.serve(w, req)
}

// draw is a number in [0, 1) that follows from the seed, what is drawn for
// whom, and a count.
func (t *Twin) draw(route, what, whom string, n uint64) float64 {
	var num [8]byte
	h := xxhash.NewWithSeed(t.seed)
	for _, s := range []string{route, what, whom} {
		binary.LittleEndian.PutUint64(num[:], uint64(len(s)))
		_, _ = h.Write(num[:])
		_, _ = h.WriteString(s)
	}
	binary.LittleEndian.PutUint64(num[:], n)
	_, _ = h.Write(num[:])
	return float64(h.Sum64()>>11) / (1 << 53)
}

// secret is where a key comes from: exactly one is set.
type secret struct{ env, file, text string }

func (s *secret) read(dir string, getenv func(string) string) ([]byte, error) {
	switch {
	case s.text != "":
		return []byte(s.text), nil
	case s.env != "":
		v := getenv(s.env)
		if v == "" {
			return nil, fmt.Errorf("secret from the environment: %s is not set: set it, or name another with env", s.env)
		}
		return []byte(v), nil
	}
	b, err := readSecretFile(dir, s.file)
	if err != nil {
		return nil, fmt.Errorf("secret from a file: %w: write the secret into it, or name another with file", err)
	}
	return b, nil
}

// bounded is a map that forgets its oldest key once it holds max.
type bounded[K comparable, V any] struct {
	max  int
	m    map[K]V
	keys []K // in the order they came, a ring once it is full
	next int
}

func (b *bounded[K, V]) get(k K) (V, bool) {
	v, ok := b.m[k]
	return v, ok
}

func (b *bounded[K, V]) set(k K, v V) {
	if b.m == nil {
		b.m = make(map[K]V)
	}
	if _, ok := b.m[k]; !ok {
		if len(b.keys) < b.max {
			b.keys = append(b.keys, k)
		} else {
			delete(b.m, b.keys[b.next])
			b.keys[b.next] = k
			b.next = (b.next + 1) % b.max
		}
	}
	b.m[k] = v
}

// normal is the quantile of the standard normal distribution.
func normal(u float64) float64 {
	const edge = 1e-9
	return math.Sqrt2 * math.Erfinv(2*min(max(u, edge), 1-edge)-1)
}
