package millrace

import (
	"encoding/base64"
	"strconv"
	"unicode/utf8"
)

// Manifest is what a plugin says about itself. `flowctl build` checks it and
// puts it into the .wasm file.
type Manifest struct {
	// Name is [namespace/]name of lower case letters, digits and - _ . ; empty:
	// the file's name. Version is a semantic version such as 1.2.3 or 1.2.3-dev.
	Name, Version string
	// Outputs are the names of the outputs beside the default one.
	Outputs []string
	// Samples are records for the warm-up and for tests: representative ones
	// make the first batches fast.
	Samples []Sample
	// FuelPerRecord is what a record may cost; 0: the node's budget.
	FuelPerRecord int64
	// MemoryMB is the most memory that it needs, in MiB; 0: not said.
	MemoryMB int
	// NotDeterministic: the same record may be answered differently.
	NotDeterministic bool
	// Schema is the JSON Schema of the configuration; empty: that of the type
	// that StageWith got.
	Schema string
}

// Sample is a record of the manifest.
type Sample struct {
	// Key is null if it is empty.
	Key   string
	Value string
	// Tombstone makes the value null.
	Tombstone bool
	Headers   map[string]string
}

// Describe says what the manifest is. It is called once, from init.
func Describe(m Manifest) {
	if plugin.described {
		panic("millrace: Describe was called twice: a plugin has one manifest")
	}
	plugin.described = true
	plugin.manifest = m
}

// appendManifest appends the manifest's JSON; nothing if there is nothing to say.
func appendManifest(b []byte) []byte {
	m := &plugin.manifest
	if !plugin.described && plugin.schema == nil {
		return b
	}
	b = append(b, `{"abi":1,"mode":"call"`...)
	if m.Name != "" {
		b = appendString(append(b, `,"name":`...), m.Name)
	}
	if m.Version != "" {
		b = appendString(append(b, `,"version":`...), m.Version)
	}
	b = append(b, `,"outputs":["default"`...)
	for _, o := range m.Outputs {
		b = appendString(append(b, ','), o)
	}
	b = append(b, ']')
	for i := range m.Samples {
		if i == 0 {
			b = append(b, `,"sample":[`...)
		} else {
			b = append(b, ',')
		}
		b = m.Samples[i].append(b)
	}
	if len(m.Samples) > 0 {
		b = append(b, ']')
	}
	if m.MemoryMB != 0 {
		b = strconv.AppendInt(append(b, `,"memory_mb":`...), int64(m.MemoryMB), 10)
	}
	if m.FuelPerRecord != 0 {
		b = strconv.AppendInt(append(b, `,"fuel_per_record":`...), m.FuelPerRecord, 10)
	}
	if m.NotDeterministic {
		b = append(b, `,"deterministic":false`...)
	}
	switch {
	case m.Schema != "":
		b = append(append(b, `,"config":`...), m.Schema...)
	case plugin.schema != nil:
		b = plugin.schema(append(b, `,"config":`...))
	}
	return append(b, '}')
}

func (s *Sample) append(b []byte) []byte {
	b = append(b, '{')
	if s.Key != "" {
		b = append(appendText(append(b, `"key":`...), s.Key), ',')
	}
	b = append(b, `"value":`...)
	if s.Tombstone {
		b = append(b, "null"...)
	} else {
		b = appendText(b, s.Value)
	}
	comma := `,"headers":[`
	for _, name := range sortedNames(s.Headers) {
		b = appendText(append(append(b, comma...), `{"key":`...), name)
		b = append(appendText(append(b, `,"value":`...), s.Headers[name]), '}')
		comma = ","
	}
	if len(s.Headers) > 0 {
		b = append(b, ']')
	}
	return append(b, '}')
}

// appendText appends bytes in the form of the envelope.
func appendText(b []byte, s string) []byte {
	if utf8.ValidString(s) {
		return appendString(b, s)
	}
	b = append(b, `{"base64":"`...)
	b = base64.StdEncoding.AppendEncode(b, bytesOf(s))
	return append(b, `"}`...)
}

// sortedNames are the keys of m in order: a manifest has the same bytes each
// time.
func sortedNames(m map[string]string) []string {
	var names []string
	for name := range m {
		at := len(names)
		for at > 0 && names[at-1] > name {
			at--
		}
		names = append(names, "")
		copy(names[at+1:], names[at:])
		names[at] = name
	}
	return names
}
