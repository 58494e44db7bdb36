package sandbox

import (
	"bytes"
	"context"
	"errors"

	"github.com/millrace-io/millrace/plugins/manifest"
	"github.com/millrace-io/millrace/plugins/rewrite"
)

// exportManifest answers where the manifest of a guest lies whose language
// cannot put it into a custom section: () -> i64, the address in the upper half
// and the number of bytes in the lower one, 0 for none. Only tools that build
// call it; a node does not.
const (
	exportManifest    = "stage_manifest"
	manifestSignature = "() -> i64"
)

// maxManifestBytes bounds what exportManifest answers.
const maxManifestBytes = 1 << 20

// describedLines is how much of what a guest logged before it trapped is told.
const describedLines = 32

// DescribeModule asks a module in call mode for the manifest that it declares in
// its code, in an instance of its own, without a configuration, and with the
// memory and the fuel of a start. The answer is not checked; it is nil if the
// module does not export stage_manifest, or answers that it has none.
//
// Refusals are *RefusedError, joined when there are several, and a guest that
// does not answer is an *InitError.
func (rt *Runtime) DescribeModule(ctx context.Context, wasm []byte) (_ []byte, err error) {
	info, err := Inspect(wasm)
	if err != nil {
		return nil, err
	}
	at := -1
	for i, e := range info.Exports {
		if e.Name == exportManifest && e.Kind == rewrite.KindFunc {
			at = i
		}
	}
	switch {
	case info.Mode != manifest.ModeCall || at < 0:
		return nil, info.Err()
	case info.Exports[at].Signature != manifestSignature:
		info.refuse(RefusedABI, "declare it as "+manifestSignature, "its export %s has the type %s", exportManifest, info.Exports[at].Signature)
		return nil, info.Err()
	}
	m, err := rt.Compile(ctx, wasm)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, m.Close(ctx)) }()
	return m.describe()
}

func (m *Module) describe() ([]byte, error) {
	// A manifest that it has already, and the configuration that this one asks
	// for, do not count.
	m.info.Manifest, m.schema = nil, nil
	s, err := m.stage(StageConfig{Stage: "manifest"})
	if err != nil {
		return nil, err
	}
	in, err := s.base(false)
	if err != nil {
		return nil, err
	}
	defer in.close()
	if f := in.mod.ExportedFunction(exportInitialize); f != nil {
		in.env.fuel.set(s.startFuel())
		if _, err := f.Call(in.ctx); err != nil {
			return nil, s.startError(in, exportInitialize, err)
		}
	}
	in.env.fuel.set(s.startFuel())
	res, err := in.mod.ExportedFunction(exportManifest).Call(in.ctx)
	if err != nil {
		told := s.startError(in, exportManifest, err)
		if e, ok := errors.AsType[*InitError](told); ok && !in.env.fuel.out() {
			// Go writes why it panicked before many lines of where.
			e.Message = trapCause(err) + "; it logged: " + in.env.LastLines(describedLines)
		}
		return nil, told
	}
	if res[0] == 0 {
		return nil, nil
	}
	ptr, n := uint32(res[0]>>32), uint32(res[0])
	text, ok := in.memory.Read(ptr, n)
	switch {
	case !ok:
		return nil, refuse(RefusedManifest, "build it with a PDK of this flowctl", "%s answered %d bytes at %#x, outside of its memory", exportManifest, n, ptr)
	case n > maxManifestBytes:
		return nil, refuse(RefusedManifest, "make it smaller: fewer or smaller sample records", "%s answered %d bytes, the limit is %s", exportManifest, n, BytesText(maxManifestBytes))
	}
	return bytes.Clone(text), nil
}
