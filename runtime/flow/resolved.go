package flow

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/millrace-io/millrace/runtime/expr/jsondoc"
)

// ErrPluginNotFound is what a Resolver's error wraps when nothing answers to
// the reference: deploy the plugin, or correct the reference.
var ErrPluginNotFound = errors.New("plugin not found")

// ResolvedVersion is the version of the stored form of documents.
const ResolvedVersion = 1

type resolvedJSON struct {
	Version    int         `json:"resolved"`
	Flow       *Flow       `json:"flow,omitempty"`
	Connection *Connection `json:"connection,omitempty"`
}

// EncodeResolved is the stored form of a document that Resolve returned:
// JSON, the same bytes for the same document. It holds no secret.
func EncodeResolved(d *Document) ([]byte, error) {
	r := resolvedJSON{Version: ResolvedVersion, Flow: d.Flow, Connection: d.Connection}
	if (d.Flow == nil) == (d.Connection == nil) {
		return nil, fmt.Errorf("encode resolved document %s: it has errors", d.Name())
	}
	if d.Flow != nil && d.Flow.Env == nil {
		return nil, fmt.Errorf("encode resolved document %s: it is not resolved", d.Name())
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(r); err != nil {
		return nil, fmt.Errorf("encode resolved document %s: %w", d.Name(), err)
	}
	return bytes.TrimRight(b.Bytes(), "\n"), nil
}

// DecodeResolved reads what EncodeResolved writes. Unknown fields are errors:
// they come from a newer node.
func DecodeResolved(b []byte) (*Document, error) {
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.DisallowUnknownFields()
	dec.UseNumber()
	var r resolvedJSON
	if err := dec.Decode(&r); err != nil {
		return nil, fmt.Errorf("decode resolved document: %w", err)
	}
	if r.Version != ResolvedVersion {
		return nil, fmt.Errorf("decode resolved document: version %d is not known; this node reads %d", r.Version, ResolvedVersion)
	}
	switch {
	case r.Flow != nil && r.Connection == nil:
		for k, v := range r.Flow.Vars {
			x, err := varValue(v)
			if err != nil {
				return nil, fmt.Errorf("decode resolved document: var %s: %w", k, err)
			}
			r.Flow.Vars[k] = x
		}
		if r.Flow.Env == nil {
			r.Flow.Env = map[string]string{}
		}
		return &Document{Kind: KindFlow, Flow: r.Flow}, nil
	case r.Connection != nil && r.Flow == nil:
		return &Document{Kind: KindConnection, Connection: r.Connection}, nil
	}
	return nil, errors.New("decode resolved document: it holds neither a flow nor a connection")
}

// varValue gives a var its type back: a number with a point or an exponent is
// a float64.
func varValue(v any) (any, error) {
	switch v := v.(type) {
	case string, bool:
		return v, nil
	case json.Number:
		if strings.ContainsAny(v.String(), ".eE") {
			return v.Float64()
		}
		return v.Int64()
	}
	return nil, fmt.Errorf("a value of type %T", v)
}

// MarshalJSON writes whole floats among the vars with a point, so that they
// come back as floats.
func (f *Flow) MarshalJSON() ([]byte, error) {
	type plain Flow
	p := plain(*f)
	p.Vars = nil
	for k, v := range f.Vars {
		if x, ok := v.(float64); ok {
			b, err := jsondoc.AppendFloat(nil, x)
			if err != nil {
				return nil, err
			}
			if !bytes.ContainsAny(b, ".e") {
				b = append(b, ".0"...)
			}
			v = json.RawMessage(b)
		}
		if p.Vars == nil {
			p.Vars = make(map[string]any, len(f.Vars))
		}
		p.Vars[k] = v
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	err := enc.Encode(&p)
	return b.Bytes(), err
}

// checkWith checks the configuration of a plugin against its schema.
func (l *linter) checkWith(at, with *node, config, schema json.RawMessage) {
	if len(schema) == 0 {
		return
	}
	if with != nil {
		if config == nil {
			return
		}
		at = with
	} else {
		config = json.RawMessage("{}")
	}
	s, err := compileSchema(schema)
	if err != nil {
		l.fail(at, CodePlugin, "ask its author", "the plugin's config schema cannot be read: %s", oneLine(err))
		return
	}
	v, err := jsonschema.UnmarshalJSON(bytes.NewReader(config))
	if err != nil {
		return
	}
	err = s.Validate(v)
	ve, ok := errors.AsType[*jsonschema.ValidationError](err)
	if !ok {
		return
	}
	for _, line := range strings.Split(ve.Error(), "\n") {
		line = strings.TrimSpace(line)
		where, what, ok := strings.Cut(strings.TrimPrefix(line, "- at "), ": ")
		if !strings.HasPrefix(line, "- at ") || !ok {
			continue
		}
		where = strings.ReplaceAll(strings.Trim(where, "'/"), "/", ".")
		if where != "" {
			what = "`" + where + "`: " + what
		}
		l.fail(at, CodePluginConfig, "", "the plugin does not take this configuration: %s", what)
	}
}

func compileSchema(schema json.RawMessage) (*jsonschema.Schema, error) {
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(schema))
	if err != nil {
		return nil, err
	}
	c := jsonschema.NewCompiler()
	c.UseLoader(noLoader{})
	if err := c.AddResource("config.json", doc); err != nil {
		return nil, err
	}
	return c.Compile("config.json")
}

// noLoader keeps a schema from reading files and URLs.
type noLoader struct{}

func (noLoader) Load(url string) (any, error) {
	return nil, fmt.Errorf("schema %s: a config schema refers to nothing outside itself", url)
}
