package config

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"regexp"
	"slices"
	"strings"

	"github.com/millrace-io/millrace/runtime/expr"
	"github.com/millrace-io/millrace/runtime/flow"
)

// Flag is a value from the command line.
type Flag struct {
	Name  string // as the user wrote it: --listen
	Key   string // of the file: listen
	Value string
}

const envPrefix = "FLOWD_"

// foreignEnv are variables that container orchestrators set beside a service
// of the name flowd.
var foreignEnv = regexp.MustCompile(`^FLOWD_(SERVICE_(HOST|PORT)|PORT)(_|$)`)

// Load reads a configuration: flags over environment variables (FLOWD_LISTEN,
// FLOWD_LIMITS__WINDOW: two underscores a level) over the file over Defaults.
// Without a path no file is read. Env is of os.Environ's form; FLOWD_SERVICE_*
// and FLOWD_PORT* are not settings and are passed over, any other unknown
// FLOWD_ variable is a fault.
//
// What is wrong with the values is a *flow.Errors with all of it; a file that
// cannot be read is another error.
func Load(path string, env []string, flags ...Flag) (Config, error) {
	l := loader{config: Defaults()}
	l.config.Origin = map[string]string{}
	if path != "" {
		text, err := readFile(path)
		if err != nil {
			return Config{}, err
		}
		l.file(path, text)
	}
	l.environment(env)
	for _, f := range flags {
		s := settingOf(f.Key)
		if s == nil {
			panic(fmt.Sprintf("flag %s sets %s, which is not a setting", f.Name, f.Key))
		}
		l.setFrom(s, f.Name, f.Value)
	}
	if err := l.problems.Err(); err != nil {
		return Config{}, err
	}
	if err := l.config.Validate(); err != nil {
		return Config{}, fmt.Errorf("configuration: %w", err)
	}
	return l.config, nil
}

// maxFile is the longest file that is read, in bytes.
const maxFile = 1 << 20

func readFile(path string) (string, error) {
	f, err := os.Open(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "", fmt.Errorf("configuration %s: %w: name an existing file with -c, or leave -c out", path, fs.ErrNotExist)
	case err != nil:
		return "", fmt.Errorf("configuration %s: %w", path, pathless(err))
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || info.IsDir() || info.Size() > maxFile {
		if err == nil {
			err = errors.New("it is a folder, or longer than 1 MiB")
		}
		return "", fmt.Errorf("configuration %s: %w", path, pathless(err))
	}
	text := make([]byte, 0, 4096)
	for len(text) <= maxFile {
		n, err := f.Read(text[len(text):cap(text)])
		text = text[:len(text)+n]
		if err != nil {
			break
		}
		text = slices.Grow(text, 4096)
	}
	return string(text), nil
}

func pathless(err error) error {
	if e, ok := errors.AsType[*fs.PathError](err); ok {
		return e.Err
	}
	return err
}

// loader puts a configuration together and keeps what is wrong.
type loader struct {
	config   Config
	problems flow.Problems
}

func settingOf(key string) *setting {
	if i := slices.IndexFunc(settings, func(s setting) bool { return s.key == key }); i >= 0 {
		return &settings[i]
	}
	return nil
}

// set gives a setting a value and checks it.
func (l *loader) set(s *setting, origin, text string) *fault {
	err := s.set(&l.config, text)
	if err == nil {
		err = s.check(&l.config)
	}
	if err == nil {
		l.config.Origin[s.key] = origin
		return nil
	}
	if f, ok := errors.AsType[*fault](err); ok {
		return f
	}
	return &fault{flow.CodeValue, err.Error(), ""}
}

// setFrom sets a value that has no place in a file.
func (l *loader) setFrom(s *setting, origin, text string) {
	if text == "" {
		l.outside(origin, &fault{flow.CodeValue, "it is empty", "give it a value such as " + s.example + ", or leave it out"})
		return
	}
	if f := l.set(s, origin, text); f != nil {
		l.outside(origin, f)
	}
}

func (l *loader) outside(origin string, f *fault) {
	l.problems = append(l.problems, flow.Problem{Code: f.code, Level: flow.LevelError, File: origin, Message: f.message, Help: f.help})
}

func (l *loader) environment(env []string) {
	var names []string
	for i := range settings {
		names = append(names, envName(settings[i].key))
	}
	for _, kv := range slices.Sorted(slices.Values(env)) {
		name, value, _ := strings.Cut(kv, "=")
		if !strings.HasPrefix(name, envPrefix) || foreignEnv.MatchString(name) {
			continue
		}
		if i := slices.Index(names, name); i >= 0 {
			l.setFrom(&settings[i], name, value)
			continue
		}
		help := "levels are told apart by two underscores: FLOWD_LIMITS__WINDOW"
		if near := expr.Nearest(name, names); near != "" {
			help = "did you mean `" + near + "`?"
		}
		l.outside(name, &fault{flow.CodeKeyUnknown, "unknown environment variable", help})
	}
}

func envName(key string) string {
	return envPrefix + strings.ToUpper(strings.ReplaceAll(key, ".", "__"))
}
