// Package registry keeps plugins on one node: their files in a
// content-addressed store, their compiled modules for as long as somebody uses
// them, and the rule by which a flow's version range chooses among them.
//
// It does not know which flows use which plugin, and does not copy files
// between nodes.
package registry

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
)

// digestPrefix begins every digest; 64 lower-case hex digits follow.
const digestPrefix = "sha256:"

// ErrNotFound is reported for a digest that the store does not have: upload
// the plugin again.
var ErrNotFound = errors.New("no such plugin file on this node")

// TooLargeError reports a file above the size that the caller allows.
type TooLargeError struct {
	// Max is in bytes.
	Max int64
}

func (e *TooLargeError) Error() string {
	return fmt.Sprintf("the plugin file has more than %d bytes", e.Max)
}

// CorruptError reports a stored file whose bytes are not those of its digest.
type CorruptError struct {
	Digest, Found string
	Path          string
}

func (e *CorruptError) Error() string {
	return fmt.Sprintf("plugin file %s is damaged (its bytes have the digest %s): remove %s and deploy the plugin again", e.Digest, e.Found, e.Path)
}

// Digest is the digest of a plugin's bytes, "sha256:" and 64 hex digits.
func Digest(b []byte) string {
	sum := sha256.Sum256(b)
	return digestPrefix + hex.EncodeToString(sum[:])
}

// CheckDigest tells whether s has the form of a digest.
func CheckDigest(s string) error {
	h, ok := strings.CutPrefix(s, digestPrefix)
	if b, err := hex.DecodeString(h); !ok || err != nil || len(b) != sha256.Size || h != strings.ToLower(h) {
		return fmt.Errorf("%q is no digest; it is sha256: and 64 lower-case hex digits", s)
	}
	return nil
}

// Store keeps plugin files by their digest: blobs/sha256/xx/<64 hex digits>
// below its folder. It is safe for concurrent use, by one process at a time.
type Store struct {
	dir string

	// mu lets Put and Collect not meet: a file may be put while it is being
	// collected.
	mu sync.RWMutex
}

// OpenStore opens the store in the folder dir, which is made if it is not
// there, and removes what interrupted writes left behind.
func OpenStore(dir string) (*Store, error) {
	s := &Store{dir: dir}
	for _, d := range []string{s.root(), s.tmp()} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return nil, fmt.Errorf("open plugin store: %w", err)
		}
	}
	left, err := os.ReadDir(s.tmp())
	if err != nil {
		return nil, fmt.Errorf("open plugin store: %w", err)
	}
	for _, e := range left {
		if strings.HasPrefix(e.Name(), tmpPrefix) {
			if err := os.Remove(filepath.Join(s.tmp(), e.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return nil, fmt.Errorf("open plugin store: %w", err)
			}
		}
	}
	return s, nil
}

const tmpPrefix = "plugin-"

func (s *Store) root() string { return filepath.Join(s.dir, "blobs", "sha256") }
func (s *Store) tmp() string  { return filepath.Join(s.dir, "tmp") }

// Path is where the file of a digest lies or would lie.
func (s *Store) Path(digest string) string {
	h := strings.TrimPrefix(digest, digestPrefix)
	return filepath.Join(s.root(), h[:min(2, len(h))], h)
}

// Put stores what r yields, at most maxBytes (0: no limit), and returns its
// digest once it is on disk. Bytes that are there already are left alone,
// unless they are damaged: then they are replaced.
func (s *Store) Put(ctx context.Context, r io.Reader, maxBytes int64) (string, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	t, err := os.CreateTemp(s.tmp(), tmpPrefix)
	if err != nil {
		return "", fmt.Errorf("store plugin: %w", err)
	}
	defer func() {
		t.Close()
		os.Remove(t.Name())
	}()
	if maxBytes > 0 {
		r = io.LimitReader(r, maxBytes+1)
	}
	h := sha256.New()
	n, err := io.Copy(io.MultiWriter(t, h), contextReader{ctx, r})
	if err != nil {
		return "", fmt.Errorf("store plugin: %w", err)
	}
	if maxBytes > 0 && n > maxBytes {
		return "", fmt.Errorf("store plugin: %w", &TooLargeError{maxBytes})
	}
	digest := digestPrefix + hex.EncodeToString(h.Sum(nil))
	if s.verify(digest) == nil {
		return digest, nil
	}
	path := s.Path(digest)
	if err := s.place(t, path); err != nil {
		return "", fmt.Errorf("store plugin %s: %w", digest, err)
	}
	return digest, nil
}

