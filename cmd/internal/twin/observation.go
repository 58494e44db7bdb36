package twin

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"
)

// Observation is what a twin saw and did in one exchange: one line of its log.
// It is written when the exchange is over; Seq is the order in which requests
// were decided.
type Observation struct {
	// Seq counts the requests from 1 in the order in which the twin decided
	// on them; what it applied, it applied in this order.
	Seq int64 `json:"seq"`
	// Time is when the request came, Millis how long the exchange took.
	Time   time.Time `json:"time"`
	Millis float64   `json:"ms"`
	// Route is the id of the route, "" if none is for this request.
	Route  string `json:"route,omitempty"`
	Method string `json:"method"`
	// Path with the query, as it was sent.
	Path string `json:"path"`
	// Client is what the rate limit told this caller by.
	Client         string `json:"client,omitempty"`
	IdempotencyKey string `json:"idempotency_key,omitempty"`
	// BodyBytes and BodySHA256 (hex) are of the body after decompression.
	BodyBytes  int    `json:"body_bytes"`
	BodySHA256 string `json:"body_sha256,omitempty"`
	// Signature is ok, missing, wrong, stale or replayed; "" if none is
	// checked.
	Signature string `json:"signature,omitempty"`
	// Outcome is one of the Outcome constants.
	Outcome string `json:"outcome"`
	// Trouble is what happened to the answer: reset_before, reset_body,
	// hang, truncated, html, empty or slow; "" if nothing.
	Trouble string `json:"trouble,omitempty"`
	// Status is the answer's, 0 if there was none.
	Status int `json:"status,omitempty"`
	// Applied: the partner did what the request asks for, of its items those
	// that say so.
	Applied bool `json:"applied"`
	// Duplicate: the key was applied before, by the request First; this one
	// changed nothing. Mismatch: its body was another.
	Duplicate bool  `json:"duplicate,omitempty"`
	First     int64 `json:"first,omitempty"`
	Mismatch  bool  `json:"mismatch,omitempty"`
	// Sent: the whole answer was handed to the connection.
	Sent  bool   `json:"sent"`
	Items []Item `json:"items,omitempty"`
	// Error tells what an expression of the file could not do with this
	// request.
	Error string `json:"error,omitempty"`
}

// Item is a part of a request that is judged by itself.
type Item struct {
	ID  string `json:"id,omitempty"`
	Key string `json:"key,omitempty"`
	// Attempt counts how often an item of this id came through, from 1; 0 if
	// it has no id.
	Attempt int `json:"attempt,omitempty"`
	// Verdict is ok, retry or reject; "" if nothing was judged.
	Verdict string `json:"verdict,omitempty"`
	Applied bool   `json:"applied"`
	// Again: an item of this id was applied before.
	Again bool `json:"again,omitempty"`
}

// Outcomes of a request.
const (
	OutcomeAnswered     = "answered"     // an answer of the route
	OutcomeDuplicate    = "duplicate"    // the answer that the key got before
	OutcomeMismatch     = "mismatch"     // a known key with another body, refused
	OutcomeOutage       = "outage"       // the partner is down
	OutcomeBurst        = "burst"        // an error out of a burst
	OutcomeLimited      = "limited"      // over the rate limit
	OutcomeBusy         = "busy"         // too many at once
	OutcomeUnauthorized = "unauthorized" // no good token or credential
	OutcomeSignature    = "signature"    // not signed as it has to be
	OutcomeBadRequest   = "bad_request"  // a body or header that cannot be read
	OutcomeNoRoute      = "no_route"     // a method or path that nothing is for
	OutcomeToken        = "token"        // the token endpoint answered
	OutcomeIncomplete   = "incomplete"   // the caller left while it sent
)

