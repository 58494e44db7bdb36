// Package millracetest runs a stage in `go test`: records in, answers out,
// through the same frames as on a node, without Wasm. The stage is the one that
// the package under test gives to millrace.Stage in its init.
//
//	func TestMask(t *testing.T) {
//		stage := millracetest.New(t, `{"remove":["note"]}`)
//		got := stage.Run(t, millracetest.Value(`{"id":7,"note":"x"}`), millracetest.Tombstone())
//		if v := got.Value(0); v != `{"id":7}` {
//			t.Errorf("got %s", v)
//		}
//		if f := got.Failure(1); f == nil || f.Code != 1 {
//			t.Errorf("got %v", f)
//		}
//	}
package millracetest

import (
	"encoding/binary"
	"slices"
	"testing"

	"github.com/millrace-io/millrace/pdk/go/internal/bridge"
)

var le = binary.LittleEndian

// Header is a header of a record.
type Header struct{ Name, Value string }

// Record is a record for a stage. Value and Tombstone make one of topic "test"
// without a key, at its first attempt.
type Record struct {
	// Key and Value are null if they are nil.
	Key, Value  []byte
	Headers     []Header
	Topic       string
	Partition   int32
	Offset      int64
	Timestamp   int64 // Unix milliseconds
	Attempt     uint32
	Redelivered bool
	TraceID     [16]byte
}

// Value is a record with this value.
func Value(value string) Record {
	return Record{Value: append([]byte{}, value...), Topic: "test", Attempt: 1}
}

// Tombstone is a record without a value.
func Tombstone() Record { return Record{Topic: "test", Attempt: 1} }

// WithKey is r with a key.
func (r Record) WithKey(key string) Record {
	r.Key = append([]byte{}, key...)
	return r
}

// WithHeader is r with one header more.
func (r Record) WithHeader(name, value string) Record {
	r.Headers = append(slices.Clip(r.Headers), Header{name, value})
	return r
}

// Stage is the stage under test with a configuration. Use it in one test.
type Stage struct {
	// Now is the clock of the batches in Unix milliseconds.
	Now   int64
	batch func(frame []byte) []byte
}

// New gives the stage the configuration that the flow would give it in `with:`,
// as JSON; empty: {}. One that the stage does not take fails the test.
func New(t testing.TB, config string) *Stage {
	t.Helper()
	s, err := Configure(config)
	if err != nil {
		t.Fatalf("the stage does not take the configuration %s: %v", config, err)
	}
	return s
}

// Configure is New for tests of what the stage refuses: the error is what the
// operator sees.
func Configure(config string) (*Stage, error) {
	if config == "" {
		config = "{}"
	}
	batch, err := bridge.New([]byte(config))
	if err != nil {
		return nil, err
	}
	return &Stage{batch: batch}, nil
}

// Value runs one record with this value.
func (s *Stage) Value(t testing.TB, value string) *Answers {
	t.Helper()
	return s.Run(t, Value(value))
}

// Run runs a batch of these records. A record of offset 0 gets its number in the
// batch as its offset, one of attempt 0 is at its first. Variables of the package
// outlive a batch here, and do not on a node.
func (s *Stage) Run(t testing.TB, records ...Record) *Answers {
	t.Helper()
	bridge.Mu.Lock()
	defer bridge.Mu.Unlock()
	bridge.Lines, bridge.Counts = nil, nil
	result := s.batch(encode(records, s.Now))
	if result == nil {
		t.Fatal("the batch is no frame of stage/1")
	}
	a := &Answers{t: t, records: decode(t, result, records), Counts: bridge.Counts}
	for _, l := range bridge.Lines {
		a.Logs = append(a.Logs, levels[l.Level]+" "+l.Text)
	}
	return a
}

var levels = [...]string{"debug", "info", "warn", "error"}

// encode is a request frame.
func encode(records []Record, now int64) []byte {
	var topics []string
	f := make([]byte, 32)
	for _, r := range records {
		if !slices.Contains(topics, r.Topic) {
			topics = append(topics, r.Topic)
			f = le.AppendUint16(f, uint16(len(r.Topic)))
			f = append(f, r.Topic...)
		}
	}
	f = pad(f)
	le.PutUint32(f[12:], uint32(len(f)-32))
	for i, r := range records {
		f = r.append(f, i, slices.Index(topics, r.Topic))
	}
	le.PutUint32(f, uint32(len(f)))
	le.PutUint16(f[4:], 1)
	le.PutUint16(f[6:], 1)
	le.PutUint32(f[8:], uint32(len(records)))
	le.PutUint64(f[16:], 1)
	le.PutUint64(f[24:], uint64(now))
	return f
}

func (r *Record) append(f []byte, i, topic int) []byte {
	at := len(f)
	f = append(f, make([]byte, 72)...)
	for _, h := range r.Headers {
		f = le.AppendUint16(f, uint16(len(h.Name)))
		f = le.AppendUint32(f, uint32(len(h.Value)))
		f = append(append(f, h.Name...), h.Value...)
	}
	headers := len(f) - at - 72
	f = pad(append(append(f, r.Key...), r.Value...))
	flags := uint16(0)
	if r.Key == nil {
		flags |= 1
	}
	if r.Value == nil {
		flags |= 2
	}
	if r.Redelivered {
		flags |= 4
	}
	offset := r.Offset
	if offset == 0 {
		offset = int64(i)
	}
	h := f[at:]
	le.PutUint32(h, uint32(len(h)))
	le.PutUint32(h[4:], uint32(i))
	le.PutUint16(h[10:], flags)
	le.PutUint16(h[12:], uint16(topic))
	le.PutUint16(h[14:], uint16(len(r.Headers)))
	le.PutUint64(h[16:], uint64(offset))
	le.PutUint64(h[24:], uint64(r.Timestamp))
	le.PutUint32(h[32:], uint32(r.Partition))
	le.PutUint32(h[36:], max(r.Attempt, 1))
	le.PutUint32(h[40:], uint32(len(r.Key)))
	le.PutUint32(h[44:], uint32(len(r.Value)))
	le.PutUint32(h[48:], uint32(headers))
	copy(h[56:72], r.TraceID[:])
	return f
}

func pad(b []byte) []byte { return append(b, make([]byte, -len(b)&7)...) }
