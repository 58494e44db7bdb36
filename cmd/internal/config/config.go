// Package config is the configuration of a node: flowd.yaml, the environment
// and flags become typed values, and what is wrong with them is said in the
// way the linter says it, with file, line and a caret.
//
// It opens nothing that it names: whether a folder can be written or a port is
// free shows when the node starts.
package config

import (
	"errors"
	"fmt"
	"log/slog"
	"math"
	"regexp"
	"strconv"
	"strings"

	"github.com/millrace-io/millrace/cmd/internal/api"
	"github.com/millrace-io/millrace/runtime/flow"
)

// Config is the configuration of a node. Defaults are its valid beginning.
type Config struct {
	// Listen is HOST:PORT of the admin API, a loopback address.
	Listen string
	// Data is the data folder. Relative paths start at the working directory.
	Data string
	// Secrets is the folder with secrets; "" is secrets/ in Data.
	Secrets string
	Limits  Limits
	Log     Log
	Kafka   Kafka

	// Origin tells by key (limits.window) where a value comes from:
	// file:line, an environment variable or a flag. Defaults have no entry.
	Origin map[string]string
}

// Limits of a node.
type Limits struct {
	// Window bounds the records in flight on the node, in bytes.
	Window int64
	// Fuel is the most that a record may cost in a stage, in the sandbox's
	// units.
	Fuel int64
	// PluginMemory bounds the memory of a plugin's instance, in bytes.
	PluginMemory int64
	// SpillRate is how many records a second go into the state to wait there
	// for another attempt, SpillBytes how much may wait there. At 80 % flows
	// hold on, and go on at 50 %.
	SpillRate  int64
	SpillBytes int64
}

// Log says what is logged, and how.
type Log struct {
	Level slog.Level
	// Format is text or json.
	Format string
}

// Kafka is what all Kafka sources of a node share.
type Kafka struct {
	// FetchMaxBytes bounds what a broker answers to one fetch.
	FetchMaxBytes int32
}

// Defaults is the configuration of a node that is given none.
func Defaults() Config {
	return Config{
		Listen: "127.0.0.1:7070",
		Data:   "data",
		Limits: Limits{Window: 256 << 20, Fuel: 1_200_000, PluginMemory: 64 << 20, SpillRate: 2000, SpillBytes: 1 << 30},
		Log:    Log{Level: slog.LevelInfo, Format: "text"},
		Kafka:  Kafka{FetchMaxBytes: 2 << 20},
	}
}

