package rewrite_test

import (
	"slices"
	"testing"

	"github.com/millrace-io/millrace/plugins/rewrite"
)

// TestImportFrom: functions are imported from where ImportFrom says, everything
// else stays as it was.
func TestImportFrom(t *testing.T) {
	wasm := []byte("\x00asm\x01\x00\x00\x00" +
		"\x01\x04\x01\x60\x00\x00" + // a type: ()
		"\x02\x2b\x06" +
		"\x01a\x01f\x00\x00" + // func
		"\x01a\x01t\x01\x70\x01\x01\x90\x03" + // table 1..400
		"\x01a\x01m\x02\x00\x01" + // memory 1
		"\x01a\x01g\x03\x7f\x00" + // global i32
		"\x01a\x01h\x00\x00" + // func
		"\x01b\x01f\x00\x00" + // func
		"\x03\x02\x01\x00" + "\x0a\x04\x01\x02\x00\x0b")
	for _, fuel := range []bool{false, true} {
		out, err := rewrite.Rewrite(wasm, rewrite.Options{Fuel: fuel, ImportFrom: func(module, name string) string {
			if module == "a" && (name == "f" || name == "m") {
				return "another module"
			}
			return ""
		}})
		if err != nil {
			t.Fatal(err)
		}
		m, err := rewrite.Parse(out.Wasm)
		if err != nil {
			t.Fatalf("what comes out is no module: %v", err)
		}
		want := slices.Clone(out.Facts.Imports)
		if len(want) != 6 || want[0].Module != "a" {
			t.Fatalf("facts of the input: %+v", want)
		}
		want[0].Module = "another module"
		if got := m.Facts().Imports; !slices.Equal(got, want) {
			t.Errorf("fuel %v: got %+v, want %+v", fuel, got, want)
		}
	}
}
