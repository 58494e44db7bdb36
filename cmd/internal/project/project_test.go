package project

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/millrace-io/millrace/cmd/internal/cli"
	"github.com/millrace-io/millrace/pdk"
)

func write(t *testing.T, dir, name, text string) {
	t.Helper()
	path := filepath.Join(dir, filepath.FromSlash(name))
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func readFile(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// explained holds that an error is one for a user.
func explained(t *testing.T, err error, code string, exit int, want ...string) *cli.Error {
	t.Helper()
	e, ok := errors.AsType[*cli.Error](err)
	if !ok {
		t.Fatalf("got %T %v, want %s", err, err, code)
	}
	if e.Code != code || e.Exit != exit || e.Next == "" {
		t.Errorf("got %s, exit %d: %s, next %q; want %s, exit %d and a next step", e.Code, e.Exit, e.Detail, e.Next, code, exit)
	}
	for _, w := range want {
		if !strings.Contains(e.Detail+"\n"+e.Next, w) {
			t.Errorf("%q, next %q: %q is not said", e.Detail, e.Next, w)
		}
	}
	return e
}

func TestFind(t *testing.T) {
	t.Setenv("PATH", "")
	t.Setenv("TINYGO", "")
	for _, c := range []struct {
		name  string
		files map[string]string
		want  Lang
		above bool // it is found from below
	}{
		{"what it says", map[string]string{".millrace/project.json": `{"format":1,"lang":"as","name":"x"}`, "Cargo.toml": ""}, AssemblyScript, true},
		{"a crate", map[string]string{"Cargo.toml": "[package]\nname = \"x\"\n[lib]\n", "src/lib.rs": ""}, Rust, false},
		{"a crate with the kit", map[string]string{"Cargo.toml": "[package]\nname = \"x\"\n[dependencies]\nmillrace-pdk = \"0.1\"\n"}, Rust, true},
		{"a program in Rust", map[string]string{"Cargo.toml": "[package]\nname = \"x\"\n", "src/main.rs": ""}, Lines, false},
		{"a crate with a bin", map[string]string{"Cargo.toml": "[package]\nname = \"x\"\n[[bin]]\n", "src/lib.rs": ""}, Lines, false},
		{"a package of npm", map[string]string{"package.json": "{}", "assembly/index.ts": ""}, AssemblyScript, false},
		{"a package with the kit", map[string]string{"package.json": `{"dependencies":{"@millrace/pdk":"*"}}`, "assembly/index.ts": ""}, AssemblyScript, true},
		{"a Go module with the kit", map[string]string{"go.mod": "module x\nrequire " + kitModule + " v0.0.0\n"}, Go, true},
		{"a Go module without", map[string]string{"go.mod": "module x\n"}, Lines, false},
	} {
		dir := filepath.Join(t.TempDir(), "x")
		for name, text := range c.files {
			write(t, dir, name, text)
		}
		write(t, dir, "deep/below/it.txt", "")
		p, err := Find(dir)
		if below, err := Find(filepath.Join(dir, "deep", "below")); (err == nil && below.Dir == dir) != c.above {
			t.Errorf("%s: from below got %+v, %v, want it found: %v", c.name, below, err, c.above)
		}
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		if p.Lang != c.want || p.Dir != dir || p.Name != "x" || p.WasmPath() != filepath.Join(dir, "build", "x.wasm") {
			t.Errorf("%s: got %+v, want lang %s", c.name, p, c.want)
		}
		if p, err = Find(dir, Go); err != nil || p.Lang != Go {
			t.Errorf("%s with --lang go: got %+v, %v", c.name, p, err)
		}
	}
	t.Setenv("TINYGO", "/opt/tinygo")
	dir := t.TempDir()
	write(t, dir, "go.mod", "module x\nrequire "+kitModule+" v0.0.0\n")
	if p, err := Find(dir); err != nil || p.Lang != TinyGo {
		t.Errorf("with a tinygo: got %+v, %v", p, err)
	}
}

func TestFindFaults(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "package.json", "{}") // without a folder assembly
	_, err := Find(dir)
	explained(t, err, CodeNoProject, cli.ExitInvalid, ".millrace/project.json, Cargo.toml, go.mod, or package.json with a folder assembly", "flowctl new plugin")
	_, err = Find(filepath.Join(dir, "nowhere"))
	explained(t, err, cli.CodeFile, cli.ExitInvalid, "there is no such folder")
	_, err = Find(filepath.Join(dir, "package.json"))
	explained(t, err, cli.CodeFile, cli.ExitInvalid, "it is a file, not a folder")
	for text, want := range map[string]string{
		`{"format":1,"lang":"cobol"}`:  `lang "cobol" is none of rust, tinygo, go, as or lines`,
		`{"format":1,`:                 "project.json: unexpected end of JSON input",
		`{"format":2,"lang":"rust"}`:   "format 2 is of a later flowctl",
		`{"format":1,"lang":["rust"]}`: "project.json: json: cannot unmarshal",
	} {
		write(t, dir, recordFile, text)
		_, err = Find(dir)
		explained(t, err, CodeNoProject, cli.ExitInvalid, want)
	}
	for in, want := range map[string]string{"assemblyscript": "write --lang as", "C": "write --lang lines", "cobol": "write --lang rust, tinygo, go, as or lines"} {
		_, err = ParseLang(in)
		explained(t, err, cli.CodeUsage, cli.ExitInvalid, want)
	}
}

func TestSources(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"Cargo.toml", "src/lib.rs", "testdata/in.ndjson", ".millrace/pdk/src/lib.rs", "assembly/build/x.ts"} {
		write(t, dir, name, "")
	}
	for _, name := range []string{"build/x.wasm", "target/debug/x", "node_modules/a/b.js", ".git/HEAD", ".millrace/node", ".millrace/data/x", ".millrace/project.json", ".millrace/pdk/node_modules/x.js"} {
		write(t, dir, name, "")
	}
	files, err := (&Project{Dir: dir}).Sources()
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, f := range files {
		rel, err := filepath.Rel(dir, f)
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, filepath.ToSlash(rel))
	}
	want := []string{".millrace/pdk/src/lib.rs", "Cargo.toml", "src/lib.rs", "testdata/in.ndjson"}
	if got = slices.DeleteFunc(got, func(s string) bool { return s == "assembly/build/x.ts" }); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestCleanName(t *testing.T) {
	for in, want := range map[string]string{"mask": "mask", "Mask_Orders": "mask-orders", "2fast": "p-2fast", "a.b c": "a-b-c", "-x-": "x"} {
		if got, err := CleanName(in); err != nil || got != want {
			t.Errorf("%q: got %q, %v, want %q", in, got, err, want)
		}
	}
	for in, want := range map[string]string{"": "no name", "漢字": "no name", "a/b": "--dir a/b", "test": "Rust keeps for itself", "main": "Go keeps", "plugin": "call it plugin-stage", "log": "Go keeps", "com1": "a file system keeps", strings.Repeat("x", 65): "too long"} {
		_, err := CleanName(in)
		explained(t, err, cli.CodeUsage, cli.ExitInvalid, want)
	}
}

