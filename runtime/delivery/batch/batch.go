// Package batch gathers records into the bodies of requests: by number, size,
// time and key, as a JSON array, as lines of JSON, or by a template.
//
// It is the deterministic core of a delivery's `batch`: it starts nothing,
// reads no clock and sends nothing. Its caller hands it records with the time,
// asks it for what is due, and splits a batch when verdicts by item say that
// only a part of it is to be sent again.
package batch

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"

	"github.com/klauspost/compress/gzip"

	"github.com/millrace-io/millrace/runtime/record"
)

// Batch is a body that is sent in one request. It serves one goroutine at a
// time.
type Batch struct {
	// ID is a hash of its items' ids in their order, in lower-case hex: the
	// Idempotency-Key of every attempt. The same items in the same order have
	// the same ID, in another process too.
	ID string
	// By is the key that the batch's records have in common, nil if they were
	// gathered without one or it is nil.
	By []byte
	// Items in the order in which they were added.
	Items []Item

	format *format
	body   []byte // built when it is asked for
	size   int
}

// Item is a record in a batch.
type Item struct {
	Record *record.Record
	// ID is the record's own, as Config.ID gave it.
	ID string

	encoded []byte
}

// Size is the length of the body in bytes before it is compressed.
func (b *Batch) Size() int { return b.size }

// Body is what is sent: the same bytes for every attempt. It must not be
// changed.
func (b *Batch) Body() ([]byte, error) {
	if b.body == nil {
		body, err := b.format.join(b.Items, b.size)
		if err != nil {
			return nil, fmt.Errorf("batch %s: %w", b.ID, err)
		}
		b.body = body
	}
	return b.body, nil
}

// Header is what the body's form asks for: Content-Type where it is known,
// and Content-Encoding where it is compressed.
func (b *Batch) Header() []record.Header {
	var hs []record.Header
	if b.format.contentType != "" {
		hs = append(hs, record.Header{Key: "Content-Type", Value: []byte(b.format.contentType)})
	}
	if b.format.gzip {
		hs = append(hs, record.Header{Key: "Content-Encoding", Value: []byte("gzip")})
	}
	return hs
}

// Keep returns the batch of the items at some indexes, which ascend: what is
// to be sent again after verdicts by item. All of them are b itself, with its
// identity and body; fewer are a batch with an identity of its own; none are
// nil. An index out of order or range is a fault of the caller's and panics.
func (b *Batch) Keep(items []int) *Batch {
	last := -1
	for _, i := range items {
		if i <= last || i >= len(b.Items) {
			panic(fmt.Sprintf("batch: keep %v of %d items", items, len(b.Items)))
		}
		last = i
	}
	switch len(items) {
	case 0:
		return nil
	case len(b.Items):
		return b
	}
	kept := make([]Item, len(items))
	for n, i := range items {
		kept[n] = b.Items[i]
	}
	return newBatch(b.format, b.By, kept)
}

func newBatch(f *format, by []byte, items []Item) *Batch {
	b := &Batch{ID: identity(items), By: by, Items: items, format: f, size: f.overhead}
	for i := range items {
		b.size += f.added(i, len(items[i].encoded))
	}
	return b
}

// identity is the first half of the SHA-256 over the items' ids, each behind
// its length.
func identity(items []Item) string {
	h := sha256.New()
	var length [8]byte
	for i := range items {
		binary.BigEndian.PutUint64(length[:], uint64(len(items[i].ID)))
		h.Write(length[:])
		h.Write([]byte(items[i].ID))
	}
	return hex.EncodeToString(h.Sum(nil)[:16])
}

// format is how items become a body.
type format struct {
	head, between, tail string
	contentType         string
	gzip                bool
	overhead            int // bytes of an empty body
}

// added is how many bytes the item at an index adds to a body.
func (f *format) added(index, encoded int) int {
	if index == 0 {
		return encoded
	}
	return len(f.between) + encoded
}

func (f *format) join(items []Item, size int) ([]byte, error) {
	body := make([]byte, 0, size)
	body = append(body, f.head...)
	for i := range items {
		if i > 0 {
			body = append(body, f.between...)
		}
		body = append(body, items[i].encoded...)
	}
	body = append(body, f.tail...)
	if !f.gzip {
		return body, nil
	}
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	if _, err := w.Write(body); err != nil {
		return nil, fmt.Errorf("compress: %w", err)
	}
	if err := w.Close(); err != nil {
		return nil, fmt.Errorf("compress: %w", err)
	}
	return out.Bytes(), nil
}
