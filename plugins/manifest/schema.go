package manifest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"golang.org/x/text/language"
	"golang.org/x/text/message"
)

// Schema is a compiled JSON Schema of a plugin's configuration. It is safe for
// concurrent use.
type Schema struct {
	s *jsonschema.Schema
}

const schemaURL = "plugin:config"

// nothing refuses to load what a schema refers to outside of itself.
type nothing struct{}

func (nothing) Load(url string) (any, error) {
	return nil, fmt.Errorf("a plugin's schema may refer only to itself, not to %q", url)
}

// CompileSchema reads a JSON Schema (draft 2020-12 unless $schema says
// otherwise). References may not leave the document: nothing is loaded.
func CompileSchema(schema json.RawMessage) (*Schema, error) {
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(schema))
	if err != nil {
		return nil, fmt.Errorf("read JSON Schema: %w", err)
	}
	c := jsonschema.NewCompiler()
	c.UseLoader(nothing{})
	if err := c.AddResource(schemaURL, doc); err != nil {
		return nil, fmt.Errorf("read JSON Schema: %w", err)
	}
	s, err := c.Compile(schemaURL)
	if err != nil {
		return nil, fmt.Errorf("compile JSON Schema: %w", err)
	}
	return &Schema{s}, nil
}

// Fault is one place where a configuration differs from the schema.
type Fault struct {
	// Path names the place: keys and indexes from the root, empty for the
	// root itself.
	Path []string
	// Message is what is wrong there, without the path.
	Message string
}

func (f Fault) String() string {
	if len(f.Path) == 0 {
		return f.Message
	}
	return strings.Join(f.Path, ".") + ": " + f.Message
}

// ConfigError says how a configuration differs from the plugin's schema.
type ConfigError struct {
	Faults []Fault
}

func (e *ConfigError) Error() string {
	s := make([]string, len(e.Faults))
	for i, f := range e.Faults {
		s[i] = f.String()
	}
	return "configuration of the plugin: " + strings.Join(s, "; ")
}

// Validate holds a JSON document against the schema; empty counts as {}. The
// error is a *ConfigError, or tells that config is not JSON.
func (s *Schema) Validate(config json.RawMessage) error {
	if len(bytes.TrimSpace(config)) == 0 {
		config = json.RawMessage("{}")
	}
	v, err := jsonschema.UnmarshalJSON(bytes.NewReader(config))
	if err != nil {
		return fmt.Errorf("configuration of the plugin: %w", err)
	}
	err = s.s.Validate(v)
	if err == nil {
		return nil
	}
	ve, ok := errors.AsType[*jsonschema.ValidationError](err)
	if !ok {
		return fmt.Errorf("configuration of the plugin: %w", err)
	}
	e := &ConfigError{}
	e.collect(ve, message.NewPrinter(language.English))
	return e
}

// collect keeps the leaves, which name the cause; the rest repeats them.
func (e *ConfigError) collect(v *jsonschema.ValidationError, p *message.Printer) {
	if len(v.Causes) == 0 {
		e.Faults = append(e.Faults, Fault{v.InstanceLocation, v.ErrorKind.LocalizedString(p)})
		return
	}
	for _, c := range v.Causes {
		e.collect(c, p)
	}
}
