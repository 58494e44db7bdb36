package plugtest

import (
	"bytes"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/millrace-io/millrace/cmd/internal/jsonvalue"
	"github.com/millrace-io/millrace/runtime/flow"
	"github.com/millrace-io/millrace/runtime/record"
)

// got is one outcome that came.
type got struct {
	kind   string
	record *record.Record // of pass, emit and delivered
	output string         // of emit; of delivered the delivery
	// stage, and what it said, of the others.
	stage    string
	class    record.Class
	failed   bool // class is set
	code     uint32
	message  string
	after    time.Duration
	attempts uint32
}

// comparison collects the differences of a case.
type comparison struct {
	findings []Finding
}

func (c *comparison) differ(at flow.Pos, path, want, got string) {
	c.findings = append(c.findings, Finding{Line: at.Line, Path: path, Want: want, Got: got})
}

// text compares two texts.
func (c *comparison) text(at flow.Pos, path, want, got string) {
	if want != got {
		c.differ(at, path, want, got)
	}
}

// outcomes compares what came of a record with what was expected, in order.
func (c *comparison) outcomes(at flow.Pos, path string, wants []*want, gots []got, in *record.Record) {
	for i := range max(len(wants), len(gots)) {
		p := path
		if len(wants) > 1 || len(gots) > 1 {
			p = fmt.Sprintf("%s[%d]", path, i)
		}
		switch {
		case i >= len(wants):
			c.differ(at, p, "", gots[i].String())
		case i >= len(gots):
			c.differ(wants[i].at, p, wants[i].kind, "")
		default:
			c.outcome(p, wants[i], &gots[i], in)
		}
	}
}

func (c *comparison) outcome(path string, w *want, g *got, in *record.Record) {
	if w.kind == kindPass && g.kind == kindEmit {
		c.pass(path+".pass", w.at, g, in)
		return
	}
	kind := g.kind
	if w.kind == kindEmit && kind == kindPass { // what is passed is emitted
		kind = kindEmit
	}
	if w.kind != kind {
		c.differ(w.at, path, w.kind, g.String())
		return
	}
	path += "." + w.kind
	if w.record != nil {
		c.record(path, w.record, g, in)
	}
	if w.stage != "" {
		c.text(w.at, path+".stage", w.stage, g.stage)
	}
	if w.class != "" {
		class := ""
		if g.failed {
			class = g.class.String()
		}
		c.text(w.at, path+".class", w.class, class)
	}
	if w.code != nil && *w.code != int64(g.code) {
		c.differ(w.at, path+".code", strconv.FormatInt(*w.code, 10), strconv.FormatUint(uint64(g.code), 10))
	}
	if !strings.Contains(g.message, w.message) {
		c.differ(w.at, path+".message", w.message, g.message)
	}
	if w.after != nil && *w.after != g.after {
		c.differ(w.at, path+".after", w.after.String(), g.after.String())
	}
	if w.attempts != nil && *w.attempts != int64(g.attempts) {
		c.differ(w.at, path+".attempts", strconv.FormatInt(*w.attempts, 10), strconv.FormatUint(uint64(g.attempts), 10))
	}
}

// pass says what is not as it came in.
func (c *comparison) pass(path string, at flow.Pos, g *got, in *record.Record) {
	n := len(c.findings)
	w := &wantRecord{at: at, exactly: true, value: &payload{at: at, bytes: in.Value}}
	_, w.value.json = jsonvalue.Decode(in.Value)
	c.record(path, w, g, in)
	if len(c.findings) == n { // the same JSON, written otherwise
		c.differ(at, path+".value", shown(in.Value), shown(g.record.Value))
	}
}

