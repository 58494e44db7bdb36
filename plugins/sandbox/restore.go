package sandbox

import (
	"bytes"
	"errors"
	"fmt"
	"time"
)

// image is the state that each call starts from: memory and globals after
// start, configuration and warm-up. It is never written.
type image struct {
	level   int
	memory  []byte
	zero    []bool // see zerosOf
	globals []uint64
	// buffer is the guest's address of the request buffer of bufferBytes.
	buffer      uint32
	bufferBytes uint32
}

// publish makes in's image that of the stage, or the stage's that of in where
// they are the same.
func (s *Stage) publish(in *instance) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch im := s.image; {
	case im == nil || im.level != in.image.level:
		if in.image.level == s.level {
			s.image = in.image
		}
	case im.equal(in.image):
		in.image = im
	}
}

func (im *image) equal(o *image) bool {
	if im.buffer != o.buffer || im.bufferBytes != o.bufferBytes || len(im.globals) != len(o.globals) {
		return false
	}
	for i := range im.globals {
		if im.globals[i] != o.globals[i] {
			return false
		}
	}
	return bytes.Equal(im.memory, o.memory)
}

// clone makes an instance out of an image without starting the guest.
func (s *Stage) clone(im *image) (*instance, error) {
	in, err := s.base(true)
	if err != nil {
		return nil, err
	}
	in.env.silent = false
	if have := in.memory.Size(); uint64(have) < uint64(len(im.memory)) {
		if _, ok := in.memory.Grow((uint32(len(im.memory)) - have) / pageBytes); !ok {
			in.close()
			return nil, fmt.Errorf("make an instance: no memory for its image of %s", BytesText(int64(len(im.memory))))
		}
	}
	in.image = im
	if !in.putBack() {
		in.close()
		return nil, errors.New("make an instance: its memory does not have the size of the image")
	}
	s.count.clones.Add(1)
	return in, nil
}

// putBack makes the instance's state the image's, but for the pages that hold
// nothing but its last request: the next one is written there. It reports false
// if that is impossible because the memory has another size.
func (in *instance) putBack() bool {
	dst, im := in.view(), in.image
	if len(dst) != len(im.memory) {
		return false
	}
	in.owed = im.requestPages(in.sent)
	from, to := in.owed.from, in.owed.to
	restore(dst[:from], im.memory[:from], im.zero[:from/restoreBytes])
	restore(dst[to:], im.memory[to:], im.zero[to/restoreBytes:])
	for i, g := range in.globals {
		g.Set(im.globals[i])
	}
	in.sent = 0
	in.used, in.spoiled = false, false
	return true
}

// pages are whole pages of memory, in bytes.
type pages struct{ from, to int }

// requestPages are those that a request of n bytes fills.
func (im *image) requestPages(n int) pages {
	from := (int(im.buffer) + restoreBytes - 1) / restoreBytes * restoreBytes
	return pages{from, max(from, (int(im.buffer)+n)/restoreBytes*restoreBytes)}
}

// settle puts back what putBack left, except the pages that a request of n
// bytes, which is written next, fills.
func (in *instance) settle(n int) {
	if in.owed.from == in.owed.to {
		return
	}
	from, to := max(in.owed.from, in.image.requestPages(n).to), in.owed.to
	in.owed = pages{}
	if from < to {
		restore(in.view()[from:to], in.image.memory[from:to], in.image.zero[from/restoreBytes:to/restoreBytes])
	}
}

// moveStep is how much memory is compared or copied before the goroutine can be
// stopped again.
const moveStep = 64 << 10

// restore copies src over dst where they differ. A call leaves most of its
// memory as it was, and comparing costs two thirds of copying.
func restore(dst, src []byte, zero []bool) {
	for len(src) > 0 {
		n := min(len(src), moveStep)
		restoreStep(dst[:n], src[:n], zero[:n/restoreBytes])
		dst, src, zero = dst[n:], src[n:], zero[n/restoreBytes:]
	}
}

// restoreStep is a call of its own: Go stops a goroutine at the beginning of a
// function, and hardly ever between two comparisons, which are assembly.
//
//go:noinline
func restoreStep(dst, src []byte, zero []bool) {
	for i := range zero {
		from := src[i*restoreBytes:][:restoreBytes]
		if zero[i] {
			from = zeros[:]
		}
		if to := dst[i*restoreBytes:][:restoreBytes]; !bytes.Equal(to, from) {
			copy(to, from)
		}
	}
}

// restoreBytes are compared at once; memory is a multiple of them.
const restoreBytes = 4 << 10

var zeros [restoreBytes]byte

// zerosOf tells which parts of an image are zero: they are compared with what
// is in the cache instead.
func zerosOf(memory []byte) []bool {
	zero := make([]bool, len(memory)/restoreBytes)
	for i := range zero {
		zero[i] = bytes.Equal(memory[i*restoreBytes:][:restoreBytes], zeros[:])
	}
	return zero
}

// clone is bytes.Clone for memory of any size, in steps between which the
// goroutine can be stopped.
func clone(b []byte) []byte {
	if b == nil {
		return nil
	}
	out := make([]byte, len(b))
	for at := 0; at < len(b); at += moveStep {
		cloneStep(out[at:], b[at:min(len(b), at+moveStep)])
	}
	return out
}

//go:noinline
func cloneStep(dst, src []byte) { copy(dst, src) }

// ready puts a used instance back to its image, if that can be done exactly. A
// stateful stage does so only after a failure.
func (in *instance) ready() bool {
	switch {
	case in.dead:
		return false
	case !in.used, in.stage.stateful && !in.spoiled:
		return true
	case !in.stage.mod.info.ExactRestore:
		return false
	}
	t0 := time.Now()
	if !in.putBack() {
		return false
	}
	in.stage.count.restores.Add(1)
	in.stage.count.restoring.Add(int64(time.Since(t0)))
	return true
}
