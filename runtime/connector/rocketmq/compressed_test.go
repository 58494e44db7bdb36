package rocketmq

import (
	"bytes"
	"compress/zlib"
	"encoding/binary"
	"io"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
)

// codecs are how producers compress bodies.
var codecs = []struct {
	name string
	bits uint32
	to   func(io.Writer) io.WriteCloser
}{
	{"of old producers", codecOld, func(w io.Writer) io.WriteCloser { return zlib.NewWriter(w) }},
	{"zlib", codecZlib, func(w io.Writer) io.WriteCloser { return zlib.NewWriter(w) }},
	{"LZ4", codecLZ4, func(w io.Writer) io.WriteCloser { return lz4.NewWriter(w) }},
	{"Zstandard", codecZstd, func(w io.Writer) io.WriteCloser {
		z, err := zstd.NewWriter(w)
		if err != nil {
			panic(err)
		}
		return z
	}},
}

// compressed is a message whose body is compressed.
func compressed(t *testing.T, codec int, offset int64, body io.Reader) []byte {
	t.Helper()
	var b bytes.Buffer
	w := codecs[codec].to(&b)
	if _, err := io.Copy(w, body); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	m := stored(offset, b.Bytes(), "")
	binary.BigEndian.PutUint32(m[36:], flagCompressed|codecs[codec].bits<<codecShift)
	return m
}

// zeros is a reader of n zeros.
func zeros(n int64) io.Reader { return io.LimitReader(zero{}, n) }

type zero struct{}

func (zero) Read(b []byte) (int, error) { clear(b); return len(b), nil }

func TestCompressedBodies(t *testing.T) {
	for i, c := range codecs {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			for _, want := range []string{"x", "", strings.Repeat("a line of it; ", 100_000)} {
				m, rest, err := decodeMessage(compressed(t, i, 7, strings.NewReader(want)))
				if err != nil || len(rest) > 0 || m.offset != 7 || string(m.body) != want {
					t.Errorf("%d bytes at %d, %v, want %d", len(m.body), m.offset, err, len(want))
				}
			}
			whole := compressed(t, i, 7, strings.NewReader(strings.Repeat("cut off", 1000)))
			size := binary.BigEndian.Uint32(whole[84:]) / 2 // half of the body
			cut := stored(7, whole[88:88+size], "")
			copy(cut[36:40], whole[36:40])
			if m, _, err := decodeMessage(cut); err == nil {
				t.Errorf("half of it is %d bytes", len(m.body))
			}
			if c.bits == codecOld {
				return // as zlib
			}
			// Nobody looks at the end of what is too large.
			whole = compressed(t, i, 7, zeros(maxBody+8<<20))
			body := whole[88 : 88+binary.BigEndian.Uint32(whole[84:])]
			cut = stored(7, body[:len(body)-8], "")
			copy(cut[36:40], whole[36:40])
			if _, _, err := decodeMessage(cut); err == nil || !strings.Contains(err.Error(), "more than") {
				t.Errorf("too much and cut off: %v", err)
			}
		})
	}
	m := compressed(t, 0, 7, strings.NewReader("x"))
	binary.BigEndian.PutUint32(m[36:], flagCompressed|5<<codecShift)
	if _, _, err := decodeMessage(m); err == nil || !strings.Contains(err.Error(), "unknown codec 5") {
		t.Errorf("a codec of the future: %v", err)
	}
}
