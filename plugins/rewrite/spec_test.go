package rewrite_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"

	"github.com/millrace-io/millrace/plugins/rewrite"
)

var (
	specFlag   = flag.String("spec", defaultSpec, "releases of the WebAssembly spec tests to run (v1, v2, or v1,v2)")
	fuelFlag   = flag.Bool("fuel", defaultFuel, "run the spec tests with fuel as well")
	engineFlag = flag.String("engine", "interpreter", "wazero engine for the spec tests (interpreter, or default: the compiler where there is one)")
)

// wazeroDir is the folder of the wazero module, which carries the spec tests.
var wazeroDir = sync.OnceValues(func() (string, error) {
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/tetratelabs/wazero").Output()
	if err != nil {
		return "", fmt.Errorf("find the wazero module: %w", err)
	}
	return strings.TrimSpace(string(out)), nil
})

func specFile(t testing.TB, parts ...string) string {
	t.Helper()
	dir, err := wazeroDir()
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Join(append([]string{dir, "internal", "integration_test", "spectest"}, parts...)...)
}

type specScript struct {
	Commands []specCommand `json:"commands"`
}

type specCommand struct {
	Type       string      `json:"type"`
	Line       int         `json:"line"`
	Name       string      `json:"name"`
	Filename   string      `json:"filename"`
	As         string      `json:"as"`
	Action     specAction  `json:"action"`
	Expected   []specValue `json:"expected"`
	ModuleType string      `json:"module_type"`
}

type specAction struct {
	Type   string      `json:"type"`
	Module string      `json:"module"`
	Field  string      `json:"field"`
	Args   []specValue `json:"args"`
}

type specValue struct {
	Type  string          `json:"type"`
	Lane  string          `json:"lane_type"`
	Value json.RawMessage `json:"value"`
}

// words gives the value as wazero passes it: two words for a v128. ok is
// false for a pattern (any NaN, any reference), which only the results of the
// two runs can be compared with.
func (v specValue) words(t *testing.T) (words []uint64, ok bool) {
	t.Helper()
	if v.Type == "v128" {
		var lanes []string
		if err := json.Unmarshal(v.Value, &lanes); err != nil {
			t.Fatal(err)
		}
		words = make([]uint64, 2)
		width := 128 / len(lanes)
		for i, lane := range lanes {
			n, err := strconv.ParseUint(lane, 10, width)
			if err != nil {
				return nil, false
			}
			bit := i * width
			words[bit/64] |= n << (bit % 64)
		}
		return words, true
	}
	var s string
	if len(v.Value) == 0 || json.Unmarshal(v.Value, &s) != nil {
		return nil, false
	}
	if s == "null" {
		return []uint64{0}, true
	}
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		return nil, false
	}
	if strings.HasSuffix(v.Type, "ref") {
		n++ // 0 is null.
	}
	return []uint64{n}, true
}

// side runs one of the two versions of every module.
type side struct {
	rt      wazero.Runtime
	rewrite bool
	opt     rewrite.Options
	named   map[string]api.Module
	last    api.Module

	// functions counts those of a module before it was rewritten, by the name
	// in stack traces.
	functions map[string]int
}

// outcome is what a command did, made to be compared.
type outcome struct {
	values []uint64
	refs   []bool // which values are references to functions
	err    string
}

func (o outcome) equal(p outcome) bool {
	if o.err != p.err || len(o.values) != len(p.values) {
		return false
	}
	for i := range o.values {
		if o.refs[i] {
			if (o.values[i] == 0) != (p.values[i] == 0) {
				return false
			}
		} else if o.values[i] != p.values[i] {
			return false
		}
	}
	return true
}

func (o *outcome) add(types []api.ValueType, values []uint64) {
	const (
		v128    = 0x7b
		funcref = 0x70
	)
	i := 0
	for _, typ := range types {
		switch typ {
		case api.ValueTypeI32, api.ValueTypeF32: // The upper half is undefined.
			values[i] = uint64(uint32(values[i]))
		case v128:
			o.values = append(o.values, values[i])
			o.refs = append(o.refs, false)
			i++
		}
		o.values = append(o.values, values[i])
		o.refs = append(o.refs, typ == funcref)
		i++
	}
}

var errRefused = errors.New("refused by the rewriter")

