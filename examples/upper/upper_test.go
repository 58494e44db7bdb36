package upper_test

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"os"
	"testing"

	"github.com/tetratelabs/wazero"
)

func TestModule(t *testing.T) {
	wasm, err := os.ReadFile("upper.wasm")
	if err != nil {
		t.Fatal(err)
	}
	ctx := context.Background()
	rt := wazero.NewRuntimeWithConfig(ctx, wazero.NewRuntimeConfigInterpreter().WithCustomSections(true))
	t.Cleanup(func() { rt.Close(ctx) })
	m, err := rt.CompileModule(ctx, wasm)
	if err != nil {
		t.Fatal(err)
	}
	if n := len(m.ImportedFunctions()); n != 0 {
		t.Errorf("%d imported functions, want none", n)
	}
	for _, name := range []string{"stage_abi_1", "stage_alloc", "stage_batch"} {
		if m.ExportedFunctions()[name] == nil {
			t.Errorf("no export %s", name)
		}
	}
	var manifest struct {
		ABI        int
		Name, Mode string
	}
	for _, s := range m.CustomSections() {
		if s.Name() == "stage.manifest" {
			if err := json.Unmarshal(s.Data(), &manifest); err != nil {
				t.Fatalf("section stage.manifest: %v", err)
			}
		}
	}
	if manifest.ABI != 1 || manifest.Name != "upper" || manifest.Mode != "call" {
		t.Errorf("manifest %+v", manifest)
	}
}

func TestAnswer(t *testing.T) {
	wasm, err := os.ReadFile("upper.wasm")
	if err != nil {
		t.Fatal(err)
	}
	ctx := context.Background()
	rt := wazero.NewRuntimeWithConfig(ctx, wazero.NewRuntimeConfigInterpreter())
	t.Cleanup(func() { rt.Close(ctx) })
	m, err := rt.Instantiate(ctx, wasm)
	if err != nil {
		t.Fatal(err)
	}

	// One record behind a topic table of 8 bytes, with headers, key and value.
	le := binary.LittleEndian
	const table, value = 8, "grüße 1"
	frame := make([]byte, 32+table+72+len("hd")+len("key")+len(value))
	for len(frame)%8 != 0 {
		frame = append(frame, 0)
	}
	le.PutUint32(frame, uint32(len(frame)))
	le.PutUint16(frame[4:], 1)
	le.PutUint16(frame[6:], 1)
	le.PutUint32(frame[8:], 1)
	le.PutUint32(frame[12:], table)
	le.PutUint64(frame[16:], 77)
	record := frame[32+table:]
	le.PutUint32(record, uint32(len(record)))
	le.PutUint32(record[4:], 5)
	le.PutUint32(record[40:], 3)
	le.PutUint32(record[44:], uint32(len(value)))
	le.PutUint32(record[48:], 2)
	copy(record[72:], "hdkey"+value)

	p, err := m.ExportedFunction("stage_alloc").Call(ctx, uint64(len(frame)))
	if err != nil {
		t.Fatal(err)
	}
	if !m.Memory().Write(uint32(p[0]), frame) {
		t.Fatalf("stage_alloc: %d", p[0])
	}
	r, err := m.ExportedFunction("stage_batch").Call(ctx, p[0], uint64(len(frame)))
	if err != nil {
		t.Fatal(err)
	}
	out, ok := m.Memory().Read(uint32(r[0]>>32), uint32(r[0]))
	if !ok || len(out) != 32+88 {
		t.Fatalf("result of %d bytes, want 120", len(out))
	}
	if le.Uint32(out) != 120 || le.Uint16(out[6:]) != 2 || le.Uint32(out[12:]) != 0 || le.Uint64(out[16:]) != 77 {
		t.Errorf("batch header % x", out[:32])
	}
	a := out[32:]
	if le.Uint32(a) != 88 || le.Uint32(a[4:]) != 5 || a[8] != 0 || a[9] != 1|4|8 {
		t.Errorf("record header % x", a[:72])
	}
	if want, got := "GRüßE 1", string(a[72:72+le.Uint32(a[44:])]); got != want {
		t.Errorf("value %q, want %q", got, want)
	}
}
