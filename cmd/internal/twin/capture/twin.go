package capture

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"
)

// DefaultBodies is how many answers of a status are kept.
const DefaultBodies = 3

const (
	maxBodies = 20
	maxBody   = 8 << 10
	maxFile   = 192 << 10 // of bodies together
)

// Options of a conversion. The zero value works.
type Options struct {
	// Name of the partner. Default: the host of the first exchange.
	Name string
	// Redact names further fields of bodies that are not kept: a path such
	// as customer.email, or one name, with * in it, at any place.
	Redact []string
	// Bodies is how many different answers of a status are kept, the most
	// frequent ones, 1 to 20. Default: DefaultBodies.
	Bodies int
}

// Summary says what a conversion made.
type Summary struct {
	Exchanges, Routes, Answers int
	// LeftOut counts bodies that were too long, or not text.
	LeftOut int
	// Fields are the redacted fields, sorted.
	Fields []string
}

// Redacted is the list of redacted fields as a person reads it.
func (s *Summary) Redacted() string {
	if len(s.Fields) == 0 {
		return "nothing"
	}
	return strings.Join(s.Fields, ", ")
}

// Twin makes a twin's file of exchanges: text that twin.Parse reads. The same
// exchanges give the same text.
func Twin(exchanges []Exchange, o Options) ([]byte, *Summary, error) {
	if o.Bodies == 0 {
		o.Bodies = DefaultBodies
	}
	if o.Bodies < 1 || o.Bodies > maxBodies {
		return nil, nil, fmt.Errorf("bodies: %d is not from 1 to %d", o.Bodies, maxBodies)
	}
	if len(exchanges) == 0 {
		return nil, nil, errors.New("no exchanges")
	}
	red, err := newRedactor(o.Redact)
	if err != nil {
		return nil, nil, err
	}
	c := converter{options: o, redact: red, routes: map[string]*route{}}
	for i := range exchanges {
		if err := c.add(&exchanges[i]); err != nil {
			return nil, nil, fmt.Errorf("exchange %d: %w", i+1, err)
		}
	}
	c.summary.Exchanges = len(exchanges)
	c.summary.Fields = slices.Sorted(maps.Keys(red.names))
	return c.write(), &c.summary, nil
}

type converter struct {
	options Options
	redact  *redactor
	host    string
	routes  map[string]*route
	size    int
	summary Summary
}

type route struct {
	match     string
	wildcards int
	millis    []float64
	answers   map[reply]int
	requests  int
	lists     int // requests whose body is a JSON list
	// taken and refused are when requests were made, where that is known.
	taken, refused []time.Time
	hurried        bool // a refusal says when to come again
}

// reply is an answer as the file has it.
type reply struct {
	status     int // 0: none
	kind       string
	retryAfter string
	body       string
	note       string // why there is no body
	undone     bool   // a good status, and yet who asked took it for a failure
}

func (c *converter) add(x *Exchange) error {
	u, err := url.Parse(x.Request.URL)
	if err != nil {
		return errors.New("no URL")
	}
	if c.host == "" {
		c.host = u.Hostname()
	}
	pattern, wildcards := patternOf(u.Path)
	match := strings.ToUpper(x.Request.Method) + " " + pattern
	r := c.routes[match]
	if r == nil {
		r = &route{match: match, wildcards: wildcards, answers: map[reply]int{}}
		c.routes[match] = r
	}
	r.requests++
	if b := strings.TrimSpace(x.Request.Body); strings.HasPrefix(b, "[") && json.Valid([]byte(b)) {
		r.lists++
	}
	if x.Error != "" || x.Response.Status == 0 {
		r.answers[reply{}]++
		return nil
	}
	if x.Millis > 0 {
		r.millis = append(r.millis, x.Millis)
	}
	a := reply{status: x.Response.Status, undone: x.Response.Status < 300 && (x.Verdict == "retry" || x.Verdict == "reject")}
	for k, v := range x.Response.Headers {
		switch strings.ToLower(k) {
		case "content-type":
			a.kind = v
		case "retry-after":
			a.retryAfter = v
		}
	}
	switch {
	case x.Time.IsZero():
	case a.status == http.StatusTooManyRequests:
		r.refused = append(r.refused, x.Time)
		r.hurried = r.hurried || a.retryAfter != ""
	default:
		r.taken = append(r.taken, x.Time)
	}
	body := x.Response.Body
	switch {
	case !isText(body):
		a.note = "a body that is not text was left out"
	case len(body) > maxBody:
		a.note = "a body of more than 8 KiB was left out"
	default:
		a.body = c.redact.body(body)
	}
	r.answers[a]++
	return nil
}

var (
	number = regexp.MustCompile(`^[0-9]+$`)
	uuid   = regexp.MustCompile(`^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$`)
	mixed  = regexp.MustCompile(`^[A-Za-z0-9_.~-]*[0-9][A-Za-z0-9_.~-]*$`)
	plain  = regexp.MustCompile(`^[\pL\pN._~!&'()*+,;=:-]*$`)
	digit  = regexp.MustCompile(`[0-9]`)
)

// patternOf puts a wildcard in place of each segment that is an identity
// rather than a name.
func patternOf(p string) (pattern string, wildcards int) {
	segments := strings.Split(strings.TrimPrefix(p, "/"), "/")
	for i, s := range segments {
		switch {
		case number.MatchString(s), uuid.MatchString(s),
			mixed.MatchString(s) && (len(digit.FindAllString(s, -1)) >= 4 || len(s) >= 20),
			!plain.MatchString(s):
			wildcards++
			segments[i] = "{id}"
			if wildcards > 1 {
				segments[i] = fmt.Sprintf("{id%d}", wildcards)
			}
		}
	}
	return "/" + strings.Join(segments, "/"), wildcards
}

