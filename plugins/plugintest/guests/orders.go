package guests

import (
	"context"
	_ "embed"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/millrace-io/millrace/plugins/manifest"
)

// The order stage in other languages than that of the example orders. All
// give its answers.
var (
	// OrdersC is freestanding C.
	//
	//go:embed orders-c/orders-c.wasm
	OrdersC []byte
	// OrdersAS is AssemblyScript.
	//
	//go:embed orders-as/orders-as.wasm
	OrdersAS []byte
	// OrdersTinyGo is Go, compiled by TinyGo for wasip1.
	//
	//go:embed orders-tinygo/orders-tinygo.wasm
	OrdersTinyGo []byte
	// OrdersExtism is an Extism plugin in C, whose function is "order".
	//
	//go:embed orders-extism/orders-extism.wasm
	OrdersExtism []byte
)

// Pass is a stage/1 guest in C that emits each record as it is.
//
//go:embed pass/pass.wasm
var Pass []byte

// Copy is a WASI command in Rust that copies STDIN to STDOUT.
//
//go:embed copy/copy.wasm
var Copy []byte

// OrdersGo is OrdersTinyGo's source compiled by Go, which takes seconds the
// first time. It runs the go command, in this module.
func OrdersGo(ctx context.Context) ([]byte, error) {
	dir, err := os.MkdirTemp("", "orders-go-*")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	file := filepath.Join(dir, "orders.wasm")
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildmode=c-shared", "-ldflags=-s -w", "-o", file,
		"github.com/millrace-io/millrace/plugins/plugintest/guests/orders-tinygo")
	cmd.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm", "GOFLAGS=", "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("go build orders-tinygo: %w\n%s", err, out)
	}
	wasm, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	content, err := manifest.Find(OrdersTinyGo)
	if err != nil {
		return nil, err
	}
	m, err := manifest.Parse(content)
	if err != nil {
		return nil, err
	}
	return manifest.Append(wasm, m)
}