func (s *side) load(ctx context.Context, wasm []byte, as string) (api.Module, error) {
	functions := -1
	if s.rewrite {
		res, err := rewrite.Rewrite(wasm, s.opt)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", errRefused, err)
		}
		wasm = res.Wasm
		functions = res.Facts.Functions + res.Facts.ImportedFunctions
	}
	compiled, err := s.rt.CompileModule(ctx, wasm)
	if err != nil {
		return nil, err
	}
	if functions >= 0 {
		s.functions[compiled.Name()] = functions
	}
	return s.rt.InstantiateModule(ctx, compiled, wazero.NewModuleConfig().WithName(as))
}

func (s *side) act(ctx context.Context, t *testing.T, a specAction) (o outcome) {
	m := s.last
	if a.Module != "" {
		m = s.named[a.Module]
	}
	if m == nil {
		t.Fatalf("no module %q", a.Module)
	}
	if a.Type == "get" {
		g := m.ExportedGlobal(a.Field)
		o.add([]api.ValueType{g.Type()}, []uint64{g.Get()})
		return o
	}
	var args []uint64
	for _, v := range a.Args {
		w, ok := v.words(t)
		if !ok {
			t.Fatalf("argument %s of %s is not understood", v.Value, a.Field)
		}
		args = append(args, w...)
	}
	f := m.ExportedFunction(a.Field)
	if f == nil {
		t.Fatalf("no function %q", a.Field)
	}
	results, err := f.Call(ctx, args...)
	if err != nil {
		return outcome{err: s.withoutShims(err.Error())}
	}
	o.add(f.Definition().ResultTypes(), results)
	return o
}

var addedFrame = regexp.MustCompile(`\n\t([^\n]*)\.\$(\d+)\([^\n]*`)

// withoutShims removes from a stack trace the functions that the rewriter
// added, which pass a call on to an imported one.
func (s *side) withoutShims(trace string) string {
	if !s.opt.Fuel {
		return trace
	}
	return addedFrame.ReplaceAllStringFunc(trace, func(frame string) string {
		g := addedFrame.FindStringSubmatch(frame)
		n, err := strconv.Atoi(g[2])
		if functions, ok := s.functions[g[1]]; ok && err == nil && n >= functions {
			return ""
		}
		return frame
	})
}

type specCount struct{ modules, assertions, rejected, differences, refused int }

// specReleases are the sets of spec tests and how much they hold. Modules are
// those that must load or fail to link; assertions are all commands whose
// outcome is compared: these, actions, returns, traps, exhaustions. Rejected
// are the binaries that no engine may accept.
var specReleases = []struct {
	name     string
	features api.CoreFeatures
	want     specCount
}{
	{"v1", api.CoreFeaturesV1, specCount{modules: 877, assertions: 17180, rejected: 989 + 661}},
	{"v2", api.CoreFeaturesV2, specCount{modules: 1716, assertions: 50028, rejected: 2146 + 719}},
}

// memoryScripts are much quicker compiled; all others interpreted.
var memoryScripts = map[string]bool{"memory_copy": true, "memory_fill": true, "memory_grow": true}

// TestSpec runs the spec tests twice side by side, with the modules as they are
// and rewritten, and compares whatever can be observed.
func TestSpec(t *testing.T) { testSpec(t, rewrite.Options{}) }

// TestSpecFuel does so with fuel that does not run out.
func TestSpecFuel(t *testing.T) {
	if !*fuelFlag {
		t.Skip("-fuel=false")
	}
	testSpec(t, rewrite.Options{Fuel: true})
}

func testSpec(t *testing.T, opt rewrite.Options) {
	for _, rel := range specReleases {
		t.Run(rel.name, func(t *testing.T) {
			if !strings.Contains(*specFlag, rel.name) {
				t.Skip("not selected by -spec")
			}
			scripts, err := filepath.Glob(specFile(t, rel.name, "testdata", "*.json"))
			if err != nil || len(scripts) == 0 {
				t.Fatalf("no spec tests found: %v", err)
			}
			var n specCount
			for _, script := range scripts {
				config := wazero.NewRuntimeConfigInterpreter()
				if *engineFlag == "default" || memoryScripts[strings.TrimSuffix(filepath.Base(script), ".json")] {
					config = wazero.NewRuntimeConfig()
				}
				runSpecScript(t, script, config.WithCoreFeatures(rel.features), opt, &n)
			}
			if n != rel.want {
				t.Errorf("got %+v, want %+v", n, rel.want)
			}
		})
	}
}

