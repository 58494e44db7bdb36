package daemon

import (
	"net/http"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// metrics are what /metrics shows. Counters of flows are read from their
// pipelines when they are asked for; nothing is counted per record here.
type metrics struct {
	d       *Daemon
	reg     *prometheus.Registry
	commits *prometheus.HistogramVec
	guest   *prometheus.CounterVec

	records, failures, seconds, lag, queue, running, info *prometheus.Desc

	mu       sync.Mutex
	counters map[[2]string]map[string]prometheus.Counter // by flow and stage, then name; guarded by mu
}

func newMetrics(d *Daemon) *metrics {
	m := &metrics{
		d:        d,
		reg:      prometheus.NewRegistry(),
		counters: map[[2]string]map[string]prometheus.Counter{},
		commits: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "millrace_commit_seconds", Help: "Time from proposing progress to its durability.",
			Buckets: []float64{.0005, .001, .002, .005, .01, .02, .05, .1, .5, 1, 5},
		}, []string{"result"}),
		guest: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "millrace_guest_count_total", Help: "What plugins count.",
		}, []string{"flow", "stage", "name"}),
		records:  prometheus.NewDesc("millrace_records_total", "Records of a flow since the node opened it, by what became of them.", []string{"flow", "outcome"}, nil),
		failures: prometheus.NewDesc("millrace_stage_failures_total", "Records that a stage or delivery failed.", []string{"flow", "stage"}, nil),
		seconds:  prometheus.NewDesc("millrace_stage_seconds_total", "Time spent in a stage.", []string{"flow", "stage"}, nil),
		lag:      prometheus.NewDesc("millrace_lag", "Records (bytes for files) between watermark and end of the source.", []string{"flow"}, nil),
		queue:    prometheus.NewDesc("millrace_failure_queue_entries", "Entries in the failure queue.", []string{"flow"}, nil),
		running:  prometheus.NewDesc("millrace_flow_running", "1 if the flow runs, 0 if it is paused.", []string{"flow", "state"}, nil),
		info:     prometheus.NewDesc("millrace_node_info", "The node; engine is compiler or interpreter.", []string{"version", "engine"}, nil),
	}
	m.reg.MustRegister(m, m.commits, m.guest, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

func (m *metrics) handler() http.Handler {
	return promhttp.HandlerFor(m.reg, promhttp.HandlerOpts{})
}

func (m *metrics) committed(took time.Duration, err error) {
	result := "ok"
	if err != nil {
		result = "failed"
	}
	m.commits.WithLabelValues(result).Observe(took.Seconds())
}

// maxCounters is how many counters of its own a stage may have; a guest chooses
// their names, so what is more is counted together.
const maxCounters = 64

// counted takes what the guest of a stage counts.
func (m *metrics) counted(flow, stage string) func(name string, delta float64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	counters := m.counters[[2]string{flow, stage}]
	if counters == nil {
		counters = map[string]prometheus.Counter{}
		m.counters[[2]string{flow, stage}] = counters
	}
	return func(name string, delta float64) {
		if delta < 0 || len(name) > 100 || !utf8.ValidString(name) {
			return
		}
		m.mu.Lock()
		defer m.mu.Unlock()
		if counters[name] == nil && len(counters) >= maxCounters {
			name = "others"
		}
		c := counters[name]
		if c == nil {
			c = m.guest.WithLabelValues(flow, stage, name)
			counters[name] = c
		}
		c.Add(delta)
	}
}

// Describe implements prometheus.Collector.
func (m *metrics) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{m.records, m.failures, m.seconds, m.lag, m.queue, m.running, m.info} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (m *metrics) Collect(ch chan<- prometheus.Metric) {
	ch <- prometheus.MustNewConstMetric(m.info, prometheus.GaugeValue, 1, m.d.cfg.Version, m.d.sandbox.Engine())
	flows, err := m.d.store.Flows()
	if err != nil {
		return
	}
	for _, f := range flows {
		a, err := m.d.apiFlow(f)
		if err != nil {
			continue
		}
		name := f.FullName()
		up := 0.0
		if a.State == "running" {
			up = 1
		}
		ch <- prometheus.MustNewConstMetric(m.running, prometheus.GaugeValue, up, name, a.State)
		ch <- prometheus.MustNewConstMetric(m.queue, prometheus.GaugeValue, float64(a.Queue.Entries), name)
		if a.Lag >= 0 {
			ch <- prometheus.MustNewConstMetric(m.lag, prometheus.GaugeValue, float64(a.Lag), name)
		}
		if g := a.Figures; g != nil {
			for outcome, v := range map[string]int64{"in": g.In, "emitted": g.Emitted, "dropped": g.Dropped, "failed": g.Failed, "retried": g.Retried} {
				ch <- prometheus.MustNewConstMetric(m.records, prometheus.CounterValue, float64(v), name, outcome)
			}
		}
		for _, s := range a.Stages {
			ch <- prometheus.MustNewConstMetric(m.failures, prometheus.CounterValue, float64(s.Failures), name, s.ID)
			ch <- prometheus.MustNewConstMetric(m.seconds, prometheus.CounterValue, float64(s.Nanos)/1e9, name, s.ID)
		}
	}
}
