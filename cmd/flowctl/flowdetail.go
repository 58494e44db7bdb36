package main

import (
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/millrace-io/millrace/cmd/internal/api"
	"github.com/millrace-io/millrace/cmd/internal/cli"
	"github.com/millrace-io/millrace/runtime/flow"
)

func (a *app) flowDetail(w io.Writer, format cli.Format, f *api.Flow) error {
	state := f.State
	if f.Reason != "" {
		state += ": " + f.Reason
	}
	lag := cli.Count(f.Lag)
	pairs := [][2]string{
		{"Flow", flowName(f)},
		{"Description", f.Description},
		{"Labels", labels(f.Labels)},
		{"State", state},
		{"Go on", a.resumeHint(f)},
		{"Held", a.heldText(f)},
		{"Problem", unlessSaid(f.Problem, f.Reason)},
		{"Source", f.Source},
		{"Delivery", f.Delivery},
		{"Rate", rateText(f.Rate)},
		{"Order", f.Order},
		{"Slots", strconv.Itoa(f.Slots)},
		{"Lag", lag},
		{"Queue", queueText(&f.Queue)},
		{"Queue note", strings.Join(f.Queue.Warnings, "; ")},
		{"Kept", a.keptText(f.Retries)},
		{"Revision", fmt.Sprintf("%d, applied %s ago", f.Revision, cli.Age(a.now(), f.Updated))},
		{"Created", cli.Stamp(f.Created)},
	}
	if p := purity(f); p != "" {
		pairs = append(pairs, [2]string{"Not pure", p + ": no replay, no comparison of versions"})
	}
	if format == cli.Wide {
		pairs = append(pairs, [2]string{"UID", f.UID}, [2]string{"Generation", fmt.Sprintf("%d, of deployments %d", f.Generation, f.DeployGeneration)})
	}
	if g := f.Figures; g != nil {
		pairs = append(pairs, [2]string{"Records", fmt.Sprintf("%d in, %d emitted, %d dropped, %d failed, %d tried again (in %s)",
			g.In, g.Emitted, g.Dropped, g.Failed, g.Retried, cli.Age(a.now(), g.Since))})
	}
	pairs = append(pairs, skipPairs(f, a.now())...)
	pairs = append(pairs, receiptPairs(f.Receipt)...)
	if err := cli.Pairs(w, pairs); err != nil {
		return err
	}
	if len(f.Stages) > 0 {
		fmt.Fprintln(w)
		if err := stageGrid(w, f.Stages); err != nil {
			return err
		}
	}
	for _, grid := range []func() error{
		func() error { return deliveryGrid(w, f) },
		func() error { return usageGrid(w, f.Connections, a.now()) },
		func() error { return partitionGrid(w, format, f.Partitions) },
		func() error { return receiptGrid(w, format, f.Receipt) },
	} {
		if err := grid(); err != nil {
			return err
		}
	}
	return nil
}

func queueText(q *api.Queue) string {
	text := fmt.Sprintf("%s, %s", cli.Plural(q.Entries, "entry"), cli.Bytes(int64(q.Bytes)))
	if q.MaxEntries > 0 {
		text += fmt.Sprintf(" (at most %d and %s", q.MaxEntries, cli.Bytes(int64(q.MaxBytes)))
		if q.KeepMillis > 0 {
			text += ", for " + keepText(q.KeepMillis)
		}
		if q.WhenFull == string(flow.WhenFullDropOldest) {
			text += ", then the oldest go"
		}
		text += ")"
	}
	return text
}

// keptText says what a flow keeps for another attempt, "" if it keeps nothing.
func (a *app) keptText(r *api.Retries) string {
	if r == nil || r.Entries == 0 {
		return ""
	}
	text := fmt.Sprintf("%s for another attempt, %s", cli.Plural(r.Entries, "record"), cli.Bytes(int64(r.Bytes)))
	if r.Held > 0 {
		text += fmt.Sprintf(", %d of them behind an earlier one of their key", r.Held)
	}
	if r.NextDue > 0 {
		text += "; the next attempt is due " + inFuture(a.now(), r.NextDue)
	}
	return text
}

// heldText says since when a flow holds itself back, and how often it did.
func (a *app) heldText(f *api.Flow) string {
	var text string
	if f.Held != nil {
		text = "for " + cli.Age(a.now(), f.Held.Since)
	}
	var times []string
	for reason, n := range sorted(f.AutoPauses) {
		times = append(times, fmt.Sprintf("%s %d", reason, n))
	}
	if len(times) > 0 {
		if text == "" {
			text = "not now"
		}
		text += " (so far: " + strings.Join(times, ", ") + ")"
	}
	return text
}

func rateText(r *api.Rate) string {
	if r == nil {
		return ""
	}
	return perSecond(r.Used) + " of " + perSecond(r.Allowed) + " records"
}

func perSecond(n float64) string { return strconv.FormatFloat(math.Round(10*n)/10, 'f', -1, 64) + "/s" }

// receiptPairs are the lines of a receipt.
func receiptPairs(r *api.Receipt) [][2]string {
	if r == nil {
		return nil
	}
	pairs := [][2]string{{"Receipt", accountText(&r.Account)}}
	if r.Unaccounted != 0 {
		pairs = append(pairs, [2]string{"Unaccounted", fmt.Sprintf("%d: a fault of the program; report it with the node's log and `flow get -o json`", r.Unaccounted)})
	}
	return pairs
}

