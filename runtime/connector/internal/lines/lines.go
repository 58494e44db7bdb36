// Package lines cuts what a reader yields into lines without copying each.
package lines

import (
	"bytes"
	"errors"
	"io"
)

// ErrTooLong says that a line is longer than the reader allows.
var ErrTooLong = errors.New("line is too long")

const chunk = 256 << 10

// Line is one line. Its value has neither "\n" nor "\r\n" at its end, and stays
// valid as long as anything refers to it.
type Line struct {
	Value []byte
	// End is the position behind the line's end, counted like the reader's.
	End int64
}

// Reader cuts lines. It is not safe for concurrent use.
type Reader struct {
	src     io.Reader
	maxLine int
	buf     []byte // read and not cut; what is behind it in the array is free
	scanned int    // bytes of buf that have no line end among them
	pos     int64  // of the first byte of buf
}

// New makes a reader of lines of at most maxLine bytes. pos is the position of
// the first byte that src yields.
func New(src io.Reader, maxLine int, pos int64) *Reader {
	return &Reader{src: src, maxLine: maxLine, pos: pos}
}

// Pos is the position of the first byte that was not cut yet.
func (r *Reader) Pos() int64 { return r.pos }

// Next appends at most maxLines lines to dst, and stops at the line with which
// they have maxBytes. It reads only while it has no whole line. At the end of
// src it returns io.EOF, and may be called again in case src yields more; what
// Rest returns is then an unfinished line.
func (r *Reader) Next(dst []Line, maxLines, maxBytes int) ([]Line, error) {
	for {
		got := 0
		for n := 0; n < maxLines && got < maxBytes; n++ {
			i := bytes.IndexByte(r.buf[r.scanned:], '\n')
			if i < 0 {
				r.scanned = len(r.buf)
				break
			}
			i += r.scanned
			value := trim(r.buf[:i:i])
			if len(value) > r.maxLine {
				if got == 0 {
					return dst, ErrTooLong
				}
				break
			}
			got += i + 1
			r.pos += int64(i) + 1
			dst = append(dst, Line{Value: value, End: r.pos})
			r.buf, r.scanned = r.buf[i+1:], 0
		}
		if got > 0 {
			return dst, nil
		}
		if len(r.buf) > r.maxLine+1 {
			return dst, ErrTooLong
		}
		if err := r.fill(); err != nil {
			if len(trim(r.buf)) > r.maxLine {
				err = ErrTooLong
			}
			return dst, err
		}
	}
}

// fill reads once, behind what is there.
func (r *Reader) fill() error {
	if free := cap(r.buf) - len(r.buf); free < chunk/8 {
		buf := make([]byte, len(r.buf), max(chunk, 2*len(r.buf)))
		copy(buf, r.buf)
		r.buf = buf
	}
	for range 100 {
		n, err := r.src.Read(r.buf[len(r.buf):cap(r.buf)])
		r.buf = r.buf[:len(r.buf)+n]
		if n > 0 {
			return nil
		}
		if err != nil {
			return err
		}
	}
	return io.ErrNoProgress
}

// Rest cuts the unfinished line at the end of src. It returns false if there
// is none.
func (r *Reader) Rest() (Line, bool) {
	if len(r.buf) == 0 {
		return Line{}, false
	}
	r.pos += int64(len(r.buf))
	l := Line{Value: trim(r.buf[:len(r.buf):len(r.buf)]), End: r.pos}
	r.buf, r.scanned = nil, 0
	return l, true
}

func trim(line []byte) []byte {
	if n := len(line); n > 0 && line[n-1] == '\r' {
		return line[: n-1 : n-1]
	}
	return line
}
