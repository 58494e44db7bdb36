package pdktest

import (
	"context"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/millrace-io/millrace/pdk"
	"github.com/millrace-io/millrace/plugins/plugintest"
	"github.com/millrace-io/millrace/plugins/sandbox"
)

const goConformance = "go/examples/conformance_go/conformance_go.wasm"

// goVectors are the golden vectors in two parts. What the second holds costs more
// than a node allows for a record of a few bytes by default: in TinyGo and in Go
// memory that grows is walked through block by block.
func goVectors(t *testing.T, dear ...string) (usual, large []plugintest.Vector) {
	t.Helper()
	vectors, err := plugintest.LoadVectors(pdk.Vectors())
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range vectors {
		if slices.Contains(dear, v.Name) {
			large = append(large, v)
		} else {
			usual = append(usual, v)
		}
	}
	if len(large) != len(dear) {
		t.Fatalf("%d vectors of %q", len(large), dear)
	}
	return usual, large
}

// newGenerousRuntime is a node that allows what large records would have.
func newGenerousRuntime(t *testing.T) *sandbox.Runtime {
	t.Helper()
	rt, err := sandbox.New(t.Context(), sandbox.Config{Workers: 1, MaxFuel: 200_000_000})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { rt.Close(context.Background()) })
	return rt
}

func check(t *testing.T, rt *sandbox.Runtime, wasm []byte, o plugintest.Options) {
	t.Helper()
	m, err := rt.Compile(t.Context(), wasm)
	if err != nil {
		t.Fatal(err)
	}
	plugintest.Run(t, plugintest.Of(m.Info(), m.NewStage), o)
}

// The golden vectors, and what holds of any guest, through what TinyGo makes of
// the examples.
func TestGoConformance(t *testing.T) {
	usual, large := goVectors(t, "growth", "large-answer")
	rt := newRuntime(t)
	check(t, rt, readWasm(t, goOrders), plugintest.Options{})
	check(t, rt, readWasm(t, goConformance), plugintest.Options{Vectors: usual})
	check(t, newGenerousRuntime(t), readWasm(t, goConformance), plugintest.Options{Vectors: large, VectorsOnly: true})
}

// The same source by the other compilers.
func TestGoConformanceOfOtherCompilers(t *testing.T) {
	if testing.Short() {
		t.Skip("builds with Go and TinyGo")
	}
	source := filepath.Join(goKit, "examples", "conformance_go")
	for compiler, dear := range map[string][]string{byGo: {"growth", "headers-make"}, byTinyGoNoOS: {"growth", "large-answer"}} {
		t.Run(compiler, func(t *testing.T) {
			usual, large := goVectors(t, dear...)
			rt := newRuntime(t)
			wasm := described(t, rt, compile(t, source, compiler))
			check(t, rt, wasm, plugintest.Options{Vectors: usual, VectorsOnly: true})
			check(t, newGenerousRuntime(t), wasm, plugintest.Options{Vectors: large, VectorsOnly: true})
			if compiler != byTinyGoNoOS {
				return
			}
			info, err := sandbox.Inspect(wasm)
			if err != nil {
				t.Fatal(err)
			}
			for _, i := range info.Imports {
				if !strings.HasPrefix(i.Module, "stage") {
					t.Errorf("it imports %s.%s", i.Module, i.Name)
				}
			}
		})
	}
}