func TestCreate(t *testing.T) {
	for _, lang := range Langs() {
		dir := filepath.Join(t.TempDir(), "new", "mask")
		p, files, err := Create(dir, "mask", lang)
		if err != nil {
			t.Fatalf("%s: %v", lang, err)
		}
		for _, want := range []string{".gitignore", "README.md", "mask.test.yaml", "testdata/in.ndjson"} {
			if !slices.Contains(files, want) {
				t.Errorf("%s: no %s in %q", lang, want, files)
			}
		}
		for _, name := range files {
			if text := readFile(t, filepath.Join(dir, filepath.FromSlash(name))); strings.Contains(text, "[[ ") || strings.Contains(text, "<no value>") || text == "" {
				t.Errorf("%s: %s is no text of this project:\n%s", lang, name, text)
			}
		}
		if rel, err := filepath.Rel(dir, p.Source()); err != nil || !slices.Contains(files, filepath.ToSlash(rel)) {
			t.Errorf("%s: the stage is %s, which is none of %q", lang, rel, files)
		}
		found, err := Find(dir)
		if err != nil || *found != *p {
			t.Errorf("%s: found %+v, %v, want %+v", lang, found, err, p)
		}
		if older, have, want := CheckPDK(p); older || have != want || (have == "") != (lang == Lines) {
			t.Errorf("%s: the new kit is %q, flowctl's %q, older %v", lang, have, want, older)
		}
		_, _, err = Create(dir, "mask", lang)
		explained(t, err, CodeExists, cli.ExitInvalid, "is not empty")
	}
	file := filepath.Join(t.TempDir(), "f")
	write(t, filepath.Dir(file), "f", "")
	_, _, err := Create(file, "mask", Rust)
	explained(t, err, CodeExists, cli.ExitInvalid, "is a file")
}

