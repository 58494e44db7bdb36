package project

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/millrace-io/millrace/cmd/internal/cli"
)

// CompileError is a compiler that refused its sources.
type CompileError struct {
	// Tool is the program's name, Output the end of what it said.
	Tool, Output string
	Err          error
}

func (e *CompileError) Error() string { return fmt.Sprintf("%s: %v", e.Tool, e.Err) }
func (e *CompileError) Unwrap() error { return e.Err }

// outputBytes is how much of a compiler's words is kept.
const outputBytes = 64 << 10

// tail keeps the end of what is written.
type tail struct{ b []byte }

func (t *tail) Write(p []byte) (int, error) {
	t.b = append(t.b, p...)
	if extra := len(t.b) - outputBytes; extra > outputBytes {
		t.b = append(t.b[:0], t.b[extra:]...)
	}
	return len(p), nil
}

// lineFilter passes on whole lines that keep likes.
type lineFilter struct {
	to   io.Writer
	keep func(line []byte) bool
	rest []byte
}

func (f *lineFilter) Write(p []byte) (int, error) {
	f.rest = append(f.rest, p...)
	for {
		i := bytes.IndexByte(f.rest, '\n')
		if i < 0 {
			return len(p), nil
		}
		if line := f.rest[:i+1]; f.keep(line) {
			if _, err := f.to.Write(line); err != nil {
				return 0, err
			}
		}
		f.rest = f.rest[i+1:]
	}
}

// end passes on a last line without an end.
func (f *lineFilter) end() {
	if len(f.rest) > 0 && f.keep(f.rest) {
		_, _ = f.to.Write(append(f.rest, '\n'))
	}
	f.rest = nil
}

// command is a call of a compiler.
type command struct {
	tool     string // for messages
	path     string
	args     []string
	env      environ
	harmless string // lines with it are left out
}

// compiler runs c in the project's folder and returns its STDOUT. What it says
// on STDERR goes to log as it comes; with both also what it says on STDOUT.
func (p *Project) run(ctx context.Context, c command, log io.Writer, both bool) ([]byte, error) {
	if log == nil {
		log = io.Discard
	}
	var said tail
	words := &lineFilter{to: io.MultiWriter(log, &said), keep: func(line []byte) bool {
		return c.harmless == "" || !bytes.Contains(line, []byte(c.harmless))
	}}
	var stdout bytes.Buffer
	cmd := exec.CommandContext(ctx, c.path, c.args...)
	inGroup(cmd)
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = p.Dir, c.env, &stdout, words
	if both {
		cmd.Stdout = words
	}
	err := cmd.Run()
	words.end()
	// A server that it has started, as compiler caches do, may go on.
	if err == nil || errors.Is(err, exec.ErrWaitDelay) && ctx.Err() == nil {
		return stdout.Bytes(), nil
	}
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if _, ok := errors.AsType[*exec.ExitError](err); !ok {
		return nil, toolchainError(fmt.Sprintf("%s: %v", c.path, err), "check that it is a program for this system")
	}
	return nil, p.compileError(c.tool, string(colour.ReplaceAll(said.b, nil)), err)
}

// waitDelay is how long the output of a program is waited for that was ended.
const waitDelay = 2 * time.Second

// colour is what paints a terminal: CARGO_TERM_COLOR and FORCE_COLOR ask for it.
var colour = regexp.MustCompile("\x1b\\[[0-9;]*m")

// The first complaint of a compiler, and where it is.
var (
	rustError = regexp.MustCompile(`(?m)^error(?:\[E\d+\])?: .*$`)
	rustPlace = regexp.MustCompile(`(?m)^\s*--> (\S+:\d+:\d+)`)
	goError   = regexp.MustCompile(`(?m)^(?:vet: )?\.?[/\\]?(\S+\.go:\d+(?::\d+)?): (.*)$`)
	ascError  = regexp.MustCompile(`(?m)^ERROR (?:TS|AS)\d+: .*$`)
	ascPlace  = regexp.MustCompile(`(?m)in (\S+\.ts)\((\d+),(\d+)\)`)
)

// firstError is the first complaint in a compiler's words, with its place.
func firstError(output string) (place, what string) {
	if at := rustError.FindStringIndex(output); at != nil {
		what = output[at[0]:at[1]]
		if m := rustPlace.FindStringSubmatch(output[at[1]:]); m != nil {
			place = m[1]
		}
		return place, what
	}
	if m := goError.FindStringSubmatch(output); m != nil {
		return m[1], m[2]
	}
	if at := ascError.FindStringIndex(output); at != nil {
		what = output[at[0]:at[1]]
		if m := ascPlace.FindStringSubmatch(output[at[1]:]); m != nil {
			place = m[1] + ":" + m[2] + ":" + m[3]
		}
		return place, what
	}
	return "", ""
}

func (p *Project) compileError(tool, output string, err error) error {
	e := &cli.Error{Exit: cli.ExitFailed, Code: CodeBuild, Err: &CompileError{Tool: tool, Output: output, Err: err}, Next: "correct it, then `flowctl build` again"}
	place, what := firstError(output)
	switch {
	case what == "":
		last := output[strings.LastIndexByte(strings.TrimRight(output, "\n"), '\n')+1:]
		e.Detail = strings.TrimRight(fmt.Sprintf("%s: %v: %s", tool, err, strings.TrimSpace(last)), ": ")
	case place == "":
		e.Detail = fmt.Sprintf("%s: %s", tool, what)
	default:
		e.Detail = fmt.Sprintf("%s: %s: %s", filepath.ToSlash(place), tool, what)
	}
	if next := knownCause(output); next != "" {
		e.Next = next
	}
	return e
}

// knownCause is what to do about compiler errors whose words do not say it.
func knownCause(output string) string {
	for _, c := range []struct{ words, next string }{
		{"can't find crate for `std`", "install the target: `rustup target add " + wasmTarget + "`; if it is there, remove the folder target and build again"},
		{"can't find crate for `core`", "install the target: `rustup target add " + wasmTarget + "`; if it is there, remove the folder target and build again"},
		{"start a goroutine without a scheduler", "call the function without `go`: a stage has no goroutines (-scheduler=none)"},
		{"requires go version", "install the Go version that TinyGo names, or a newer TinyGo"},
		{"buildmode=c-shared not supported", "install Go 1.24 or later"},
		{"supported on wasip1/wasm", "the environment asks for it, GOFLAGS or CGO_ENABLED: unset it for plugins"},
		{"replacement directory", "put the kit back: `flowctl new plugin --update-pdk`"},
		{"failed to read `", "put back the file that it names; the kit comes back with `flowctl new plugin --update-pdk`"},
		{"File '~lib/@millrace/pdk", "put the kit back: `flowctl new plugin --update-pdk`, then `npm install`"},
	} {
		if strings.Contains(output, c.words) {
			return c.next
		}
	}
	return ""
}

func toolchainError(detail, next string) error {
	return &cli.Error{Exit: cli.ExitUnreachable, Code: CodeToolchain, Detail: detail, Next: next}
}
