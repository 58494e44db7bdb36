package lines_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/imports/wasi_snapshot_preview1"
	"github.com/tetratelabs/wazero/sys"
)

// The program runs under plain WASI: it knows nothing of Millrace.
func TestProgram(t *testing.T) {
	wasm, err := os.ReadFile("lines.wasm")
	if err != nil {
		t.Fatal(err)
	}
	ctx := context.Background()
	rt := wazero.NewRuntimeWithConfig(ctx, wazero.NewRuntimeConfigInterpreter())
	t.Cleanup(func() { rt.Close(ctx) })
	wasi_snapshot_preview1.MustInstantiate(ctx, rt)
	m, err := rt.CompileModule(ctx, wasm)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range m.ImportedFunctions() {
		if module, name, _ := f.Import(); module != wasi_snapshot_preview1.ModuleName {
			t.Errorf("import %s.%s", module, name)
		}
	}
	for name := range m.ExportedFunctions() {
		if strings.HasPrefix(name, "stage_") {
			t.Errorf("export %s", name)
		}
	}
	for _, c := range []struct {
		name, in, out, message string
		exit                   uint32
	}{
		{"one line", "hello\n", "HELLO\n", "", 0},
		{"no line end", "hello", "HELLO\n", "", 0},
		{"no line", "", "", "", 0},
		{"dropped", "the secret word\n", "", "", 0},
		{"several", "a\nsecret\nb\n", "A\nB\n", "", 0},
		{"refused", "error 7\n", "", "cannot work on \"error 7\"\n", 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			var out, message bytes.Buffer
			cfg := wazero.NewModuleConfig().WithName("").WithStdin(strings.NewReader(c.in)).WithStdout(&out).WithStderr(&message)
			_, err := rt.InstantiateModule(ctx, m, cfg)
			var code uint32
			if exit := (*sys.ExitError)(nil); errors.As(err, &exit) {
				code = exit.ExitCode()
			} else if err != nil {
				t.Fatal(err)
			}
			if code != c.exit {
				t.Errorf("exit code %d, want %d", code, c.exit)
			}
			if out.String() != c.out || message.String() != c.message {
				t.Errorf("got %q and message %q, want %q and %q", out.String(), message.String(), c.out, c.message)
			}
		})
	}
}
