package plugtest

import (
	"encoding/base64"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/millrace-io/millrace/cmd/internal/jsonvalue"
	"github.com/millrace-io/millrace/runtime/flow"
	"github.com/millrace-io/millrace/runtime/record"
)

// payloadField is a record's value; asJSON names it where it is JSON.
func payloadField(asJSON string, value []byte) field {
	switch {
	case value == nil:
		return field{asJSON, scalar("null")}
	case uniqueKeys(value):
		return field{asJSON, jsonNode(value)}
	case !utf8.Valid(value):
		return field{"base64", scalar(quoted(base64.StdEncoding.EncodeToString(value)))}
	}
	return field{"text", text(string(value))}
}

// uniqueKeys reports whether a value is JSON that a map of YAML can hold: one
// with a key twice is not.
func uniqueKeys(value []byte) bool {
	if _, ok := jsonvalue.Decode(value); !ok {
		return false
	}
	var unique func(n node) bool
	unique = func(n node) bool {
		switch n := n.(type) {
		case fields:
			seen := map[string]bool{}
			for _, f := range n {
				if seen[f.key] || !unique(f.node) {
					return false
				}
				seen[f.key] = true
			}
		case nodes:
			return !slices.ContainsFunc(n, func(it node) bool { return !unique(it) })
		}
		return true
	}
	return unique(jsonNode(value))
}

func headerNode(hs []record.Header) node {
	out, seen := fields{}, map[string]bool{}
	repeats := false
	value := func(h record.Header) node {
		if h.Value == nil {
			return scalar("null")
		}
		return text(string(h.Value))
	}
	for _, h := range hs {
		repeats = repeats || seen[h.Key]
		seen[h.Key] = true
		out = append(out, field{h.Key, value(h)})
	}
	if !repeats {
		return out
	}
	items := nodes{}
	for _, h := range hs {
		items = append(items, fields{{"key", text(h.Key)}, {"value", value(h)}})
	}
	return items
}

// outcomeNode is what came of a record; wants are what was expected, nil if
// nothing was. What a record has is written where it differs from the one that
// came in, and where it was expected before.
func outcomeNode(wants []*want, gots []got, in *record.Record) node {
	var out nodes
	for i := range gots {
		var w *want
		if i < len(wants) && wants[i].kind == gots[i].kind {
			w = wants[i]
		}
		out = append(out, gots[i].node(w, in))
	}
	if len(out) == 1 {
		return out[0]
	}
	return joined(gots, out)
}

// joined writes emissions, or deliveries, that follow each other and are all
// that came as one outcome with a list.
func joined(gots []got, out nodes) node {
	kind := ""
	records := nodes{}
	for i, n := range out {
		f, ok := n.(fields)
		if gots[i].record == nil || !ok || kind != "" && gots[i].kind != kind {
			return out
		}
		kind = gots[i].kind
		records = append(records, f[0].node)
	}
	return fields{{kind, records}}
}

func (g *got) node(w *want, in *record.Record) node {
	if w == nil {
		w = &want{}
	}
	switch g.kind {
	case kindPass, kindDrop:
		return scalar(g.kind)
	case kindEmit, kindDelivered:
		out := recordNode(w.record, g, in)
		if w.attempts != nil {
			out = append(out, field{"attempts", scalar(strconv.FormatUint(uint64(g.attempts), 10))})
		}
		return fields{{g.kind, out}}
	}
	var out fields
	if g.stage != "" {
		out = append(out, field{"stage", text(g.stage)})
	}
	if g.failed && g.kind != kindRetry && !(g.kind == kindFail && g.class == record.Rejected && w.class == "") {
		out = append(out, field{"class", text(g.class.String())})
	}
	if g.kind == kindRetry && g.after > 0 {
		out = append(out, field{"after", scalar(g.after.String())})
	}
	if g.code != 0 || w.code != nil {
		out = append(out, field{"code", scalar(strconv.FormatUint(uint64(g.code), 10))})
	}
	if w.attempts != nil {
		out = append(out, field{"attempts", scalar(strconv.FormatUint(uint64(g.attempts), 10))})
	}
	if g.message != "" {
		out = append(out, field{"message", text(g.message)})
	}
	switch {
	case len(out) == 0:
		return scalar(g.kind)
	case len(out) == 1 && out[0].key == "stage" && (g.kind == kindDropped || g.kind == kindQueued):
		return fields{{g.kind, out[0].node}}
	}
	return fields{{g.kind, out}}
}

