package lines

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

func all(t *testing.T, r *Reader, maxLines, maxBytes int) (values []string, ends []int64) {
	t.Helper()
	for {
		ls, err := r.Next(nil, maxLines, maxBytes)
		for _, l := range ls {
			values, ends = append(values, string(l.Value)), append(ends, l.End)
		}
		if errors.Is(err, io.EOF) {
			if l, ok := r.Rest(); ok {
				values, ends = append(values, string(l.Value)), append(ends, l.End)
			}
			return values, ends
		}
		if err != nil {
			t.Fatal(err)
		}
		if len(ls) == 0 || len(ls) > maxLines {
			t.Fatalf("%d lines at once", len(ls))
		}
	}
}

// FuzzLines compares with a split of the whole, however the bytes come.
func FuzzLines(f *testing.F) {
	f.Add([]byte("a\nb\r\n\n\r\nlast"), 3)
	f.Add([]byte("\n\n"), 1)
	f.Add([]byte(""), 1)
	f.Add([]byte("\r"), 2)
	f.Fuzz(func(t *testing.T, in []byte, maxLines int) {
		maxLines = 1 + abs(maxLines)%5
		var want []string
		var ends []int64
		pos := int64(7)
		for rest := in; len(rest) > 0; {
			line, after, found := bytes.Cut(rest, []byte("\n"))
			pos += int64(len(line))
			if found {
				pos++
			}
			want, ends, rest = append(want, strings.TrimSuffix(string(line), "\r")), append(ends, pos), after
		}
		for name, src := range map[string]io.Reader{
			"whole":   bytes.NewReader(in),
			"bytes":   iotest.OneByteReader(bytes.NewReader(in)),
			"dataEOF": iotest.DataErrReader(bytes.NewReader(in)),
		} {
			got, at := all(t, New(src, 1<<20, 7), maxLines, 1+len(in)/2)
			if strings.Join(got, "|") != strings.Join(want, "|") || len(got) != len(want) {
				t.Fatalf("%s: got %q, want %q", name, got, want)
			}
			for i := range at {
				if at[i] != ends[i] {
					t.Fatalf("%s: line %d ends at %d, want %d", name, i, at[i], ends[i])
				}
			}
		}
	})
}

func abs(n int) int {
	if n < 0 {
		return -(n + 1)
	}
	return n
}

func TestTooLong(t *testing.T) {
	for _, end := range []string{"", "\n", "\nmore\n"} {
		r := New(strings.NewReader("ok\n"+strings.Repeat("x", 1001)+end), 1000, 0)
		if ls, err := r.Next(nil, 10, 1); err != nil || len(ls) != 1 {
			t.Fatalf("first line: %v, %v", ls, err)
		}
		if _, err := r.Next(nil, 10, 1<<20); !errors.Is(err, ErrTooLong) {
			t.Errorf("end %q: got %v, want %v", end, err, ErrTooLong)
		}
		if r.Pos() != 3 {
			t.Errorf("position %d, want 3", r.Pos())
		}
	}
	long := strings.Repeat("x", 1_000_000)
	got, _ := all(t, New(strings.NewReader(long+"\n"+long), 1_000_000, 0), 10, 1)
	if len(got) != 2 || got[0] != long || got[1] != long {
		t.Errorf("%d lines of the longest length, want 2", len(got))
	}
}

func TestGoesOnAfterEOF(t *testing.T) {
	var src bytes.Buffer
	r := New(&src, 100, 0)
	src.WriteString("half")
	if ls, err := r.Next(nil, 10, 100); !errors.Is(err, io.EOF) || len(ls) != 0 {
		t.Fatalf("got %v, %v, want io.EOF", ls, err)
	}
	src.WriteString(" and half\n")
	ls, err := r.Next(nil, 10, 100)
	if err != nil || string(ls[0].Value) != "half and half" {
		t.Fatalf("got %v, %v", ls, err)
	}
}

func TestValuesStay(t *testing.T) {
	src := strings.Repeat(strings.Repeat("a", 999)+"\n", 2000)
	r := New(strings.NewReader(src), 1<<20, 0)
	var ls []Line
	for {
		var err error
		if ls, err = r.Next(ls, 100, 1<<20); err != nil {
			break
		}
	}
	for i, l := range ls {
		if string(l.Value) != src[:999] {
			t.Fatalf("line %d changed", i)
		}
	}
	if len(ls) != 2000 {
		t.Fatalf("%d lines, want 2000", len(ls))
	}
}
