package pdktest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/millrace-io/millrace/cmd/internal/page"
	"github.com/millrace-io/millrace/plugins/plugintest"
	"github.com/millrace-io/millrace/plugins/sandbox"
	"github.com/millrace-io/millrace/runtime/record"
)

// readmes are the examples whose READMEs are run here, and the programs' input
// in their folders.
var readmes = map[string]string{"mask": "in.ndjson", "csv": "in.csv", "frame-c": "in.txt"}

func example(name string, path ...string) string {
	return filepath.Join(append([]string{repo, "examples", name}, path...)...)
}

func readFile(tb testing.TB, path string) string {
	tb.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		tb.Fatal(err)
	}
	return string(data)
}

// The first commands of each README print out.ndjson, a line of which the
// README shows, and the flow between topics has the same stage.
func TestExamplesAsTheirReadmesSay(t *testing.T) {
	if testing.Short() {
		t.Skip("builds flowctl")
	}
	root := t.TempDir()
	build := exec.CommandContext(t.Context(), "go", "build", "-o", filepath.Join(root, "bin")+string(filepath.Separator), "./cmd/flowctl")
	build.Dir = repo
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	for name, in := range readmes {
		for _, file := range []string{name + ".wasm", "flow.yaml", "flow-stream.yaml", "connection.yaml", in} {
			write(t, filepath.Join(root, "examples", name, file), readFile(t, example(name, file)))
		}
	}
	flowctl := func(args ...string) (string, error) {
		cmd := exec.CommandContext(t.Context(), filepath.Join(root, "bin", "flowctl"), args...)
		cmd.Dir = root
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	for name := range readmes {
		t.Run(name, func(t *testing.T) {
			readme := readFile(t, example(name, "README.md"))
			cmd := exec.CommandContext(t.Context(), "sh", "-e", "-c", page.First(t, readme, "sh"))
			cmd.Dir = root
			var stderr bytes.Buffer
			cmd.Stderr = &stderr
			out, err := cmd.Output()
			if err != nil {
				t.Fatalf("%v\n%s", err, &stderr)
			}
			want := readFile(t, example(name, "out.ndjson"))
			if string(out) != want {
				t.Errorf("got\n%s\nwant\n%s", out, want)
			}
			if name != "frame-c" && !strings.Contains(want, page.First(t, readme, "json")) {
				t.Errorf("the README shows a record that is not in out.ndjson")
			}
			if out, err := flowctl("lint", "examples/"+name); err != nil || !strings.Contains(out, "0 errors") {
				t.Errorf("lint: %v\n%s", err, out)
			}
			stages := func(file string) string {
				_, text, _ := strings.Cut(readFile(t, example(name, file)), "stages:\n")
				text, _, ok := strings.Cut(text, "  - id: deliver")
				if !ok {
					t.Fatalf("%s has no stage deliver", file)
				}
				return text
			}
			if a, b := stages("flow.yaml"), stages("flow-stream.yaml"); a != b {
				t.Errorf("the stages differ:\n%s\n%s", a, b)
			}
		})
	}
	t.Run("csv, a wrong line", func(t *testing.T) {
		write(t, filepath.Join(root, "wrong.csv"), "A-9,Screw\nA-1,Hammer,3,19.99,true,\n")
		out, err := flowctl("run", "examples/csv/csv.wasm", "--in", "wrong.csv")
		said := "the number of fields is 2, not 6: sku, name, quantity, price, in_stock, note"
		if err == nil || !strings.Contains(out, "rejected: "+said) || !strings.Contains(out, "2 in, 1 emitted, 0 dropped, 1 failed") {
			t.Errorf("%v\n%s", err, out)
		}
		if !strings.Contains(readFile(t, example("csv", "README.md")), said) {
			t.Errorf("the README does not say %q", said)
		}
	})
}

// What holds of any guest holds of the examples.
func TestExamplesPassTheSuite(t *testing.T) {
	rt := newRuntime(t)
	rules := json.RawMessage(`{"fields":[{"path":"**.name","kind":"name"}],"text":["email","card"]}`)
	for name, options := range map[string]plugintest.Options{
		"mask":    {Stage: sandbox.StageConfig{Config: rules}},
		"csv":     {Records: []record.Record{{Value: []byte("A-1,Hammer,3,19.99,true,")}, {Value: []byte(`A-2,"a ""b""",,,,`)}}},
		"frame-c": {},
	} {
		t.Run(name, func(t *testing.T) {
			m, err := rt.Compile(t.Context(), []byte(readFile(t, example(name, name+".wasm"))))
			if err != nil {
				t.Fatal(err)
			}
			options.Bulk = 1000
			plugintest.Run(t, plugintest.Of(m.Info(), m.NewStage), options)
		})
	}
}

// The unit tests of the examples in Rust.
func TestExamplesUnitTests(t *testing.T) {
	c := findCargo(t)
	target := filepath.Join(t.TempDir(), "target")
	for _, name := range []string{"mask", "csv"} {
		out, err := c.run(t, example(name), target, "test", "--locked")
		if err != nil || !regexp.MustCompile(`ok\. [1-9][0-9]* passed`).MatchString(out) {
			t.Errorf("%s: cargo test: %v\n%s", name, err, out)
		}
	}
}

// The audit of mask goes to its output where one is bound.
func TestMaskAudit(t *testing.T) {
	s := stageOf(t, newRuntime(t), []byte(readFile(t, example("mask", "mask.wasm"))), sandbox.StageConfig{
		Config:  json.RawMessage(`{"audit":true,"fields":[{"path":"name","kind":"name"}],"text":["card"]}`),
		Outputs: []string{"audit"},
	})
	var out record.Results
	batch := batchOf([]byte(`{"name":"Jane","note":"4111111111111111 5500000000000004"}`), []byte(`{"note":"4111"}`))
	if err := s.Process(t.Context(), batch, &out); err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range out.Emits {
		got = append(got, fmt.Sprintf("%d %d %s", e.In, e.Output, e.Record.Value))
	}
	want := []string{
		`0 0 {"name":"J***","note":"************1111 ************0004"}`,
		`0 1 {"topic":"orders","partition":0,"offset":0,"masked":{"name":1,"text card":2}}`,
		`1 0 {"note":"4111"}`,
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// No damage to a record makes mask let an email through, trap, or write what is
// not JSON.
func TestMaskOfDamagedRecords(t *testing.T) {
	const seed = 31
	rng := rand.New(rand.NewPCG(seed, 0))
	s := stageOf(t, newRuntime(t), []byte(readFile(t, example("mask", "mask.wasm"))), sandbox.StageConfig{
		Config: json.RawMessage(`{"fields":[{"path":"**.phone","kind":"phone"}],"text":["email"]}`),
	})
	lines := strings.Split(strings.TrimSpace(readFile(t, example("mask", "in.ndjson"))), "\n")
	email := regexp.MustCompile(`"(?:[^"\\]|\\.)*[a-z][a-z0-9]+@[a-z]+\.[a-z]+`)
	emitted := 0
	for range 40 {
		values := make([][]byte, 128)
		for i := range values {
			values[i] = damage(rng, []byte(lines[rng.IntN(len(lines))]))
		}
		for i, a := range process(t, s, values...) {
			v := values[i]
			valid := json.Valid(v) && bytes.HasPrefix(bytes.TrimLeft(v, " \n"), []byte("{")) && utf8.Valid(v)
			if (a.err == nil) != valid || a.err != nil && a.err.Class != record.Rejected {
				t.Fatalf("seed %d: %q: valid %v, got %v", seed, v, valid, a.err)
			}
			if !valid {
				continue
			}
			emitted++
			if !json.Valid([]byte(a.value)) {
				t.Fatalf("seed %d: %q became %q", seed, v, a.value)
			}
			for _, text := range texts(t, a.value) {
				if m := email.FindString(`"` + text); m != "" {
					t.Fatalf("seed %d: %q became %q, with %q in it", seed, v, a.value, m)
				}
			}
		}
	}
	if emitted < 500 {
		t.Errorf("%d records were masked, too few to say much", emitted)
	}
}

// texts are the strings in a JSON value that are no names of fields.
func texts(t *testing.T, value string) []string {
	t.Helper()
	var v any
	if err := json.Unmarshal([]byte(value), &v); err != nil {
		t.Fatal(err)
	}
	var out []string
	var walk func(any)
	walk = func(v any) {
		switch v := v.(type) {
		case string:
			out = append(out, v)
		case []any:
			for _, item := range v {
				walk(item)
			}
		case map[string]any:
			for _, item := range v {
				walk(item)
			}
		}
	}
	walk(v)
	return out
}

var statement = regexp.MustCompile(`^D(\d{4})(0[1-9]|1[0-2])(0[1-9]|[12]\d|3[01])(\d{10})([+-])(\d{9})(\d\d)([A-Z]{3})([ -~]{30})$`)

// bookings is what frame-c should make of a line.
func bookings(line string) (key, value string, code int) {
	switch m := statement.FindStringSubmatch(line); {
	case len(line) != 64:
		return "", "", 1
	case line[0] == 'H' || line[0] == 'T':
		return "", "", 0
	case m == nil:
		return "", "", -1
	default:
		text := `"` + strings.NewReplacer(`"`, `\"`, `\`, `\\`).Replace(strings.TrimRight(m[9], " ")) + `"`
		return m[4], fmt.Sprintf(`{"date":"%s-%s-%s","account":"%s","amount":%s%s.%s,"currency":"%s","text":%s}`,
			m[1], m[2], m[3], m[4], strings.TrimPrefix(m[5], "+"), strings.TrimLeft(m[6][:8], "0")+m[6][8:], m[7], m[8], text), 0
	}
}

// Lines with a character changed, put in or left out are answered by frame-c as
// by its twin.
func TestFrameCAsItsTwin(t *testing.T) {
	const seed = 41
	rng := rand.New(rand.NewPCG(seed, 0))
	s := stageOf(t, newRuntime(t), []byte(readFile(t, example("frame-c", "frame-c.wasm"))), sandbox.StageConfig{})
	lines := strings.Split(strings.TrimSuffix(readFile(t, example("frame-c", "in.txt")), "\n"), "\n")
	outcomes := map[string]int{}
	for range 60 {
		b := batchOf(make([][]byte, 128)...)
		for i := range b.Records {
			line := []byte(lines[rng.IntN(len(lines))])
			at := rng.IntN(len(line))
			switch c := "0123456789ADHTXZ+- ~\"\\\x00\x1f\x7f\x80\xff"[rng.IntN(27)]; rng.IntN(6) {
			case 0, 1, 2:
				line[at] = c
			case 3:
				line = append(line[:at], append([]byte{c}, line[at:]...)...)
			case 4:
				line = line[:at]
			}
			b.Records[i].Value = line
		}
		var out record.Results
		if err := s.Process(t.Context(), b, &out); err != nil {
			t.Fatal(err)
		}
		for _, e := range out.Emits {
			key, value, code := bookings(string(b.Records[e.In].Value))
			if code != 0 || string(e.Record.Key) != key || string(e.Record.Value) != value || e.Record.To != -1 || e.Record.Timestamp != b.Records[e.In].Timestamp {
				t.Fatalf("seed %d: %q: got %q: %q, want %q: %q, code %d", seed, b.Records[e.In].Value, e.Record.Key, e.Record.Value, key, value, code)
			}
			outcomes["emit"]++
		}
		for _, i := range out.Drops {
			if _, value, code := bookings(string(b.Records[i].Value)); code != 0 || value != "" {
				t.Fatalf("seed %d: %q is dropped", seed, b.Records[i].Value)
			}
			outcomes["drop"]++
		}
		for _, f := range out.Failures {
			_, _, code := bookings(string(b.Records[f.In].Value))
			if code == 0 || code > 0 && int(f.Err.Code) != code || code < 0 && f.Err.Code < 2 || f.Err.Class != record.Rejected {
				t.Fatalf("seed %d: %q: %v", seed, b.Records[f.In].Value, f.Err)
			}
			outcomes[fmt.Sprint("code ", f.Err.Code)]++
		}
	}
	if len(outcomes) != 9 {
		t.Errorf("seen %v, want emit, drop and codes 1 to 7", outcomes)
	}
}

// The program of the guide to lines does what the guide says, in each of its
// languages.
func TestLinesGuide(t *testing.T) {
	if testing.Short() {
		t.Skip("builds with three compilers")
	}
	sources := map[string]string{}
	for _, b := range page.Blocks(t, readFile(t, filepath.Join(repo, "docs", "guides", "lines.md"))) {
		if b.Name != "" {
			sources[b.Name] = b.Text
		}
	}
	rt := newRuntime(t)
	for name, compile := range map[string]func(t *testing.T, out string) *exec.Cmd{
		"main.go": func(t *testing.T, out string) *exec.Cmd {
			cmd := exec.CommandContext(t.Context(), "go", "build", "-ldflags=-s -w", "-trimpath", "-o", out, "main.go")
			cmd.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm")
			return cmd
		},
		"main.rs": func(t *testing.T, out string) *exec.Cmd {
			rustc := filepath.Join(findCargo(t).bin, "rustc")
			return exec.CommandContext(t.Context(), rustc, "--edition=2021", "-O", "--target", "wasm32-wasip1", "-o", out, "main.rs")
		},
		"main.c": func(t *testing.T, out string) *exec.Cmd {
			if !exists("/usr/lib/wasm32-wasi/libc.a") {
				t.Skip("skipped: no libc for WASI (apt-get install wasi-libc)")
			}
			const two = `clang-19 --target=wasm32-wasi --sysroot=/usr -O2 -c -o main.o main.c && clang-19 --target=wasm32-wasi --sysroot=/usr -Wl,--strip-all -o "$0" main.o`
			return exec.CommandContext(t.Context(), "sh", "-c", two, out)
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			write(t, filepath.Join(dir, name), sources[name])
			out := filepath.Join(dir, "shout.wasm")
			cmd := compile(t, out)
			cmd.Dir = dir
			if words, err := cmd.CombinedOutput(); err != nil {
				t.Fatalf("%v\n%s", err, words)
			}
			s := stageOf(t, rt, []byte(readFile(t, out)), sandbox.StageConfig{})
			answers := process(t, s, []byte("hello"), []byte("# a remark"), []byte(""), []byte("world"))
			for i, want := range []string{"HELLO", "", "", "WORLD"} {
				if answers[i].value != want {
					t.Errorf("line %d: got %+v, want %q", i, answers[i], want)
				}
			}
			if err := answers[2].err; err == nil || err.Code != 7 || err.Message != "an empty line" || answers[1].err != nil {
				t.Errorf("got %v and %v, want a drop, and code 7 with its message", answers[1].err, err)
			}
		})
	}
}