// record compares a record that came of in; in may be nil.
func (c *comparison) record(path string, w *wantRecord, g *got, in *record.Record) {
	r := g.record
	value, key, headers := w.value, w.key, w.headersAt
	timestamp, partition, output := w.timestamp, w.partition, w.output
	wantHeaders := w.headers
	if w.exactly && in != nil {
		if value == nil && w.has == nil {
			value = &payload{at: w.at, bytes: in.Value}
		}
		if key == nil {
			key = &payload{at: w.at, bytes: in.Key}
		}
		if headers == nil {
			headers, wantHeaders = &w.at, in.Headers
		}
		if timestamp == nil {
			timestamp = &in.Timestamp
		}
		if partition == nil {
			none := int64(-1)
			partition = &none
		}
		if output == "" && g.kind != kindDelivered {
			output = defaultOutput
		}
	}
	if value != nil {
		c.payload(path+".value", value, r.Value)
	}
	if w.has != nil {
		c.has(path+".has", w.has.Pos, w.hasJSON, r.Value)
	}
	if key != nil && !same(key.bytes, r.Key) {
		c.differ(key.at, path+".key", shown(key.bytes), shown(r.Key))
	}
	if headers != nil {
		c.headers(*headers, path+".headers", wantHeaders, r.Headers, w.exactly)
	}
	if timestamp != nil && *timestamp != r.Timestamp {
		c.differ(w.at, path+".timestamp", strconv.FormatInt(*timestamp, 10), strconv.FormatInt(r.Timestamp, 10))
	}
	if partition != nil && *partition != int64(r.To) {
		c.differ(w.at, path+".partition", strconv.FormatInt(*partition, 10), strconv.Itoa(int(r.To)))
	}
	if output != "" {
		field := ".output"
		if g.kind == kindDelivered {
			field = ".to"
		}
		c.text(w.at, path+field, output, g.output)
	}
}

// defaultOutput is the first output of a plugin that names none.
const defaultOutput = "default"

// headers compares headers: those of the names that are expected, in their
// order; whole: all of them. A null value is a header that is not there.
func (c *comparison) headers(at flow.Pos, path string, want, got []record.Header, whole bool) {
	var names []string
	for _, h := range want {
		if !slices.Contains(names, h.Key) {
			names = append(names, h.Key)
		}
	}
	if whole {
		for _, h := range got {
			if !slices.Contains(names, h.Key) {
				names = append(names, h.Key)
			}
		}
	}
	for _, name := range names {
		if a, b := headerValues(want, name), headerValues(got, name); !slices.EqualFunc(a, b, bytes.Equal) {
			c.differ(at, path+"."+name, headerLine(a), headerLine(b))
		}
	}
}

// headerValues are the values of a header; none if it is not there.
func headerValues(hs []record.Header, name string) (out [][]byte) {
	for _, h := range hs {
		if h.Key == name && h.Value != nil {
			out = append(out, h.Value)
		}
	}
	return out
}

// headerLine shows the values of a header; "" if it is not there.
func headerLine(values [][]byte) string {
	if len(values) == 1 {
		return shown(values[0])
	}
	out := make([]string, len(values))
	for i, v := range values {
		out[i] = strconv.Quote(shown(v))
	}
	return strings.Join(out, ", ")
}

// requests compares the requests of a delivery with those expected.
func (c *comparison) requests(at flow.Pos, path string, wants []*wantRequest, gots []request) {
	for i := range max(len(wants), len(gots)) {
		p := fmt.Sprintf("%s[%d]", path, i)
		switch {
		case i >= len(wants):
			c.differ(at, p, "", gots[i].String())
		case i >= len(gots):
			c.differ(wants[i].at, p, "a request", "")
		default:
			c.request(p, wants[i], &gots[i])
		}
	}
}

func (c *comparison) request(path string, w *wantRequest, g *request) {
	if w.method != "" {
		c.text(w.at, path+".method", w.method, g.method)
	}
	if w.path != "" {
		got := g.path
		if strings.Contains(w.path, "?") {
			got = g.withQuery()
		}
		c.text(w.at, path+".path", w.path, got)
	}
	for _, h := range w.headers {
		c.text(w.at, path+".headers."+h.Key, shown(h.Value), g.header(h.Key))
	}
	if w.body != nil {
		c.payload(path+".body", w.body, g.body)
	}
}

// String is an outcome in a line.
func (g *got) String() string {
	switch g.kind {
	case kindEmit, kindDelivered:
		s := g.kind
		if g.output != "" && g.output != defaultOutput {
			s += " to " + g.output
		}
		return s + ": " + shown(g.record.Value)
	case kindPass, kindDrop:
		return g.kind
	}
	s := g.kind
	if g.stage != "" {
		s += " at " + g.stage
	}
	if g.failed {
		s += ": " + g.class.String()
		if g.code != 0 {
			s += fmt.Sprintf(" (%d)", g.code)
		}
	}
	if g.message != "" {
		s += ": " + g.message
	}
	return s
}
