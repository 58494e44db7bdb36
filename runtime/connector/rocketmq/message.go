package rocketmq

import (
	"bytes"
	"compress/zlib"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
)

// message is one as a broker keeps it.
type message struct {
	offset     int64
	born       int64 // Unix milliseconds, by the producer's clock
	body       []byte
	properties string
}

// Bits of a message's sysFlag.
const (
	flagCompressed = 1
	flagBornV6     = 1 << 4
	flagStoreV6    = 1 << 5
	flagInnerBatch = 1 << 7
	codecShift     = 8
	codecMask      = 7
)

// Codecs of a compressed body. Producers before 5.0 leave the bits at 0.
const (
	codecOld  = 0
	codecLZ4  = 1
	codecZstd = 2
	codecZlib = 3
)

// maxBody bounds a body after it was decompressed.
const maxBody = 64 << 20

// storedFixed is the size of a message up to the host it came from.
const storedFixed = 4 + 4 + 4 + 4 + 4 + 8 + 8 + 4 + 8

var errTruncated = errors.New("truncated message")

// decodeMessage reads the first message of b and returns what follows it. The
// body may be a slice of b. A message whose body cannot be read has an offset
// all the same.
func decodeMessage(b []byte) (m message, rest []byte, err error) {
	if len(b) < storedFixed {
		return m, nil, errTruncated
	}
	size := binary.BigEndian.Uint32(b)
	if size < storedFixed || uint64(size) > uint64(len(b)) {
		return m, nil, errTruncated
	}
	b, rest = b[:size], b[size:]
	m.offset = int64(binary.BigEndian.Uint64(b[20:]))
	sysFlag := binary.BigEndian.Uint32(b[36:])
	m.born = int64(binary.BigEndian.Uint64(b[40:]))
	at := storedFixed
	at += 4 + 4 // host and port
	if sysFlag&flagBornV6 != 0 {
		at += 12
	}
	at += 8 // stored when
	at += 4 + 4
	if sysFlag&flagStoreV6 != 0 {
		at += 12
	}
	at += 4 + 8 // consumed how often, offset of a transaction
	body, at, ok := field(b, at, 4)
	if !ok {
		return m, rest, errTruncated
	}
	_, at, ok = field(b, at, 1) // the topic
	if !ok {
		return m, rest, errTruncated
	}
	properties, _, ok := field(b, at, 2)
	if !ok {
		return m, rest, errTruncated
	}
	m.properties = string(properties)
	if sysFlag&flagInnerBatch != 0 {
		return m, rest, errors.New("it is a batch that was stored as one message: topics of queue type BatchCQ cannot be read")
	}
	if sysFlag&flagCompressed != 0 {
		if body, err = decompress(body, sysFlag>>codecShift&codecMask); err != nil {
			return m, rest, fmt.Errorf("decompress its body: %w", err)
		}
	}
	m.body = body
	return m, rest, nil
}

// field reads a length of n bytes at b[at] and what it counts.
func field(b []byte, at, n int) (v []byte, next int, ok bool) {
	if at+n > len(b) {
		return nil, 0, false
	}
	size := 0
	for _, c := range b[at : at+n] {
		size = size<<8 | int(c)
	}
	at += n
	if size > len(b)-at {
		return nil, 0, false
	}
	return b[at : at+size : at+size], at + size, true
}

func decompress(b []byte, codec uint32) ([]byte, error) {
	var r io.Reader
	switch codec {
	case codecOld, codecZlib:
		z, err := zlib.NewReader(bytes.NewReader(b))
		if err != nil {
			return nil, err
		}
		r = z
	case codecLZ4:
		r = lz4.NewReader(bytes.NewReader(b))
	case codecZstd:
		z, err := zstd.NewReader(bytes.NewReader(b), zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(maxBody))
		if err != nil {
			return nil, err
		}
		defer z.Close()
		r = z
	default:
		return nil, fmt.Errorf("unknown codec %d", codec)
	}
	out, err := io.ReadAll(io.LimitReader(r, maxBody+1))
	if err != nil {
		return nil, err
	}
	if len(out) > maxBody {
		return nil, fmt.Errorf("more than %d bytes", maxBody)
	}
	return out, nil
}

// appendMessage writes one message of a batch.
func appendMessage(b []byte, body []byte, properties string) []byte {
	n := messageSize(body, properties)
	b = binary.BigEndian.AppendUint32(b, uint32(n))
	b = append(b, make([]byte, 12)...) // magic, sum and flag: the broker's
	b = binary.BigEndian.AppendUint32(b, uint32(len(body)))
	b = append(b, body...)
	b = binary.BigEndian.AppendUint16(b, uint16(len(properties)))
	return append(b, properties...)
}

func messageSize(body []byte, properties string) int {
	return 4 + 12 + 4 + len(body) + 2 + len(properties)
}