// accountText is what became of records; what is 0 is left out but for the
// two that say that things go well.
func accountText(a *api.Account) string {
	read := fmt.Sprintf("%d read", a.Read)
	if a.Split != 0 {
		read += fmt.Sprintf(" + %d split", a.Split)
	}
	parts := []string{fmt.Sprintf("%d delivered", a.Delivered)}
	if len(a.Dropped) > 0 {
		var by []string
		for reason, n := range sorted(a.Dropped) {
			by = append(by, fmt.Sprintf("%s %d", reason, n))
		}
		parts = append(parts, fmt.Sprintf("%d dropped (%s)", a.Drops(), strings.Join(by, ", ")))
	}
	for _, x := range []struct {
		n    int64
		what string
	}{{a.Known, "known before"}, {a.Filed, "in the failure queue"}, {a.Kept, "kept"}, {a.Flying, "under way"}, {a.Unaccounted, "unaccounted"}} {
		if x.n != 0 {
			parts = append(parts, fmt.Sprintf("%d %s", x.n, x.what))
		}
	}
	return read + " = " + strings.Join(parts, " + ")
}

// receiptGrid is the receipt by partition, of the format wide alone.
func receiptGrid(w io.Writer, format cli.Format, r *api.Receipt) error {
	if r == nil || format != cli.Wide || len(r.Partitions) == 0 {
		return nil
	}
	fmt.Fprintln(w)
	var rows [][]string
	for i := range r.Partitions {
		p := &r.Partitions[i]
		row := []string{partitionName(p.Topic, p.Broker, p.Partition)}
		for _, n := range []int64{p.Read, p.Split, p.Delivered, p.Drops(), p.Known, p.Filed, p.Kept, p.Flying, p.Unaccounted} {
			row = append(row, strconv.FormatInt(n, 10))
		}
		rows = append(rows, row)
	}
	return cli.Grid(w, []string{"RECEIPT OF", "READ", "SPLIT", "DELIVERED", "DROPPED", "KNOWN", "FILED", "KEPT", "UNDER WAY", "UNACCOUNTED"}, rows)
}

// unlessSaid is a text that another one has not said already.
func unlessSaid(text, already string) string {
	if text == already {
		return ""
	}
	return text
}

// deliveryGrid shows deliveries, unless there is one and all is said about it.
func deliveryGrid(w io.Writer, f *api.Flow) error {
	var rows [][]string
	news := len(f.Deliveries) > 1
	for _, d := range f.Deliveries {
		note := d.Problem
		if note != "" && (note == f.Reason || note == f.Problem) {
			note = "see above"
		} else if note != "" {
			news = true
		}
		rows = append(rows, []string{d.ID, d.Describe, d.Connection, note})
	}
	if !news {
		return nil
	}
	fmt.Fprintln(w)
	return cli.Grid(w, []string{"DELIVERY", "WHAT", "CONNECTION", "NOTE"}, rows)
}

// usageGrid shows what is used of connections just now.
func usageGrid(w io.Writer, connections []api.ConnectionUsage, now time.Time) error {
	if len(connections) == 0 {
		return nil
	}
	fmt.Fprintln(w)
	var rows [][]string
	for _, c := range connections {
		rows = append(rows, append([]string{c.Name}, usageCells(&c, now)...))
	}
	return cli.Grid(w, append([]string{"CONNECTION"}, usageTitles...), rows)
}

var usageTitles = []string{"REQUESTS", "WAITING", "RATE", "BREAKER", "NOTE"}

// usageCells are the cells under usageTitles, empty for a connection that is
// not in use.
func usageCells(c *api.ConnectionUsage, now time.Time) []string {
	if c == nil {
		return make([]string, len(usageTitles))
	}
	requests, rate := strconv.Itoa(c.InFlight), perSecond(c.Used)
	if c.Concurrent > 0 {
		requests += " of " + strconv.Itoa(c.Concurrent)
	}
	if c.Allowed > 0 {
		rate += " of " + perSecond(c.Allowed)
	}
	breaker := c.Breaker.State
	if c.Breaker.State != api.BreakerClosed && c.Breaker.Since != 0 {
		breaker += " for " + cli.Age(now, c.Breaker.Since)
	}
	return []string{requests, strconv.Itoa(c.Waiting), rate, breaker, c.Breaker.Reason}
}

func labels(m map[string]string) string {
	var parts []string
	for k, v := range sorted(m) {
		parts = append(parts, k+"="+v)
	}
	return strings.Join(parts, ", ")
}

func stageGrid(w io.Writer, stages []api.Stage) error {
	var rows [][]string
	for _, s := range stages {
		each := ""
		if s.Records > 0 && s.Nanos > 0 {
			each = perRecord(float64(s.Nanos) / float64(s.Records))
		}
		what := s.Describe
		if s.Branch != "" {
			what = s.Branch + " | " + what
		}
		rows = append(rows, []string{s.ID, what, s.Plugin, cli.Digest(s.Digest), s.Otherwise,
			strconv.FormatInt(s.Records, 10), strconv.FormatInt(s.Drops, 10), strconv.FormatInt(s.Failures, 10), each})
	}
	return cli.Grid(w, []string{"STAGE", "WHAT", "PLUGIN", "DIGEST", "OTHERWISE", "RECORDS", "DROPPED", "FAILED", "PER RECORD"}, rows)
}

func perRecord(nanos float64) string {
	if nanos > 1e6 {
		return fmt.Sprintf("%.1f ms", nanos/1e6)
	}
	return fmt.Sprintf("%.1f µs", nanos/1e3)
}
