package sandbox

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"strconv"
	"strings"
	"time"
)

// The exit codes of the compile child.
const (
	childDone    = 0
	childRefused = 10 // the module is invalid
	childMemory  = 11 // it needed too much memory
	childBroken  = 12 // the child could not do its work
)

// checkedDir is the folder in the cache that remembers what was compiled
// within the limits.
const checkedDir = "checked"

// childAnswer is what the compile child writes to STDOUT.
type childAnswer struct {
	Error string `json:"error,omitempty"`
}

// RunCompileChild is the program that Config.CompileCommand starts: it reads a
// rewritten module from stdin, compiles it into the cache and tells the parent
// on stdout how that went. args are what the parent appended to the command.
// It bounds the memory of the process and its priority, and may end the
// process; it returns the exit code otherwise.
func RunCompileChild(stdin io.Reader, stdout io.Writer, args []string) int {
	answer := func(code int, err error) int {
		text := ""
		if err != nil {
			text = err.Error()
		}
		_ = json.NewEncoder(stdout).Encode(childAnswer{text})
		return code
	}
	flags := flag.NewFlagSet("compile-plugin", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	cache := flags.String("cache", "", "folder of the compilation cache")
	limit := flags.Int64("memory", 0, "bytes of memory")
	if err := flags.Parse(args); err != nil {
		return answer(childBroken, err)
	}
	if *cache == "" || *limit <= 0 || flags.NArg() > 0 {
		return answer(childBroken, errors.New("--cache DIR and --memory BYTES are required, and nothing else"))
	}
	debug.SetMemoryLimit(*limit / 4 * 3)
	limitProcess(*limit)
	stop := watchMemory(*limit, func() {
		os.Exit(answer(childMemory, nil))
	})
	defer stop()
	wasm, err := io.ReadAll(stdin)
	if err != nil {
		return answer(childBroken, fmt.Errorf("read the module: %w", err))
	}
	ctx := context.Background()
	rt, err := New(ctx, Config{CacheDir: *cache})
	if err != nil {
		return answer(childBroken, err)
	}
	defer rt.Close(ctx)
	c, err := rt.compile(ctx, wasm)
	if err != nil {
		return answer(childRefused, err)
	}
	if err := c.Close(ctx); err != nil {
		return answer(childBroken, err)
	}
	return answer(childDone, nil)
}

// watchMemory calls over when the process has more memory than limit.
func watchMemory(limit int64, over func()) (stop func()) {
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		sample := []metrics.Sample{{Name: "/memory/classes/total:bytes"}, {Name: "/memory/classes/heap/released:bytes"}}
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for {
			metrics.Read(sample)
			if int64(sample[0].Value.Uint64()-sample[1].Value.Uint64()) > limit {
				over()
				return
			}
			select {
			case <-done:
				return
			case <-tick.C:
			}
		}
	}()
	return func() {
		close(done)
		<-ended
	}
}

// compileInChild fills the cache with the machine code of a rewritten module,
// in a process that may die of it. It does nothing for a module that was
// compiled within the limits before.
func (rt *Runtime) compileInChild(ctx context.Context, wasm []byte) error {
	sum := sha256.Sum256(wasm)
	marker := filepath.Join(rt.cfg.CacheDir, checkedDir, hex.EncodeToString(sum[:])+"-"+runtime.GOARCH)
	if _, err := os.Stat(marker); err == nil {
		return nil
	}
	select {
	case rt.compiling <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-rt.compiling }()
	if err := rt.runChild(ctx, wasm); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(marker), 0o755); err != nil {
		return fmt.Errorf("compile plugin: %w", err)
	}
	if err := os.WriteFile(marker, nil, 0o644); err != nil {
		return fmt.Errorf("compile plugin: %w", err)
	}
	return nil
}

func (rt *Runtime) runChild(ctx context.Context, wasm []byte) error {
	limited, cancel := context.WithTimeout(ctx, rt.cfg.CompileTimeout)
	defer cancel()
	command := rt.cfg.CompileCommand
	cmd := exec.CommandContext(limited, command[0], append(command[1:len(command):len(command)],
		"--cache", rt.cfg.CacheDir, "--memory", strconv.FormatInt(rt.cfg.CompileMemoryBytes, 10))...)
	cmd.Env = []string{"GOTRACEBACK=none"}
	if root := os.Getenv("SYSTEMROOT"); root != "" {
		cmd.Env = append(cmd.Env, "SYSTEMROOT="+root)
	}
	stdout, stderr := &head{most: 64 << 10}, &head{most: 8 << 10}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(wasm), stdout, stderr
	cmd.WaitDelay = 5 * time.Second
	err := cmd.Run()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if limited.Err() != nil {
		return refuse(RefusedLimits, "make it smaller, or optimise it (wasm-opt -O2)", "compiling it took longer than %v", rt.cfg.CompileTimeout)
	}
	tooMuch := func() error {
		return refuse(RefusedLimits, "make it smaller, or split its largest functions", "compiling it needs more than %s of memory", BytesText(rt.cfg.CompileMemoryBytes))
	}
	exit, exited := errors.AsType[*exec.ExitError](err)
	if err != nil && !exited && cmd.ProcessState == nil {
		return fmt.Errorf("compile plugin: start %s: %w", command[0], err)
	}
	var a childAnswer
	answered := json.Unmarshal(stdout.Bytes(), &a) == nil
	code := cmd.ProcessState.ExitCode()
	switch {
	case code == childDone && answered && a.Error == "":
		return nil
	case code == childMemory, strings.Contains(stderr.String(), "out of memory"), strings.Contains(stderr.String(), "cannot allocate memory"):
		return tooMuch()
	case code == childRefused && answered:
		return invalid(errors.New(a.Error))
	case code == childBroken && answered:
		return fmt.Errorf("compile plugin: %s: %s", command[0], a.Error)
	}
	how := "it ended without an answer"
	if exited {
		how = exit.Error()
	}
	if line, _, _ := strings.Cut(stderr.String(), "\n"); line != "" {
		how += ": " + Printable([]byte(line))
	}
	return refuse(RefusedLimits, "report it with the plugin; another version of its toolchain may help", "the compiler crashed on it (%s)", how)
}

// head keeps the first bytes that are written to it.
type head struct {
	bytes.Buffer
	most int
}

func (h *head) Write(p []byte) (int, error) {
	if room := h.most - h.Len(); room > 0 {
		h.Buffer.Write(p[:min(len(p), room)])
	}
	return len(p), nil
}
