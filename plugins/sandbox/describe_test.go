package sandbox

import (
	"encoding/binary"
	"errors"
	"strings"
	"testing"

	"github.com/millrace-io/millrace/plugins/internal/testkit"
)

// describing is a module in call mode whose stage_manifest has that body, and
// whose memory holds text at 1024.
func describing(text string, result byte, manifest ...byte) []byte {
	vector := func(items ...string) string {
		return string(binary.AppendUvarint(nil, uint64(len(items)))) + strings.Join(items, "")
	}
	sized := func(s string) string { return string(binary.AppendUvarint(nil, uint64(len(s)))) + s }
	section := func(id byte, items ...string) string { return string(id) + sized(vector(items...)) }
	export := func(name string, kind, index byte) string { return sized(name) + string([]byte{kind, index}) }
	body := func(code ...byte) string { return sized("\x00" + string(code) + "\x0b") }
	return []byte("\x00asm\x01\x00\x00\x00" +
		section(1, "\x60\x00\x00", "\x60\x01\x7f\x01\x7f", "\x60\x02\x7f\x7f\x01\x7e", "\x60\x00\x01"+string(result)) +
		section(3, "\x00", "\x01", "\x02", "\x03") +
		section(5, "\x00\x01") +
		section(7, export("memory", 2, 0), export("stage_abi_1", 0, 0), export("stage_alloc", 0, 1), export("stage_batch", 0, 2), export("stage_manifest", 0, 3)) +
		section(10, body(), body(0x41, 8), body(0x42, 0), body(manifest...)) +
		section(11, "\x00\x41\x80\x08\x0b"+sized(text)))
}

// answer is code that answers n bytes at ptr.
func answer(ptr, n uint32) []byte {
	v := int64(uint64(ptr)<<32 | uint64(n))
	code := []byte{0x42}
	for {
		b := byte(v & 0x7f)
		v >>= 7
		if v == 0 && b&0x40 == 0 || v == -1 && b&0x40 != 0 {
			return append(code, b)
		}
		code = append(code, b|0x80)
	}
}

func TestDescribeModule(t *testing.T) {
	rt := open(t, Config{})
	const text = `{"name":"a"}`
	for _, c := range []struct {
		name string
		wasm []byte
		want string
	}{
		{"it answers", describing(text, 0x7e, answer(1024, uint32(len(text)))...), text},
		{"it answers none", describing(text, 0x7e, 0x42, 0), ""},
		{"it does not export it", testkit.Read(t, upperWasm), ""},
		{"a program of lines", testkit.Read(t, linesWasm), ""},
	} {
		got, err := rt.DescribeModule(t.Context(), c.wasm)
		if err != nil || string(got) != c.want || (got == nil) != (c.want == "") {
			t.Errorf("%s: got %q, %v, want %q", c.name, got, err, c.want)
		}
	}
	loop := []byte{0x03, 0x40, 0x0c, 0, 0x0b, 0x42, 0}
	for _, c := range []struct {
		name, want string
		wasm       []byte
	}{
		{"another type", "its export stage_manifest has the type () -> i32", describing(text, 0x7f, 0x41, 0)},
		{"outside of its memory", "stage_manifest answered 9 bytes at 0xffff, outside of its memory", describing(text, 0x7e, answer(0xffff, 9)...)},
		{"a trap", "stage_manifest: it trapped: unreachable", describing(text, 0x7e, 0)},
		{"a loop without end", "stage_manifest: it used up its fuel", describing(text, 0x7e, loop...)},
		{"no module", "plugin refused", []byte("no module")},
		{"what is refused anyway", "does not export the function stage_alloc", []byte(strings.Replace(string(describing(text, 0x7e, 0x42, 0)), "stage_alloc", "stage_olloc", 1))},
	} {
		got, err := rt.DescribeModule(t.Context(), c.wasm)
		if err == nil || got != nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %q, %v, want the error %q", c.name, got, err, c.want)
		}
		_, refused := errors.AsType[*RefusedError](err)
		_, init := errors.AsType[*InitError](err)
		if !refused && !init {
			t.Errorf("%s: the error is a %T", c.name, err)
		}
	}
}

// What the manifest asks of a configuration, or of memory, does not keep it
// from being read again.
func TestDescribeModuleAgain(t *testing.T) {
	rt := open(t, Config{})
	const text = `{"name":"a","version":"1.0.0","config":{"type":"object","required":["x"]},"memory_mb":1}`
	wasm := describing(text, 0x7e, answer(1024, uint32(len(text)))...)
	section := "\x0estage.manifest" + text
	wasm = append(append(wasm, 0), binary.AppendUvarint(nil, uint64(len(section)))...)
	wasm = append(wasm, section...)
	got, err := rt.DescribeModule(t.Context(), wasm)
	if err != nil || string(got) != text {
		t.Errorf("got %q, %v, want %q", got, err, text)
	}
}