// recordNode is a record that came; in may be nil.
func recordNode(w *wantRecord, g *got, in *record.Record) fields {
	if w == nil {
		w = &wantRecord{}
	}
	r := g.record
	var out fields
	if g.output != "" && g.output != defaultOutput {
		name := "output"
		if g.kind == kindDelivered {
			name = "to"
		}
		out = append(out, field{name, text(g.output)})
	}
	has := w.has != nil && uniqueKeys(r.Value)
	if has {
		doc, _ := jsonvalue.Decode(r.Value)
		out = append(out, field{"has", pick(w.has, doc)})
	}
	if !has || w.value != nil {
		out = append(out, payloadField("value", r.Value))
	}
	if in != nil && !same(in.Key, r.Key) || w.key != nil {
		var k node = scalar("null")
		if r.Key != nil {
			k = text(string(r.Key))
		}
		out = append(out, field{"key", k})
	}
	if in != nil && !slices.EqualFunc(in.Headers, r.Headers, sameHeader) || w.headersAt != nil {
		out = append(out, field{"headers", headerNode(r.Headers)})
	}
	if w.timestamp != nil {
		out = append(out, field{"timestamp", scalar(strconv.FormatInt(r.Timestamp, 10))})
	}
	if r.To >= 0 || w.partition != nil {
		out = append(out, field{"partition", scalar(strconv.Itoa(int(r.To)))})
	}
	if w.exactly {
		out = append(out, field{"exactly", scalar("true")})
	}
	return out
}

// pick are the fields of a value that were expected before.
func pick(want *flow.Value, got any) node {
	g, ok := got.(map[string]any)
	if want.Kind != flow.MapValue || !ok {
		return jsonNode([]byte(compact(got)))
	}
	out := fields{}
	for _, f := range want.Fields {
		if v, ok := g[f.Key]; ok {
			out = append(out, field{f.Key, pick(f.Value, v)})
		}
	}
	return out
}

func requestNodes(wants []*wantRequest, gots []request) node {
	out := nodes{}
	for i := range gots {
		w := &wantRequest{method: "all", path: "all", body: &payload{}}
		if i < len(wants) {
			w = wants[i]
		}
		g, n := &gots[i], fields{}
		if w.method != "" {
			n = append(n, field{"method", text(g.method)})
		}
		if w.path != "" {
			path := g.path
			if strings.Contains(w.path, "?") {
				path = g.withQuery()
			}
			n = append(n, field{"path", text(path)})
		}
		if len(w.headers) > 0 {
			hs := fields{}
			for _, h := range w.headers {
				hs = append(hs, field{h.Key, text(g.header(h.Key))})
			}
			n = append(n, field{"headers", hs})
		}
		if w.body != nil {
			n = append(n, payloadField("body", g.body))
		}
		out = append(out, n)
	}
	return out
}

func afterNodes(wants []*wantRecord, gots []got) node {
	out := nodes{}
	for i := range gots {
		var w *wantRecord
		if i < len(wants) {
			w = wants[i]
		}
		out = append(out, recordNode(w, &gots[i], nil))
	}
	return out
}

func logNode(logs []string) node {
	out := nodes{}
	for _, l := range logs {
		out = append(out, text(l))
	}
	return out
}

// counterNode are the counters that were expected, as they came.
func counterNode(wants map[string]wantCounter, counts map[string]float64) node {
	out := fields{}
	for _, name := range sortedKeys(wants) {
		out = append(out, field{name, scalar(number(counts[name]))})
	}
	return out
}
