package rewrite_test

// Modules for tests are assembled here by hand: sections of raw bytes, with
// the lengths filled in.

type wasmBuilder struct{ out []byte }

func newWasm() *wasmBuilder {
	return &wasmBuilder{out: []byte("\x00asm\x01\x00\x00\x00")}
}

func leb(v int) []byte {
	var b []byte
	for v >= 0x80 {
		b = append(b, byte(v)|0x80)
		v >>= 7
	}
	return append(b, byte(v))
}

func cat(parts ...[]byte) []byte {
	var b []byte
	for _, p := range parts {
		b = append(b, p...)
	}
	return b
}

func str(s string) []byte { return append(leb(len(s)), s...) }

func sized(content ...[]byte) []byte {
	c := cat(content...)
	return append(leb(len(c)), c...)
}

func (w *wasmBuilder) section(id byte, content ...[]byte) *wasmBuilder {
	w.out = append(w.out, id)
	w.out = append(w.out, sized(content...)...)
	return w
}

// vec adds a section that is a vector of items.
func (w *wasmBuilder) vec(id byte, items ...[]byte) *wasmBuilder {
	return w.section(id, leb(len(items)), cat(items...))
}

func (w *wasmBuilder) custom(name string, content string) *wasmBuilder {
	return w.section(0, str(name), []byte(content))
}

func funcTypeOf(params, results string) []byte {
	return cat([]byte{0x60}, str(params), str(results))
}

// body is a function body without locals.
func body(code ...byte) []byte { return sized([]byte{0}, code, []byte{0x0b}) }

func exportOf(name string, kind byte, index int) []byte {
	return cat(str(name), []byte{kind}, leb(index))
}

func importOf(module, name string, kind byte, desc ...byte) []byte {
	return cat(str(module), str(name), []byte{kind}, desc)
}

// i32Global is a global of type i32; mutable or not.
func i32Global(mutable bool, value byte) []byte {
	m := byte(0)
	if mutable {
		m = 1
	}
	return []byte{0x7f, m, 0x41, value, 0x0b}
}

// oneFunc is a module whose only function has the given code.
func oneFunc(code ...byte) []byte {
	return newWasm().
		vec(1, funcTypeOf("", "")).
		vec(3, []byte{0}).
		vec(4, []byte{0x70, 0, 1}).
		vec(5, []byte{0, 1}).
		vec(10, body(code...)).out
}
