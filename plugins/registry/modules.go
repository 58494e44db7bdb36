package registry

import (
	"context"
	"errors"
	"fmt"
	"sync"
)

// Modules keeps the compiled modules of stored plugins while they are in use,
// and compiles each once however many ask for it at the same time. It is safe
// for concurrent use.
type Modules struct {
	store *Store
	host  *Host

	mu      sync.Mutex
	entries map[moduleKey]*entry // guarded by mu
	closed  bool                 // guarded by mu
}

// moduleKey tells modules apart: the same bytes may run in two modes.
type moduleKey struct{ digest, mode string }

// entry is one module. Its fields other than users are written before done is
// closed.
type entry struct {
	done  chan struct{}
	mod   Module
	err   error
	users int // guarded by Modules.mu
}

// NewModules makes a cache over store and host, both of which outlive it.
func NewModules(store *Store, host *Host) *Modules {
	return &Modules{store: store, host: host, entries: map[moduleKey]*entry{}}
}

// ErrModulesClosed is reported after Close.
var ErrModulesClosed = errors.New("the module cache is closed")

// Lease is the use of a compiled module. The module stays until Release.
type Lease struct {
	m    *Modules
	key  moduleKey
	e    *entry
	once sync.Once
}

// Module is the leased module; it must not be closed by its users.
func (l *Lease) Module() Module { return l.e.mod }

// Digest of the leased module.
func (l *Lease) Digest() string { return l.key.digest }

// Release ends the use; what was made of the module must be closed before.
// The last user's Release closes the module. It is idempotent.
func (l *Lease) Release(ctx context.Context) error {
	var err error
	l.once.Do(func() { err = l.m.drop(ctx, l.key, l.e) })
	return err
}

// Acquire loads, verifies and compiles the plugin of a digest in a mode, as
// Host.Compile takes it, or joins those who use it so already. ctx bounds the
// waiting; a compilation that somebody else waits for goes on. Errors are those
// of Store.Load and Host.Compile.
func (m *Modules) Acquire(ctx context.Context, digest, mode string) (*Lease, error) {
	key := moduleKey{digest, mode}
	m.mu.Lock()
	if m.closed {
		m.mu.Unlock()
		return nil, fmt.Errorf("acquire plugin %s: %w", digest, ErrModulesClosed)
	}
	e, ok := m.entries[key]
	if !ok {
		e = &entry{done: make(chan struct{})}
		m.entries[key] = e
	}
	e.users++
	m.mu.Unlock()
	if !ok {
		e.mod, e.err = m.compile(context.WithoutCancel(ctx), key)
		close(e.done)
	}
	select {
	case <-e.done:
	case <-ctx.Done():
		return nil, errors.Join(fmt.Errorf("acquire plugin %s: %w", digest, ctx.Err()), m.drop(context.WithoutCancel(ctx), key, e))
	}
	if e.err != nil {
		return nil, errors.Join(e.err, m.drop(ctx, key, e))
	}
	return &Lease{m: m, key: key, e: e}, nil
}

func (m *Modules) compile(ctx context.Context, key moduleKey) (Module, error) {
	wasm, err := m.store.Load(key.digest)
	if err != nil {
		return nil, err
	}
	return m.host.Compile(ctx, wasm, key.mode)
}

// drop ends one use of e. Whoever compiles is a user, so the last one to drop
// finds it done.
func (m *Modules) drop(ctx context.Context, key moduleKey, e *entry) error {
	m.mu.Lock()
	e.users--
	last := e.users == 0
	if last && m.entries[key] == e {
		delete(m.entries, key)
	}
	m.mu.Unlock()
	if !last || e.mod == nil {
		return nil
	}
	if err := e.mod.Close(ctx); err != nil {
		return fmt.Errorf("release plugin %s: %w", key.digest, err)
	}
	return nil
}

// InUse tells whether a module of that digest is leased, in whatever mode.
func (m *Modules) InUse(digest string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	for key := range m.entries {
		if key.digest == digest {
			return true
		}
	}
	return false
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
