// Package manifest reads and writes what a plugin says about itself: the JSON
// in the custom section "stage.manifest" of its Wasm binary, and the JSON
// Schema in it that a flow's `with:` is held against.
//
// It is pure. What the binary can do by its exports and imports is found by
// package sandbox; where the two disagree the sandbox refuses.
package manifest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"path"
	"regexp"
	"strings"

	"github.com/Masterminds/semver/v3"

	"github.com/millrace-io/millrace/runtime/record"
)

// Section is the name of the custom section.
const Section = "stage.manifest"

// The run modes.
const (
	ModeCall   = "call"
	ModeLines  = "lines"
	ModeExtism = "extism"
)

// MaxMemoryMB is the greatest memory_mb: all that a 32-bit guest can address.
const MaxMemoryMB = 4096

// Manifest is what a plugin says about itself. The zero value says nothing;
// every field may be missing.
type Manifest struct {
	// ABI is the major version of the ABI, 0 if not said.
	ABI int
	// Name is [namespace/]name, Version a semantic version. WithDefaults
	// fills them.
	Name, Version string
	// Mode is ModeCall, ModeLines or ModeExtism; empty: as the exports and
	// imports show.
	Mode string
	// Function is the default of the flow's setting `function`, for extism
	// mode; empty: the flow names one.
	Function string
	// Lines is the default of the flow's setting `lines` ("each").
	Lines string
	// Outputs are the names of the outputs, the default one first; empty
	// means that one alone.
	Outputs []string
	// Sample holds records for the warm-up and for tests.
	Sample []record.Record
	// Config is the JSON Schema of the plugin's configuration, nil if any is
	// taken.
	Config json.RawMessage
	// MemoryMB is the memory the plugin needs at most, in MiB; 0: not said.
	MemoryMB int
	// FuelPerRecord is the budget that the plugin proposes; 0: not said.
	FuelPerRecord int64
	// Deterministic is false when the plugin says that it is not.
	Deterministic bool
	// Capabilities is kept as it is.
	Capabilities json.RawMessage
}

type manifestJSON struct {
	ABI           int               `json:"abi"`
	Name          string            `json:"name"`
	Version       string            `json:"version"`
	Mode          string            `json:"mode,omitempty"`
	Function      string            `json:"function,omitempty"`
	Lines         string            `json:"lines,omitempty"`
	Outputs       []string          `json:"outputs,omitempty"`
	Sample        []json.RawMessage `json:"sample,omitempty"`
	Config        json.RawMessage   `json:"config,omitempty"`
	MemoryMB      int               `json:"memory_mb,omitempty"`
	FuelPerRecord int64             `json:"fuel_per_record,omitempty"`
	Deterministic *bool             `json:"deterministic,omitempty"`
	Capabilities  json.RawMessage   `json:"capabilities,omitempty"`
}

// Parse reads the content of a manifest section. Unknown keys are ignored, so
// that a plugin made for a later host still loads; a known key with a wrong
// type or value is an error, and all of them are reported together.
func Parse(data []byte) (*Manifest, error) {
	data = bytes.TrimRight(data, "\x00 \t\r\n")
	var j manifestJSON
	dec := json.NewDecoder(bytes.NewReader(data))
	if err := dec.Decode(&j); err != nil {
		if e, ok := errors.AsType[*json.UnmarshalTypeError](err); ok && e.Field != "" {
			return nil, fmt.Errorf("read manifest: %q is a %s, expected %s", e.Field, e.Value, kindWord(e))
		}
		return nil, fmt.Errorf("read manifest: %w", err)
	}
	if dec.InputOffset() != int64(len(data)) {
		return nil, fmt.Errorf("read manifest: there is more behind the JSON object, from byte %d on", dec.InputOffset())
	}
	m := &Manifest{
		ABI: j.ABI, Name: j.Name, Version: j.Version, Mode: j.Mode, Function: j.Function, Lines: j.Lines, Outputs: j.Outputs,
		Config: j.Config, MemoryMB: j.MemoryMB, FuelPerRecord: j.FuelPerRecord, Deterministic: true, Capabilities: j.Capabilities,
	}
	if j.Deterministic != nil {
		m.Deterministic = *j.Deterministic
	}
	if string(m.Config) == "null" {
		m.Config = nil
	}
	errs := []error{m.Validate()}
	for i, s := range j.Sample {
		r, err := record.ParseEnvelope(s)
		if err != nil {
			errs = append(errs, fmt.Errorf("sample %d: %w", i, err))
			continue
		}
		m.Sample = append(m.Sample, r)
	}
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("read manifest: %w", err)
	}
	return m, nil
}

func kindWord(e *json.UnmarshalTypeError) string {
	switch e.Type.Kind().String() {
	case "int", "int64":
		return "an integer"
	case "string":
		return "a string"
	case "bool":
		return "true or false"
	case "slice":
		return "a list"
	}
	return "an object"
}

