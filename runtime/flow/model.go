package flow

import (
	"slices"
	"strings"
	"time"

	"github.com/millrace-io/millrace/runtime/expr"
)

// DefaultProject is the project of a document that names none.
const DefaultProject = "default"

// Kinds of documents.
const (
	KindFlow       = "flow"
	KindConnection = "connection"
)

// Document is one document of a file.
type Document struct {
	// Kind is KindFlow or KindConnection.
	Kind string
	// File and Line (from 1) say where the document begins.
	File string
	Line int
	// Source is the document's own text, without its neighbours in the file.
	// It is nil in a document made from its resolved form.
	Source []byte

	// Flow is set for KindFlow, Connection for KindConnection. Parse leaves
	// them nil where it reports an error in the document.
	Flow       *Flow
	Connection *Connection
}

// Name is the name of the document's flow or connection, "" if it has errors.
func (d *Document) Name() string {
	switch {
	case d.Flow != nil:
		return d.Flow.Name
	case d.Connection != nil:
		return d.Connection.Name
	}
	return ""
}

// Pos is a place in a file: line and column (in characters) from 1. The zero
// Pos is unknown.
type Pos struct {
	Line, Column int
}

// Flow is a flow document of format v1. Its strings that hold ${...} are
// templates, compiled with Scope; all other strings are final.
type Flow struct {
	Project     string            `json:"project"`
	Name        string            `json:"name"`
	Description string            `json:"description,omitempty"`
	Labels      map[string]string `json:"labels,omitempty"`
	// Vars after overrides: string, bool, int64 or float64.
	Vars map[string]any `json:"vars,omitempty"`
	// Env holds the environment variables that the document names. It is nil
	// in a document that was parsed and not resolved.
	Env map[string]string `json:"env,omitempty"`

	Source Source `json:"source"`
	// Order is resolved: what the document says, or its default.
	Order Order `json:"order"`
	// Slots is how many owners the partitions are spread over; 0 leaves the
	// choice to the node: min(partitions, 8).
	Slots int `json:"slots,omitempty"`
	// InFlight is the number of records a lane holds; 0: the node's default.
	InFlight int    `json:"in_flight,omitempty"`
	Limits   Limits `json:"limits,omitzero"`
	// Otherwise is the flow's default; every stage has its own, resolved. Aside
	// is set where it is OtherwiseTopic.
	Otherwise Otherwise `json:"otherwise"`
	Aside     *Topic    `json:"aside,omitempty"`
	Queue     Queue     `json:"queue,omitzero"`
	Requeue   *Requeue  `json:"requeue,omitempty"`

	// Stages come before Delivery, in order. Where branches end every way
	// there is no Delivery behind them: its ID is empty.
	Stages   []Stage  `json:"stages,omitempty"`
	Delivery Delivery `json:"delivery,omitzero"`

	// Exceptions are for each record that cannot go on; all whose condition
	// holds are told, in order.
	Exceptions []Exception `json:"exceptions,omitempty"`
}

// FullName is {project}/{name}.
func (f *Flow) FullName() string { return f.Project + "/" + f.Name }

// Scope is what the flow's expressions may name, for expr.Compile and
// expr.CompileTemplate.
func (f *Flow) Scope() expr.Scope {
	return expr.Scope{Roots: expr.RecordRoots, Vars: f.Vars, Env: f.Env}
}

// ExceptionScope is what the expressions of Exceptions may name: Scope, and
// the failure.
func (f *Flow) ExceptionScope() expr.Scope {
	s := f.Scope()
	s.Roots |= expr.Failure
	return s
}

// AllStages are the stages of the flow and of its branches in the order of the
// document, a branch before those inside it. Deliveries are not among them.
func (f *Flow) AllStages() []*Stage {
	var out []*Stage
	walk(f.Stages, func(s *Stage) { out = append(out, s) }, func(*Delivery) {})
	return out
}

// Deliveries are the ends of the flow in the order of the document: those of
// branches, and Delivery if there is one. Pushes of exceptions and topics of
// `otherwise` are not among them.
func (f *Flow) Deliveries() []*Delivery {
	var out []*Delivery
	walk(f.Stages, func(*Stage) {}, func(d *Delivery) { out = append(out, d) })
	if f.Delivery.ID != "" {
		out = append(out, &f.Delivery)
	}
	return out
}

