package rewrite_test

import (
	"bytes"
	"context"
	"errors"
	"testing"

	"github.com/tetratelabs/wazero"

	"github.com/millrace-io/millrace/plugins/internal/wasmgen"
	"github.com/millrace-io/millrace/plugins/rewrite"
)

// FuzzRewrite checks on arbitrary bytes that the rewriter answers with a
// module or a RefusedError, that wazero compiles the one if it compiles the
// other, and that a second rewriting changes nothing.
func FuzzRewrite(f *testing.F) {
	for _, wasm := range [][]byte{
		nil, newWasm().out, counterModule(), kitchenSink(),
		oneFunc(0x41, 0, 0x28, 2, 0, 0x1a),
		oneFunc(0xfd, 0x0c, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xfd, 0xd6, 0x01, 0x1a),
		module(2, nested(3, 0x02)), module(1, brTable(4)), module(3, withLocals(9)),
		newWasm().vec(6, i32Global(true, 1)).custom("name", "\x00\x02\x01m").out,
		wasmgen.Stage(1),
	} {
		f.Add(wasm)
	}
	ctx := context.Background()
	limits := rewrite.Limits{MaxLocals: 1000, MaxTotalLocals: 10_000, MaxNesting: 200, MaxLoopNesting: 50}
	f.Fuzz(func(t *testing.T, wasm []byte) {
		before := bytes.Clone(wasm)
		res, err := rewrite.Rewrite(wasm, rewrite.Options{Limits: limits})
		if !bytes.Equal(wasm, before) {
			t.Fatal("the input was changed")
		}
		if err != nil {
			var r *rewrite.RefusedError
			if !errors.As(err, &r) || r.Reason == "" || r.Kind == 0 {
				t.Fatalf("got %#v, want a RefusedError with a reason", err)
			}
			return
		}
		again, err := rewrite.Rewrite(res.Wasm, rewrite.Options{Limits: limits})
		if err != nil {
			t.Fatalf("the rewritten module is refused: %v", err)
		}
		if !bytes.Equal(again.Wasm, res.Wasm) {
			t.Fatal("rewriting twice is not the same as once")
		}
		rt := wazero.NewRuntimeWithConfig(ctx, wazero.NewRuntimeConfigInterpreter())
		defer rt.Close(ctx)
		if _, err := rt.CompileModule(ctx, wasm); err != nil {
			return
		}
		mod, err := rt.CompileModule(ctx, res.Wasm)
		if err != nil {
			t.Fatalf("wazero compiles the module but not the rewritten one: %v", err)
		}
		if got, want := len(mod.ExportedFunctions()), countFuncs(res.Facts); got != want {
			t.Fatalf("wazero sees %d exported functions, the facts have %d", got, want)
		}
	})
}

func countFuncs(f *rewrite.Facts) (n int) {
	for _, e := range f.Exports {
		if e.Kind == rewrite.KindFunc {
			n++
		}
	}
	return n
}

// TestDamaged cuts a module at every place and changes every byte of it.
func TestDamaged(t *testing.T) {
	wasm := kitchenSink()
	try := func(b []byte) {
		_, err := rewrite.Rewrite(b, rewrite.Options{})
		var r *rewrite.RefusedError
		if err != nil && !errors.As(err, &r) {
			t.Errorf("%x: got %v, want a RefusedError", b, err)
		}
	}
	for i := range wasm {
		try(wasm[:i])
		b := bytes.Clone(wasm)
		for _, c := range []byte{0, 1, 2, 4, 8, 0x0b, 0x40, 0x60, 0x70, 0x7f, 0x80, 0xfb, 0xfc, 0xfd, 0xfe, 0xff} {
			b[i] = c
			try(b)
		}
	}
}
