package project

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"

	"github.com/Masterminds/semver/v3"

	"github.com/millrace-io/millrace/cmd/internal/cli"
	"github.com/millrace-io/millrace/pdk"
)

// kitOf is the name of a language's kit; empty if it needs none.
func kitOf(l Lang) string {
	switch l {
	case Rust:
		return "rust"
	case TinyGo, Go:
		return "go"
	case AssemblyScript:
		return "assemblyscript"
	}
	return ""
}

// CheckPDK holds the kit's copy in a project against flowctl's own. have and
// want name the two, empty if the project has no copy; older says that they
// differ and that the copy has no later version.
func CheckPDK(p *Project) (older bool, have, want string) {
	zip, digest := pdk.Kit(kitOf(p.Lang))
	copied := filepath.Join(p.Dir, filepath.FromSlash(kitDir))
	if zip == nil || p.pdk == "" || !isFolder(copied) {
		return false, "", ""
	}
	ours, theirs := "", kitVersion(func(name string) []byte {
		b, _ := os.ReadFile(filepath.Join(copied, name))
		return b
	})
	_ = pdk.Unpack(zip, func(name string, content []byte) error {
		if v := kitVersion(func(wanted string) []byte {
			if wanted == name {
				return content
			}
			return nil
		}); v != "" {
			ours = v
		}
		return nil
	})
	have, want = named(theirs, p.pdk), named(ours, digest)
	a, errA := semver.NewVersion(theirs)
	b, errB := semver.NewVersion(ours)
	later := errA == nil && errB == nil && a.GreaterThan(b)
	return p.pdk != digest && !later, have, want
}

// named is a kit's version, where it has one, and the begin of its digest.
func named(version, digest string) string {
	if version == "" {
		return cli.Digest(digest)
	}
	return version + " (" + cli.Digest(digest) + ")"
}

var kitVersionRE = regexp.MustCompile(`(?m)^\s*"?version"?\s*[=:]\s*"([^"]+)"`)

// kitVersion is the version in a kit's own manifest; empty if it has none.
func kitVersion(read func(name string) []byte) string {
	for _, name := range []string{"Cargo.toml", "package.json"} {
		if m := kitVersionRE.FindSubmatch(read(name)); m != nil {
			return string(m[1])
		}
	}
	return ""
}

// Update is what UpdateKit did.
type Update struct {
	Dir string `json:"dir"`
	// Old and New name the kits, equal if nothing was to do; Old is empty if
	// there was no copy.
	Old string `json:"old,omitempty"`
	New string `json:"new"`
	// Kept is where a copy lies that somebody had changed.
	Kept string `json:"kept,omitempty"`
}

// UpdateKit puts flowctl's kit in the place of a project's copy, and touches
// no other file of its author. A copy that was changed by hand is kept beside
// the new one.
func UpdateKit(p *Project) (*Update, error) {
	zip, digest := pdk.Kit(kitOf(p.Lang))
	if zip == nil {
		return nil, cli.Usage("build it with `flowctl build`", "%s: a plugin of --lang %s has no kit", p.Dir, p.Lang)
	}
	_, have, _ := CheckPDK(p)
	u := &Update{Dir: p.Dir, Old: have}
	copied := filepath.Join(p.Dir, filepath.FromSlash(kitDir))
	if isFolder(copied) {
		now, err := pdk.Repack(os.DirFS(copied))
		if err != nil {
			return nil, fileError(err)
		}
		if is := pdk.Digest(now); is != p.pdk && is != digest {
			for i := 1; ; i++ {
				if u.Kept = fmt.Sprintf("%s.changed-%d", copied, i); !exists(u.Kept) {
					break
				}
			}
			if err := os.Rename(copied, u.Kept); err != nil {
				return nil, fileError(err)
			}
		}
	}
	if err := p.unpackKit(); err != nil {
		return nil, err
	}
	_, _, u.New = CheckPDK(p)
	return u, nil
}

// unpackKit writes the kit's copy anew, and notes it.
func (p *Project) unpackKit() error {
	zip, digest := pdk.Kit(kitOf(p.Lang))
	copied := filepath.Join(p.Dir, filepath.FromSlash(kitDir))
	fresh := copied + ".new"
	if err := os.RemoveAll(fresh); err != nil {
		return fileError(err)
	}
	if err := pdk.Unpack(zip, func(name string, content []byte) error {
		path := filepath.Join(fresh, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		mode := os.FileMode(0o644)
		if bytes.HasPrefix(content, []byte("#!")) {
			mode = 0o755 // a program, which npm links to
		}
		return os.WriteFile(path, content, mode)
	}); err != nil {
		return fileError(err)
	}
	if err := errors.Join(os.RemoveAll(copied), os.Rename(fresh, copied)); err != nil {
		return fileError(err)
	}
	p.pdk = digest
	return p.note()
}

// note writes recordFile.
func (p *Project) note() error {
	b, err := json.Marshal(record{Format: format, Name: p.Name, Lang: p.Lang, PDK: p.pdk})
	if err != nil {
		return err
	}
	path := filepath.Join(p.Dir, filepath.FromSlash(recordFile))
	return writeFile(path, append(b, '\n'))
}

// fileError is an error of the file system as the user sees it.
func fileError(err error) error {
	if e, ok := errors.AsType[*cli.Error](err); ok {
		return e
	}
	e := &cli.Error{Exit: cli.ExitFailed, Code: cli.CodeFile, Detail: err.Error(), Next: "check the folder and its permissions", Err: err}
	if errors.Is(err, fs.ErrNotExist) {
		e.Next = "make the folder, or correct the path"
	}
	return e
}