// walk visits stages and deliveries in the order of the document.
func walk(stages []Stage, stage func(*Stage), delivery func(*Delivery)) {
	for i := range stages {
		s := &stages[i]
		stage(s)
		if s.Branch == nil {
			continue
		}
		for j := range s.Branch.Cases {
			s.Branch.Cases[j].walk(stage, delivery)
		}
		s.Branch.Else.walk(stage, delivery)
	}
}

func (c *BranchCase) walk(stage func(*Stage), delivery func(*Delivery)) {
	walk(c.Stages, stage, delivery)
	if c.Delivery != nil {
		delivery(c.Delivery)
	}
}

// Connections are the names of the connections that the flow uses, sorted,
// each once, anonymous ones among them (see Anonymous).
func (f *Flow) Connections() []string { return f.connections("") }

// KafkaConnections are those of Connections that are used as Kafka.
func (f *Flow) KafkaConnections() []string { return f.connections(KindKafka) }

// connections are those that are used as a kind; "": all.
func (f *Flow) connections(kind string) []string {
	var names []string
	used := func(as, name string) {
		if kind == "" || kind == as {
			names = append(names, name)
		}
	}
	topic := func(t *Topic) {
		if t != nil {
			used(t.kind(), t.Connection)
		}
	}
	delivery := func(d *Delivery) {
		topic(d.Aside)
		if name := d.Connection(); name != "" {
			used(d.Kind(), name)
		}
	}
	if name := f.Source.Connection(); name != "" {
		used(f.Source.Kind(), name)
	}
	topic(f.Aside)
	for _, s := range f.AllStages() {
		topic(s.Aside)
	}
	for _, d := range f.Deliveries() {
		delivery(d)
	}
	for i := range f.Exceptions {
		delivery(&f.Exceptions[i].Push)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// Secrets are the names of the secrets that the flow itself needs, sorted,
// each once; those of its connections are theirs.
func (f *Flow) Secrets() []string {
	var names []string
	sign := func(d *Delivery) { names = append(names, d.Sign.secrets()...) }
	if in := f.Source.Ingest; in != nil && in.Sender != nil {
		names = append(names, in.Sender.Key.Name)
	}
	for _, d := range f.Deliveries() {
		sign(d)
	}
	for i := range f.Exceptions {
		sign(&f.Exceptions[i].Push)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// Plugins are the stages of the flow that are plugins, those that sign and
// validate among them: as stages of their own, whose ids are the delivery's
// with .sign and .validate behind.
func (f *Flow) Plugins() []*Stage {
	var out []*Stage
	part := func(d *Delivery, name string, p *PluginStage) {
		if p != nil {
			out = append(out, &Stage{ID: d.ID + "." + name, Otherwise: d.Otherwise, Aside: d.Aside, Plugin: p, Pos: d.Pos})
		}
	}
	delivery := func(d *Delivery) {
		if d.Sign != nil {
			part(d, "sign", d.Sign.Plugin)
		}
		if d.Validate != nil {
			part(d, "validate", d.Validate.Plugin)
		}
	}
	walk(f.Stages, func(s *Stage) {
		if s.Plugin != nil {
			out = append(out, s)
		}
	}, delivery)
	delivery(&f.Delivery)
	return out
}

// Limits of a flow. A zero field is no limit.
type Limits struct {
	// Records that the flow reads a second, over all its partitions.
	Records float64 `json:"records_per_second,omitempty"`
	// PauseAt is how many entries kept for a retry or filed in the failure
	// queue stop the flow's reading, ResumeAt how many let it go on: less than
	// PauseAt, and set where that is.
	PauseAt  int `json:"pause_at,omitempty"`
	ResumeAt int `json:"resume_at,omitempty"`
}

// Queue bounds a flow's failure queue. A zero field is the node's own bound;
// of Keep it is none.
type Queue struct {
	// Keep is how long an entry stays.
	Keep    time.Duration `json:"keep_ns,omitempty"`
	Entries int           `json:"entries,omitempty"`
	Bytes   int64         `json:"bytes,omitempty"`
	// WhenFull is what happens at Entries or Bytes; "" is WhenFullPause.
	WhenFull WhenFull `json:"when_full,omitempty"`
}

// WhenFull is what happens when a failure queue is full.
type WhenFull string

const (
	// WhenFullPause pauses the flow.
	WhenFullPause WhenFull = "pause"
	// WhenFullDropOldest gives up the entries that were filed first.
	WhenFullDropOldest WhenFull = "drop_oldest"
)

// Requeue takes entries of the failure queue back to retry.
type Requeue struct {
	// Every is how long an entry lies in the queue before.
	Every time.Duration `json:"every_ns"`
	// AtMost is how often one entry goes back; at least 1.
	AtMost int `json:"at_most"`
}

// Exception tells of records that cannot go on. It never owns one.
type Exception struct {
	// When is an expression of ExceptionScope; "" is every record.
	When string `json:"when,omitempty"`
	// Push is to HTTP, Kafka or RocketMQ; its templates and expressions are of
	// ExceptionScope, its ID is exception1, exception2 and so on.
	Push Delivery `json:"push"`
}

// Topic is a topic of a Kafka or RocketMQ connection.
type Topic struct {
	// RocketMQ: it is one of RocketMQ.
	RocketMQ   bool   `json:"rocketmq,omitempty"`
	Connection string `json:"connection"`
	Topic      string `json:"topic"`
}

func (t *Topic) kind() string {
	if t.RocketMQ {
		return KindRocketMQ
	}
	return KindKafka
}

// String is kafka://connection/topic or rocketmq://connection/topic.
func (t *Topic) String() string { return address(t.kind(), t.Connection) + "/" + t.Topic }

// address is KIND://CONNECTION, which an anonymous connection is already.
func address(kind, connection string) string {
	return kind + "://" + strings.TrimPrefix(connection, kind+"://")
}

// Order is what the flow keeps of its source's order.
type Order string

const (
	// OrderPartition delivers the records of a partition in their order.
	OrderPartition Order = "partition"
	// OrderKey delivers the records of a key in their order; records without a
	// key count by partition. It is the default where a delivery is to HTTP.
	OrderKey Order = "key"
	// OrderNone delivers in any order.
	OrderNone Order = "none"
)

// Otherwise names the owner of a record that cannot go on.
type Otherwise string

const (
	// OtherwiseQueue puts it into the failure queue.
	OtherwiseQueue Otherwise = "queue"
	// OtherwiseDrop gives it up and counts it.
	OtherwiseDrop Otherwise = "drop"
	// OtherwisePause stops the flow before it.
	OtherwisePause Otherwise = "pause"
	// OtherwiseTopic writes it to the topic of Aside.
	OtherwiseTopic Otherwise = "topic"
)

// Source is where records come from; exactly one field is set.
type Source struct {
	Kafka    *KafkaSource    `json:"kafka,omitempty"`
	RocketMQ *RocketMQSource `json:"rocketmq,omitempty"`
	File     *FileSource     `json:"file,omitempty"`
	Stream   *Stream         `json:"stream,omitempty"`
	Ingest   *IngestSource   `json:"ingest,omitempty"`
}

// Kind is KindKafka, KindRocketMQ, "file", "stream" or "ingest".
func (s Source) Kind() string {
	switch {
	case s.Ingest != nil:
		return "ingest"
	case s.Kafka != nil:
		return KindKafka
	case s.RocketMQ != nil:
		return KindRocketMQ
	case s.File != nil:
		return "file"
	}
	return "stream"
}

// Connection is the name of the source's connection, "" where it has none.
func (s Source) Connection() string {
	switch {
	case s.Kafka != nil:
		return s.Kafka.Connection
	case s.RocketMQ != nil:
		return s.RocketMQ.Connection
	}
	return ""
}

// Start is where a flow begins to read; "" where its source has no such thing.
func (s Source) Start() Start {
	switch {
	case s.Kafka != nil:
		return s.Kafka.Start
	case s.RocketMQ != nil:
		return s.RocketMQ.Start
	}
	return ""
}

// String is the source in a few words: `kafka://main/orders,returns`,
// `kafka://main pattern orders-.*`, `rocketmq://mq/orders`, `file in.ndjson`,
// `ingest`, `stream`.
func (s Source) String() string {
	switch {
	case s.Kafka != nil && s.Kafka.Pattern != "":
		return address(KindKafka, s.Kafka.Connection) + " pattern " + s.Kafka.Pattern
	case s.Kafka != nil:
		return address(KindKafka, s.Kafka.Connection) + "/" + strings.Join(s.Kafka.Topics, ",")
	case s.RocketMQ != nil:
		return address(KindRocketMQ, s.RocketMQ.Connection) + "/" + s.RocketMQ.Topic
	case s.File != nil:
		return "file " + s.File.Path
	}
	return s.Kind()
}

// KafkaSource reads topics of a Kafka cluster.
type KafkaSource struct {
	// Connection is a connection's name, or an anonymous connection.
	Connection string `json:"connection"`
	// Topics has at least one element, and none twice, unless there is a
	// Pattern: an expression of RE2 that matches the whole name of a topic.
	Topics  []string `json:"topics,omitempty"`
	Pattern string   `json:"pattern,omitempty"`
	Start   Start    `json:"start"`
	// OutOfRange is what happens where the log no longer has the flow's
	// position; "" is OutOfRangePause.
	OutOfRange OutOfRange `json:"out_of_range,omitempty"`
	// Group is the consumer group that offsets are mirrored to: "" is
	// millrace.PROJECT.FLOW, GroupNone is none.
	Group string `json:"group,omitempty"`
	// Decode is nil where values are taken as they are.
	Decode *Decode `json:"decode,omitempty"`
}

// GroupNone is a KafkaSource's Group where offsets are not mirrored.
const GroupNone = "none"

// GroupName is the consumer group that a flow's offsets are mirrored to, ""
// where they are not.
func (f *Flow) GroupName() string {
	switch k := f.Source.Kafka; {
	case k == nil || k.Group == GroupNone:
		return ""
	case k.Group != "":
		return k.Group
	}
	return "millrace." + f.Project + "." + f.Name
}

// OutOfRange is what a flow does where the log no longer has its position.
type OutOfRange string

const (
	// OutOfRangePause pauses it.
	OutOfRangePause OutOfRange = "pause"
	// OutOfRangeEarliest goes on at the first record that there is.
	OutOfRangeEarliest OutOfRange = "earliest"
	// OutOfRangeLatest goes on behind the last one.
	OutOfRangeLatest OutOfRange = "latest"
)

// Decode makes JSON of values that are in the wire format of the connection's
// Schema Registry.
type Decode struct {
	// Format is DecodeAvro or DecodeJSONSchema.
	Format string `json:"format"`
}

// Formats of Decode.
const (
	DecodeAvro       = "avro"
	DecodeJSONSchema = "json_schema"
)

// DecodeID is the id of the stage that decodes, in front of the others.
const DecodeID = "decode"

// Decoding is the stage that decodes what the source gives, nil if the flow has
// none. It is not among AllStages.
func (f *Flow) Decoding() *Stage {
	if f.Source.Kafka == nil || f.Source.Kafka.Decode == nil {
		return nil
	}
	return &Stage{ID: DecodeID, Otherwise: f.Otherwise, Aside: f.Aside, Decode: f.Source.Kafka.Decode}
}

// RocketMQSource reads a topic of a RocketMQ cluster.
type RocketMQSource struct {
	// Connection is a connection's name, or an anonymous connection.
	Connection string `json:"connection"`
	Topic      string `json:"topic"`
	// Tags are those of the messages that are read; empty: all are.
	Tags  []string `json:"tags,omitempty"`
	Start Start    `json:"start"`
}

// Start is where a flow begins to read a partition that it has never read:
// "earliest" (the default), "latest" or a time in RFC 3339.
type Start string

const (
	StartEarliest Start = "earliest"
	StartLatest   Start = "latest"
)

// Time is the time of a start that is one.
func (s Start) Time() (time.Time, bool) {
	t, err := time.Parse(time.RFC3339, string(s))
	return t, err == nil
}

// FileSource reads the lines of a file.
type FileSource struct {
	Path string `json:"path"`
}

// Stream is STDIN as a source and STDOUT as a sink.
type Stream struct{}

// IngestSource takes the requests of HTTP clients.
type IngestSource struct {
	// Body is the longest body in bytes.
	Body int64 `json:"body_bytes"`
	// Wait is how long a request waits for its record to be delivered or kept.
	Wait time.Duration `json:"wait_ns"`
	// Idempotency is the name of the header whose value names the record.
	Idempotency string `json:"idempotency"`
	// Sender is how the sender signs, nil if nobody checks it: the value that
	// it makes of the request as it came must be the one in it. Its algorithm
	// is one of hmac-*.
	Sender *Signature `json:"sender,omitempty"`
}