func runSpecScript(t *testing.T, path string, config wazero.RuntimeConfig, opt rewrite.Options, n *specCount) {
	t.Helper()
	ctx := context.Background()
	var script specScript
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(raw, &script); err != nil {
		t.Fatal(err)
	}
	host, err := os.ReadFile(specFile(t, "testdata", "spectest.wasm"))
	if err != nil {
		t.Fatal(err)
	}
	sides := [2]*side{{}, {rewrite: true, opt: opt}}
	for _, s := range sides {
		s.rt = wazero.NewRuntimeWithConfig(ctx, config)
		defer s.rt.Close(ctx)
		s.named = map[string]api.Module{}
		s.functions = map[string]int{}
		if _, err := s.load(ctx, host, "spectest"); err != nil {
			t.Fatal(err)
		}
	}
	differ := func(c specCommand, what string, args ...any) {
		n.differences++
		t.Errorf("%s:%d %s: %s", filepath.Base(path), c.Line, c.Type, fmt.Sprintf(what, args...))
	}
	for i, c := range script.Commands {
		switch c.Type {
		case "register":
			continue // Done with the module before it.
		case "assert_invalid", "assert_malformed":
			if c.ModuleType == "text" {
				continue
			}
		}
		var wasm []byte
		if c.Filename != "" {
			if wasm, err = os.ReadFile(filepath.Join(filepath.Dir(path), c.Filename)); err != nil {
				t.Fatal(err)
			}
		}
		switch c.Type {
		case "assert_invalid", "assert_malformed":
			n.rejected++
			for _, s := range sides {
				if _, err := s.load(ctx, wasm, ""); err == nil {
					differ(c, "accepted (rewritten: %v)", s.rewrite)
				}
			}
		case "module", "assert_unlinkable", "assert_uninstantiable":
			n.modules++
			n.assertions++
			as := ""
			if next := i + 1; c.Type == "module" && next < len(script.Commands) && script.Commands[next].Type == "register" {
				as = script.Commands[next].As
			}
			var texts [2]string
			for k, s := range sides {
				mod, err := s.load(ctx, wasm, as)
				if errors.Is(err, errRefused) {
					n.refused++
				}
				if err != nil {
					texts[k] = err.Error()
				}
				if c.Type != "module" {
					continue
				}
				if err != nil {
					t.Fatalf("%s:%d (rewritten: %v): %v", path, c.Line, s.rewrite, err)
				}
				s.last = mod
				if c.Name != "" {
					s.named[c.Name] = mod
				}
			}
			if texts[0] != texts[1] {
				differ(c, "%q became %q", texts[0], texts[1])
			}
		case "action", "assert_return", "assert_trap", "assert_exhaustion":
			n.assertions++
			a, b := sides[0].act(ctx, t, c.Action), sides[1].act(ctx, t, c.Action)
			if !a.equal(b) {
				differ(c, "%s: %+v became %+v", c.Action.Field, a, b)
			}
			if failed := c.Type == "assert_trap" || c.Type == "assert_exhaustion"; failed != (a.err != "") {
				t.Errorf("%s:%d %s %s: got error %q", path, c.Line, c.Type, c.Action.Field, a.err)
			}
			if c.Type == "assert_return" {
				checkSpecResult(t, path, c, b)
			}
		default:
			t.Fatalf("%s:%d: command %q is not understood", path, c.Line, c.Type)
		}
		if i+1 == len(script.Commands) || script.Commands[i+1].Type == "module" {
			if !bytes.Equal(memoryOf(sides[0].last), memoryOf(sides[1].last)) {
				differ(c, "memories differ after it")
			}
		}
	}
}

// memoryOf gives a view of an instance's memory, nil if it has none. wazero
// returns a nil pointer in a non-nil interface for that.
func memoryOf(m api.Module) []byte {
	if m == nil || reflect.ValueOf(m.Memory()).IsNil() {
		return nil
	}
	b, _ := m.Memory().Read(0, m.Memory().Size())
	return b
}

// checkSpecResult holds the rewritten module against the spec itself, as far
// as the expected values are exact.
func checkSpecResult(t *testing.T, path string, c specCommand, got outcome) {
	t.Helper()
	at := 0
	for _, v := range c.Expected {
		width := 1
		if v.Type == "v128" {
			width = 2
		}
		want, exact := v.words(t)
		for k := range want {
			if !exact || at+k >= len(got.values) || got.values[at+k] != want[k] {
				if exact {
					t.Errorf("%s:%d %s: got %x, want %x at %d", path, c.Line, c.Action.Field, got.values, want, at)
				}
				break
			}
		}
		at += width
	}
	if at != len(got.values) {
		t.Errorf("%s:%d %s: got %d values, want %d", path, c.Line, c.Action.Field, len(got.values), at)
	}
}
