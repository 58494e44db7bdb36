package project

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// kitModule is the module path of the Go kit.
const kitModule = "github.com/millrace-io/millrace/pdk/go"

// guess is the language of a folder by its files, empty if it is no project,
// and whether they name a kit: a folder of another purpose does not.
func guess(dir string) (l Lang, kit bool) {
	has := func(name string) bool { return exists(filepath.Join(dir, filepath.FromSlash(name))) }
	names := func(file, kit string) bool {
		b, _ := os.ReadFile(filepath.Join(dir, file))
		return strings.Contains(string(b), kit)
	}
	switch {
	case has("Cargo.toml"):
		if names("Cargo.toml", "[[bin]]") || has("src/main.rs") && !has("src/lib.rs") {
			return Lines, false
		}
		return Rust, names("Cargo.toml", "millrace-pdk")
	case has("package.json") && has("assembly"):
		return AssemblyScript, names("package.json", "@millrace/pdk")
	case has("go.mod"):
		if !names("go.mod", kitModule) {
			return Lines, false
		}
		if _, err := exec.LookPath("tinygo"); err == nil || os.Getenv("TINYGO") != "" {
			return TinyGo, true
		}
		return Go, true
	}
	return "", false
}

var crateNameRE = regexp.MustCompile(`(?m)^\s*name\s*=\s*"([^"]+)"`)

// moduleName is what the module of a project is called that does not say it:
// the crate's name, else the folder's.
func moduleName(dir string, lang Lang) string {
	if b, err := os.ReadFile(filepath.Join(dir, "Cargo.toml")); err == nil && (lang == Rust || lang == Lines) {
		if m := crateNameRE.FindSubmatch(b); m != nil {
			return string(m[1])
		}
	}
	return filepath.Base(dir)
}

// Folders whose files are made, not written: of a project, and wherever they
// are. A target with cacheTag is cargo's; others may be the author's.
var (
	skipped    = []string{"build", "target"}
	skippedAll = []string{"node_modules", ".git"}
)

const cacheTag = "CACHEDIR.TAG"

// Sources are the files whose change means that the project must be built
// anew, absolute and sorted.
func (p *Project) Sources() ([]string, error) {
	var files []string
	// With a separator at its end it may be a symbolic link.
	err := filepath.WalkDir(p.Dir+string(filepath.Separator), func(path string, d fs.DirEntry, err error) error {
		rel, _ := filepath.Rel(p.Dir, path)
		if err != nil {
			if rel != "." && (errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission)) {
				return nil // gone meanwhile, or nothing that a toolchain reads
			}
			return err
		}
		name := d.Name()
		switch {
		case !d.IsDir():
			if d.Type().IsRegular() && filepath.Dir(rel) != stateDir {
				files = append(files, path)
			}
		case rel == ".":
		case slices.Contains(skippedAll, name), rel == name && slices.Contains(skipped, name), exists(filepath.Join(path, cacheTag)):
			return filepath.SkipDir
		case filepath.Dir(rel) == stateDir && name != filepath.Base(kitDir):
			return filepath.SkipDir
		}
		return nil
	})
	slices.Sort(files)
	return files, err
}
