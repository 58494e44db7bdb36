package flow

import (
	"encoding/json"
	"net/url"
	"slices"
	"strconv"
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
	Order  Order  `json:"order"`
	// Slots is how many owners the partitions are spread over; 0 leaves the
	// choice to the node: min(partitions, 8).
	Slots int `json:"slots,omitempty"`
	// InFlight is the number of records a lane holds; 0: the node's default.
	InFlight int `json:"in_flight,omitempty"`
	// Otherwise is the flow's default; every stage has its own, resolved.
	Otherwise Otherwise `json:"otherwise"`

	// Stages come before Delivery, in order.
	Stages   []Stage  `json:"stages,omitempty"`
	Delivery Delivery `json:"delivery"`
}

// FullName is {project}/{name}.
func (f *Flow) FullName() string { return f.Project + "/" + f.Name }

// Scope is what the flow's expressions may name, for expr.Compile and
// expr.CompileTemplate.
func (f *Flow) Scope() expr.Scope {
	return expr.Scope{Roots: expr.RecordRoots, Vars: f.Vars, Env: f.Env}
}

// Connections are the names of the connections that the flow uses, sorted,
// each once, anonymous ones among them (see Anonymous).
func (f *Flow) Connections() []string {
	var names []string
	if k := f.Source.Kafka; k != nil {
		names = append(names, k.Connection)
	}
	if k := f.Delivery.Kafka; k != nil {
		names = append(names, k.Connection)
	}
	if h := f.Delivery.HTTP; h != nil {
		names = append(names, h.Connection)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// Plugins are the stages of the flow that are plugins.
func (f *Flow) Plugins() []*Stage {
	var out []*Stage
	for i := range f.Stages {
		if f.Stages[i].Plugin != nil {
			out = append(out, &f.Stages[i])
		}
	}
	return out
}

// Order is what the flow keeps of its source's order.
type Order string

const (
	// OrderPartition delivers the records of a partition in their order.
	OrderPartition Order = "partition"
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
)

// Source is where records come from; exactly one field is set.
type Source struct {
	Kafka  *KafkaSource `json:"kafka,omitempty"`
	File   *FileSource  `json:"file,omitempty"`
	Stream *Stream      `json:"stream,omitempty"`
}

// Kind is "kafka", "file" or "stream".
func (s Source) Kind() string {
	switch {
	case s.Kafka != nil:
		return "kafka"
	case s.File != nil:
		return "file"
	}
	return "stream"
}

// KafkaSource reads topics of a Kafka cluster.
type KafkaSource struct {
	// Connection is a connection's name, or an anonymous connection.
	Connection string `json:"connection"`
	// Topics has at least one element, and none twice.
	Topics []string `json:"topics"`
	Start  Start    `json:"start"`
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

// Stage is one step before the delivery. Filter, or one of Plugin and Map, is
// set.
type Stage struct {
	// ID is unique in the flow, the delivery included.
	ID string `json:"id"`
	// Otherwise is resolved: the stage's own or the flow's.
	Otherwise Otherwise `json:"otherwise"`

	// Filter is an expression of type bool; records with true go on.
	Filter string       `json:"filter,omitempty"`
	Plugin *PluginStage `json:"plugin,omitempty"`
	Map    *MapStage    `json:"map,omitempty"`

	// Pos is where the stage begins in its file.
	Pos Pos `json:"-"`
}

// Describe is the stage in a word or two for plans and listings:
// `filter value.a > 1`, `map acme/order-map@^1.2`, `map (set, drop)`,
// `map ./vowels.wasm count_vowels (impure)`.
func (s *Stage) Describe() string {
	switch {
	case s.Plugin != nil:
		text := "map " + s.Plugin.Ref.String()
		if s.Plugin.Function != "" {
			text += " " + s.Plugin.Function
		}
		var notes []string
		if s.Plugin.Stateful() {
			notes = append(notes, "stateful")
		}
		if s.Plugin.Impure() {
			notes = append(notes, "impure")
		}
		if len(notes) > 0 {
			text += " (" + strings.Join(notes, ", ") + ")"
		}
		return text
	case s.Map != nil:
		return "map (" + strings.Join(s.Map.steps(), ", ") + ")"
	}
	return "filter " + s.Filter
}

// PluginStage runs a plugin.
type PluginStage struct {
	Ref PluginRef `json:"ref"`
	// With is the plugin's configuration, a JSON object; nil if none is given.
	With json.RawMessage `json:"with,omitempty"`
	// Function is the export that the plugin is called by, which makes it run
	// in extism mode; "": the plugin's own default, or another mode.
	Function string `json:"function,omitempty"`
	// Hosts are patterns of those that it may reach by HTTP; with any the
	// stage is impure.
	Hosts []string `json:"hosts,omitempty"`
	// Lines is "" for the plugin's own default, "each" or "batch".
	Lines string `json:"lines,omitempty"`
	// Envelope: lines are envelopes, not bare values.
	Envelope bool `json:"envelope,omitempty"`
	// Isolation is "batch", "record" or "failure".
	Isolation string `json:"isolation"`
	// MemoryBytes is the guest's limit; 0: the node's default.
	MemoryBytes int64 `json:"memory_bytes,omitempty"`
	// Fuel is what a record may cost, in units of the sandbox; 0: the
	// plugin's manifest, else the node's ceiling.
	Fuel int64 `json:"fuel,omitempty"`
}

// Stateful reports that the plugin's answers depend on earlier batches, Impure
// that they depend on other hosts: such a stage can be neither replayed nor
// compared with another version.
func (p *PluginStage) Stateful() bool { return p.Isolation == "failure" }

// Impure: see Stateful.
func (p *PluginStage) Impure() bool { return len(p.Hosts) > 0 }

// PluginRef names a plugin.
type PluginRef struct {
	// Path is the local file that the document names, "" if it names a
	// plugin of the registry. Relative paths are relative to the file of the
	// document.
	Path string `json:"path,omitempty"`
	// Namespace ("default" if the document says none), Name and Range. With a
	// Path they are empty in a parsed document; Resolve fills them in from
	// the resolver's answer, with the range "*".
	Namespace string `json:"namespace,omitempty"`
	Name      string `json:"name,omitempty"`
	Range     string `json:"range,omitempty"`
}

// String is the reference as it stands in a flow file.
func (r PluginRef) String() string {
	if r.Path != "" {
		return r.Path
	}
	s := r.Name + "@" + r.Range
	if r.Namespace != "" && r.Namespace != DefaultNamespace {
		s = r.Namespace + "/" + s
	}
	return s
}

// DefaultNamespace is the namespace of plugins that are named without one.
const DefaultNamespace = "default"

// MapStage is the built-in map: JSON in, JSON out; its parts are applied in
// the order of the fields. Paths are read with expr.ParsePath.
type MapStage struct {
	Set    []Assignment `json:"set,omitempty"`
	Rename []Renaming   `json:"rename,omitempty"`
	Drop   []string     `json:"drop,omitempty"`
	Keep   []string     `json:"keep,omitempty"`
}

func (m *MapStage) steps() []string {
	var s []string
	if len(m.Set) > 0 {
		s = append(s, "set")
	}
	if len(m.Rename) > 0 {
		s = append(s, "rename")
	}
	if len(m.Drop) > 0 {
		s = append(s, "drop")
	}
	if len(m.Keep) > 0 {
		s = append(s, "keep")
	}
	return s
}

// Assignment sets the value at a path to that of an expression.
type Assignment struct {
	Path string `json:"path"`
	Expr string `json:"expr"`
}

// Renaming moves the value at path From to path To.
type Renaming struct {
	From string `json:"from"`
	To   string `json:"to"`
}

// Delivery is the end of a flow. Exactly one of Kafka, HTTP, File and Stream
// is set.
type Delivery struct {
	ID        string    `json:"id"`
	Otherwise Otherwise `json:"otherwise"`
	// Retry bounds the attempts; nil: they have no end.
	Retry *Retry `json:"retry,omitempty"`

	Kafka  *KafkaPush `json:"kafka,omitempty"`
	HTTP   *HTTPPush  `json:"http,omitempty"`
	File   *FilePush  `json:"file,omitempty"`
	Stream *Stream    `json:"stream,omitempty"`

	Pos Pos `json:"-"`
}

// Kind is "kafka", "http", "file" or "stream".
func (d *Delivery) Kind() string {
	switch {
	case d.Kafka != nil:
		return "kafka"
	case d.HTTP != nil:
		return "http"
	case d.File != nil:
		return "file"
	}
	return "stream"
}

// Describe is the delivery in a few words: `push kafka://main/orders`,
// `push post https://host/path`, `push file out.ndjson`, `push stream`.
func (d *Delivery) Describe() string {
	switch {
	case d.Kafka != nil:
		if strings.HasPrefix(d.Kafka.Connection, kafkaScheme) {
			return "push " + d.Kafka.Connection + "/" + d.Kafka.Topic
		}
		return "push " + kafkaScheme + d.Kafka.Connection + "/" + d.Kafka.Topic
	case d.HTTP != nil:
		if _, ok := Anonymous(d.HTTP.Connection); ok {
			return "push " + d.HTTP.Method + " " + d.HTTP.Connection + d.HTTP.Path
		}
		return "push " + d.HTTP.Method + " " + d.HTTP.Connection + ":" + d.HTTP.Path
	case d.File != nil:
		return "push file " + d.File.Path
	}
	return "push stream"
}

// Retry bounds and paces the attempts of a delivery. A zero field is not said:
// the pace has the default of package retry, the bounds do not hold.
type Retry struct {
	// First is the wait before the second attempt; it doubles up to Max.
	First time.Duration `json:"first_ns,omitempty"`
	Max   time.Duration `json:"max_ns,omitempty"`
	// Attempts counts the first one.
	Attempts int           `json:"attempts,omitempty"`
	Within   time.Duration `json:"within_ns,omitempty"`
}

// KafkaPush writes records to a topic.
type KafkaPush struct {
	Connection string `json:"connection"`
	Topic      string `json:"topic"`
	// Key is an expression for the key (see expr.Program.Key); "" keeps the
	// record's own.
	Key string `json:"key,omitempty"`
}

// HTTPPush sends one request a record.
type HTTPPush struct {
	Connection string `json:"connection"`
	// Method is in capitals.
	Method string `json:"method"`
	// Path is a template, appended to the connection's base. It begins with /
	// or is empty.
	Path    string           `json:"path"`
	Headers []HeaderTemplate `json:"headers,omitempty"`
	// Body is a template; nil sends the record's value as it is.
	Body *string `json:"body,omitempty"`
	// Timeout of one attempt; 0: the connection's.
	Timeout time.Duration `json:"timeout_ns,omitempty"`
}

// HeaderTemplate is a header of a request; Value is a template.
type HeaderTemplate struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// FilePush appends values to a file, one a line.
type FilePush struct {
	Path string `json:"path"`
}

// Connection is a connection document of format v1. Exactly one of Kafka and
// HTTP is set.
type Connection struct {
	Project string           `json:"project"`
	Name    string           `json:"name"`
	Kafka   *KafkaConnection `json:"kafka,omitempty"`
	HTTP    *HTTPConnection  `json:"http,omitempty"`
}

// Kind is "kafka" or "http".
func (c *Connection) Kind() string {
	if c.Kafka != nil {
		return "kafka"
	}
	return "http"
}

// Secrets are the names of the secrets that the connection needs, sorted.
func (c *Connection) Secrets() []string {
	var names []string
	if c.HTTP != nil {
		if c.HTTP.Bearer != nil {
			names = append(names, c.HTTP.Bearer.Name)
		}
		for _, h := range c.HTTP.Headers {
			if h.Secret != nil {
				names = append(names, h.Secret.Name)
			}
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// KafkaConnection says how to reach a Kafka cluster.
type KafkaConnection struct {
	// Brokers are host:port.
	Brokers []string `json:"brokers"`
}

// HTTPConnection says how to reach an HTTP service.
type HTTPConnection struct {
	// Base is http or https, host, and possibly a path without a / at its end.
	Base string `json:"base"`
	// Timeout of one attempt; 0: the connector's default.
	Timeout time.Duration `json:"timeout_ns,omitempty"`
	// Concurrent is how many requests may be under way; 0: the connector's
	// default.
	Concurrent int `json:"concurrent,omitempty"`
	// Bearer is the secret of the Authorization header, nil if there is none.
	Bearer  *Secret            `json:"bearer,omitempty"`
	Headers []ConnectionHeader `json:"headers,omitempty"`
}

// ConnectionHeader goes with every request of a connection: a text or a secret.
type ConnectionHeader struct {
	Name   string  `json:"name"`
	Value  string  `json:"value,omitempty"`
	Secret *Secret `json:"secret,omitempty"`
}

// Secret is the name of a secret. Its value never enters a document.
type Secret struct {
	Name string `json:"secret"`
}

const kafkaScheme = "kafka://"

// Anonymous makes the connection that an address used as a connection's name
// means: kafka://host:port, http://host[:port] or https://host[:port]. It
// reports false for every other name.
func Anonymous(name string) (*Connection, bool) {
	if host, ok := strings.CutPrefix(name, kafkaScheme); ok {
		if !validHostPort(host) {
			return nil, false
		}
		return &Connection{Project: DefaultProject, Name: name, Kafka: &KafkaConnection{Brokers: []string{host}}}, true
	}
	if strings.HasPrefix(name, "http://") || strings.HasPrefix(name, "https://") {
		u, err := url.Parse(name)
		if err != nil || u.Host == "" || u.Path != "" {
			return nil, false
		}
		return &Connection{Project: DefaultProject, Name: name, HTTP: &HTTPConnection{Base: name}}, true
	}
	return nil, false
}

func validHostPort(s string) bool {
	i := strings.LastIndexByte(s, ':')
	if i <= 0 || strings.ContainsAny(s, "/ \t\r\n,@?#") {
		return false
	}
	if host := s[:i]; strings.Contains(host, ":") && (host[0] != '[' || host[len(host)-1] != ']') {
		return false
	}
	n, err := strconv.Atoi(s[i+1:])
	return err == nil && n > 0 && n < 1<<16
}
