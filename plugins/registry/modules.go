package registry

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/millrace-io/millrace/plugins/sandbox"
)

// Modules keeps the compiled modules of stored plugins while they are in use,
// and compiles each once however many ask for it at the same time. It is safe
// for concurrent use.
type Modules struct {
	store *Store
	rt    *sandbox.Runtime

	mu      sync.Mutex
	entries map[string]*entry // guarded by mu
	closed  bool              // guarded by mu
}

// entry is one module. Its fields other than users are written before done is
// closed.
type entry struct {
	done  chan struct{}
	mod   *sandbox.Module
	err   error
	users int // guarded by Modules.mu
}

// NewModules makes a cache over store and rt, both of which outlive it.
func NewModules(store *Store, rt *sandbox.Runtime) *Modules {
	return &Modules{store: store, rt: rt, entries: map[string]*entry{}}
}

// ErrModulesClosed is reported after Close.
var ErrModulesClosed = errors.New("the module cache is closed")

// Lease is the use of a compiled module. The module stays until Release.
type Lease struct {
	m      *Modules
	digest string
	e      *entry
	once   sync.Once
}

// Module is the leased module; it must not be closed by its users.
func (l *Lease) Module() *sandbox.Module { return l.e.mod }

// Digest of the leased module.
func (l *Lease) Digest() string { return l.digest }

// Release ends the use; what was made of the module must be closed before.
// The last user's Release closes the module. It is idempotent.
func (l *Lease) Release(ctx context.Context) error {
	var err error
	l.once.Do(func() { err = l.m.drop(ctx, l.digest, l.e) })
	return err
}

// Acquire loads, verifies and compiles the plugin of a digest, or joins those
// who use it already. ctx bounds the waiting; a compilation that somebody else
// waits for goes on. Errors are those of Store.Load and Runtime.Compile.
func (m *Modules) Acquire(ctx context.Context, digest string) (*Lease, error) {
	m.mu.Lock()
	if m.closed {
		m.mu.Unlock()
		return nil, fmt.Errorf("acquire plugin %s: %w", digest, ErrModulesClosed)
	}
	e, ok := m.entries[digest]
	if !ok {
		e = &entry{done: make(chan struct{})}
		m.entries[digest] = e
	}
	e.users++
	m.mu.Unlock()
	if !ok {
		e.mod, e.err = m.compile(context.WithoutCancel(ctx), digest)
		close(e.done)
	}
	select {
	case <-e.done:
	case <-ctx.Done():
		return nil, errors.Join(fmt.Errorf("acquire plugin %s: %w", digest, ctx.Err()), m.drop(context.WithoutCancel(ctx), digest, e))
	}
	if e.err != nil {
		return nil, errors.Join(e.err, m.drop(ctx, digest, e))
	}
	return &Lease{m: m, digest: digest, e: e}, nil
}

func (m *Modules) compile(ctx context.Context, digest string) (*sandbox.Module, error) {
	wasm, err := m.store.Load(digest)
	if err != nil {
		return nil, err
	}
	return m.rt.Compile(ctx, wasm)
}

// drop ends one use of e. Whoever compiles is a user, so the last one to drop
// finds it done.
func (m *Modules) drop(ctx context.Context, digest string, e *entry) error {
	m.mu.Lock()
	e.users--
	last := e.users == 0
	if last && m.entries[digest] == e {
		delete(m.entries, digest)
	}
	m.mu.Unlock()
	if !last || e.mod == nil {
		return nil
	}
	if err := e.mod.Close(ctx); err != nil {
		return fmt.Errorf("release plugin %s: %w", digest, err)
	}
	return nil
}

// InUse tells whether a module of that digest is leased.
func (m *Modules) InUse(digest string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.entries[digest] != nil
}

// Close refuses later calls of Acquire. It reports leases that were not
// released.
func (m *Modules) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.closed = true
	if n := len(m.entries); n > 0 {
		return fmt.Errorf("close module cache: %d modules are still in use", n)
	}
	return nil
}
