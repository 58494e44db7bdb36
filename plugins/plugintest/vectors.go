package plugintest

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/millrace-io/millrace/runtime/record"
)

// VectorFormat is the version of the files that LoadVectors reads.
const VectorFormat = "millrace-vectors/1"

// maxVectorRecords bounds what a file can ask for by repeating.
const maxVectorRecords = 1_000_000

// Vector is a batch and what a guest of the conformance protocol answers.
type Vector struct {
	// Name is the file's without its ending.
	Name string
	// About is the rule in a sentence.
	About string
	// Config of the guest: its commands.
	Config json.RawMessage
	// Outputs that the flow takes beside the default one.
	Outputs []string
	Batch   record.Batch

	// Emits are in order.
	Emits  []ExpectedEmit
	Drops  []int32
	Fails  []record.Failure
	Logs   []string // "level line"
	Counts map[string]float64
}

// ExpectedEmit is an emission with its output by name.
type ExpectedEmit struct {
	Output string
	record.Emit
}

type vectorJSON struct {
	Format  string             `json:"format"`
	About   string             `json:"about"`
	Do      *string            `json:"do"`
	Config  *string            `json:"config"`
	Outputs []string           `json:"outputs"`
	Now     *int64             `json:"now"`
	Records []recordJSON       `json:"records"`
	Expect  []expectJSON       `json:"expect"`
	Logs    []string           `json:"logs"`
	Counts  map[string]float64 `json:"counts"`
}

type recordJSON struct {
	Key         text         `json:"key"`
	Value       text         `json:"value"`
	Headers     []headerJSON `json:"headers"`
	Topic       *string      `json:"topic"`
	Partition   int32        `json:"partition"`
	Offset      *int64       `json:"offset"`
	Timestamp   *int64       `json:"timestamp"`
	Attempt     uint32       `json:"attempt"`
	Redelivered bool         `json:"redelivered"`
	Trace       string       `json:"trace"`
	Times       int          `json:"times"`
}

type headerJSON struct {
	Key   string `json:"key"`
	Value text   `json:"value"`
	Times int    `json:"times"`
}

type expectJSON struct {
	In    int         `json:"in"`
	Times int         `json:"times"` // of records from In on
	Emits int         `json:"emits"` // of the one record
	Emit  *emitJSON   `json:"emit"`
	Drop  bool        `json:"drop"`
	Retry *answerJSON `json:"retry"`
	Fail  *answerJSON `json:"fail"`
}

// emitJSON tells what differs from the input.
type emitJSON struct {
	Key       *text         `json:"key"`
	Value     *text         `json:"value"`
	Headers   *[]headerJSON `json:"headers"`
	Timestamp *int64        `json:"timestamp"`
	Output    string        `json:"output"`
	Partition *int32        `json:"partition"`
}

// UnmarshalJSON notices null, which is a value here.
func (e *emitJSON) UnmarshalJSON(b []byte) error {
	type plain emitJSON
	if err := strict(b, (*plain)(e)); err != nil {
		return err
	}
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(b, &fields); err != nil {
		return err
	}
	for name, field := range map[string]**text{"key": &e.Key, "value": &e.Value} {
		if string(fields[name]) == "null" {
			*field = &text{}
		}
	}
	return nil
}

type answerJSON struct {
	Code    uint32 `json:"code"`
	Delay   int64  `json:"delay"`
	Message text   `json:"message"`
}

// text is a byte string: null, a string, {"base64": "..."}, or
// {"repeat": "...", "times": n}.
type text struct{ b []byte }

func (t *text) UnmarshalJSON(b []byte) error {
	if bytes.HasPrefix(b, []byte("{")) {
		var r struct {
			Repeat *string `json:"repeat"`
			Times  int     `json:"times"`
		}
		if err := json.Unmarshal(b, &r); err == nil && r.Repeat != nil {
			if r.Times < 0 || r.Times*len(*r.Repeat) > 64<<20 {
				return fmt.Errorf("repeat: %d times is too much", r.Times)
			}
			t.b = bytes.Repeat([]byte(*r.Repeat), r.Times)
			if t.b == nil {
				t.b = []byte{}
			}
			return nil
		}
	}
	return json.Unmarshal(b, (*record.Text)(&t.b))
}

// numbered is the text with {n} replaced by a number.
func (t text) numbered(n int) []byte {
	if !bytes.Contains(t.b, []byte("{n}")) {
		return t.b
	}
	return bytes.ReplaceAll(t.b, []byte("{n}"), strconv.AppendInt(nil, int64(n), 10))
}

func strict(b []byte, v any) error {
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.DisallowUnknownFields()
	return dec.Decode(v)
}

// LoadVectors reads the .json files in the root of fsys, by name. The form is
// that of pdk/testdata/conformance/README.md.
func LoadVectors(fsys fs.FS) ([]Vector, error) {
	names, err := fs.Glob(fsys, "*.json")
	if err != nil {
		return nil, fmt.Errorf("load vectors: %w", err)
	}
	if len(names) == 0 {
		return nil, errors.New("load vectors: there is no .json file")
	}
	slices.Sort(names)
	var all []Vector
	for _, name := range names {
		b, err := fs.ReadFile(fsys, name)
		if err != nil {
			return nil, fmt.Errorf("load vectors: %w", err)
		}
		v, err := ParseVector(strings.TrimSuffix(path.Base(name), ".json"), b)
		if err != nil {
			return nil, err
		}
		all = append(all, *v)
	}
	return all, nil
}

