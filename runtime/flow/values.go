package flow

// ValueKind is what a Value is.
type ValueKind uint8

const (
	NullValue ValueKind = iota
	TextValue
	IntValue
	FloatValue
	BoolValue
	MapValue
	ListValue
)

func (k ValueKind) String() string {
	return [...]string{"nothing", "a text", "a number", "a number", "true or false", "a map", "a list"}[k]
}

// Value is a YAML value of a file that is no document of a flow, with its
// place. A value without content has the place of its key.
type Value struct {
	Kind ValueKind
	Pos  Pos
	// End is the column behind its first line.
	End int
	// Text of a scalar, as it is meant; of a number as it is written.
	Text   string
	Fields []ValueField
	Items  []*Value
}

// ValueField is a key of a map with its value.
type ValueField struct {
	Key   string
	Pos   Pos
	End   int
	Value *Value
}

// Get is the value of a key, nil if there is none.
func (v *Value) Get(key string) *Value {
	if f := v.Field(key); f != nil {
		return f.Value
	}
	return nil
}

// Field is the field of a key, nil if there is none.
func (v *Value) Field(key string) *ValueField {
	for i := range v.Fields {
		if v.Fields[i].Key == key {
			return &v.Fields[i]
		}
	}
	return nil
}

// Values is a file of YAML values: its one document, and the problems in it.
type Values struct {
	// Root is nil if there is none, or if it cannot be read.
	Root     *Value
	Problems Problems
	source   *source
}

// ReadValues reads the file under the rules that hold for documents: no tags,
// anchors and aliases, no key twice, and the limits of their size.
func ReadValues(file string, src []byte) *Values {
	v := &Values{}
	v.source = &source{file: file, report: func(p Problem) { v.Problems.add(p) }}
	docs := v.source.parse(string(src))
	for i, d := range docs {
		switch {
		case d.root == nil || d.root.kind == nullNode:
		case v.Root != nil:
			v.Report(CodeYAML, Pos{Line: docs[i].line, Column: 1}, 2, "a second document", "keep one document, without ---")
		default:
			v.Root = valueOf(d.root)
		}
	}
	v.Problems.sort()
	return v
}

// Report adds an error at a place of the file; end is the column behind it.
func (v *Values) Report(code Code, at Pos, end int, message, help string) {
	v.Problems.add(*v.source.problem(code, at, end, message, help))
}

func valueOf(n *node) *Value {
	v := &Value{Pos: n.pos, End: n.end, Text: n.text}
	switch n.kind {
	case mapNode:
		v.Kind = MapValue
		for _, f := range n.fields {
			v.Fields = append(v.Fields, ValueField{Key: f.key.text, Pos: f.key.pos, End: f.key.end, Value: valueOf(f.value)})
		}
	case listNode:
		v.Kind = ListValue
		for _, it := range n.items {
			v.Items = append(v.Items, valueOf(it))
		}
	case scalarNode:
		v.Kind = [...]ValueKind{stringScalar: TextValue, intScalar: IntValue, floatScalar: FloatValue, boolScalar: BoolValue}[n.typ]
	}
	return v
}
