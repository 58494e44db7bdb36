package flow

import (
	"strings"
	"time"
)

// Delivery is the end of a record's way. Exactly one of Kafka, RocketMQ, HTTP,
// File and Stream is set; Batch, Sign and Validate only beside HTTP.
type Delivery struct {
	ID string `json:"id"`
	// Otherwise is resolved, as a stage's is.
	Otherwise Otherwise `json:"otherwise"`
	Aside     *Topic    `json:"aside,omitempty"`

	// Batch joins records into one request; nil: each is a request.
	Batch *Batch `json:"batch,omitempty"`
	// Sign adds to each attempt what proves who sends it; nil: nothing.
	Sign *Sign `json:"sign,omitempty"`
	// Validate says what an answer means; nil: its status does.
	Validate *Validate `json:"validate,omitempty"`
	// Retry bounds the attempts; nil: they have no end.
	Retry *Retry `json:"retry,omitempty"`

	Kafka    *KafkaPush    `json:"kafka,omitempty"`
	RocketMQ *RocketMQPush `json:"rocketmq,omitempty"`
	HTTP     *HTTPPush     `json:"http,omitempty"`
	File     *FilePush     `json:"file,omitempty"`
	Stream   *Stream       `json:"stream,omitempty"`

	Pos Pos `json:"-"`
}

// Kind is KindKafka, KindRocketMQ, KindHTTP, "file" or "stream".
func (d *Delivery) Kind() string {
	switch {
	case d.Kafka != nil:
		return KindKafka
	case d.RocketMQ != nil:
		return KindRocketMQ
	case d.HTTP != nil:
		return KindHTTP
	case d.File != nil:
		return "file"
	}
	return "stream"
}

// Connection is the name of the delivery's connection, "" where it has none.
func (d *Delivery) Connection() string {
	switch {
	case d.Kafka != nil:
		return d.Kafka.Connection
	case d.RocketMQ != nil:
		return d.RocketMQ.Connection
	case d.HTTP != nil:
		return d.HTTP.Connection
	}
	return ""
}

// topic is the one that a delivery to Kafka or RocketMQ writes to, nil of
// another one.
func (d *Delivery) topic() *Topic {
	switch {
	case d.Kafka != nil:
		return &Topic{Connection: d.Kafka.Connection, Topic: d.Kafka.Topic}
	case d.RocketMQ != nil:
		return &Topic{RocketMQ: true, Connection: d.RocketMQ.Connection, Topic: d.RocketMQ.Topic}
	}
	return nil
}

// Describe is the delivery in a few words: `push kafka://main/orders`,
// `push POST partner:/v2/orders (batch, sign hmac-sha256)`,
// `push webhook https://host/path`, `push file out.ndjson`, `push stream`.
func (d *Delivery) Describe() string {
	switch {
	case d.Kafka != nil || d.RocketMQ != nil:
		return "push " + d.topic().String()
	case d.HTTP != nil:
		what := d.HTTP.Method
		if d.HTTP.Webhook {
			what = "webhook"
		}
		colon := ":"
		if _, ok := Anonymous(d.HTTP.Connection); ok {
			colon = ""
		}
		return "push " + what + " " + d.HTTP.Connection + colon + d.HTTP.Path + d.parts()
	case d.File != nil:
		return "push file " + d.File.Path
	}
	return "push stream"
}

// parts lists what stands beside a push to HTTP.
func (d *Delivery) parts() string {
	var parts []string
	if d.Batch != nil {
		parts = append(parts, "batch")
	}
	if d.Sign != nil && !d.HTTP.Webhook {
		parts = append(parts, "sign "+d.Sign.kind())
	}
	if d.Validate != nil && d.Validate.Plugin != nil {
		parts = append(parts, "validate "+d.Validate.Plugin.Ref.String())
	} else if d.Validate != nil {
		parts = append(parts, "validate")
	}
	if len(parts) == 0 {
		return ""
	}
	return " (" + strings.Join(parts, ", ") + ")"
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
	// Spill is how long after its first attempt a record that is still to be
	// tried moves into the node's state; 0: the default.
	Spill time.Duration `json:"spill_ns,omitempty"`
}

// KafkaPush writes records to a topic.
type KafkaPush struct {
	Connection string `json:"connection"`
	Topic      string `json:"topic"`
	// Key is an expression for the key (see expr.Program.Key); "" keeps the
	// record's own.
	Key string `json:"key,omitempty"`
	// Compression is a codec of compressionCodecs; "": the connector's default.
	Compression string `json:"compression,omitempty"`
}

