package flow

import (
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

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
		if h.TLS != nil && h.TLS.Key != nil {
			names = append(names, h.TLS.Key.Name)
		}
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

// TLS of an HTTP connection. CA and Cert are each a file on the node, or the
// PEM itself (see IsPEM).
type TLS struct {
	// CA are the certificates that the server's must lead to; "": the system's.
	CA string `json:"ca,omitempty"`
	// Cert and Key, both or neither, are the client's certificate, with those
	// between it and its root behind it, and the secret of its private key.
	Cert string  `json:"cert,omitempty"`
	Key  *Secret `json:"key,omitempty"`
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
