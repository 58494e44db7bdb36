package daemon

import (
	"net/http"
	"slices"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/millrace-io/millrace/plugins/registry"
	"github.com/millrace-io/millrace/plugins/sandbox"
)

// metrics are what /metrics shows. Counters of flows are read from their
// pipelines when they are asked for; nothing is counted per record here.
type metrics struct {
	d       *Daemon
	reg     *prometheus.Registry
	commits *prometheus.HistogramVec
	guest   *prometheus.CounterVec

	records, failures, seconds, skipped, lag, queue, running, info, interpreted *prometheus.Desc
	flows                                                                       flowMetrics

	mu       sync.Mutex
	counters map[stageName]map[string]prometheus.Counter // guarded by mu
	live     map[stageName][]registry.Stage              // guarded by mu
	past     map[stageName]sandbox.Stats                 // of stages that were closed; guarded by mu
}

// stageName is a flow's full name and the id of a stage in it.
type stageName struct{ flow, stage string }

// pluginMetrics are the counters of stages that run plugins.
var pluginMetrics = []struct {
	desc  *prometheus.Desc
	value func(sandbox.Stats) float64
}{
	{pluginDesc("calls", "Calls of a stage's plugin, the repeated ones included."), func(s sandbox.Stats) float64 { return float64(s.Calls) }},
	{pluginDesc("call_records", "Records in the calls of a stage's plugin."), func(s sandbox.Stats) float64 { return float64(s.Records) }},
	{pluginDesc("fuel", "Units of fuel that a stage's plugin used; divided by millrace_plugin_call_records_total it is the fuel of a record."), func(s sandbox.Stats) float64 { return float64(s.Fuel) }},
	{pluginDesc("seconds", "Time spent in the calls of a stage's plugin."), func(s sandbox.Stats) float64 { return s.GuestTime.Seconds() }},
	{pluginDesc("restores", "Instances put back to their image."), func(s sandbox.Stats) float64 { return float64(s.Restores) }},
	{pluginDesc("instances", "Instances made."), func(s sandbox.Stats) float64 { return float64(s.Instances) }},
	{pluginDesc("repeats", "Calls made again to find the records that fail, and to judge them alone."), func(s sandbox.Stats) float64 { return float64(s.Repeats) }},
	{pluginDesc("unrepeatable", "Failures that cannot be replayed because the plugin answers the record otherwise when it is alone."), func(s sandbox.Stats) float64 { return float64(s.Unrepeatable) }},
	{pluginDesc("log_lines_dropped", "Lines of a plugin's log beyond its limits."), func(s sandbox.Stats) float64 { return float64(s.LogsDropped) }},
}

func pluginDesc(name, help string) *prometheus.Desc {
	return prometheus.NewDesc("millrace_plugin_"+name+"_total", help, []string{"flow", "stage"}, nil)
}

