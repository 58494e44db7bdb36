// Package importrules holds the repository's import rules as data, and a test
// that parses the files itself: a test that asked the go command would be
// answered from the test cache.
package importrules

import (
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/millrace-io/millrace/"

// rule says who may import a package or what lies below it.
type rule struct {
	target  string   // import path prefix; a package of ours without the module
	allowed []string // folders that may, with what lies below
	tests   bool     // test files may as well
	reason  string
}

var rules = []rule{
	// Engines: one package each.
	{"github.com/tetratelabs/wazero", []string{"plugins/sandbox", "plugins/extism"}, true, "one engine: wazero; the Extism SDK hands it through"},
	{"github.com/extism", []string{"plugins/extism"}, true, "one engine, one package: the Extism SDK"},
	{"github.com/twmb/franz-go/pkg/kfake", []string{"cmd/internal/devbroker"}, true, "one engine, one package: kfake"},
	{"github.com/twmb/franz-go/pkg/k", []string{"runtime/connector/kafka", "cmd/internal/devbroker", "cmd/flowctl", "cmd/internal/quickstart", "cmd/bench"}, true,
		"one engine, one package: franz-go; quickstart and bench are clients of a broker of their own"},
	{"github.com/twmb/franz-go/pkg/sr", []string{"runtime/connector/kafka/registry"}, true, "one engine, one package: the client of a Schema Registry"},
	{"github.com/twmb/avro", []string{"runtime/connector/kafka/registry"}, true, "one engine, one package: Avro"},
	{"github.com/apache/rocketmq-client-go", []string{"cmd/bench"}, true, "connector/rocketmq has a client of its own; Apache's is what tests and bench compare it with"},
	{"github.com/cockroachdb/pebble", []string{"cluster/state", "cluster/raftlog"}, true, "Pebble holds state and the raft log"},
	{"github.com/hashicorp/raft", []string{"cluster/raftlog", "cluster/node"}, true, "raft stays behind node"},

	// The three parts meet in cmd.
	{"runtime", []string{"runtime", "cmd", "examples"}, true, "runtime, plugins and cluster meet in cmd"},
	{"plugins", []string{"plugins", "cmd"}, true, "runtime, plugins and cluster meet in cmd"},
	{"cluster", []string{"cluster", "cmd"}, true, "runtime, plugins and cluster meet in cmd"},
	{"cmd", []string{"cmd"}, true, "nothing depends on commands"},
	{"pdk", []string{"cmd", "examples/jt808"}, false, "what is embedded is for flowctl; the example is a module of its own on the kit for Go"},
	{"examples", []string{"cmd", "examples"}, true, "what is embedded is for flowctl"},

	// Inside runtime.
	{"runtime/expr", []string{"runtime/expr", "runtime/flow", "runtime/stage", "runtime/delivery", "cmd"}, true, "record <- expr <- flow <- stage, delivery"},
	{"runtime/flow", []string{"runtime/flow", "runtime/stage", "runtime/delivery", "cmd"}, true, "record <- expr <- flow <- stage, delivery"},
	{"runtime/stage", []string{"cmd"}, true, "stages are put together in cmd"},
	{"runtime/delivery", []string{"cmd"}, true, "deliveries are put together in cmd"},
	{"runtime/ledger", []string{"runtime/pipeline", "cmd"}, true, "the lane's"},
	{"runtime/retry", []string{"runtime/pipeline", "runtime/delivery", "cmd"}, true, "decided where attempts are made"},
	{"runtime/pipeline", []string{"runtime/connector", "cmd"}, true, "record <- ledger, retry <- pipeline <- connector"},
	{"runtime/connector", []string{"runtime/connector", "cmd"}, true, "the pipeline owns its ports"},

	// Inside plugins.
	{"plugins/abi", []string{"plugins/sandbox", "plugins/extism", "plugins/plugintest", "cmd"}, true, "abi, manifest, rewrite <- sandbox <- registry"},
	{"plugins/rewrite", []string{"plugins/sandbox", "plugins/extism", "cmd"}, true, "abi, manifest, rewrite <- sandbox <- registry"},
	{"plugins/sandbox", []string{"plugins/extism", "plugins/registry", "plugins/plugintest", "cmd"}, true, "abi, manifest, rewrite <- sandbox <- extism <- registry"},
	{"plugins/extism", []string{"plugins/registry", "plugins/plugintest", "cmd"}, true, "abi, manifest, rewrite <- sandbox <- extism <- registry"},
	{"plugins/registry", []string{"cmd"}, true, "nothing of plugins is above it"},

	// Inside cluster.
	{"cluster/raftlog", []string{"cluster/node", "cmd"}, true, "state <- raftlog <- node"},
	{"cluster/assign", []string{"cluster/node", "cmd"}, true, "assign <- node"},
	{"cluster/node", []string{"cmd"}, true, "nothing of cluster is above it"},
}

// free may be imported by anyone.
const free = module + "runtime/record"

// pure packages import none of these: they start nothing, read no clock,
// environment or random, do no I/O and log nothing.
var (
	pure    = []string{"runtime/record", "runtime/expr", "runtime/flow", "runtime/ledger", "runtime/retry", "plugins/abi", "plugins/manifest", "plugins/rewrite", "cluster/assign"}
	effects = []string{"os", "os/exec", "net", "net/http", "log", "log/slog", "math/rand", "math/rand/v2", "crypto/rand", "io/fs", "path/filepath", "syscall"}
)

func isStd(path string) bool { return !strings.Contains(strings.SplitN(path, "/", 2)[0], ".") }

func below(path, folder string) bool {
	return path == folder || strings.HasPrefix(path, folder+"/")
}

func TestImports(t *testing.T) {
	root := repoRoot(t)
	files := 0
	used := map[string]bool{}
	for _, folder := range []string{"runtime", "plugins", "cluster", "cmd", "examples", "pdk"} {
		err := filepath.WalkDir(filepath.Join(root, folder), func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") {
				return err
			}
			rel, err := filepath.Rel(root, path)
			if err != nil {
				return err
			}
			rel = filepath.ToSlash(rel)
			files++
			f, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly)
			if err != nil {
				return err
			}
			for _, spec := range f.Imports {
				target, err := strconv.Unquote(spec.Path.Value)
				if err != nil {
					return err
				}
				check(t, rel, target, used)
			}
			return nil
		})
		if err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
	}
	if files < 50 {
		t.Fatalf("%d Go files were looked at: is %s the repository?", files, root)
	}
	for _, r := range rules {
		if !used[r.target] && !strings.HasPrefix(r.target, "pdk") {
			t.Errorf("the rule for %s matches no import: is its path still right?", r.target)
		}
	}
}

