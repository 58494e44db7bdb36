package pdktest

import (
	"archive/zip"
	"bytes"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/millrace-io/millrace/pdk"
	"github.com/millrace-io/millrace/plugins/sandbox"
	"github.com/millrace-io/millrace/runtime/record"
)

const (
	goModule  = "github.com/millrace-io/millrace/pdk/go"
	goVersion = "v0.1.0"
)

// publish writes the packed kit below dir as a module proxy has it, and returns
// the names of its files.
func publish(t *testing.T, dir string) []string {
	t.Helper()
	kit, err := pdk.Pack(os.DirFS(goKit))
	if err != nil {
		t.Fatal(err)
	}
	from, err := zip.NewReader(bytes.NewReader(kit), int64(len(kit)))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	var packed bytes.Buffer
	to := zip.NewWriter(&packed)
	at := filepath.Join(dir, filepath.FromSlash(goModule), "@v")
	for _, f := range from.File {
		r, err := f.Open()
		if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		w, err := to.Create(goModule + "@" + goVersion + "/" + f.Name)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(content); err != nil {
			t.Fatal(err)
		}
		names = append(names, f.Name)
		if f.Name == "go.mod" {
			write(t, filepath.Join(at, goVersion+".mod"), string(content))
		}
	}
	if err := to.Close(); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(at, "list"), goVersion+"\n")
	write(t, filepath.Join(at, goVersion+".info"), `{"Version":"`+goVersion+`","Time":"2026-01-01T00:00:00Z"}`)
	write(t, filepath.Join(at, goVersion+".zip"), packed.String())
	return names
}

const goStranger = `package main

import (
	"errors"
	"strconv"
	"strings"

	millrace "github.com/millrace-io/millrace/pdk/go"
)

// Settings has a field of each kind that a configuration can have.
type Settings struct {
	Loud   bool                         ` + "`default:\"true\"`" + `
	Names  map[string][]string          ` + "`json:\"names\"`" + `
	Limits struct{ Max uint8 }          ` + "`doc:\"Limits of it.\"`" + `
	Rate   *float64                     ` + "`json:\"rate\"`" + `
	List   []struct{ MinAge int16 }     ` + "`default:\"[]\"`" + `
	Any    millrace.JSON                ` + "`json:\"any\" default:\"[1, null]\"`" + `
	Own    own                          ` + "`default:\"x\"`" + `
}

type own string

// UnmarshalJSON takes any value.
func (o *own) UnmarshalJSON(text []byte) error {
	*o = own("own " + string(text))
	return nil
}

// Validate has the last word.
func (s *Settings) Validate() error {
	if s.Limits.Max == 13 {
		return errors.New("limits.max: 13 brings bad luck")
	}
	return nil
}

func init() {
	millrace.StageWith(shout)
	millrace.Describe(millrace.Manifest{Name: "stranger", Version: "0.3.0"})
}

func main() {}

func shout(r *millrace.Record, out *millrace.Out, s *Settings) error {
	text, err := r.Text()
	if err != nil {
		return err
	}
	switch text {
	case "panic":
		panic("as told")
	case "forget":
		return nil
	case "settings":
		w := out.Write()
		w.Begin('[')
		w.Value(s.Loud)
		w.Value(strings.Join(s.Names["a"], "+") + strconv.Itoa(len(s.Names)))
		w.Value(int(s.Limits.Max))
		w.Value(*s.Rate)
		w.Value(int(s.List[1].MinAge))
		w.Value(s.Any)
		w.Value(string(s.Own))
		w.End(']')
		return w.Emit()
	}
	return out.EmitText(strings.ToUpper(text))
}
`

const (
	goStrangerSettings = `{"names":{"a":["x","y"],"b":[]},"limits":{"max":7},"rate":2.5,"list":[{"min_age":1},{"min_age":-2}]}`
	goStrangerAnswer   = `[true,"x+y2",7,2.5,-2,[1, null],"own \"x\""]`
	goStrangerTest     = `package main

import (
	"testing"

	"github.com/millrace-io/millrace/pdk/go/millracetest"
)

func TestShout(t *testing.T) {
	got := millracetest.New(t, ` + "`" + goStrangerSettings + "`" + `).Run(t, millracetest.Value("a"), millracetest.Value("settings"))
	if v := got.Value(0); v != "A" {
		t.Errorf("got %s", v)
	}
	if v := got.Value(1); v != ` + "`" + goStrangerAnswer + "`" + ` {
		t.Errorf("got %s", v)
	}
}
`
)