func TestUpdateKit(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "mask")
	p, _, err := Create(dir, "mask", Rust)
	if err != nil {
		t.Fatal(err)
	}
	kit, _ := pdk.Kit("rust")
	write(t, dir, "src/lib.rs", "// mine")

	u, err := UpdateKit(p)
	if err != nil || u.Old != u.New || u.Kept != "" {
		t.Errorf("up to date: %+v, %v", u, err)
	}

	// An older copy, as project.json says: a file is there that is no more.
	write(t, dir, ".millrace/pdk/src/gone.rs", "")
	old, err := pdk.Repack(os.DirFS(filepath.Join(dir, ".millrace", "pdk")))
	if err != nil {
		t.Fatal(err)
	}
	p.pdk = pdk.Digest(old)
	if err := p.note(); err != nil {
		t.Fatal(err)
	}
	if p, err = Find(dir); err != nil {
		t.Fatal(err)
	}
	if older, have, want := CheckPDK(p); !older || have == want {
		t.Errorf("an old copy: older %v, %s and %s", older, have, want)
	}
	u, err = UpdateKit(p)
	if err != nil || u.Old == u.New || u.Kept != "" {
		t.Errorf("an old copy: %+v, %v", u, err)
	}
	is := func(what string) {
		t.Helper()
		now, err := pdk.Repack(os.DirFS(filepath.Join(dir, ".millrace", "pdk")))
		if err != nil || string(now) != string(kit) {
			t.Errorf("%s: the copy is not flowctl's kit, %v", what, err)
		}
		if readFile(t, filepath.Join(dir, "src", "lib.rs")) != "// mine" {
			t.Errorf("%s: the author's file was written over", what)
		}
		if p, err = Find(dir); err != nil {
			t.Fatal(err)
		}
		if older, _, _ := CheckPDK(p); older {
			t.Errorf("%s: the new copy is older", what)
		}
	}
	is("an old copy")

	// A copy that somebody changed.
	write(t, dir, ".millrace/pdk/src/lib.rs", "// changed")
	u, err = UpdateKit(p)
	if err != nil || u.Kept == "" || readFile(t, filepath.Join(u.Kept, "src", "lib.rs")) != "// changed" {
		t.Errorf("a changed copy: %+v, %v", u, err)
	}
	is("a changed copy")

	// A copy of a later version is not older.
	toml := readFile(t, filepath.Join(dir, ".millrace", "pdk", "Cargo.toml"))
	write(t, dir, ".millrace/pdk/Cargo.toml", strings.Replace(toml, `version = "0.`, `version = "99.`, 1))
	p.pdk = "sha256:0123456789"
	if older, have, want := CheckPDK(p); older || !strings.HasPrefix(have, "99.") || have == want {
		t.Errorf("a later copy: older %v, %s and %s", older, have, want)
	}

	lines, _, err := Create(filepath.Join(t.TempDir(), "l"), "l", Lines)
	if err != nil {
		t.Fatal(err)
	}
	_, err = UpdateKit(lines)
	explained(t, err, cli.CodeUsage, cli.ExitInvalid, "has no kit")
}
