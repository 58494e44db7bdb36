package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"time"

	"github.com/millrace-io/millrace/runtime/connector"
	"github.com/millrace-io/millrace/runtime/connector/file"
	"github.com/millrace-io/millrace/runtime/connector/http"
	"github.com/millrace-io/millrace/runtime/connector/kafka"
	"github.com/millrace-io/millrace/runtime/connector/stream"
	"github.com/millrace-io/millrace/runtime/delivery"
	"github.com/millrace-io/millrace/runtime/expr"
	"github.com/millrace-io/millrace/runtime/flow"
	"github.com/millrace-io/millrace/runtime/pipeline"
	"github.com/millrace-io/millrace/runtime/record"
	"github.com/millrace-io/millrace/runtime/retry"
	"github.com/millrace-io/millrace/runtime/stage"
)

// source is what every connector's source offers.
type source interface {
	pipeline.Source
	Partitions(ctx context.Context) ([]connector.Found, error)
	Start(ctx context.Context, p record.Partition, start connector.Start) (int64, error)
	End(ctx context.Context) (map[record.Partition]int64, error)
	io.Closer
}

// sink is a delivery that is to be closed.
type sink interface {
	pipeline.Delivery
	io.Closer
}

// parts makes what a flow runs with out of its document.
type parts struct {
	// connection finds a connection that is not anonymous.
	connection func(project, name string) (*flow.Connection, error)
	secrets    secrets
	logger     *slog.Logger
	// fetchMaxBytes bounds a fetch; 0: the connector's default.
	fetchMaxBytes int32
	// in and out are the streams of a flow that has such; nil: it has none.
	in       io.Reader
	out      io.Writer
	envelope bool
	// onRetry is called for each attempt of a delivery after a record's first.
	onRetry func()
	// follow waits at the end of files for more.
	follow bool
}

func (p *parts) connect(project, name string) (*flow.Connection, error) {
	if c, ok := flow.Anonymous(name); ok {
		return c, nil
	}
	return p.connection(project, name)
}

// source opens the flow's source. It connects to nothing yet.
func (p *parts) source(f *flow.Flow) (source, error) {
	switch s := f.Source; {
	case s.Kafka != nil:
		c, err := p.connect(f.Project, s.Kafka.Connection)
		if err != nil {
			return nil, err
		}
		if c.Kafka == nil {
			return nil, record.Errorf(record.Config, "connection %q is of kind %s; the source needs kafka", c.Name, c.Kind())
		}
		return kafka.NewSource(kafka.SourceConfig{Config: p.kafka(c), Topics: s.Kafka.Topics, CreateTopics: true, FetchMaxBytes: p.fetchMaxBytes, HoldBytes: holdBytes})
	case s.File != nil:
		return file.NewSource(file.SourceConfig{Path: s.File.Path, Follow: p.follow})
	case p.in != nil:
		return stream.NewSource(stream.SourceConfig{Reader: p.in, Envelope: p.envelope})
	}
	return nil, record.Errorf(record.Config, "a node has no STDIN to read from; use `flowctl run`, or another source")
}

func (p *parts) kafka(c *flow.Connection) kafka.Config {
	return kafka.Config{Brokers: c.Kafka.Brokers, Logger: p.logger}
}

// start is where the flow begins to read partitions it has never read.
func start(f *flow.Flow) (connector.Start, error) {
	if f.Source.Kafka == nil {
		return connector.Start{}, nil
	}
	return connector.ParseStart(string(f.Source.Kafka.Start))
}

// delivery opens the end of the flow. It connects to nothing yet.
func (p *parts) delivery(f *flow.Flow, id delivery.Identity) (sink, error) {
	switch d := &f.Delivery; {
	case d.Kafka != nil:
		return p.kafkaDelivery(f)
	case d.HTTP != nil:
		return p.httpDelivery(f, id)
	case d.File != nil:
		s, err := file.NewSink(file.SinkConfig{Path: d.File.Path})
		if err != nil {
			return nil, err
		}
		return delivery.NewPatient(s, policy(d.Retry)), nil
	case p.out != nil:
		return stream.NewSink(stream.SinkConfig{Writer: p.out, Envelope: p.envelope})
	}
	return nil, record.Errorf(record.Config, "a node has no STDOUT to write to; use `flowctl run`, or another delivery")
}

func (p *parts) kafkaDelivery(f *flow.Flow) (sink, error) {
	d := f.Delivery.Kafka
	c, err := p.connect(f.Project, d.Connection)
	if err != nil {
		return nil, err
	}
	if c.Kafka == nil {
		return nil, record.Errorf(record.Config, "connection %q is of kind %s; the delivery needs kafka", c.Name, c.Kind())
	}
	s, err := kafka.NewSink(kafka.SinkConfig{Config: p.kafka(c), Topic: d.Topic})
	if err != nil || d.Key == "" {
		return s, err
	}
	key, err := expr.Compile(d.Key, f.Scope())
	if err != nil {
		return nil, fmt.Errorf("compile key of delivery %s: %w", f.Delivery.ID, err)
	}
	return delivery.NewKeyed(s, key), nil
}

