package extism

import "sort"

// blocks are the pieces of Extism's memory that a guest was given in a call.
// The zero value has none.
type blocks struct {
	list []block // in the order of their offsets, none overlaps another
	last int     // the one that was asked for last
}

type block struct{ from, to uint64 }

// headerBytes is what Extism's allocator keeps before each block.
const headerBytes = 12

func (b *blocks) clear() { b.list, b.last = b.list[:0], 0 }

// add notes a block of n bytes. Older ones that it lies in, with what the
// allocator keeps before it, were freed without a word here.
func (b *blocks) add(from, n uint64) {
	if from < headerBytes || n == 0 {
		return
	}
	i := b.after(from - headerBytes)
	j := i
	for j < len(b.list) && b.list[j].from < from+n {
		j++
	}
	if i == j {
		b.list = append(b.list, block{})
		copy(b.list[i+1:], b.list[i:])
	} else {
		b.list = append(b.list[:i+1], b.list[j:]...)
	}
	b.list[i] = block{from, from + n}
}

// after is the index of the first block that ends after an offset.
func (b *blocks) after(offset uint64) int {
	if n := len(b.list); n == 0 || b.list[n-1].to <= offset {
		return n
	}
	return sort.Search(len(b.list), func(i int) bool { return b.list[i].to > offset })
}

// at is the length of the block that begins at an offset.
func (b *blocks) at(offset uint64) (n uint64, ok bool) {
	if i := b.after(offset); i < len(b.list) && b.list[i].from == offset {
		return b.list[i].to - offset, true
	}
	return 0, false
}

// remove forgets the block that begins at an offset, if there is one.
func (b *blocks) remove(offset uint64) {
	if i := b.after(offset); i < len(b.list) && b.list[i].from == offset {
		b.list = append(b.list[:i], b.list[i+1:]...)
	}
}

// hold reports whether n bytes at an offset lie in one block.
func (b *blocks) hold(offset, n uint64) bool {
	if b.last >= len(b.list) || offset < b.list[b.last].from || offset >= b.list[b.last].to {
		b.last = b.after(offset)
	}
	return b.last < len(b.list) && b.list[b.last].from <= offset && n <= b.list[b.last].to-offset
}
