package daemon

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/millrace-io/millrace/cmd/internal/api"
)

// flowMetrics are what /metrics shows of retries, receipts and limits.
type flowMetrics struct {
	unaccounted, held, pauses, kept, keptBytes, queueUsed, oldest, receipt, dropped *prometheus.Desc
	underWay, waiting, requests, allowed, breakerOpen                               *prometheus.Desc
}

func newFlowMetrics() flowMetrics {
	of := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("millrace_"+name, help, labels, nil)
	}
	return flowMetrics{
		unaccounted: of("unaccounted_records", "Records that a flow has read and of which nobody knows what became, or that were counted twice, summed over its partitions; anything but 0 is a fault of the program.", "flow"),
		held:        of("flow_held", "1 while a flow holds itself back and will go on by itself.", "flow"),
		pauses:      of("flow_auto_pauses_total", "How often a flow held itself back since the node opened it, by reason: breaker, pause_at, spill_rate, spill_bytes.", "flow", "reason"),
		kept:        of("kept_records", "Records that wait in the state for another attempt.", "flow"),
		keptBytes:   of("kept_bytes", "What the records that wait in the state take.", "flow"),
		queueUsed:   of("failure_queue_used_ratio", "How much of a bound of the failure queue is used: entries, bytes, or the time that entries are kept (age).", "flow", "bound"),
		oldest:      of("failure_queue_oldest_timestamp_seconds", "When the oldest entry of the failure queue was filed.", "flow"),
		receipt:     of("receipt_records", "What became of the records that a flow has read, over all its lives.", "flow", "outcome"),
		dropped:     of("receipt_dropped_records", "Records that a flow has dropped, over all its lives, by reason: the id of the stage that did, otherwise, aside, queue (by a person), expired, oldest (the failure queue was full) or replaced.", "flow", "reason"),
		underWay:    of("connection_requests_under_way", "Requests of a connection that are under way.", "connection"),
		waiting:     of("connection_requests_waiting", "Requests of a connection that wait for their turn.", "connection"),
		requests:    of("connection_requests_per_second", "Requests of a connection begun in the last second.", "connection"),
		allowed:     of("connection_requests_allowed_per_second", "Requests of a connection that may begin in a second; 0: any number.", "connection"),
		breakerOpen: of("connection_breaker_open", "1 while the breaker of a connection is not closed.", "connection"),
	}
}

func (m *flowMetrics) describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{m.unaccounted, m.held, m.pauses, m.kept, m.keptBytes, m.queueUsed, m.oldest, m.receipt, m.dropped,
		m.underWay, m.waiting, m.requests, m.allowed, m.breakerOpen} {
		ch <- d
	}
}

// collect shows a flow.
func (m *flowMetrics) collect(ch chan<- prometheus.Metric, a *api.Flow) {
	name := a.Project + "/" + a.Name
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, append([]string{name}, labels...)...)
	}
	held := 0.0
	if a.Held != nil {
		held = 1
	}
	gauge(m.held, held)
	for reason, n := range a.AutoPauses {
		ch <- prometheus.MustNewConstMetric(m.pauses, prometheus.CounterValue, float64(n), name, reason)
	}
	var kept api.Retries
	if a.Retries != nil {
		kept = *a.Retries
	}
	gauge(m.kept, float64(kept.Entries))
	gauge(m.keptBytes, float64(kept.Bytes))
	gauge(m.queueUsed, float64(a.Queue.Entries)/float64(a.Queue.MaxEntries), "entries")
	gauge(m.queueUsed, float64(a.Queue.Bytes)/float64(a.Queue.MaxBytes), "bytes")
	if a.Queue.Oldest != 0 {
		gauge(m.oldest, float64(a.Queue.Oldest)/1000)
		if a.Queue.KeepMillis > 0 {
			gauge(m.queueUsed, ageUsed(a.Queue), "age")
		}
	}
	if r := a.Receipt; r != nil {
		gauge(m.unaccounted, float64(unaccounted(r)))
		for outcome, n := range map[string]int64{"read": r.Read, "split": r.Split, "delivered": r.Delivered, "dropped": r.Drops(), "known": r.Known, "filed": r.Filed, "kept": r.Kept, "flying": r.Flying} {
			gauge(m.receipt, float64(n), outcome)
		}
		for reason, n := range r.Dropped {
			gauge(m.dropped, float64(n), reason)
		}
	}
}

// collectConnections shows the connections that are in use.
func (m *flowMetrics) collectConnections(ch chan<- prometheus.Metric, all []api.ConnectionUsage) {
	for _, u := range all {
		open := 0.0
		if u.Breaker.State != api.BreakerClosed {
			open = 1
		}
		for d, v := range map[*prometheus.Desc]float64{m.underWay: float64(u.InFlight), m.waiting: float64(u.Waiting), m.requests: u.Used, m.allowed: u.Allowed, m.breakerOpen: open} {
			ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, u.Name)
		}
	}
}