func newMetrics(d *Daemon) *metrics {
	m := &metrics{
		d:        d,
		reg:      prometheus.NewRegistry(),
		counters: map[stageName]map[string]prometheus.Counter{},
		live:     map[stageName][]registry.Stage{},
		past:     map[stageName]sandbox.Stats{},
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
		skipped:  prometheus.NewDesc("millrace_source_skipped_records_total", "Records that a flow's source has passed over since the node opened it, because its log no longer had them or as `out_of_range` says.", []string{"flow"}, nil),
		lag:      prometheus.NewDesc("millrace_lag", "Records (bytes for files) between watermark and end of the source.", []string{"flow"}, nil),
		queue:    prometheus.NewDesc("millrace_failure_queue_entries", "Entries in the failure queue.", []string{"flow"}, nil),
		running:  prometheus.NewDesc("millrace_flow_running", "1 if the flow runs, 0 if it is paused.", []string{"flow", "state"}, nil),
		info:     prometheus.NewDesc("millrace_node_info", "The node; engine is compiler or interpreter.", []string{"version", "engine"}, nil),
		interpreted: prometheus.NewDesc("millrace_engine_interpreted",
			"1 if plugins run in an interpreter, 10 to 30 times slower: executable memory is forbidden (systemd: MemoryDenyWriteExecute=no allows it), or the platform is not supported.", nil, nil),
	}
	m.flows = newFlowMetrics()
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
	at := stageName{flow, stage}
	counters := m.counters[at]
	if counters == nil {
		counters = map[string]prometheus.Counter{}
		m.counters[at] = counters
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

// bound takes the figures of a plugin's stage into account, until unbound.
func (m *metrics) bound(flow, stage string, st registry.Stage) {
	m.mu.Lock()
	defer m.mu.Unlock()
	at := stageName{flow, stage}
	m.live[at] = append(m.live[at], st)
}

// unbound keeps what a stage that is closed did: counters never fall.
func (m *metrics) unbound(flow, stage string, st registry.Stage) {
	m.mu.Lock()
	defer m.mu.Unlock()
	at := stageName{flow, stage}
	i := slices.Index(m.live[at], st)
	if i < 0 {
		return
	}
	if m.live[at] = slices.Delete(m.live[at], i, i+1); len(m.live[at]) == 0 {
		delete(m.live, at)
	}
	m.past[at] = added(m.past[at], st.Stats())
}

// plugin is what the plugins of a stage did so far; false if it had none.
func (m *metrics) plugin(at stageName) (sandbox.Stats, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	sum, had := m.past[at]
	for _, st := range m.live[at] {
		sum, had = added(sum, st.Stats()), true
	}
	return sum, had
}

// added is the sum of what is counted.
func added(a, b sandbox.Stats) sandbox.Stats {
	a.Calls += b.Calls
	a.Records += b.Records
	a.GuestTime += b.GuestTime
	a.Fuel += b.Fuel
	a.Restores += b.Restores
	a.Instances += b.Instances
	a.Repeats += b.Repeats
	a.Unrepeatable += b.Unrepeatable
	a.LogsDropped += b.LogsDropped
	return a
}

// Describe implements prometheus.Collector.
func (m *metrics) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{m.records, m.failures, m.seconds, m.skipped, m.lag, m.queue, m.running, m.info, m.interpreted} {
		ch <- d
	}
	for _, p := range pluginMetrics {
		ch <- p.desc
	}
	m.flows.describe(ch)
}

// Collect implements prometheus.Collector.
func (m *metrics) Collect(ch chan<- prometheus.Metric) {
	ch <- prometheus.MustNewConstMetric(m.info, prometheus.GaugeValue, 1, m.d.cfg.Version, m.d.sandbox.Engine())
	interpreted := 0.0
	if m.d.sandbox.Engine() == sandbox.EngineInterpreter {
		interpreted = 1
	}
	ch <- prometheus.MustNewConstMetric(m.interpreted, prometheus.GaugeValue, interpreted)
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
		m.flows.collect(ch, a)
		if a.Lag >= 0 {
			ch <- prometheus.MustNewConstMetric(m.lag, prometheus.GaugeValue, float64(a.Lag), name)
		}
		if g := a.Figures; g != nil {
			ch <- prometheus.MustNewConstMetric(m.skipped, prometheus.CounterValue, float64(g.Skipped), name)
			for outcome, v := range map[string]int64{"in": g.In, "emitted": g.Emitted, "dropped": g.Dropped, "failed": g.Failed, "retried": g.Retried} {
				ch <- prometheus.MustNewConstMetric(m.records, prometheus.CounterValue, float64(v), name, outcome)
			}
		}
		for _, s := range a.Stages {
			ch <- prometheus.MustNewConstMetric(m.failures, prometheus.CounterValue, float64(s.Failures), name, s.ID)
			ch <- prometheus.MustNewConstMetric(m.seconds, prometheus.CounterValue, float64(s.Nanos)/1e9, name, s.ID)
			if sum, had := m.plugin(stageName{name, s.ID}); had {
				for _, p := range pluginMetrics {
					ch <- prometheus.MustNewConstMetric(p.desc, prometheus.CounterValue, p.value(sum), name, s.ID)
				}
			}
		}
	}
	m.flows.collectConnections(ch, m.d.connections.all())
}
