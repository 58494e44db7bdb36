package daemon

import (
	"crypto/tls"

	"github.com/millrace-io/millrace/runtime/connector"
	"github.com/millrace-io/millrace/runtime/connector/kafka"
	"github.com/millrace-io/millrace/runtime/connector/kafka/registry"
	"github.com/millrace-io/millrace/runtime/connector/rocketmq"
	"github.com/millrace-io/millrace/runtime/flow"
	"github.com/millrace-io/millrace/runtime/record"
)

// asking are the parts of what only asks a flow's source something.
func (d *Daemon) asking() *parts {
	return &parts{connection: d.connection, secrets: secrets(d.cfg.Secrets), registries: d.registries, logger: d.log, fetchMaxBytes: d.cfg.FetchMaxBytes, follow: true}
}

// connected is the connection of a name, which must be of a kind. what needs it
// stands in the error, of class config.
func (p *parts) connected(project, name, kind, what string) (*flow.Connection, error) {
	c, err := p.connect(project, name)
	if err == nil && c.Kind() != kind {
		err = record.Errorf(record.Config, "connection %q is of kind %s; %s needs %s", c.Name, c.Kind(), what, kind)
	}
	return c, err
}

// kafka are the settings of a connection to Kafka. Its files and secrets are
// read anew for each connection to a broker, so that renewed ones take effect
// without a restart.
func (p *parts) kafka(c *flow.Connection) kafka.Config {
	in := c.Kafka
	cfg := kafka.Config{Brokers: in.Brokers, ClientID: in.ClientID, Rack: in.Rack, TLS: p.tls(c, in.TLS), Logger: p.logger}
	if s := in.SASL; s != nil {
		password := p.password(c, s.Password)
		cfg.SASL = &kafka.SASL{Mechanism: kafka.Mechanism(s.Mechanism), Credentials: func() (string, string, error) {
			v, err := password()
			return s.User, v, err
		}}
	}
	return cfg
}

// rocketmq are the settings of a connection to RocketMQ; its secret is read anew
// for each request.
func (p *parts) rocketmq(c *flow.Connection) rocketmq.Config {
	cfg := rocketmq.Config{NameServers: c.RocketMQ.NameServers, Logger: p.logger}
	if acl := c.RocketMQ.ACL; acl != nil {
		cfg.AccessKey, cfg.SecretKey = acl.AccessKey, p.password(c, acl.SecretKey)
	}
	return cfg
}

// registry are the settings of a connection's Schema Registry, read anew like
// those of its brokers.
func (p *parts) registry(c *flow.Connection) registry.Config {
	in := c.Kafka.Registry
	cfg := registry.Config{URL: in.URL, TLS: p.tls(c, in.TLS), Logger: p.logger}
	if b := in.Basic; b != nil {
		cfg.User, cfg.Password = b.User, p.password(c, b.Password)
	}
	return cfg
}

// tls reads the TLS settings of a connection, nil if it has none.
func (p *parts) tls(c *flow.Connection, in *flow.TLS) func() (*tls.Config, error) {
	if in == nil {
		return nil
	}
	return reread(p, c, func() (*tls.Config, error) { return p.secrets.tls(in) })
}

func (p *parts) password(c *flow.Connection, s flow.Secret) func() (string, error) {
	return reread(p, c, func() (string, error) { return p.secrets.get(s.Name) })
}

// reread reads a setting each time. A flow that runs keeps what was read last
// while a file is just being replaced; a test of the connection says so.
func reread[T any](p *parts, c *flow.Connection, read func() (T, error)) func() (T, error) {
	if p.strict {
		return read
	}
	return connector.KeepGood(read, func(err error) {
		p.logger.Warn("the settings of a connection cannot be read; the last ones stay", "connection", connectionKey(c.Project, c.Name), "err", err)
	})
}
