package daemon

import (
	"crypto/sha256"
	"encoding/json"
	"sync"

	"github.com/millrace-io/millrace/runtime/connector/kafka/registry"
	"github.com/millrace-io/millrace/runtime/flow"
	"github.com/millrace-io/millrace/runtime/pipeline"
	"github.com/millrace-io/millrace/runtime/record"
)

// registries are the Schema Registries of a node's connections: flows that name
// one connection share its schemas as long as its document is the same. It is
// safe for concurrent use.
type registries struct {
	mu   sync.Mutex
	open map[connectionID]*sharedRegistry // guarded by mu
}

type sharedRegistry struct {
	*registry.Client
	users int // guarded by registries.mu
}

func newRegistries() *registries { return &registries{open: map[connectionID]*sharedRegistry{}} }

// acquire opens the registry of a connection, or joins those who use it. It
// connects to nothing yet.
func (rs *registries) acquire(stored string, c *flow.Connection, cfg registry.Config) (cl *registry.Client, release func() error, err error) {
	doc, err := json.Marshal(c)
	if err != nil {
		return nil, nil, err
	}
	id := connectionID{stored, sha256.Sum256(doc)}
	rs.mu.Lock()
	defer rs.mu.Unlock()
	r := rs.open[id]
	if r == nil {
		if cl, err = registry.New(cfg); err != nil {
			return nil, nil, record.Errorf(record.Config, "connection %s: %w", stored, err)
		}
		r = &sharedRegistry{Client: cl}
		rs.open[id] = r
	}
	r.users++
	return r.Client, func() error { return rs.release(id, r) }, nil
}

func (rs *registries) release(id connectionID, r *sharedRegistry) error {
	rs.mu.Lock()
	r.users--
	last := r.users == 0
	if last {
		delete(rs.open, id)
	}
	rs.mu.Unlock()
	if !last {
		return nil
	}
	return r.Close()
}

// decoder makes the stage that decodes what the flow's source gives, nil if
// nothing does. release lets go of its registry; it is nil with the stage.
func (p *parts) decoder(f *flow.Flow) (st pipeline.Stage, release func() error, err error) {
	s := f.Decoding()
	if s == nil {
		return nil, nil, nil
	}
	c, err := p.connected(f.Project, f.Source.Connection(), flow.KindKafka, "the source")
	if err != nil {
		return nil, nil, err
	}
	if c.Kafka.Registry == nil {
		return nil, nil, record.Errorf(record.Config, "`decode` needs a registry, and connection %q has none: write `registry: { url: http://HOST:8081 }` into its document", c.Name)
	}
	cl, release, err := p.registries.acquire(connectionKey(c.Project, c.Name), c, p.registry(c))
	if err != nil {
		return nil, nil, err
	}
	if st, err = cl.Decoder(s.Decode.Format); err != nil {
		_ = release() // the decoder's error says more
		return nil, nil, record.Errorf(record.Config, "%w", err)
	}
	return st, release, nil
}

// decoding is decoder for a flow that runs: o closes it.
func (p *parts) decoding(o *outlets, f *flow.Flow) (pipeline.Stage, error) {
	st, release, err := p.decoder(f)
	if release != nil {
		o.closers = append(o.closers, release)
	}
	return st, err
}