// place moves the temporary file to its path, durably.
func (s *Store) place(t *os.File, path string) error {
	dir := filepath.Dir(path)
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
		if err := syncDir(s.root()); err != nil {
			return err
		}
	}
	if err := errors.Join(t.Chmod(0o644), t.Sync(), t.Close()); err != nil {
		return err
	}
	if err := os.Rename(t.Name(), path); err != nil {
		return err
	}
	return syncDir(dir)
}

// verify reads a stored file and compares its digest.
func (s *Store) verify(digest string) error {
	f, err := os.Open(s.Path(digest))
	if err != nil {
		return err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return err
	}
	if found := digestPrefix + hex.EncodeToString(h.Sum(nil)); found != digest {
		return &CorruptError{Digest: digest, Found: found, Path: s.Path(digest)}
	}
	return nil
}

type contextReader struct {
	ctx context.Context
	r   io.Reader
}

func (c contextReader) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.r.Read(p)
}

// Load returns the bytes of a stored plugin. They are held against the digest
// each time: the error is a *CorruptError if they are not those that were
// stored, and wraps ErrNotFound if there are none.
func (s *Store) Load(digest string) ([]byte, error) {
	if err := CheckDigest(digest); err != nil {
		return nil, fmt.Errorf("load plugin: %w", err)
	}
	b, err := os.ReadFile(s.Path(digest))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("load plugin %s: %w", digest, ErrNotFound)
	}
	if err != nil {
		return nil, fmt.Errorf("load plugin %s: %w", digest, err)
	}
	if found := Digest(b); found != digest {
		return nil, fmt.Errorf("load plugin: %w", &CorruptError{Digest: digest, Found: found, Path: s.Path(digest)})
	}
	return b, nil
}

// Has tells whether a file of that digest is stored. It does not read it.
func (s *Store) Has(digest string) bool {
	if CheckDigest(digest) != nil {
		return false
	}
	info, err := os.Stat(s.Path(digest))
	return err == nil && info.Mode().IsRegular()
}

// Blob is one stored file.
type Blob struct {
	Digest string
	// Size in bytes.
	Size int64
}

// List lists what is stored, by digest.
func (s *Store) List() ([]Blob, error) {
	var out []Blob
	err := filepath.WalkDir(s.root(), func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) && path != s.root() {
			return nil
		}
		if err != nil || d.IsDir() {
			return err
		}
		digest := digestPrefix + d.Name()
		if CheckDigest(digest) != nil {
			return nil
		}
		info, err := d.Info()
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		out = append(out, Blob{digest, info.Size()})
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list plugin files: %w", err)
	}
	slices.SortFunc(out, func(a, b Blob) int { return strings.Compare(a.Digest, b.Digest) })
	return out, nil
}

// Delete removes a stored file; one that is not there is no error.
func (s *Store) Delete(digest string) error {
	if err := CheckDigest(digest); err != nil {
		return fmt.Errorf("delete plugin: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.remove(digest)
}

func (s *Store) remove(digest string) error {
	path := s.Path(digest)
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("delete plugin %s: %w", digest, err)
	}
	if err := syncDir(filepath.Dir(path)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("delete plugin %s: %w", digest, err)
	}
	return nil
}

// Collect removes every file for whose digest keep answers false, and returns
// what it removed. keep is asked while no Put runs; a file that was put before
// and is to stay must be known to keep.
func (s *Store) Collect(keep func(digest string) bool) ([]Blob, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	all, err := s.List()
	if err != nil {
		return nil, err
	}
	var gone []Blob
	for _, b := range all {
		if keep(b.Digest) {
			continue
		}
		if err := s.remove(b.Digest); err != nil {
			return gone, err
		}
		gone = append(gone, b)
	}
	return gone, nil
}