func (c *converter) write() []byte {
	var b bytes.Buffer
	name := cmp.Or(c.options.Name, c.host, "partner")
	fmt.Fprintf(&b, "# Captured exchanges: %d; redacted: %s.\n", c.summary.Exchanges, oneLine(c.summary.Redacted()))
	fmt.Fprintf(&b, "# Read it before it is passed on: what is secret in other fields cannot be known.\n")
	fmt.Fprintf(&b, "twin: v1\nname: %s\nlisten: 127.0.0.1:8088\nroutes:\n", quoted(name))
	routes := slices.Collect(maps.Values(c.routes))
	slices.SortFunc(routes, func(a, b *route) int {
		return cmp.Or(cmp.Compare(a.wildcards, b.wildcards), cmp.Compare(a.match, b.match))
	})
	for _, r := range routes {
		c.summary.Routes++
		fmt.Fprintf(&b, "  - match: %s\n", quoted(r.match))
		if l := latencyOf(r.millis); l != "" {
			fmt.Fprintf(&b, "    latency: %s\n", l)
		}
		if limit := limitOf(r.taken, r.refused); limit != "" {
			after := "none"
			if r.hurried {
				after = "seconds"
			}
			fmt.Fprintf(&b, "    rate: { requests: %s, retry_after: %s }\n", limit, after)
			maps.DeleteFunc(r.answers, func(a reply, _ int) bool { return a.status == http.StatusTooManyRequests })
		}
		if r.lists == r.requests {
			b.WriteString("    # Its requests are JSON lists. To judge them one by one:\n    # items: { in: json_array, id: value.id }\n")
		}
		b.WriteString("    answers:\n")
		for _, a := range c.kept(r) {
			c.answer(&b, a.reply, a.count)
		}
	}
	return b.Bytes()
}

type counted struct {
	reply
	count int
}

// kept are the answers of a route that go into the file: of each status the
// most frequent ones, which stand for the others too.
func (c *converter) kept(r *route) []counted {
	type meaning struct {
		status int
		undone bool
	}
	byStatus := map[meaning][]counted{}
	for a, n := range r.answers {
		m := meaning{a.status, a.undone}
		byStatus[m] = append(byStatus[m], counted{a, n})
	}
	var out []counted
	for _, list := range byStatus {
		slices.SortFunc(list, func(a, b counted) int {
			return cmp.Or(cmp.Compare(b.count, a.count), cmp.Compare(a.body, b.body), cmp.Compare(a.kind, b.kind), cmp.Compare(a.retryAfter, b.retryAfter), cmp.Compare(a.note, b.note))
		})
		for len(list) > c.options.Bodies {
			last := list[len(list)-1]
			list[0].count += last.count
			list = list[:len(list)-1]
		}
		out = append(out, list...)
	}
	slices.SortFunc(out, func(a, b counted) int {
		return cmp.Or(cmp.Compare(b.count, a.count), cmp.Compare(a.status, b.status), cmp.Compare(a.body, b.body), cmp.Compare(a.kind, b.kind), truths(a.undone, b.undone))
	})
	return out
}

// truths puts false before true.
func truths(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	}
	return 1
}

func (c *converter) answer(b *bytes.Buffer, a reply, count int) {
	c.summary.Answers++
	if a.status == 0 {
		fmt.Fprintf(b, "      - { weight: %d, reset: before }\n", count)
		return
	}
	if a.note == "" && c.size+len(a.body) > maxFile {
		a.body, a.note = "", "a body was left out: the file is long enough"
	}
	c.size += len(a.body)
	if a.note != "" {
		c.summary.LeftOut++
		fmt.Fprintf(b, "      # %s\n", a.note)
	}
	fmt.Fprintf(b, "      - weight: %d\n        status: %d\n", count, a.status)
	var headers []string
	if a.kind != "" {
		headers = append(headers, "Content-Type: "+quoted(a.kind))
	}
	if a.retryAfter != "" {
		headers = append(headers, "Retry-After: "+quoted(a.retryAfter))
	}
	if len(headers) > 0 {
		fmt.Fprintf(b, "        headers: { %s }\n", strings.Join(headers, ", "))
	}
	if a.undone {
		b.WriteString("        applied: false # whoever asked took it for a failure\n")
	}
	fmt.Fprintf(b, "        body: %s\n", quoted(a.body))
}

// quoted is a text as a YAML scalar that is no template.
func quoted(s string) string {
	s = strings.Map(func(c rune) rune {
		if unprintable(c) {
			return '?'
		}
		return c
	}, s)
	s = strings.ReplaceAll(s, "${", "$${")
	if !strings.ContainsAny(s, "\n\r\t") {
		return "'" + strings.ReplaceAll(s, "'", "''") + "'"
	}
	var out strings.Builder
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(s); err != nil {
		panic("capture: a text is no JSON: " + err.Error())
	}
	return strings.TrimSuffix(out.String(), "\n")
}

func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }

// latencyOf is the distribution of durations, "" if there are none.
func latencyOf(millis []float64) string {
	if len(millis) == 0 {
		return ""
	}
	slices.Sort(millis)
	at := func(p float64) time.Duration {
		d := time.Duration(millis[int(p*float64(len(millis)-1))] * float64(time.Millisecond))
		return max(d.Round(100*time.Microsecond), 100*time.Microsecond)
	}
	if len(millis) == 1 {
		return at(0).String()
	}
	return fmt.Sprintf("{ p50: %v, p90: %v, p99: %v, max: %v }", at(.5), at(.9), at(.99), at(1))
}
