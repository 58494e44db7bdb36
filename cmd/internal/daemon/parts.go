package daemon

import (
	"context"
	"io"
	"log/slog"
	"time"

	"github.com/millrace-io/millrace/runtime/connector"
	"github.com/millrace-io/millrace/runtime/connector/file"
	"github.com/millrace-io/millrace/runtime/connector/kafka"
	"github.com/millrace-io/millrace/runtime/connector/rocketmq"
	"github.com/millrace-io/millrace/runtime/connector/stream"
	"github.com/millrace-io/millrace/runtime/flow"
	"github.com/millrace-io/millrace/runtime/pipeline"
	"github.com/millrace-io/millrace/runtime/record"
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

// parts makes what a flow runs with out of its document.
type parts struct {
	// connection finds a connection that is not anonymous.
	connection func(project, name string) (*flow.Connection, error)
	secrets    secrets
	// connections are shared by all that deliver to the same partner, registries
	// by all that decode with the same one.
	connections *connections
	registries  *registries
	// strict: a setting that cannot be read is an error, whatever was read
	// before.
	strict bool
	// plugin binds a plugin that signs or validates.
	plugin bindExchange
	// keepNothing: no record is handed back to wait in a state.
	keepNothing bool
	logger      *slog.Logger
	// createTopics lets brokers make a topic that the source reads.
	createTopics bool
	// onSkip is called for records that the source passes over; nil: nobody.
	onSkip func(p record.Partition, from, to int64)
	// known are topics that the flow has read, with their ids.
	known map[string][16]byte
	// fetchMaxBytes bounds a fetch; 0: the connector's default.
	fetchMaxBytes int32
	// in and out are the streams of a flow that has such; nil: it has none.
	in       io.Reader
	out      io.Writer
	envelope bool
	// onRetry is called for each attempt of a delivery after a record's first.
	onRetry func()
	// ingest makes a source of requests; nil: there is none.
	ingest func(f *flow.Flow) (source, error)
	// follow waits at the end of files for more.
	follow bool
	// mocks stand in for partners, topics and files; nil: all is real.
	mocks *mocks
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
		c, err := p.connected(f.Project, s.Kafka.Connection, flow.KindKafka, "the source")
		if err != nil {
			return nil, err
		}
		return kafka.NewSource(kafka.SourceConfig{
			Config: p.kafka(c), Topics: s.Kafka.Topics, Pattern: s.Kafka.Pattern, Known: p.known, CreateTopics: p.createTopics,
			OutOfRange: kafka.OutOfRange(s.Kafka.OutOfRange), OnSkip: p.onSkip, FetchMaxBytes: p.fetchMaxBytes, HoldBytes: holdBytes,
		})
	case s.RocketMQ != nil:
		c, err := p.connected(f.Project, s.RocketMQ.Connection, flow.KindRocketMQ, "the source")
		if err != nil {
			return nil, err
		}
		return rocketmq.NewSource(rocketmq.SourceConfig{Config: p.rocketmq(c), Topic: s.RocketMQ.Topic, Tags: s.RocketMQ.Tags, HoldBytes: holdBytes})
	case s.File != nil:
		return file.NewSource(file.SourceConfig{Path: s.File.Path, Follow: p.follow})
	case s.Ingest != nil && p.ingest != nil:
		return p.ingest(f)
	case s.Ingest != nil:
		return nil, record.Errorf(record.Config, "only a node takes requests in; use `flowctl apply`, or another source")
	case p.in != nil:
		return stream.NewSource(stream.SourceConfig{Reader: p.in, Envelope: p.envelope})
	}
	return nil, record.Errorf(record.Config, "a node has no STDIN to read from; use `flowctl run`, or another source")
}

// start is where the flow begins to read partitions it has never read.
func start(f *flow.Flow) (connector.Start, error) {
	return connector.ParseStart(string(f.Source.Start()))
}

func otherwise(o flow.Otherwise) pipeline.Otherwise {
	switch o {
	case flow.OtherwiseDrop:
		return pipeline.ToNowhere
	case flow.OtherwisePause:
		return pipeline.ToPause
	case flow.OtherwiseTopic:
		return pipeline.ToTopic
	}
	return pipeline.ToQueue
}

// builtin makes a stage that is no plugin, or a branch.
func builtin(f *flow.Flow, s *flow.Stage) (pipeline.Stage, error) {
	if s.Branch != nil {
		return stage.NewBranch(s, f.Scope())
	}
	return stage.New(s, f.Scope())
}

// keepSent is how large an input an entry keeps where nobody else has it: a
// request's body of 1 MiB, and what stages added to it.
const keepSent = 4 << 20

// readAgain reports whether what a flow's source gave can be read again.
func readAgain(f *flow.Flow) bool {
	return f.Source.Kafka != nil || f.Source.RocketMQ != nil || f.Source.File != nil
}

// pipelineConfig is the part of a pipeline's configuration that the document
// says.
func pipelineConfig(f *flow.Flow) pipeline.Config {
	cfg := pipeline.Config{Flow: f.FullName(), InFlight: f.InFlight}
	switch f.Order {
	case flow.OrderNone:
		cfg.Order = pipeline.OrderNone
	case flow.OrderKey:
		cfg.Order = pipeline.OrderKey
	}
	if !readAgain(f) {
		cfg.KeepInput = keepSent
	}
	if f.Limits.Records > 0 {
		cfg.Records = pipeline.NewLimiter(f.Limits.Records)
	}
	return cfg
}

// holdBytes is what a flow keeps of fetched records while some of its
// partitions are held up: beside the windows, the most that a sink that is
// down makes a node remember.
const holdBytes = 8 << 20

// probe bounds a request that only asks a source something.
const probe = 10 * time.Second
