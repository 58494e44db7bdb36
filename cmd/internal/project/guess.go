package project

import (
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

// skipped are folders whose files are made, not written.
var skipped = []string{"build", "target", "node_modules", ".git"}

// Sources are the files whose change means that the project must be built
// anew, absolute and sorted.
func (p *Project) Sources() ([]string, error) {
	var files []string
	err := filepath.WalkDir(p.Dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := d.Name()
		rel, _ := filepath.Rel(p.Dir, path)
		switch {
		case !d.IsDir():
			if d.Type().IsRegular() && filepath.Dir(rel) != stateDir {
				files = append(files, path)
			}
		case path == p.Dir:
		case slices.Contains(skipped, name):
			return filepath.SkipDir
		case filepath.Dir(rel) == stateDir && name != filepath.Base(kitDir):
			return filepath.SkipDir
		}
		return nil
	})
	slices.Sort(files)
	return files, err
}
