package registry

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/millrace-io/millrace/runtime/record"
)

// headerSize is what stands before the payload: a zero byte and the schema's
// id.
const headerSize = 5

// Formats that a Decoder takes.
const (
	Avro       = "avro"
	JSONSchema = "json_schema"
)

// Decoder is a stage that turns values of one format into JSON.
type Decoder struct {
	c      *Client
	format string
	kind   string
}

// Decoder makes the decoder of a format: Avro or JSONSchema.
func (c *Client) Decoder(format string) (*Decoder, error) {
	switch format {
	case Avro:
		return &Decoder{c, format, typeAvro}, nil
	case JSONSchema:
		return &Decoder{c, format, typeJSON}, nil
	}
	return nil, fmt.Errorf("registry: no format %q: it is %s or %s", format, Avro, JSONSchema)
}

// buffers are lent to values that are decoded, largest kept maxBuffer bytes.
var buffers = sync.Pool{New: func() any { return new([]byte) }}

const maxBuffer = 1 << 20

// Process answers each record of b with an emit whose value is JSON, or with a
// failure. A null value stays null. Key, headers and the rest are as they came.
// It keeps neither b nor out, blocks while schemas are looked up, for at most the client's timeout in
// all, and is safe for concurrent use. Its error is ctx's; what out holds then
// is not an answer.
//
// Failures are of these classes:
//
//	schema     the value is not of the format, or does not fit its schema; the registry has no such schema
//	too_large  its JSON is longer than a stage takes
//	retryable  the registry does not answer, or not as one; timeout: not in time
//	config     the registry does not let us in
func (d *Decoder) Process(ctx context.Context, b *record.Batch, out *record.Results) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	buffer := buffers.Get().(*[]byte)
	defer func() {
		if cap(*buffer) <= maxBuffer {
			buffers.Put(buffer)
		}
	}()
	l := lookups{c: d.c, ctx: ctx}
	defer l.end()
	for i := range b.Records {
		value, err := d.decode(&l, b.Records[i].Value, buffer)
		if err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			out.Failures = append(out.Failures, record.Failure{In: int32(i), Err: record.AsError(err)})
			continue
		}
		r := b.Records[i]
		r.Value = value
		out.Emits = append(out.Emits, record.Emit{In: int32(i), Record: r})
	}
	return nil
}

func (d *Decoder) decode(l *lookups, value []byte, buffer *[]byte) ([]byte, error) {
	if value == nil {
		return nil, nil
	}
	if len(value) < headerSize || value[0] != 0 {
		return nil, foreign(value)
	}
	s, err := l.schema(binary.BigEndian.Uint32(value[1:]))
	if err != nil {
		return nil, err
	}
	switch {
	case s.kind != d.kind:
		return nil, record.Errorf(record.Schema, "%v is of type %s, and the flow decodes %s: correct the flow's `decode`, or the producer", s, s.kind, d.format)
	case s.broken != nil:
		return nil, record.Errorf(record.Schema, "%v cannot be used: %w", s, s.broken)
	case s.json != nil:
		if err := s.json.validate(value[headerSize:]); err != nil {
			return nil, record.Errorf(record.Schema, "the value does not fit %v: %w", s, err)
		}
		return value[headerSize:len(value):len(value)], nil
	}
	out, fault := s.avro.decode(*buffer, value)
	*buffer = out
	if fault == nil {
		return bytes.Clone(out), nil
	}
	where := ""
	if p := fault.place(); p != "" {
		where = " `" + p + "`:"
	}
	return nil, record.Errorf(fault.class, "the value does not fit %v:%s %s, at byte %d", s, where, fault.msg, fault.at)
}

// foreign is the failure of a value without the header.
func foreign(value []byte) error {
	const want = "a zero byte and four bytes with the schema's id"
	if len(value) < headerSize {
		return record.Errorf(record.Schema, "the value has %d bytes and does not begin with %s: is this topic written with a registry?", len(value), want)
	}
	return record.Errorf(record.Schema, "the value begins with % x (%q) instead of %s: is this topic written with a registry?", value[:headerSize], value[:headerSize], want)
}

// lookups are those of one batch: together they wait no longer than one, and a
// run of records of one schema asks once.
type lookups struct {
	c    *Client
	ctx  context.Context
	last *schema
	// wait bounds what is waited for, from the first look-up on; nil before.
	wait context.Context
	stop context.CancelFunc
}

func (l *lookups) schema(id uint32) (*schema, error) {
	if l.last != nil && l.last.id == id {
		return l.last, nil
	}
	if l.wait == nil {
		l.wait, l.stop = context.WithTimeout(l.ctx, l.c.cfg.Timeout+time.Second)
	}
	s, err := l.c.schema(l.wait, id)
	if err != nil {
		if errors.Is(err, context.DeadlineExceeded) && l.wait.Err() != nil {
			err = record.Errorf(record.Timeout, "schema %d: no answer of the registry at %s within %s", id, l.c.cfg.URL, l.c.cfg.Timeout)
		}
		return nil, err
	}
	l.last = s
	return s, nil
}

func (l *lookups) end() {
	if l.stop != nil {
		l.stop()
	}
}