func check(t *testing.T, file, target string, used map[string]bool) {
	t.Helper()
	folder := file[:strings.LastIndexByte(file, '/')]
	test := strings.HasSuffix(file, "_test.go")
	if folder == "runtime" {
		t.Errorf("%s: no Go files directly in runtime/: the standard library has that name", file)
	}
	for _, p := range pure {
		if below(folder, p) && !test && slices.Contains(effects, target) {
			t.Errorf("%s imports %s: %s is pure", file, target, p)
		}
	}
	if below(folder, "runtime/record") && !isStd(target) {
		t.Errorf("%s imports %s: record depends on the standard library alone", file, target)
	}
	if target == free {
		return
	}
	for _, r := range rules {
		prefix := r.target
		if isStd(prefix) { // a folder of ours
			if !below(target, module+prefix) {
				continue
			}
			if below(folder, prefix) {
				used[r.target] = true
				continue
			}
		} else if !strings.HasPrefix(target, prefix) {
			continue
		}
		used[r.target] = true
		if test && r.tests {
			continue
		}
		// kfake matches the rule of franz-go too; its own is the stricter one.
		if strings.HasPrefix(target, "github.com/twmb/franz-go/pkg/kfake") && !strings.HasSuffix(prefix, "kfake") {
			continue
		}
		if !slices.ContainsFunc(r.allowed, func(a string) bool { return below(folder, a) }) {
			t.Errorf("%s imports %s: only %v may (%s)", file, strings.TrimPrefix(target, module), r.allowed, r.reason)
		}
	}
}

func repoRoot(t *testing.T) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			t.Fatal("no go.mod above the test")
		}
		dir = parent
	}
}