// compressionCodecs are those of what is written to Kafka, the default first.
var compressionCodecs = []string{"lz4", "zstd", "snappy", "gzip", "none"}

// RocketMQPush writes records to a topic, each as a message.
type RocketMQPush struct {
	Connection string `json:"connection"`
	Topic      string `json:"topic"`
	// Tag is a template for the message's tag; "" keeps the record's own.
	Tag string `json:"tag,omitempty"`
	// Key is an expression for the key (see expr.Program.Key); "" keeps the
	// record's own.
	Key string `json:"key,omitempty"`
	// Delay is the level of the broker's delays, 1 to MaxDelay; 0: none.
	Delay int `json:"delay,omitempty"`
}

// MaxDelay is the highest level of delay that a RocketMQ broker has by default.
const MaxDelay = 18

// HTTPPush sends a request for each record or batch. The templates of a batch
// see its first record.
type HTTPPush struct {
	Connection string `json:"connection"`
	// Webhook: the document says `webhook`. It is for people alone, as all that
	// it means stands in the other fields and in Delivery.Sign.
	Webhook bool `json:"webhook,omitempty"`
	// Method is in capitals.
	Method string `json:"method"`
	// Path is a template, appended to the connection's base. It begins with /
	// or is empty.
	Path    string           `json:"path"`
	Headers []HeaderTemplate `json:"headers,omitempty"`
	// Body is a template; nil sends the record's value as it is. It is nil
	// beside a batch.
	Body *string `json:"body,omitempty"`
	// Timeout of one attempt; 0: the connection's.
	Timeout time.Duration `json:"timeout_ns,omitempty"`
	// Concurrent is how many requests this delivery may have under way, 0 as
	// many as the connection.
	Concurrent int `json:"concurrent,omitempty"`
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

// Forms of a batch's body.
const (
	BatchJSONArray = "json_array"
	BatchNDJSON    = "ndjson"
	BatchText      = "text"
)

// Batch joins records into one request. A zero bound has the default of
// package batch.
type Batch struct {
	Records int           `json:"records,omitempty"`
	Bytes   int64         `json:"bytes,omitempty"`
	Wait    time.Duration `json:"wait_ns,omitempty"`
	// By is an expression for the key that the records of one batch have in
	// common (see expr.Program.Key); "": all go together.
	By string `json:"by,omitempty"`
	// As is BatchJSONArray, BatchNDJSON or BatchText.
	As string `json:"as"`
	// Item is a template; with Head, Between and Tail, which are texts, it is
	// for BatchText alone.
	Item    string `json:"item,omitempty"`
	Head    string `json:"head,omitempty"`
	Between string `json:"between,omitempty"`
	Tail    string `json:"tail,omitempty"`
	// ContentType replaces that of the form; "" keeps it.
	ContentType string `json:"content_type,omitempty"`
	Gzip        bool   `json:"gzip,omitempty"`
}

// Validate says what an answer means: a plugin, or rules, whose "" is no rule.
// The rules' roots are request, response, vars and env.
type Validate struct {
	OK     string `json:"ok,omitempty"`
	Retry  string `json:"retry,omitempty"`
	Reject string `json:"reject,omitempty"`
	// Each is an expression for a list with a verdict on each item; ItemID is
	// the field of its elements that holds an item's id. RecordID is an
	// expression over the record for that id; "": the record's own id.
	Each     string       `json:"each,omitempty"`
	ItemID   string       `json:"item_id,omitempty"`
	RecordID string       `json:"record_id,omitempty"`
	Plugin   *PluginStage `json:"plugin,omitempty"`
}

// Param is a name and a template for its value.
type Param struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// Sign says what is added to each attempt's request. One of Signature, JWT,
// OAuth2, APIKey, Basic and Plugin is set. The roots of its templates and
// expressions are request, time, vars and env.
type Sign struct {
	// Headers and Params (of the query) are set before the signature is made,
	// in this order. A plugin has none.
	Headers []Param `json:"headers,omitempty"`
	Params  []Param `json:"params,omitempty"`

	Signature *Signature   `json:"signature,omitempty"`
	JWT       *JWT         `json:"jwt,omitempty"`
	OAuth2    *OAuth2      `json:"oauth2,omitempty"`
	APIKey    *APIKey      `json:"api_key,omitempty"`
	Basic     *Basic       `json:"basic,omitempty"`
	Plugin    *PluginStage `json:"plugin,omitempty"`
	// Keys of the plugin; a key's handle is its index.
	Keys []SignKey `json:"keys,omitempty"`
}

// kind is the way to sign in a word or two.
func (s *Sign) kind() string {
	switch {
	case s.Signature != nil:
		return s.Signature.Algorithm
	case s.JWT != nil:
		return "jwt " + s.JWT.Algorithm
	case s.OAuth2 != nil:
		return "oauth2"
	case s.APIKey != nil:
		return "api_key"
	case s.Basic != nil:
		return "basic"
	case s.Plugin != nil:
		return s.Plugin.Ref.String()
	}
	return ""
}

// secrets are the names of the secrets; s may be nil.
func (s *Sign) secrets() []string {
	switch {
	case s == nil:
		return nil
	case s.Signature != nil:
		return []string{s.Signature.Key.Name}
	case s.JWT != nil:
		return []string{s.JWT.Key.Name}
	case s.OAuth2 != nil:
		return []string{s.OAuth2.ClientSecret.Name}
	case s.APIKey != nil:
		return []string{s.APIKey.Key.Name}
	case s.Basic != nil:
		return []string{s.Basic.Password.Name}
	}
	var names []string
	for _, k := range s.Keys {
		names = append(names, k.Secret.Name)
	}
	return names
}

// SignKey is a key that a plugin may sign with.
type SignKey struct {
	// Name is for people.
	Name   string `json:"name"`
	Secret Secret `json:"key"`
	// Encoding is how a shared key is written in its secret, by the names of
	// package sign; "" is plain. A private key is PEM.
	Encoding string `json:"encoding,omitempty"`
}

// Signature signs a text with a key. Its fields mean what those of
// sign.Signature mean; algorithms and encodings stand here by their names in
// package sign.
type Signature struct {
	Algorithm string `json:"algorithm"`
	Key       Secret `json:"key"`
	// KeyTrim is what the secret's value may begin with and the key does not.
	KeyTrim     string   `json:"key_trim,omitempty"`
	KeyEncoding string   `json:"key_encoding,omitempty"`
	KeyPrefix   string   `json:"key_prefix,omitempty"`
	Derive      []string `json:"derive,omitempty"`

	SignedHeaders []string `json:"signed_headers,omitempty"`
	Canonical     string   `json:"canonical,omitempty"`
	Over          string   `json:"over"`

	// Encoding is resolved: hex for hmac-*, else base64, where nothing is said.
	Encoding string `json:"encoding"`
	Header   string `json:"header,omitempty"`
	Query    string `json:"query,omitempty"`
	Value    string `json:"value,omitempty"`
}

// JWT sends a token that is made for each attempt. Its fields mean what those
// of sign.JWT mean.
type JWT struct {
	Algorithm   string        `json:"algorithm"`
	Key         Secret        `json:"key"`
	KeyEncoding string        `json:"key_encoding,omitempty"`
	KeyID       string        `json:"key_id,omitempty"`
	Type        string        `json:"type,omitempty"`
	Claims      []Param       `json:"claims,omitempty"`
	Lifetime    time.Duration `json:"lifetime_ns,omitempty"`
	NoID        bool          `json:"no_id,omitempty"`
	Header      string        `json:"header,omitempty"`
	Prefix      *string       `json:"prefix,omitempty"`
}

// OAuth2 sends an access token that is had for client credentials. Its fields
// mean what those of sign.OAuth2 mean; the values of Params are texts.
type OAuth2 struct {
	TokenURL     string   `json:"token_url"`
	ClientID     string   `json:"client_id"`
	ClientSecret Secret   `json:"client_secret"`
	Scopes       []string `json:"scopes,omitempty"`
	Params       []Param  `json:"params,omitempty"`
	InBody       bool     `json:"in_body,omitempty"`
	Header       string   `json:"header,omitempty"`
}

// APIKey sends a key as it is, in a header or a parameter of the query.
type APIKey struct {
	Key    Secret `json:"key"`
	Header string `json:"header,omitempty"`
	Query  string `json:"query,omitempty"`
	Prefix string `json:"prefix,omitempty"`
}

// Basic sends a user and a password.
type Basic struct {
	User     string `json:"user"`
	Password Secret `json:"password"`
}
