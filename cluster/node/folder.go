package node

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"

	"github.com/google/uuid"

	"github.com/millrace-io/millrace/cluster/state"
)

// formatVersion is the version of the data folder's layout.
const formatVersion = 1

type identity struct {
	Format int       `json:"format"`
	Node   uuid.UUID `json:"node"`
}

// folder is a locked data folder.
type folder struct {
	fs   state.FS
	dir  string
	lock io.Closer
	id   uuid.UUID
}

// openFolder makes the folder if needed, locks it and reads who it belongs to.
// An empty folder gets a new identity.
func openFolder(dir string, custom state.FS) (_ *folder, err error) {
	f := &folder{fs: custom, dir: dir}
	if custom == nil {
		f.fs = state.DiskFS()
	}
	if err := f.fs.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("open data folder %s: %w", dir, err)
	}
	lockPath := f.fs.PathJoin(dir, "LOCK")
	if custom == nil {
		f.lock, err = lockFile(dir, lockPath)
	} else {
		f.lock, err = custom.Lock(lockPath)
	}
	if err != nil {
		if _, ok := errors.AsType[*LockedError](err); ok {
			return nil, err
		}
		return nil, fmt.Errorf("open data folder %s: %w", dir, err)
	}
	if err := f.identify(); err != nil {
		return nil, errors.Join(err, f.lock.Close())
	}
	return f, nil
}

func (f *folder) identify() error {
	path := f.fs.PathJoin(f.dir, "node.json")
	file, err := f.fs.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return f.create(path)
	}
	if err != nil {
		return fmt.Errorf("open data folder %s: %w", f.dir, err)
	}
	b, err := io.ReadAll(file)
	if err = errors.Join(err, file.Close()); err != nil {
		return fmt.Errorf("open data folder %s: %w", f.dir, err)
	}
	var id identity
	if err := json.Unmarshal(b, &id); err != nil {
		return fmt.Errorf("open data folder %s: node.json: %w", f.dir, err)
	}
	if id.Format != formatVersion {
		return &FormatError{f.dir, id.Format}
	}
	if id.Node == uuid.Nil {
		return fmt.Errorf("open data folder %s: node.json names no node", f.dir)
	}
	f.id = id.Node
	return nil
}

func (f *folder) create(path string) error {
	fault := func(err error) error { return fmt.Errorf("make data folder %s: %w", f.dir, err) }
	if _, err := f.fs.Stat(f.fs.PathJoin(f.dir, "db")); err == nil {
		return fault(errors.New("it has a database but no node.json, which names its node; it is damaged"))
	}
	id, err := uuid.NewRandom()
	if err != nil {
		return fault(err)
	}
	b, err := json.Marshal(identity{formatVersion, id})
	if err != nil {
		return fault(err)
	}
	tmp := path + ".tmp"
	file, err := f.fs.Create(tmp, "unspecified")
	if err != nil {
		return fault(err)
	}
	_, err = file.Write(append(b, '\n'))
	if err = errors.Join(err, file.Sync(), file.Close()); err != nil {
		return fault(err)
	}
	if err := f.fs.Rename(tmp, path); err != nil {
		return fault(err)
	}
	for _, dir := range []string{f.dir, f.fs.PathDir(f.dir)} {
		if err := syncDir(f.fs, dir); err != nil {
			return fault(err)
		}
	}
	f.id = id
	return nil
}

func syncDir(fsys state.FS, dir string) error {
	d, err := fsys.OpenDir(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

func (f *folder) close() error { return f.lock.Close() }
