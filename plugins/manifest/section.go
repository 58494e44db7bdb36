package manifest

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
)

// ErrNotWasm is reported for a file that is not a core Wasm binary with intact
// sections.
var ErrNotWasm = errors.New("not a WebAssembly module, or a damaged one")

var wasmHeader = []byte{0, 'a', 's', 'm', 1, 0, 0, 0}

// Find returns the content of the manifest section, nil if there is none. Of
// several the last counts.
func Find(wasm []byte) ([]byte, error) {
	var found []byte
	err := customSections(wasm, func(name string, content []byte, _, _ int) {
		if name == Section {
			found = content
		}
	})
	return found, err
}

// Append returns a copy of wasm with m as its manifest, in the place of those
// it had.
func Append(wasm []byte, m *Manifest) ([]byte, error) {
	if err := m.Validate(); err != nil {
		return nil, fmt.Errorf("append manifest: %w", err)
	}
	content, err := m.Marshal()
	if err != nil {
		return nil, err
	}
	out := make([]byte, 0, len(wasm)+len(content)+32)
	kept := 0
	err = customSections(wasm, func(name string, _ []byte, from, to int) {
		if name == Section {
			out = append(out, wasm[kept:from]...)
			kept = to
		}
	})
	if err != nil {
		return nil, fmt.Errorf("append manifest: %w", err)
	}
	out = append(out, wasm[kept:]...)
	body := binary.AppendUvarint(nil, uint64(len(Section)))
	body = append(append(body, Section...), content...)
	out = append(out, 0)
	out = binary.AppendUvarint(out, uint64(len(body)))
	return append(out, body...), nil
}

// Embed returns a copy of wasm with the manifest that a text in JSON holds, in
// the place of those it had. What Parse does not take is an error, and what it
// does not know is left out.
func Embed(wasm, text []byte) ([]byte, error) {
	m, err := Parse(text)
	if err != nil {
		return nil, err
	}
	return Append(wasm, m)
}

// customSections calls f for each custom section; from and to are its bounds
// in wasm.
func customSections(wasm []byte, f func(name string, content []byte, from, to int)) error {
	if !bytes.HasPrefix(wasm, wasmHeader) {
		return ErrNotWasm
	}
	for p := len(wasmHeader); p < len(wasm); {
		size, n := binary.Uvarint(wasm[p+1:])
		body := p + 1 + n
		if n <= 0 || n > 5 || size > math.MaxUint32 || size > uint64(len(wasm)-body) {
			return fmt.Errorf("%w: the section at byte %d does not fit the file", ErrNotWasm, p)
		}
		end := body + int(size)
		if wasm[p] == 0 {
			nameLen, n := binary.Uvarint(wasm[body:end])
			if n <= 0 || nameLen > uint64(end-body-n) {
				return fmt.Errorf("%w: the custom section at byte %d has no name", ErrNotWasm, p)
			}
			at := body + n + int(nameLen)
			f(string(wasm[body+n:at]), wasm[at:end], p, end)
		}
		p = end
	}
	return nil
}
