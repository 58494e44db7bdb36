package flow

import (
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Kinds of what connections lead to, and of sources and deliveries beside
// "file", "stream" and "ingest".
const (
	KindKafka    = "kafka"
	KindRocketMQ = "rocketmq"
	KindHTTP     = "http"
)

// Connection is a connection document of format v1. Exactly one of Kafka,
// RocketMQ and HTTP is set.
type Connection struct {
	Project  string              `json:"project"`
	Name     string              `json:"name"`
	Kafka    *KafkaConnection    `json:"kafka,omitempty"`
	RocketMQ *RocketMQConnection `json:"rocketmq,omitempty"`
	HTTP     *HTTPConnection     `json:"http,omitempty"`
}

// Kind is KindKafka, KindRocketMQ or KindHTTP.
func (c *Connection) Kind() string {
	switch {
	case c.Kafka != nil:
		return KindKafka
	case c.RocketMQ != nil:
		return KindRocketMQ
	}
	return KindHTTP
}

// Secrets are the names of the secrets that the connection needs, sorted.
func (c *Connection) Secrets() []string {
	var names []string
	tls := func(t *TLS) {
		if t != nil && t.Key != nil {
			names = append(names, t.Key.Name)
		}
	}
	if k := c.Kafka; k != nil {
		tls(k.TLS)
		if k.SASL != nil {
			names = append(names, k.SASL.Password.Name)
		}
		if r := k.Registry; r != nil {
			tls(r.TLS)
			if r.Basic != nil {
				names = append(names, r.Basic.Password.Name)
			}
		}
	}
	if r := c.RocketMQ; r != nil && r.ACL != nil {
		names = append(names, r.ACL.SecretKey.Name)
	}
	if h := c.HTTP; h != nil {
		switch {
		case h.Bearer != nil:
			names = append(names, h.Bearer.Name)
		case h.Basic != nil:
			names = append(names, h.Basic.Password.Name)
		case h.OAuth2 != nil:
			names = append(names, h.OAuth2.ClientSecret.Name)
		case h.APIKey != nil:
			names = append(names, h.APIKey.Key.Name)
		}
		tls(h.TLS)
		for _, header := range h.Headers {
			if header.Secret != nil {
				names = append(names, header.Secret.Name)
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
	// ClientID is the name that the brokers see; "": the connector's default.
	ClientID string `json:"client_id,omitempty"`
	// Rack is where the node stands, as brokers call it: records are fetched
	// from a replica there; "": from the leader.
	Rack string `json:"rack,omitempty"`
	// TLS is nil for plain connections.
	TLS *TLS `json:"tls,omitempty"`
	// SASL is nil where nobody is asked who connects.
	SASL *SASL `json:"sasl,omitempty"`
	// Registry is nil where there is none.
	Registry *Registry `json:"registry,omitempty"`
}

// Mechanisms of SASL.
const (
	SASLPlain       = "plain"
	SASLScramSHA256 = "scram-sha-256"
	SASLScramSHA512 = "scram-sha-512"
)

// SASL says to the brokers who connects.
type SASL struct {
	// Mechanism is SASLPlain, SASLScramSHA256 or SASLScramSHA512.
	Mechanism string `json:"mechanism"`
	User      string `json:"user"`
	Password  Secret `json:"password"`
}

// Registry is a Schema Registry.
type Registry struct {
	// URL is http or https, host, and possibly a path without a / at its end.
	URL string `json:"url"`
	// Basic is nil where nobody is asked who reads.
	Basic *Basic `json:"basic,omitempty"`
	// TLS is nil for the system's roots and no client certificate.
	TLS *TLS `json:"tls,omitempty"`
}

// RocketMQConnection says how to reach a RocketMQ cluster.
type RocketMQConnection struct {
	// NameServers are host:port.
	NameServers []string `json:"name_servers"`
	// ACL is nil where nobody is asked who connects.
	ACL *ACL `json:"acl,omitempty"`
}

// ACL says to RocketMQ who connects.
type ACL struct {
	AccessKey string `json:"access_key"`
	SecretKey Secret `json:"secret_key"`
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
	// Requests is how many may begin in a second; 0: any number.
	Requests float64 `json:"requests_per_second,omitempty"`
	// Breaker is nil for the defaults.
	Breaker *Breaker `json:"breaker,omitempty"`
	// TLS is nil for the system's roots and no client certificate.
	TLS *TLS `json:"tls,omitempty"`

	// At most one of these is set: the secret of `Authorization: Bearer`, or
	// another way to say who asks.
	Bearer *Secret `json:"bearer,omitempty"`
	Basic  *Basic  `json:"basic,omitempty"`
	OAuth2 *OAuth2 `json:"oauth2,omitempty"`
	APIKey *APIKey `json:"api_key,omitempty"`

	Headers []ConnectionHeader `json:"headers,omitempty"`
}

// Breaker says when a connection is held back. A zero field has the default of
// package delivery.
type Breaker struct {
	// Failures one after the other that open it.
	Failures int `json:"failures,omitempty"`
	// Probe is how long it is open before one request is let through.
	Probe time.Duration `json:"probe_ns,omitempty"`
}

// TLS of a connection. CA and Cert are each a file on the node, or the PEM
// itself (see IsPEM).
type TLS struct {
	// CA are the certificates that the server's must lead to; "": the system's.
	CA string `json:"ca,omitempty"`
	// Cert and Key, both or neither, are the client's certificate, with those
	// between it and its root behind it, and the secret of its private key.
	Cert string  `json:"cert,omitempty"`
	Key  *Secret `json:"key,omitempty"`
	// ServerName is who the server's certificate must be of; "": the host that
	// is connected to.
	ServerName string `json:"server_name,omitempty"`
}

// IsPEM reports whether the text of TLS.CA or TLS.Cert is the PEM itself and
// not the name of a file.
func IsPEM(s string) bool { return strings.Contains(s, "-----BEGIN ") }

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

// Anonymous makes the connection that an address used as a connection's name
// means: kafka://host:port, rocketmq://host:port (of a name server),
// http://host[:port] or https://host[:port]. It reports false for every other
// name.
func Anonymous(name string) (*Connection, bool) {
	c := &Connection{Project: DefaultProject, Name: name}
	scheme, host, _ := strings.Cut(name, "://")
	switch scheme {
	case KindKafka:
		c.Kafka = &KafkaConnection{Brokers: []string{host}}
		return c, validHostPort(host)
	case KindRocketMQ:
		c.RocketMQ = &RocketMQConnection{NameServers: []string{host}}
		return c, validHostPort(host)
	case "http", "https":
		c.HTTP = &HTTPConnection{Base: name}
		u, err := url.Parse(name)
		return c, err == nil && u.Host != "" && u.Path == ""
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