func (p *parts) httpDelivery(f *flow.Flow, id delivery.Identity) (sink, error) {
	d := &f.Delivery
	c, err := p.connect(f.Project, d.HTTP.Connection)
	if err != nil {
		return nil, err
	}
	if c.HTTP == nil {
		return nil, record.Errorf(record.Config, "connection %q is of kind %s; the delivery needs http", c.Name, c.Kind())
	}
	cfg, headers, confidential, err := p.http(c)
	if err != nil {
		return nil, err
	}
	conn, err := http.NewSink(cfg)
	if err != nil {
		return nil, err
	}
	b, err := delivery.NewBuilder(f, id)
	if err != nil {
		return nil, err
	}
	n := cfg.Concurrent
	if n <= 0 {
		n = delivery.DefaultConcurrent
	}
	r := delivery.NewRequests(delivery.Config{
		InOrder: f.Order != flow.OrderNone, HoldBack: d.Otherwise == flow.OtherwisePause, Slots: delivery.NewSlots(n), Policy: policy(d.Retry), OnRetry: p.onRetry, Logger: p.logger,
	}, func(ctx context.Context, rec *record.Record) error {
		req, err := b.Build(rec)
		if err != nil {
			return err
		}
		_, err = conn.Send(ctx, &http.Request{Method: req.Method, URL: req.Path, Header: append(req.Header, headers...), Body: req.Body, Timeout: req.Timeout})
		return hide(err, confidential)
	})
	return &closeBoth{r, conn}, nil
}

// http resolves a connection's secrets; confidential are their values.
func (p *parts) http(c *flow.Connection) (cfg http.Config, headers []record.Header, confidential []string, err error) {
	cfg = http.Config{Base: c.HTTP.Base, Timeout: c.HTTP.Timeout, Concurrent: c.HTTP.Concurrent}
	if c.HTTP.Bearer != nil {
		token, err := p.secrets.get(c.HTTP.Bearer.Name)
		if err != nil {
			return cfg, nil, nil, err
		}
		confidential = append(confidential, token)
		cfg.Authorization = "Bearer " + token
	}
	for _, h := range c.HTTP.Headers {
		v := h.Value
		if h.Secret != nil {
			var err error
			if v, err = p.secrets.get(h.Secret.Name); err != nil {
				return cfg, nil, nil, err
			}
			confidential = append(confidential, v)
		}
		headers = append(headers, record.Header{Key: h.Name, Value: []byte(v)})
	}
	return cfg, headers, confidential, nil
}

// hide takes secrets out of an error: a partner may send back in its answer
// what it was sent.
func hide(err error, confidential []string) error {
	e, ok := errors.AsType[*record.Error](err)
	if !ok {
		return err
	}
	hidden := *e
	for _, s := range confidential {
		hidden.Message = strings.ReplaceAll(hidden.Message, s, "***")
	}
	if hidden.Message == e.Message {
		return err
	}
	hidden.Err = nil
	return &hidden
}

// closeBoth is a delivery over a connection of its own.
type closeBoth struct {
	*delivery.Requests
	conn io.Closer
}

func (c *closeBoth) Close() error {
	err := c.Requests.Close()
	if e := c.conn.Close(); err == nil {
		err = e
	}
	return err
}

func policy(r *flow.Retry) retry.Policy {
	if r == nil {
		return retry.Policy{}
	}
	return retry.Policy{First: r.First, Max: r.Max, Attempts: uint32(max(r.Attempts, 0)), Within: r.Within}
}

func otherwise(o flow.Otherwise) pipeline.Otherwise {
	switch o {
	case flow.OtherwiseDrop:
		return pipeline.ToNowhere
	case flow.OtherwisePause:
		return pipeline.ToPause
	}
	return pipeline.ToQueue
}

// builtin makes a stage that is no plugin.
func builtin(f *flow.Flow, s *flow.Stage) (pipeline.Stage, error) {
	return stage.New(s, f.Scope())
}

// pipelineConfig is the part of a pipeline's configuration that the document
// says.
func pipelineConfig(f *flow.Flow) pipeline.Config {
	cfg := pipeline.Config{
		Flow: f.FullName(), InFlight: f.InFlight,
		Delivery: pipeline.StageInfo{ID: f.Delivery.ID, Otherwise: otherwise(f.Delivery.Otherwise)},
	}
	if f.Order == flow.OrderNone {
		cfg.Order = pipeline.OrderNone
	}
	return cfg
}

// holdBytes is what a flow keeps of fetched records while some of its
// partitions are held up: beside the windows, the most that a sink that is
// down makes a node remember.
const holdBytes = 8 << 20

// probe bounds a request that only asks a source something.
const probe = 10 * time.Second
