package pdk

import (
	"archive/zip"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"
	"time"
)

// packList is the file of a kit that lists what an author needs of it, one
// pattern a line.
const packList = ".pack"

// packed is the time of every file in a packed kit: the bytes depend on the
// files' names and contents alone.
var packed = time.Date(1980, 1, 1, 0, 0, 0, 0, time.UTC)

// Pack packs the files of a kit that its list names. Nothing is compressed:
// the same files give the same bytes with every compiler.
func Pack(kit fs.FS) ([]byte, error) {
	list, err := fs.ReadFile(kit, packList)
	if err != nil {
		return nil, err
	}
	var patterns []string
	for line := range strings.Lines(string(list)) {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "#") {
			patterns = append(patterns, line)
		}
	}
	return packFiles(kit, patterns)
}

// Repack packs all files of an unpacked kit: the same bytes as those it comes
// from, unless a file was changed, added or removed. What toolchains put there
// is left out.
func Repack(copied fs.FS) ([]byte, error) { return packFiles(copied, []string{"**"}) }

// made are folders that toolchains make.
var made = []string{"node_modules", "target"}

func packFiles(from fs.FS, patterns []string) ([]byte, error) {
	var names []string
	used := make([]bool, len(patterns))
	err := fs.WalkDir(from, ".", func(name string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() && slices.Contains(made, d.Name()) {
			return fs.SkipDir
		}
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		for i, p := range patterns {
			if matches(strings.Split(p, "/"), strings.Split(name, "/")) {
				used[i] = true
				names = append(names, name)
				break
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	if i := slices.Index(used, false); i >= 0 {
		return nil, fmt.Errorf("%s: no file matches %q", packList, patterns[i])
	}
	slices.Sort(names)
	var out bytes.Buffer
	z := zip.NewWriter(&out)
	for _, name := range names {
		b, err := fs.ReadFile(from, name)
		if err != nil {
			return nil, err
		}
		w, err := z.CreateHeader(&zip.FileHeader{Name: name, Method: zip.Store, Modified: packed})
		if err != nil {
			return nil, err
		}
		if _, err := w.Write(b); err != nil {
			return nil, err
		}
	}
	if err := z.Close(); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

// matches tells whether a path is one of a pattern: * stands for any part of a
// name, ** for any number of folders, and at the end for all below.
func matches(pattern, name []string) bool {
	switch {
	case len(pattern) == 0:
		return len(name) == 0
	case pattern[0] == "**":
		for i := range name {
			if matches(pattern[1:], name[i:]) {
				return true
			}
		}
		return len(pattern) == 1
	case len(name) == 0:
		return false
	}
	ok, err := path.Match(pattern[0], name[0])
	return ok && err == nil && matches(pattern[1:], name[1:])
}

// Unpack writes the files of a packed kit with the function write, which gets
// names with slashes.
func Unpack(kit []byte, write func(name string, content []byte) error) error {
	z, err := zip.NewReader(bytes.NewReader(kit), int64(len(kit)))
	if err != nil {
		return fmt.Errorf("packed kit: %w", err)
	}
	for _, f := range z.File {
		if !fs.ValidPath(f.Name) {
			return fmt.Errorf("packed kit: %q is no name", f.Name)
		}
		r, err := f.Open()
		if err != nil {
			return fmt.Errorf("packed kit: %w", err)
		}
		b, err := io.ReadAll(r)
		if err := errors.Join(err, r.Close()); err != nil {
			return fmt.Errorf("packed kit: %s: %w", f.Name, err)
		}
		if err := write(f.Name, b); err != nil {
			return err
		}
	}
	return nil
}
