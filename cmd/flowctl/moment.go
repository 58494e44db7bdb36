package main

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/millrace-io/millrace/cmd/internal/cli"
)

// momentForms are how a time may be written; without a zone it is UTC, as all
// times that are printed.
var momentForms = []string{time.RFC3339Nano, "2006-01-02T15:04:05", "2006-01-02T15:04", "2006-01-02 15:04:05", "2006-01-02 15:04", time.DateOnly}

const momentHelp = "a time (2026-11-21T08:30:00Z, 2026-11-21 08:30, 2026-11-21) or how long ago (90s, 2h, 3d)"

// parseMoment reads a time, or how long before now it was.
func parseMoment(s string, now time.Time) (time.Time, bool) {
	for _, form := range momentForms {
		if t, err := time.Parse(form, s); err == nil {
			return t, true
		}
	}
	if days, ok := strings.CutSuffix(s, "d"); ok {
		if n, err := strconv.ParseUint(days, 10, 16); err == nil {
			return now.Add(-time.Duration(n) * 24 * time.Hour), true
		}
	}
	if d, err := time.ParseDuration(s); err == nil && d >= 0 {
		return now.Add(-d), true
	}
	return time.Time{}, false
}

// moment is the value of a flag that is a time, Unix ms; 0 for "".
func (a *app) moment(flag, s string) (int64, error) {
	if s == "" {
		return 0, nil
	}
	t, ok := parseMoment(s, a.now())
	if !ok {
		return 0, cli.Usage("give "+momentHelp, "--%s %q is no time", flag, s)
	}
	return t.UnixMilli(), nil
}

// inFuture is how long until a time in Unix ms, in one or two units.
func inFuture(now time.Time, unixMilli int64) string {
	if unixMilli == 0 {
		return ""
	}
	d := time.UnixMilli(unixMilli).Sub(now)
	if d <= 0 {
		return "now"
	}
	return fmt.Sprintf("in %s", cli.Age(now.Add(d), now.UnixMilli()))
}
