package plugintest_test

import (
	"os"
	"testing"

	"github.com/millrace-io/millrace/plugins/plugintest"
	"github.com/millrace-io/millrace/plugins/plugintest/guests"
	"github.com/millrace-io/millrace/plugins/sandbox"
)

func compile(t *testing.T, wasm []byte) *sandbox.Module {
	t.Helper()
	rt, err := sandbox.New(t.Context(), sandbox.Config{Workers: 1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { rt.Close(t.Context()) })
	m, err := rt.Compile(t.Context(), wasm)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close(t.Context()) })
	return m
}

func vectors(t *testing.T) []plugintest.Vector {
	t.Helper()
	v, err := plugintest.LoadVectors(os.DirFS("../../pdk/testdata/conformance"))
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// TestConformance: the reference guest passes everything.
func TestConformance(t *testing.T) {
	m := compile(t, guests.Conformance)
	all := vectors(t)
	r := plugintest.Run(t, plugintest.Of(m.Info(), m.NewStage), plugintest.Options{Vectors: all, Bulk: 2000})
	if r.Count(plugintest.Pass) != len(r.Results) || len(r.Results) < len(all)+20 {
		t.Errorf("got %d results, of which %d pass", len(r.Results), r.Count(plugintest.Pass))
	}
}
