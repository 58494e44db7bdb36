package millracetest

import (
	"testing"
	"time"

	millrace "github.com/millrace-io/millrace/pdk/go"
	"github.com/millrace-io/millrace/pdk/go/internal/bridge"
)

// Emitted is an emitted record.
type Emitted struct {
	// Output is its name in the manifest; "default" for the default one.
	Output string
	// Key and Value are null if they are nil.
	Key, Value []byte
	Headers    []Header
	Timestamp  int64 // Unix milliseconds
	// Partition is the one that the stage chose, -1 if the key decides.
	Partition int32
	// SameKey and so on: it was not sent because it is the input's own.
	SameKey, SameValue, SameHeaders, SameTimestamp bool
}

// Answers are what a stage answered to a batch.
type Answers struct {
	// Logs are the lines that it logged, each with its level in front:
	// "info text".
	Logs []string
	// Counts are the sums of what it counted.
	Counts map[string]float64

	t       testing.TB
	records []answer
}

type answer struct {
	emits   []Emitted
	dropped bool
	failure *millrace.Failure
}

// Emits are the records emitted for record i, in order.
func (a *Answers) Emits(i int) []Emitted { return a.records[i].emits }

// Value is the value of the only record emitted for record i. Anything else
// fails the test.
func (a *Answers) Value(i int) string {
	a.t.Helper()
	switch r := a.records[i]; {
	case r.failure != nil:
		a.t.Errorf("record %d failed with code %d: %s", i, r.failure.Code, r.failure.Message)
	case r.dropped:
		a.t.Errorf("record %d was dropped", i)
	case len(r.emits) != 1:
		a.t.Errorf("record %d: %d records were emitted", i, len(r.emits))
	default:
		return string(r.emits[0].Value)
	}
	return ""
}

// Dropped tells whether record i was dropped.
func (a *Answers) Dropped(i int) bool { return a.records[i].dropped }

// Failure is why record i failed or is to be tried again; nil if neither.
func (a *Answers) Failure(i int) *millrace.Failure { return a.records[i].failure }

// decode reads a result frame.
func decode(t testing.TB, result []byte, inputs []Record) []answer {
	t.Helper()
	answers := make([]answer, len(inputs))
	for p := 32; p < len(result); {
		h := result[p : p+int(le.Uint32(result[p:]))]
		p += len(h)
		id := int(le.Uint32(h[4:]))
		a := &answers[id]
		headersEnd := 72 + int(le.Uint32(h[48:]))
		keyEnd := headersEnd + int(le.Uint32(h[40:]))
		value := h[keyEnd : keyEnd+int(le.Uint32(h[44:]))]
		switch h[8] {
		case 0:
			a.emits = append(a.emits, emitted(h, headersEnd, keyEnd, value, &inputs[id]))
		case 1:
			a.dropped = true
		default:
			a.failure = &millrace.Failure{Code: le.Uint32(h[36:]), Message: string(value)}
			if h[8] == 2 {
				a.failure.Retry = true
				a.failure.Delay = time.Duration(le.Uint64(h[16:])) * time.Millisecond
			}
		}
	}
	for i, a := range answers {
		if len(a.emits) == 0 && !a.dropped && a.failure == nil {
			t.Fatalf("record %d has no answer: this is a fault of the kit", i)
		}
	}
	return answers
}

func emitted(h []byte, headersEnd, keyEnd int, value []byte, in *Record) Emitted {
	same, flags := h[9], le.Uint16(h[10:])
	e := Emitted{
		Output: "default", Key: in.Key, Value: in.Value, Headers: in.Headers, Timestamp: in.Timestamp,
		Partition: int32(le.Uint32(h[32:])),
		SameKey:   same&1 != 0, SameValue: same&2 != 0, SameHeaders: same&4 != 0, SameTimestamp: same&8 != 0,
	}
	if n := int(le.Uint16(h[12:])); n > 0 {
		e.Output = bridge.Outputs()[n-1]
	}
	part := func(null bool, b []byte) []byte {
		if null {
			return nil
		}
		return append([]byte{}, b...)
	}
	if !e.SameKey {
		e.Key = part(flags&1 != 0, h[headersEnd:keyEnd])
	}
	if !e.SameValue {
		e.Value = part(flags&2 != 0, value)
	}
	if !e.SameTimestamp {
		e.Timestamp = int64(le.Uint64(h[24:]))
	}
	if !e.SameHeaders {
		e.Headers = nil
		for b := h[72:headersEnd]; len(b) > 0; {
			nameEnd := 6 + int(le.Uint16(b))
			end := nameEnd + int(le.Uint32(b[2:]))
			e.Headers = append(e.Headers, Header{string(b[6:nameEnd]), string(b[nameEnd:end])})
			b = b[end:]
		}
	}
	return e
}