// ParseVector reads one file.
func ParseVector(name string, data []byte) (*Vector, error) {
	var j vectorJSON
	if err := strict(data, &j); err != nil {
		return nil, fmt.Errorf("read vector %s: %w", name, err)
	}
	if j.Format != VectorFormat {
		return nil, fmt.Errorf("read vector %s: its format is %q, this program reads %q", name, j.Format, VectorFormat)
	}
	v := &Vector{Name: name, About: j.About, Outputs: j.Outputs, Logs: j.Logs, Counts: j.Counts}
	switch {
	case (j.Do == nil) == (j.Config == nil):
		return nil, fmt.Errorf("read vector %s: it needs one of do and config", name)
	case j.Config != nil:
		v.Config = json.RawMessage(*j.Config)
	default:
		v.Config = json.RawMessage(`{"do":"` + *j.Do + `"}`)
	}
	if !json.Valid(v.Config) {
		return nil, fmt.Errorf("read vector %s: its configuration is no JSON: %s", name, v.Config)
	}
	v.Batch = record.Batch{Partition: record.Partition{Topic: topic}, Now: sampleTime}
	if j.Now != nil {
		v.Batch.Now = *j.Now
	}
	for i := range j.Records {
		if err := v.addRecord(&j.Records[i]); err != nil {
			return nil, fmt.Errorf("read vector %s: record %d: %w", name, i, err)
		}
	}
	v.Batch.Next = int64(len(v.Batch.Records))
	for i := range j.Expect {
		if err := v.expect(&j.Expect[i]); err != nil {
			return nil, fmt.Errorf("read vector %s: answer %d: %w", name, i, err)
		}
	}
	return v, nil
}

func (v *Vector) addRecord(j *recordJSON) error {
	times := max(1, j.Times)
	if len(v.Batch.Records)+times > maxVectorRecords {
		return fmt.Errorf("more than %d records", maxVectorRecords)
	}
	var trace record.Trace
	if j.Trace != "" {
		b, err := hex.DecodeString(j.Trace)
		if err != nil || len(b) != len(trace) {
			return fmt.Errorf("trace: %q is not 32 hex digits", j.Trace)
		}
		copy(trace[:], b)
	}
	for n := range times {
		i := len(v.Batch.Records)
		r := record.Record{
			Key: j.Key.numbered(n), Value: j.Value.numbered(n), Headers: headersOf(j.Headers),
			Topic: topic, Partition: j.Partition, Offset: int64(i), Timestamp: sampleTime,
			Attempt: max(1, j.Attempt), Redelivered: j.Redelivered, Trace: trace, To: -1,
		}
		if j.Topic != nil {
			r.Topic = *j.Topic
		}
		if j.Offset != nil {
			r.Offset = *j.Offset + int64(n)
		}
		if j.Timestamp != nil {
			r.Timestamp = *j.Timestamp
		}
		v.Batch.Records = append(v.Batch.Records, r)
	}
	return nil
}

func headersOf(list []headerJSON) []record.Header {
	var headers []record.Header
	for _, h := range list {
		for n := range max(1, h.Times) {
			value := h.Value.numbered(n)
			if value == nil {
				value = []byte{} // a guest sees no difference
			}
			headers = append(headers, record.Header{Key: strings.ReplaceAll(h.Key, "{n}", strconv.Itoa(n)), Value: value})
		}
	}
	return headers
}

func (v *Vector) expect(j *expectJSON) error {
	ways := 0
	for _, set := range []bool{j.Emit != nil, j.Drop, j.Retry != nil, j.Fail != nil} {
		if set {
			ways++
		}
	}
	if ways != 1 {
		return errors.New("it is not one of emit, drop, retry and fail")
	}
	times := max(1, j.Times)
	if j.In < 0 || j.In+times > len(v.Batch.Records) {
		return fmt.Errorf("record %d: there are %d", j.In+times-1, len(v.Batch.Records))
	}
	if j.Emits > 0 && (j.Emit == nil || times > 1 || j.Emits > maxVectorRecords) {
		return errors.New("emits: it goes with emit, of one record")
	}
	for n := range times {
		in := int32(j.In + n)
		switch {
		case j.Emit != nil:
			for k := range max(1, j.Emits) {
				v.Emits = append(v.Emits, j.Emit.emit(in, n+k, &v.Batch.Records[in]))
			}
		case j.Drop:
			v.Drops = append(v.Drops, in)
		case j.Retry != nil:
			v.Fails = append(v.Fails, record.Failure{In: in, Err: &record.Error{
				Class: record.Retryable, Code: j.Retry.Code, Message: string(j.Retry.Message.b), RetryAfter: time.Duration(j.Retry.Delay) * time.Millisecond,
			}})
		default:
			v.Fails = append(v.Fails, record.Failure{In: in, Err: &record.Error{Class: record.Rejected, Code: j.Fail.Code, Message: string(j.Fail.Message.b)}})
		}
	}
	return nil
}

func (j *emitJSON) emit(in int32, n int, from *record.Record) ExpectedEmit {
	e := ExpectedEmit{Output: "default", Emit: record.Emit{In: in, Record: *from}}
	r := &e.Record
	if j.Key != nil {
		r.Key = j.Key.numbered(n)
	}
	if j.Value != nil {
		r.Value = j.Value.numbered(n)
	}
	if j.Headers != nil {
		r.Headers = headersOf(*j.Headers)
	}
	if j.Timestamp != nil {
		r.Timestamp = *j.Timestamp
	}
	if j.Output != "" {
		e.Output = j.Output
	}
	if j.Partition != nil {
		r.To = *j.Partition
	}
	return e
}
