package registry

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"github.com/millrace-io/millrace/plugins/sandbox"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func openStore(t *testing.T) *Store {
	t.Helper()
	s, err := OpenStore(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func put(t *testing.T, s *Store, content string) string {
	t.Helper()
	d, err := s.Put(t.Context(), strings.NewReader(content), 0)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestStore(t *testing.T) {
	s := openStore(t)
	a, b := put(t, s, "plugin a"), put(t, s, "plugin b")
	if a != Digest([]byte("plugin a")) || put(t, s, "plugin a") != a {
		t.Errorf("got digest %s", a)
	}
	if want := filepath.Join(s.dir, "blobs", "sha256", a[7:9], a[7:]); s.Path(a) != want {
		t.Errorf("got path %s, want %s", s.Path(a), want)
	}
	got, err := s.Load(a)
	if err != nil || string(got) != "plugin a" {
		t.Errorf("got %q, %v", got, err)
	}
	if !s.Has(b) || s.Has(Digest(nil)) || s.Has("../../etc/passwd") {
		t.Error("Has is wrong")
	}
	list, err := s.List()
	if err != nil || len(list) != 2 || list[0].Size != 8 || list[0].Digest > list[1].Digest {
		t.Errorf("got %v, %v", list, err)
	}
	gone, err := s.Collect(func(d string) bool { return d == b })
	if err != nil || len(gone) != 1 || gone[0].Digest != a || s.Has(a) || !s.Has(b) {
		t.Errorf("got %v, %v", gone, err)
	}
	if err := errors.Join(s.Delete(b), s.Delete(b)); err != nil || s.Has(b) {
		t.Errorf("delete twice: %v", err)
	}
	if _, err := s.Load(b); !errors.Is(err, ErrNotFound) {
		t.Errorf("got %v, want ErrNotFound", err)
	}
	if err := s.Delete("sha256:../x"); err == nil {
		t.Error("a path was taken as a digest")
	}
	if left, err := os.ReadDir(s.tmp()); err != nil || len(left) != 0 {
		t.Errorf("temporary files are left: %v, %v", left, err)
	}
}

func TestStoreReopened(t *testing.T) {
	s := openStore(t)
	a := put(t, s, "plugin a")
	if err := os.WriteFile(filepath.Join(s.tmp(), tmpPrefix+"123"), []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	again, err := OpenStore(s.dir)
	if err != nil {
		t.Fatal(err)
	}
	if b, err := again.Load(a); err != nil || string(b) != "plugin a" {
		t.Errorf("got %q, %v", b, err)
	}
	if left, err := os.ReadDir(s.tmp()); err != nil || len(left) != 0 {
		t.Errorf("an interrupted write is left: %v, %v", left, err)
	}
}

func TestStoreDamaged(t *testing.T) {
	s := openStore(t)
	a := put(t, s, "plugin a")
	if err := os.WriteFile(s.Path(a), []byte("plugin A"), 0o644); err != nil {
		t.Fatal(err)
	}
	_, err := s.Load(a)
	e, ok := errors.AsType[*CorruptError](err)
	if !ok || e.Digest != a || e.Found != Digest([]byte("plugin A")) || !strings.Contains(err.Error(), "deploy the plugin again") {
		t.Fatalf("got %v, want a *CorruptError that names the next step", err)
	}
	if put(t, s, "plugin a") != a {
		t.Error("another digest")
	}
	if b, err := s.Load(a); err != nil || string(b) != "plugin a" {
		t.Errorf("put again: got %q, %v", b, err)
	}
}

func TestPutRefuses(t *testing.T) {
	s := openStore(t)
	_, err := s.Put(t.Context(), strings.NewReader("0123456789"), 9)
	if e, ok := errors.AsType[*TooLargeError](err); !ok || e.Max != 9 {
		t.Errorf("got %v, want a *TooLargeError", err)
	}
	if _, err := s.Put(t.Context(), strings.NewReader("0123456789"), 10); err != nil {
		t.Errorf("exactly the limit: %v", err)
	}
	broken := errors.New("connection lost")
	if _, err := s.Put(t.Context(), io.MultiReader(strings.NewReader("x"), errReader{broken}), 0); !errors.Is(err, broken) {
		t.Errorf("got %v, want the reader's error", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Put(ctx, bytes.NewReader(make([]byte, 1<<20)), 0); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want context.Canceled", err)
	}
	if list, err := s.List(); err != nil || len(list) != 1 {
		t.Errorf("got %v, %v, want the one that fits", list, err)
	}
}

type errReader struct{ err error }

func (e errReader) Read([]byte) (int, error) { return 0, e.err }

func TestPutAtOnce(t *testing.T) {
	s := openStore(t)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if _, err := s.Put(context.Background(), strings.NewReader("the same"), 0); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if list, err := s.List(); err != nil || len(list) != 1 {
		t.Errorf("got %v, %v", list, err)
	}
}

func TestResolve(t *testing.T) {
	v := func(s string, deployed uint64) Version { return Version{Version: s, Digest: s, Deployed: deployed} }
	all := []Version{v("1.0.0", 1), v("1.2.0", 2), v("1.3.0-dev", 6), v("2.0.0-rc.1", 4), v("1.2.0+b", 5), v("broken", 9)}
	for _, c := range []struct{ in, want string }{
		{"*", "2.0.0-rc.1"},
		{"", "2.0.0-rc.1"},
		{"^1", "1.3.0-dev"},
		{"~1.2", "1.2.0+b"},
		{"1.2.0", "1.2.0+b"},
		{"1.0.x", "1.0.0"},
		{">=1.0 <1.2", "1.0.0"},
		{"^2.0.0-0", "2.0.0-rc.1"},
	} {
		got, err := Resolve(c.in, all)
		if err != nil || got.Version != c.want {
			t.Errorf("%q: got %s, %v, want %s", c.in, got.Version, err, c.want)
		}
	}
	_, err := Resolve("^3", all)
	if !errors.Is(err, ErrNoVersion) || !strings.Contains(err.Error(), "1.0.0, 1.2.0") {
		t.Errorf("got %v, want ErrNoVersion with what there is", err)
	}
	if _, err := Resolve("not a range", all); err == nil || errors.Is(err, ErrNoVersion) {
		t.Errorf("got %v, want that the range cannot be read", err)
	}
	got, err := Resolve("*", []Version{v("0.0.0+aaaa", 3), v("0.0.0+bbbb", 7), v("0.0.0+cccc", 5)})
	if err != nil || got.Version != "0.0.0+bbbb" {
		t.Errorf("got %s, %v, want the one deployed last", got.Version, err)
	}
}

func TestIsDev(t *testing.T) {
	for s, want := range map[string]bool{"1.0.0": false, "1.0.0-dev": true, "1.0.0-x-dev": true, "1.0.0-rc.1": false, "0.0.0": true, "0.0.0+abc": true, "0.0.0-rc": false, "x": false} {
		if got := IsDev(s); got != want {
			t.Errorf("%s: got %v, want %v", s, got, want)
		}
	}
	if err := errors.Join(CheckRange("^1.2"), CheckRange("*")); err != nil || CheckRange("1..2") == nil {
		t.Errorf("CheckRange: %v", err)
	}
}

func TestModules(t *testing.T) {
	wasm, err := os.ReadFile("../../examples/upper/upper.wasm")
	if err != nil {
		t.Fatal(err)
	}
	rt, err := sandbox.New(t.Context(), sandbox.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := rt.Close(context.Background()); err != nil {
			t.Error(err)
		}
	}()
	s := openStore(t)
	digest := put(t, s, string(wasm))
	m := NewModules(s, NewHost(rt))
	var wg sync.WaitGroup
	leases := make([]*Lease, 6)
	for i := range leases {
		wg.Go(func() {
			l, err := m.Acquire(context.Background(), digest, "")
			if err != nil {
				t.Error(err)
				return
			}
			leases[i] = l
		})
	}
	wg.Wait()
	if t.Failed() {
		return
	}
	for i, l := range leases {
		if l.Module() != leases[0].Module() || l.Digest() != digest {
			t.Error("compiled more than once")
		}
		if !m.InUse(digest) {
			t.Errorf("not in use with %d leases", len(leases)-i)
		}
		if err := errors.Join(l.Release(t.Context()), l.Release(t.Context())); err != nil {
			t.Error(err)
		}
	}
	if m.InUse(digest) {
		t.Error("in use after the last release")
	}
	again, err := m.Acquire(t.Context(), digest, "")
	if err != nil {
		t.Fatal(err)
	}
	if again.Module() == leases[0].Module() {
		t.Error("a closed module was leased")
	}
	if err := m.Close(); err == nil || !strings.Contains(err.Error(), "1 modules are still in use") {
		t.Errorf("close with a lease: %v", err)
	}
	if err := again.Release(t.Context()); err != nil {
		t.Error(err)
	}
	if _, err := m.Acquire(t.Context(), digest, ""); !errors.Is(err, ErrModulesClosed) {
		t.Errorf("got %v, want ErrModulesClosed", err)
	}
}

func TestModulesFailures(t *testing.T) {
	rt, err := sandbox.New(t.Context(), sandbox.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer rt.Close(context.Background())
	s := openStore(t)
	m := NewModules(s, NewHost(rt))
	if _, err := m.Acquire(t.Context(), Digest([]byte("x")), ""); !errors.Is(err, ErrNotFound) {
		t.Errorf("got %v, want ErrNotFound", err)
	}
	script := put(t, s, "#!/bin/sh")
	if _, err := m.Acquire(t.Context(), script, ""); err == nil || m.InUse(script) {
		t.Errorf("got %v, in use %v", err, m.InUse(script))
	} else if _, ok := errors.AsType[*sandbox.RefusedError](err); !ok {
		t.Errorf("got %v, want a *sandbox.RefusedError", err)
	}
	if err := m.Close(); err != nil {
		t.Error(err)
	}
}