// What is packed is all that a stranger's empty project needs: it gets the
// module from a proxy, tests, and builds with both compilers.
func TestGoModuleIsEnoughForAStranger(t *testing.T) {
	if testing.Short() {
		t.Skip("builds with Go and TinyGo")
	}
	dir := t.TempDir()
	proxy, project := filepath.Join(dir, "proxy"), filepath.Join(dir, "stranger")
	names := publish(t, proxy)
	for _, want := range []string{"go.mod", "README.md", "LICENSE", "stage.go", "exports.go", "millracetest/millracetest.go"} {
		if !slices.Contains(names, want) {
			t.Errorf("the module lacks %s: %q", want, names)
		}
	}
	for _, name := range names {
		if strings.HasSuffix(name, "_test.go") || strings.HasSuffix(name, ".wasm") || strings.HasPrefix(name, "examples/") {
			t.Errorf("the module has %s", name)
		}
	}
	write(t, filepath.Join(project, "go.mod"), "module stranger\n\ngo 1.24\n")
	write(t, filepath.Join(project, "main.go"), goStranger)
	write(t, filepath.Join(project, "main_test.go"), goStrangerTest)
	// The module cache is read-only; -modcacherw lets the test remove it.
	env := []string{"GOPROXY=file://" + filepath.ToSlash(proxy), "GONOSUMDB=" + goModule, "GOMODCACHE=" + filepath.Join(dir, "cache"), "GOFLAGS=-mod=mod -modcacherw"}
	for _, args := range [][]string{{"get", goModule + "@" + goVersion}, {"vet", "."}, {"test", "."}} {
		if out, err := goTool(t, project, env, "go", args...); err != nil {
			t.Fatalf("go %q: %v\n%s", args, err, out)
		}
	}
	rt := newRuntime(t)
	for _, compiler := range []string{byTinyGo, byGo} {
		t.Run(compiler, func(t *testing.T) {
			wasm := described(t, rt, compile(t, project, compiler, env...))
			s := open(t, rt, wasm, sandbox.StageConfig{Config: []byte(goStrangerSettings)})
			if m := s.Info().Manifest; m == nil || m.Name != "stranger" || m.Version != "0.3.0" {
				t.Errorf("manifest %+v", m)
			}
			answers := process(t, s, []byte("hello"), []byte("panic"), []byte("é"), []byte("settings"), []byte("forget"))
			if answers[0].value != "HELLO" || answers[2].value != "É" || answers[3].value != goStrangerAnswer {
				t.Errorf("got %+v", answers)
			}
			if err := answers[4].err; err == nil || !strings.HasPrefix(err.Message, "the stage did not answer the record: ") {
				t.Errorf("got %+v", err)
			}
			if _, err := tryOpen(t, rt, wasm, sandbox.StageConfig{Config: []byte(strings.Replace(goStrangerSettings, "7", "13", 1))}); err == nil || !strings.Contains(err.Error(), "with: limits.max: 13 brings bad luck") {
				t.Errorf("settings that are refused: %v", err)
			}
			err := answers[1].err
			switch {
			case err == nil:
				t.Error("the panic did not fail its record")
			case compiler == byGo && (err.Class != record.Rejected || err.Code != 1 || err.Message != "panic: as told at main.go:52"):
				t.Errorf("got %+v", err)
			case compiler == byTinyGo && (err.Class != record.Trap || !strings.Contains(err.Message, "panic: as told")):
				t.Errorf("got %+v", err)
			}
		})
	}
}

// A plugin that forgets millrace.Stage is refused when it is built, by what
// stage_manifest says.
func TestGoPluginWithoutAStage(t *testing.T) {
	if testing.Short() {
		t.Skip("builds with TinyGo")
	}
	dir := t.TempDir()
	kit, err := filepath.Abs(goKit)
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "go.mod"), "module none\n\ngo 1.24\n\nrequire "+goModule+" v0.0.0\n\nreplace "+goModule+" => "+kit+"\n")
	write(t, filepath.Join(dir, "main.go"), "package main\n\nimport _ \""+goModule+"\"\n\nfunc main() {}\n")
	_, err = newRuntime(t).DescribeModule(t.Context(), compile(t, dir, byTinyGo))
	if err == nil || !strings.Contains(err.Error(), "the plugin has no stage: call millrace.Stage in init") {
		t.Errorf("got %v", err)
	}
}