// State is what a twin counted since it began or was reset.
type State struct {
	Name string `json:"name"`
	Seed uint64 `json:"seed"`
	// Seconds since then.
	Seconds float64 `json:"seconds"`
	Outage  bool    `json:"outage"`
	Calm    bool    `json:"calm"`
	// Requests that were decided on, and those whose exchange is over.
	Requests int64 `json:"requests"`
	Finished int64 `json:"finished"`
	// Applied requests; Duplicates of them, which changed nothing; and
	// Mismatches: known keys with another body.
	Applied    int64 `json:"applied"`
	Duplicates int64 `json:"duplicates"`
	Mismatches int64 `json:"mismatches"`
	// ItemsApplied counts every application, ItemsAgain those of an id that
	// had been applied before.
	ItemsApplied int64 `json:"items_applied"`
	ItemsAgain   int64 `json:"items_again"`
	// Unsent answers: the caller was gone, or the connection was reset.
	Unsent      int64            `json:"unsent"`
	InFlight    int              `json:"in_flight"`
	MaxInFlight int              `json:"max_in_flight"`
	Tokens      int64            `json:"tokens"`
	Outcomes    map[string]int64 `json:"outcomes"`
	Statuses    map[string]int64 `json:"statuses"`
	Troubles    map[string]int64 `json:"troubles"`
	Signatures  map[string]int64 `json:"signatures"`
	Verdicts    map[string]int64 `json:"verdicts"`
	// LogError is why the log ends before its time.
	LogError string `json:"log_error,omitempty"`
}

// counters are the counted part of a State; see there.
type counters struct {
	State
}

func count(m *map[string]int64, key string) {
	if key == "" {
		return
	}
	if *m == nil {
		*m = make(map[string]int64)
	}
	(*m)[key]++
}

// decided counts what is known before the answer is sent.
func (c *counters) decided(o *Observation) {
	c.Requests++
	count(&c.Outcomes, o.Outcome)
	count(&c.Troubles, o.Trouble)
	count(&c.Signatures, o.Signature)
	if o.Status != 0 {
		count(&c.Statuses, strconv.Itoa(o.Status))
	}
	if o.Applied {
		c.Applied++
	}
	if o.Duplicate {
		c.Duplicates++
	}
	if o.Mismatch {
		c.Mismatches++
	}
	for i := range o.Items {
		count(&c.Verdicts, o.Items[i].Verdict)
		if o.Items[i].Applied {
			c.ItemsApplied++
			if o.Items[i].Again {
				c.ItemsAgain++
			}
		}
	}
}

// State is a copy of what was counted.
func (t *Twin) State() State {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := t.state.State
	s.Name, s.Seed, s.Seconds = t.file.Name, t.seed, time.Since(t.started).Seconds()
	s.Outage, s.Calm = t.outage != nil, t.calm
	s.Outcomes, s.Statuses, s.Troubles = clone(s.Outcomes), clone(s.Statuses), clone(s.Troubles)
	s.Signatures, s.Verdicts = clone(s.Signatures), clone(s.Verdicts)
	for _, o := range t.file.outages {
		s.Outage = s.Outage || !t.calm && o.on(time.Since(t.started), 1)
	}
	if t.oauth != nil {
		s.Tokens = int64(t.oauth.issued)
	}
	if t.logErr != nil {
		s.LogError = t.logErr.Error()
	}
	return s
}

func clone(m map[string]int64) map[string]int64 {
	if m == nil {
		return map[string]int64{}
	}
	return maps.Clone(m)
}

// Observations are the last ones, as many as the file says are kept, in the
// order in which the exchanges ended.
func (t *Twin) Observations() []Observation {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.memory.all()
}

// ring holds the last max observations.
type ring struct {
	max  int
	list []Observation
	next int
}

func (r *ring) add(o Observation) {
	switch {
	case r.max == 0:
	case len(r.list) < r.max:
		r.list = append(r.list, o)
	default:
		r.list[r.next] = o
		r.next = (r.next + 1) % r.max
	}
}

func (r *ring) all() []Observation {
	return slices.Concat(r.list[r.next:], r.list[:r.next])
}

// finish files an observation.
func (t *Twin) finish(o *Observation) {
	t.write.Lock()
	defer t.write.Unlock()
	o.Millis = float64(time.Since(o.Time).Microseconds()) / 1000
	var line []byte
	if t.log != nil {
		var err error
		if line, err = json.Marshal(o); err != nil {
			panic(fmt.Sprintf("twin: an observation is no JSON: %v", err))
		}
		line = append(line, '\n')
	}
	t.mu.Lock()
	t.state.Finished++
	if !o.Sent {
		t.state.Unsent++
	}
	t.memory.add(*o)
	write := t.log != nil && t.logErr == nil
	t.mu.Unlock()
	if write {
		if _, err := t.log.Write(line); err != nil {
			t.mu.Lock()
			t.logErr = fmt.Errorf("write the log: %w", err)
			t.mu.Unlock()
		}
	}
	if t.observe != nil {
		t.observe(*o)
	}
}