// Validate reports every value that a node could not work with.
func (c Config) Validate() error {
	var errs []error
	for i := range settings {
		if err := settings[i].check(&c); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// Setting is a value of a configuration as text.
type Setting struct {
	Key, Value string
	// Origin is file:line, an environment variable, a flag or "default".
	Origin string
}

// Settings lists all values, in the order of the documentation.
func (c Config) Settings() []Setting {
	var out []Setting
	for i := range settings {
		if settings[i].show == nil {
			continue
		}
		origin := c.Origin[settings[i].key]
		if origin == "" {
			origin = "default"
		}
		out = append(out, Setting{settings[i].key, settings[i].show(&c), origin})
	}
	return out
}

// fault is what is wrong with a value, and what to do.
type fault struct {
	code    flow.Code
	message string
	help    string
}

func (f *fault) Error() string {
	if f.help == "" {
		return f.message
	}
	return f.message + "; " + f.help
}

func wrong(help, format string, args ...any) error {
	return &fault{flow.CodeValue, fmt.Sprintf(format, args...), help}
}

// setting is a key of the file.
type setting struct {
	key     string
	number  bool   // a YAML number may stand for its text
	example string // a value
	set     func(c *Config, text string) error
	check   func(c *Config) error
	show    func(c *Config) string
}

var settings = []setting{
	{
		key: "listen", example: "127.0.0.1:7070",
		set: func(c *Config, text string) error { c.Listen = text; return nil },
		check: func(c *Config) error {
			err := api.CheckListen(c.Listen)
			if e, ok := errors.AsType[*api.ListenError](err); ok {
				return wrong(e.Next, "listen cannot be %q: %v", c.Listen, e.Err)
			}
			return err
		},
		show: func(c *Config) string { return c.Listen },
	},
	{
		key: "data", example: "/var/lib/millrace",
		set:   func(c *Config, text string) error { c.Data = text; return nil },
		check: func(c *Config) error { return checkFolder("data", c.Data) },
		show:  func(c *Config) string { return c.Data },
	},
	{
		key: "secrets", example: "/etc/millrace/secrets",
		set: func(c *Config, text string) error { c.Secrets = text; return checkFolder("secrets", text) },
		check: func(c *Config) error {
			if c.Secrets == "" {
				return nil
			}
			return checkFolder("secrets", c.Secrets)
		},
		show: func(c *Config) string {
			if c.Secrets == "" {
				return strings.TrimRight(c.Data, "/") + "/secrets"
			}
			return c.Secrets
		},
	},
	{
		key: "limits.window", number: true, example: "256MiB",
		set: func(c *Config, text string) (err error) {
			c.Limits.Window, err = parseSize("window", text)
			return err
		},
		check: func(c *Config) error { return checkSize("window", c.Limits.Window, 1<<20, 1<<40) },
		show:  func(c *Config) string { return sizeText(c.Limits.Window) },
	},
	{
		key: "limits.fuel", number: true, example: "1_200_000",
		set: func(c *Config, text string) error {
			n, err := strconv.ParseInt(strings.ReplaceAll(text, "_", ""), 10, 64)
			if err != nil {
				return wrong("write a whole number, for example 1_200_000", "fuel is a number of units a record, not %q", text)
			}
			c.Limits.Fuel = n
			return nil
		},
		check: func(c *Config) error {
			if c.Limits.Fuel < 1000 || c.Limits.Fuel > 1<<40 {
				return wrong("the default is 1_200_000, about 5 ms of work", "fuel is from 1000 to %d units a record, not %d", int64(1)<<40, c.Limits.Fuel)
			}
			return nil
		},
		show: func(c *Config) string { return strconv.FormatInt(c.Limits.Fuel, 10) },
	},
	{
		key: "limits.plugin_memory", number: true, example: "64MiB",
		set: func(c *Config, text string) (err error) {
			c.Limits.PluginMemory, err = parseSize("plugin_memory", text)
			return err
		},
		check: func(c *Config) error {
			const page = 64 << 10
			if n := c.Limits.PluginMemory; n > 0 && n%page != 0 {
				return wrong("write "+sizeText((n/page+1)*page), "plugin_memory is counted in pages of 64KiB, and %s is no whole number of them", sizeText(n))
			}
			return checkSize("plugin_memory", c.Limits.PluginMemory, page, 4<<30)
		},
		show: func(c *Config) string { return sizeText(c.Limits.PluginMemory) },
	},
	{
		key: "limits.spill_rate", number: true, example: "2000",
		set: func(c *Config, text string) error {
			n, err := strconv.ParseInt(strings.ReplaceAll(text, "_", ""), 10, 64)
			if err != nil {
				return wrong("write a whole number, for example 2000", "spill_rate is a number of records a second, not %q", text)
			}
			c.Limits.SpillRate = n
			return nil
		},
		check: func(c *Config) error {
			if c.Limits.SpillRate < 1 || c.Limits.SpillRate > 1e6 {
				return wrong("the default is 2000", "spill_rate is from 1 to 1000000 records a second, not %d", c.Limits.SpillRate)
			}
			return nil
		},
		show: func(c *Config) string { return strconv.FormatInt(c.Limits.SpillRate, 10) },
	},
	{
		key: "limits.spill_bytes", number: true, example: "1GiB",
		set: func(c *Config, text string) (err error) {
			c.Limits.SpillBytes, err = parseSize("spill_bytes", text)
			return err
		},
		check: func(c *Config) error { return checkSize("spill_bytes", c.Limits.SpillBytes, 1<<20, 1<<40) },
		show:  func(c *Config) string { return sizeText(c.Limits.SpillBytes) },
	},
	{
		key: "log.level", example: "info",
		set: func(c *Config, text string) error {
			for level, name := range levels {
				if text == name {
					c.Log.Level = level
					return nil
				}
			}
			return wrong("levels are debug, info, warn and error", "level cannot be %q", text)
		},
		check: func(c *Config) error {
			if levels[c.Log.Level] == "" {
				return wrong("levels are debug, info, warn and error", "level cannot be %v", c.Log.Level)
			}
			return nil
		},
		show: func(c *Config) string { return levels[c.Log.Level] },
	},
	{
		key: "log.format", example: "text",
		set: func(c *Config, text string) error { c.Log.Format = text; return nil },
		check: func(c *Config) error {
			if c.Log.Format != "text" && c.Log.Format != "json" {
				return wrong("formats are text and json", "format cannot be %q", c.Log.Format)
			}
			return nil
		},
		show: func(c *Config) string { return c.Log.Format },
	},
	{
		key: "kafka.fetch_max_bytes", number: true, example: "2MiB",
		set: func(c *Config, text string) error {
			n, err := parseSize("fetch_max_bytes", text)
			c.Kafka.FetchMaxBytes = int32(min(n, math.MaxInt32))
			return err
		},
		check: func(c *Config) error {
			return checkSize("fetch_max_bytes", int64(c.Kafka.FetchMaxBytes), 64<<10, 1<<30)
		},
		show: func(c *Config) string { return sizeText(int64(c.Kafka.FetchMaxBytes)) },
	},
}

var levels = map[slog.Level]string{slog.LevelDebug: "debug", slog.LevelInfo: "info", slog.LevelWarn: "warn", slog.LevelError: "error"}

func checkFolder(key, path string) error {
	if path == "" || strings.ContainsRune(path, 0) {
		return wrong("write the path of a folder", "%s cannot be %q", key, path)
	}
	return nil
}

func checkSize(key string, n, least, most int64) error {
	if n < least || n > most {
		return wrong("", "%s is from %s to %s, not %s", key, sizeText(least), sizeText(most), sizeText(n))
	}
	return nil
}

var sizePattern = regexp.MustCompile(`^([0-9]+)\s*(|B|KiB|MiB|GiB|TiB|[KMGT]B?|[kmgt]b?)$`)

// parseSize reads 65536, 1_048_576 or 256MiB.
func parseSize(key, text string) (int64, error) {
	m := sizePattern.FindStringSubmatch(strings.ReplaceAll(text, "_", ""))
	if m == nil {
		return 0, wrong("sizes look like 65536, 512KiB or 256MiB", "%s cannot be %q", key, text)
	}
	shift := 0
	switch m[2] {
	case "", "B":
	case "KiB":
		shift = 10
	case "MiB":
		shift = 20
	case "GiB":
		shift = 30
	case "TiB":
		shift = 40
	default:
		return 0, wrong("did you mean "+m[1]+strings.ToUpper(m[2][:1])+"iB?", "%s cannot be %q", key, text)
	}
	n, err := strconv.ParseInt(m[1], 10, 64)
	if err != nil || n > math.MaxInt64>>shift {
		return 0, wrong("", "%s cannot be as large as %q", key, text)
	}
	return n << shift, nil
}

func sizeText(n int64) string {
	for _, unit := range []struct {
		shift int
		name  string
	}{{40, "TiB"}, {30, "GiB"}, {20, "MiB"}, {10, "KiB"}} {
		if n != 0 && n&(1<<unit.shift-1) == 0 {
			return strconv.FormatInt(n>>unit.shift, 10) + unit.name
		}
	}
	return strconv.FormatInt(n, 10)
}