// Validate reports every fault of m, joined; nil if there is none. An empty
// name or version is none.
func (m *Manifest) Validate() error {
	var errs []error
	if m.Name != "" {
		errs = append(errs, CheckName(m.Name))
	}
	if m.Version != "" {
		errs = append(errs, CheckVersion(m.Version))
	}
	if m.ABI < 0 {
		errs = append(errs, fmt.Errorf("abi: %d is no version", m.ABI))
	}
	switch m.Mode {
	case "", ModeCall, ModeLines, ModeExtism:
	default:
		errs = append(errs, fmt.Errorf("mode: %q is unknown; the modes are %q, %q and %q", m.Mode, ModeCall, ModeLines, ModeExtism))
	}
	if m.Function != "" && (m.Mode == ModeCall || m.Mode == ModeLines) {
		errs = append(errs, fmt.Errorf("function: it goes with mode %q, not with %q", ModeExtism, m.Mode))
	}
	switch m.Lines {
	case "", "each", "batch":
	default:
		errs = append(errs, fmt.Errorf("lines: %q is unknown; it is %q or %q", m.Lines, "each", "batch"))
	}
	seen := map[string]bool{}
	for i, o := range m.Outputs {
		switch {
		case !nameRE.MatchString(o):
			errs = append(errs, fmt.Errorf("outputs: %q is no name; use lower-case letters, digits, dashes, underscores and dots", o))
		case seen[o]:
			errs = append(errs, fmt.Errorf("outputs: %q is listed twice", o))
		case i == 0 && o != "default":
			errs = append(errs, fmt.Errorf("outputs: the first is %q, it must be \"default\"", o))
		}
		seen[o] = true
	}
	if m.MemoryMB < 0 || m.MemoryMB > MaxMemoryMB {
		errs = append(errs, fmt.Errorf("memory_mb: %d is not from 1 to %d", m.MemoryMB, MaxMemoryMB))
	}
	if m.FuelPerRecord < 0 {
		errs = append(errs, fmt.Errorf("fuel_per_record: %d is negative", m.FuelPerRecord))
	}
	if m.Config != nil {
		if _, err := CompileSchema(m.Config); err != nil {
			errs = append(errs, fmt.Errorf("config: %w", err))
		}
	}
	return errors.Join(errs...)
}

// Marshal writes m as Parse reads it.
func (m *Manifest) Marshal() ([]byte, error) {
	j := manifestJSON{
		ABI: m.ABI, Name: m.Name, Version: m.Version, Mode: m.Mode, Function: m.Function, Lines: m.Lines, Outputs: m.Outputs,
		Config: m.Config, MemoryMB: m.MemoryMB, FuelPerRecord: m.FuelPerRecord, Capabilities: m.Capabilities,
	}
	if !m.Deterministic {
		j.Deterministic = new(bool)
	}
	for i := range m.Sample {
		s, err := record.AppendEnvelope(nil, &m.Sample[i])
		if err != nil {
			return nil, fmt.Errorf("write manifest: sample %d: %w", i, err)
		}
		j.Sample = append(j.Sample, s)
	}
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(j); err != nil {
		return nil, fmt.Errorf("write manifest: %w", err)
	}
	return bytes.TrimRight(buf.Bytes(), "\n"), nil
}

var (
	nameRE = regexp.MustCompile(`^[a-z0-9](?:[a-z0-9._-]{0,62}[a-z0-9])?$`)
	badRE  = regexp.MustCompile(`[^a-z0-9._-]+`)
)

// CheckName tells whether s can name a plugin: lower-case letters, digits and
// - _ ., at most 64 of them, a letter or digit at both ends; with an optional
// namespace of the same form and a slash before it.
func CheckName(s string) error {
	ns, name, ok := strings.Cut(s, "/")
	if !ok {
		ns, name = "a", ns
	}
	if !nameRE.MatchString(ns) || !nameRE.MatchString(name) {
		return fmt.Errorf("name: %q is no plugin name; use lower-case letters, digits and - _ . (at most 64, a letter or digit at both ends), with an optional namespace: ns/name", s)
	}
	return nil
}

// CheckVersion tells whether s is a complete semantic version without a
// leading v.
func CheckVersion(s string) error {
	if _, err := semver.StrictNewVersion(s); err != nil {
		return fmt.Errorf("version: %q is no semantic version (as 1.2.3 or 1.2.3-dev): %w", s, err)
	}
	return nil
}

// WithDefaults is m with a name and a version where it has none: the name of
// the file without folder and ending, and 0.0.0+ with the first 8 digits of
// the digest ("sha256:..." or plain hex). What cannot be in a name becomes -.
func (m Manifest) WithDefaults(file, digest string) Manifest {
	if m.Name == "" {
		name := path.Base(strings.ReplaceAll(file, `\`, "/"))
		name = strings.TrimSuffix(strings.TrimSuffix(strings.ToLower(name), ".wasm"), ".")
		name = badRE.ReplaceAllString(name, "-")
		if len(name) > 64 {
			name = name[:64]
		}
		name = strings.Trim(name, "-_.")
		if name == "" {
			name = "plugin"
		}
		m.Name = name
	}
	if m.Version == "" {
		hex := strings.TrimPrefix(digest, "sha256:")
		m.Version = "0.0.0+" + hex[:min(8, len(hex))]
	}
	return m
}

// OutputNames are the outputs, "default" alone if the manifest lists none.
func (m *Manifest) OutputNames() []string {
	if len(m.Outputs) == 0 {
		return []string{"default"}
	}
	return m.Outputs
}
