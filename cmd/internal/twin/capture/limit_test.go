package capture

import (
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/millrace-io/millrace/cmd/internal/twin"
)

// limited takes so many requests in a sliding window and refuses the rest.
func limited(times []time.Time, limit int, window time.Duration) (taken, refused []time.Time) {
	for _, t := range times {
		n := 0
		for _, at := range taken {
			if at.After(t.Add(-window)) {
				n++
			}
		}
		if n < limit {
			taken = append(taken, t)
		} else {
			refused = append(refused, t)
		}
	}
	return taken, refused
}

func TestLimits(t *testing.T) {
	start := time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	steady := func(n int, every time.Duration) (out []time.Time) {
		for i := range n {
			out = append(out, start.Add(time.Duration(i)*every))
		}
		return out
	}
	// later are times as another clock has them.
	later := func(ts []time.Time) (out []time.Time) {
		rng := rand.New(rand.NewPCG(1, 2))
		for _, t := range ts {
			out = append(out, t.Add(time.Duration(rng.IntN(5))*time.Millisecond))
		}
		return out
	}
	for _, c := range []struct {
		name   string
		times  []time.Time
		limit  int
		window time.Duration
		want   string
	}{
		{"twenty a second", steady(300, 10*time.Millisecond), 20, time.Second, "20/s"},
		{"thirty a minute", steady(400, 500*time.Millisecond), 30, time.Minute, "30/m"},
		{"nothing refused", steady(300, 10*time.Millisecond), 1000, time.Second, ""},
	} {
		taken, refused := limited(c.times, c.limit, c.window)
		if got := limitOf(later(taken), later(refused)); got != c.want {
			t.Errorf("%s: got %q, want %q", c.name, got, c.want)
		}
	}
	// Refusals that come at any number are no limit.
	var taken, refused []time.Time
	for i, at := range steady(300, 5*time.Millisecond) {
		if i%100 == 3 || i%100 == 60 {
			refused = append(refused, at)
		} else if i%100 < 70 {
			taken = append(taken, at)
		}
	}
	if got := limitOf(taken, refused); got != "" {
		t.Errorf("refusals at any time: %q", got)
	}
	// Nor are those at a rate that was passed at other times.
	if got := limitOf(append(steady(50, 200*time.Millisecond), func() (out []time.Time) {
		for i := range 100 {
			out = append(out, start.Add(5*time.Minute+time.Duration(i)*time.Millisecond))
		}
		return out
	}()...), []time.Time{start.Add(4 * time.Second), start.Add(5 * time.Second), start.Add(6 * time.Second)}); got != "" {
		t.Errorf("refusals below what was taken at other times: %q", got)
	}
	if got := limitOf(steady(5, time.Second), []time.Time{start}); got != "" {
		t.Errorf("one refusal: %q", got)
	}
}

// A limit takes the place of the refusals, and what was a failure in spite of
// its status is not applied.
func TestLimitsAndVerdictsInAFile(t *testing.T) {
	start := time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	var times []time.Time
	for i := range 200 {
		times = append(times, start.Add(time.Duration(i)*20*time.Millisecond))
	}
	taken, refused := limited(times, 10, time.Second)
	var all []Exchange
	add := func(at time.Time, status int, verdict, body string, headers map[string]string) {
		all = append(all, Exchange{Time: at, Millis: 3, Verdict: verdict, Request: Request{Method: "POST", URL: "http://p/o"}, Response: Response{Status: status, Body: body, Headers: headers}})
	}
	for i, at := range taken {
		if i%4 == 0 {
			add(at, 200, "retry", "busy", nil)
		} else {
			add(at, 200, "ok", "fine", nil)
		}
	}
	for _, at := range refused {
		add(at, 429, "retry", "slow down", map[string]string{"Retry-After": "1"})
	}
	text, sum, err := Twin(all, Options{Bodies: 1})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := twin.Parse("p.yaml", text); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	if sum.Answers != 2 || !strings.Contains(string(text), "rate: { requests: 10/s, retry_after: seconds }") || strings.Contains(string(text), "429") || strings.Count(string(text), "applied: false") != 1 {
		t.Errorf("%+v\n%s", sum, text)
	}
	for i := range all {
		all[i].Time = time.Time{}
	}
	if text, _, err = Twin(all, Options{}); err != nil || !strings.Contains(string(text), "status: 429") || strings.Contains(string(text), "rate:") {
		t.Errorf("without times: %v\n%s", err, text)
	}
}
