package config

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/millrace-io/millrace/runtime/flow"
)

var rewrite = flag.Bool("rewrite", false, "rewrite the golden files")

const whole = `# a node
listen: 127.0.0.1:7171
data: /var/lib/millrace
secrets: /etc/millrace/secrets
limits: { window: 512MiB, plugin_memory: 1_048_576, spill_rate: 5_000, spill_bytes: 2GiB }
log:
  level: warn
  format: json
kafka:
  fetch_max_bytes: "4 MiB"
`

func write(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "flowd.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestDefaultsAreValid(t *testing.T) {
	if err := Defaults().Validate(); err != nil {
		t.Error(err)
	}
	got, err := Load("", nil)
	want := Defaults()
	want.Origin = map[string]string{}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %v", got, err)
	}
}

func TestWholeFile(t *testing.T) {
	path := write(t, whole)
	got, err := Load(path, []string{"HOME=/root"})
	if err != nil {
		t.Fatal(err)
	}
	want := Config{
		Listen: "127.0.0.1:7171", Data: "/var/lib/millrace", Secrets: "/etc/millrace/secrets",
		Limits: Limits{Window: 512 << 20, Fuel: 1_200_000, PluginMemory: 1 << 20, SpillRate: 5000, SpillBytes: 2 << 30}, Log: Log{slog.LevelWarn, "json"}, Kafka: Kafka{4 << 20},
		Origin: map[string]string{"listen": path + ":2", "data": path + ":3", "secrets": path + ":4", "limits.window": path + ":5",
			"limits.plugin_memory": path + ":5", "limits.spill_rate": path + ":5", "limits.spill_bytes": path + ":5", "log.level": path + ":7", "log.format": path + ":8", "kafka.fetch_max_bytes": path + ":10"},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

// Each layer beats the ones below it, key by key.
func TestPrecedence(t *testing.T) {
	path := write(t, whole)
	got, err := Load(path, []string{"FLOWD_DATA=env", "FLOWD_LIMITS__WINDOW=1GiB", "FLOWD_LISTEN=127.0.0.1:1", "FLOWD_KAFKA__FETCH_MAX_BYTES=65536"},
		Flag{"--listen", "listen", "localhost:0"})
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for _, s := range got.Settings() {
		lines = append(lines, fmt.Sprintf("%s %s %s", s.Key, s.Value, strings.ReplaceAll(s.Origin, path, "FILE")))
	}
	want := `listen localhost:0 --listen
data env FLOWD_DATA
secrets /etc/millrace/secrets FILE:4
limits.window 1GiB FLOWD_LIMITS__WINDOW
limits.fuel 1200000 default
limits.plugin_memory 1MiB FILE:5
limits.spill_rate 5000 FILE:5
limits.spill_bytes 2GiB FILE:5
log.level warn FILE:7
log.format json FILE:8
kafka.fetch_max_bytes 64KiB FLOWD_KAFKA__FETCH_MAX_BYTES`
	if got := strings.Join(lines, "\n"); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestEmptyFiles(t *testing.T) {
	for _, text := range []string{"", "\n", "# nothing\n", "---\n", "{}\n", "limits:\n  # window: 1GiB\nlog:\n", "\ufefflisten: 127.0.0.1:7070\r\n"} {
		if _, err := Load(write(t, text), nil); err != nil {
			t.Errorf("%q: %v", text, err)
		}
	}
}

// A service of the name flowd makes an orchestrator set these.
func TestForeignEnvironment(t *testing.T) {
	env := []string{"FLOWD_SERVICE_HOST=10.0.0.1", "FLOWD_SERVICE_PORT=7070", "FLOWD_SERVICE_PORT_API=7070", "FLOWD_PORT=tcp://10.0.0.1:7070", "FLOWD_PORT_7070_TCP_ADDR=10.0.0.1", "FLOWDX=1", "FLOW=1"}
	if _, err := Load("", env); err != nil {
		t.Error(err)
	}
	if _, err := Load("", []string{"FLOWD_PORTS=1"}); err == nil {
		t.Error("FLOWD_PORTS was passed over")
	}
}

func TestFaults(t *testing.T) {
	var out bytes.Buffer
	for _, c := range []struct {
		name, file string
		env        []string
		flags      []Flag
	}{
		{name: "unknown key", file: "listen: 127.0.0.1:7070\nlisen: x\n"},
		{name: "unknown key below", file: "limits:\n  windw: 1GiB\n"},
		{name: "key in the wrong map", file: "window: 1GiB\nlimits: { level: info }\n"},
		{name: "no such key at all", file: "telemetry: on\nlog: { colour: true }\n"},
		{name: "key twice", file: "data: a\ndata: b\n"},
		{name: "number for a text", file: "listen: 7070\ndata: 5\n"},
		{name: "text for a map", file: "log: info\n"},
		{name: "list for a map", file: "limits: [ 1 ]\n"},
		{name: "map for a text", file: "listen: { host: 127.0.0.1 }\n"},
		{name: "list for a text", file: "data: [ a, b ]\n"},
		{name: "nothing for a text", file: "listen:\ndata: x\n"},
		{name: "truth for a size", file: "limits: { window: true, plugin_memory: 1.5 }\n"},
		{name: "a list at the top", file: "- listen\n"},
		{name: "a text at the top", file: "listen\n"},
		{name: "size of another unit", file: "limits:\n  window: 256MB\n  plugin_memory: 64m\n"},
		{name: "no size", file: "limits:\n  window: much\n  plugin_memory: -1\nkafka: { fetch_max_bytes: 1.5MiB }\n"},
		{name: "size out of range", file: "limits:\n  window: 1KiB\n  plugin_memory: 8GiB\nkafka: { fetch_max_bytes: 99999999999999999999 }\n"},
		{name: "half a page", file: "limits: { plugin_memory: 100_000 }\n"},
		{name: "fuel", file: "limits:\n  window: 1GiB\n  fuel: 12\n"},
		{name: "spills", file: "limits:\n  spill_rate: many\n  spill_bytes: 1KiB\n"},
		{name: "no spills", file: "limits: { spill_rate: 0 }\n"},
		{name: "level and format", file: "log: { level: INFO, format: \"yaml\" }\n"},
		{name: "address of the world", file: "listen: 0.0.0.0:7070\n"},
		{name: "address without port", file: "listen: localhost\n"},
		{name: "several at once", file: "lisen: x\nlimits: { window: 5XB }\nlog: { level: loud }\n"},
		{name: "tab", file: "limits:\n\twindow: 1GiB\n"},
		{name: "broken YAML", file: "listen: \"127.0.0.1:7070\ndata: x\n"},
		{name: "colon in a value", file: "data: a: b\n"},
		{name: "anchor", file: "data: &x a\nsecrets: *x\n"},
		{name: "tag", file: "data: !path a\n"},
		{name: "two documents", file: "data: a\n---\ndata: b\n"},
		{name: "not text", file: "data: \xff\n"},
		{name: "environment", env: []string{"FLOWD_LIMITS_WINDOW=1GiB", "FLOWD_LISTEN=:7070", "FLOWD_COLOUR=1", "FLOWD_DATA=", "FLOWD_LIMITS__FUEL=1"}},
		{name: "flags", flags: []Flag{{"--listen", "listen", "7070"}, {"--data", "data", ""}}},
		{name: "all sources", file: "data: 5\n", env: []string{"FLOWD_LOG__LEVEL=x"}, flags: []Flag{{"--listen", "listen", "x:y:z"}}},
	} {
		path := ""
		if c.file != "" {
			path = write(t, c.file)
		}
		_, err := Load(path, c.env, c.flags...)
		faults, ok := errors.AsType[*flow.Errors](err)
		if !ok {
			t.Errorf("%s: got %v", c.name, err)
			continue
		}
		fmt.Fprintf(&out, "# %s\n", c.name)
		for _, kv := range c.env {
			fmt.Fprintln(&out, kv)
		}
		if path == "" {
			fmt.Fprintf(&out, "%s\n", faults.Problems.Render())
			continue
		}
		fmt.Fprintf(&out, "%s\n", strings.ReplaceAll(faults.Problems.Render(), path, "flowd.yaml"))
		for _, p := range faults.Problems {
			if p.File == path && (p.Line < 1 || p.Column < 1) {
				t.Errorf("%s: no place: %+v", c.name, p)
			}
		}
	}
	golden := filepath.Join("testdata", "faults.golden")
	if *rewrite {
		if err := os.WriteFile(golden, out.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(out.Bytes(), want) {
		t.Errorf("got\n%s\nwhich is not %s (go test -rewrite accepts it)", out.Bytes(), golden)
	}
}

func TestFilesThatCannotBeRead(t *testing.T) {
	dir := t.TempDir()
	if _, err := Load(filepath.Join(dir, "none.yaml"), nil); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "-c") {
		t.Errorf("missing: %v", err)
	}
	if _, err := Load(dir, nil); err == nil || !strings.Contains(err.Error(), "folder") {
		t.Errorf("folder: %v", err)
	}
}

func TestValidateReportsEveryFault(t *testing.T) {
	err := Config{Limits: Limits{Window: -1}, Log: Log{Level: 3}}.Validate()
	for _, part := range []string{"listen cannot be", "data cannot be", "window is from", "plugin_memory is from", "level cannot be", "format cannot be", "fetch_max_bytes is from"} {
		if err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("%q is missing in %v", part, err)
		}
	}
}

func FuzzFile(f *testing.F) {
	f.Add(whole)
	f.Add("limits: { window: 1GiB, 3: x }\n? [a]\n: b\n")
	f.Add("a: &a [*a]\n<<: *a\n")
	f.Fuzz(func(t *testing.T, text string) {
		l := loader{config: Defaults()}
		l.config.Origin = map[string]string{}
		l.file("flowd.yaml", text)
		_ = l.problems.Render()
		if len(l.problems) == 0 {
			if err := l.config.Validate(); err != nil {
				t.Errorf("%q was accepted: %v", text, err)
			}
		}
	})
}
