package flow

import (
	"encoding/json"
	"slices"
	"strconv"
	"strings"
)

// Stage is one step before a delivery. Filter, or one of Plugin, Map, Cleanup,
// Branch and Decode, is set.
type Stage struct {
	// ID is unique in the flow, branches and deliveries included.
	ID string `json:"id"`
	// Otherwise is resolved: the stage's own or the flow's. Aside is set where
	// it is OtherwiseTopic.
	Otherwise Otherwise `json:"otherwise"`
	Aside     *Topic    `json:"aside,omitempty"`

	// Filter is an expression of type bool; records with true go on.
	Filter  string       `json:"filter,omitempty"`
	Plugin  *PluginStage `json:"plugin,omitempty"`
	Map     *MapStage    `json:"map,omitempty"`
	Cleanup *Cleanup     `json:"cleanup,omitempty"`
	Branch  *Branch      `json:"branch,omitempty"`
	// Decode is set in Flow.Decoding alone.
	Decode *Decode `json:"-"`

	// Pos is where the stage begins in its file.
	Pos Pos `json:"-"`
}

// Describe is the stage in a word or two for plans and listings:
// `filter value.a > 1`, `map acme/order-map@^1.2`, `map (set, drop)`,
// `map ./vowels.wasm count_vowels (impure)`, `cleanup (drop_headers)`,
// `branch (2 cases, else drop)`, `decode avro (registry)`.
func (s *Stage) Describe() string {
	switch {
	case s.Decode != nil:
		return "decode " + s.Decode.Format + " (registry)"
	case s.Cleanup != nil:
		return "cleanup (" + strings.Join(s.Cleanup.steps(), ", ") + ")"
	case s.Branch != nil:
		return s.Branch.describe()
	case s.Plugin != nil:
		text := "map " + s.Plugin.Ref.String()
		if s.Plugin.Function != "" {
			text += " " + s.Plugin.Function
		}
		var notes []string
		if s.Plugin.Stateful() {
			notes = append(notes, "stateful")
		}
		if s.Plugin.Impure() {
			notes = append(notes, "impure")
		}
		if len(notes) > 0 {
			text += " (" + strings.Join(notes, ", ") + ")"
		}
		return text
	case s.Map != nil:
		return "map (" + strings.Join(s.Map.steps(), ", ") + ")"
	}
	return "filter " + s.Filter
}

// PluginStage runs a plugin.
type PluginStage struct {
	Ref PluginRef `json:"ref"`
	// With is the plugin's configuration, a JSON object; nil if none is given.
	With json.RawMessage `json:"with,omitempty"`
	// Function is the export that the plugin is called by, which makes it run
	// in extism mode; "": the plugin's own default, or another mode.
	Function string `json:"function,omitempty"`
	// Hosts are patterns of those that it may reach by HTTP; with any the
	// stage is impure.
	Hosts []string `json:"hosts,omitempty"`
	// Lines is "" for the plugin's own default, "each" or "batch".
	Lines string `json:"lines,omitempty"`
	// Envelope: lines are envelopes, not bare values.
	Envelope bool `json:"envelope,omitempty"`
	// Isolation is "batch", "record" or "failure".
	Isolation string `json:"isolation"`
	// MemoryBytes is the guest's limit; 0: the node's default.
	MemoryBytes int64 `json:"memory_bytes,omitempty"`
	// Fuel is what a record may cost, in units of the sandbox; 0: the
	// plugin's manifest, else the node's ceiling.
	Fuel int64 `json:"fuel,omitempty"`
}

// Stateful reports that the plugin's answers depend on earlier batches, Impure
// that they depend on other hosts: such a stage can be neither replayed nor
// compared with another version.
func (p *PluginStage) Stateful() bool { return p.Isolation == "failure" }

// Impure: see Stateful.
func (p *PluginStage) Impure() bool { return len(p.Hosts) > 0 }

// PluginRef names a plugin.
type PluginRef struct {
	// Path is the local file that the document names, "" if it names a
	// plugin of the registry. Relative paths are relative to the file of the
	// document.
	Path string `json:"path,omitempty"`
	// Namespace ("default" if the document says none), Name and Range. With a
	// Path they are empty in a parsed document; Resolve fills them in from
	// the resolver's answer, with the range "*".
	Namespace string `json:"namespace,omitempty"`
	Name      string `json:"name,omitempty"`
	Range     string `json:"range,omitempty"`
}

// String is the reference as it stands in a flow file.
func (r PluginRef) String() string {
	if r.Path != "" {
		return r.Path
	}
	s := r.Name + "@" + r.Range
	if r.Namespace != "" && r.Namespace != DefaultNamespace {
		s = r.Namespace + "/" + s
	}
	return s
}

// DefaultNamespace is the namespace of plugins that are named without one.
const DefaultNamespace = "default"

// MapStage is the built-in map: JSON in, JSON out; its parts are applied in
// the order of the fields. Paths are read with expr.ParsePath.
type MapStage struct {
	Set    []Assignment `json:"set,omitempty"`
	Rename []Renaming   `json:"rename,omitempty"`
	Drop   []string     `json:"drop,omitempty"`
	Keep   []string     `json:"keep,omitempty"`
}

func (m *MapStage) steps() []string {
	var s []string
	if len(m.Set) > 0 {
		s = append(s, "set")
	}
	if len(m.Rename) > 0 {
		s = append(s, "rename")
	}
	if len(m.Drop) > 0 {
		s = append(s, "drop")
	}
	if len(m.Keep) > 0 {
		s = append(s, "keep")
	}
	return s
}

// Assignment sets the value at a path to that of an expression.
type Assignment struct {
	Path string `json:"path"`
	Expr string `json:"expr"`
}

// Renaming moves the value at path From to path To.
type Renaming struct {
	From string `json:"from"`
	To   string `json:"to"`
}

// Cleanup takes fields of the value and headers away. What is not there is no
// failure; a value is read as JSON only if Drop has paths.
type Cleanup struct {
	// Drop are paths, read with expr.ParsePath.
	Drop []string `json:"drop,omitempty"`
	// DropHeaders are patterns of names, in which * stands for any part. Case
	// counts.
	DropHeaders []string `json:"drop_headers,omitempty"`
}

func (c *Cleanup) steps() []string {
	var s []string
	if len(c.Drop) > 0 {
		s = append(s, "drop")
	}
	if len(c.DropHeaders) > 0 {
		s = append(s, "drop_headers")
	}
	return s
}

// Branch sends a record into the first case whose condition holds, or, with
// Every, a copy into each of them; into Else if none holds.
type Branch struct {
	Every bool         `json:"every,omitempty"`
	Cases []BranchCase `json:"cases"`
	// Else has no condition.
	Else BranchCase `json:"else"`
}

// BranchCase is one way through a branch. A record that neither ends in
// Delivery nor is dropped goes on behind the branch.
type BranchCase struct {
	// When is an expression of type bool.
	When   string  `json:"when,omitempty"`
	Stages []Stage `json:"stages,omitempty"`
	// Delivery ends the record's way.
	Delivery *Delivery `json:"delivery,omitempty"`
	// Drop takes it away; there are neither stages nor a delivery then. Reason
	// is what such drops are counted by, "" for the branch's id.
	Drop   bool   `json:"drop,omitempty"`
	Reason string `json:"reason,omitempty"`

	// Pos is where the case begins in its file.
	Pos Pos `json:"-"`
}

// ends reports that no record goes on behind the case.
func (c *BranchCase) ends() bool {
	if c.Drop || c.Delivery != nil {
		return true
	}
	n := len(c.Stages)
	return n > 0 && c.Stages[n-1].Branch.ends()
}

// ends reports that no record goes on behind the branch; a nil branch lets all
// go on.
func (b *Branch) ends() bool {
	return b != nil && b.Else.ends() && !slices.ContainsFunc(b.Cases, func(c BranchCase) bool { return !c.ends() })
}

func (b *Branch) describe() string {
	s := "branch"
	if b.Every {
		s += " every"
	}
	s += " (" + strconv.Itoa(len(b.Cases)) + plural(len(b.Cases), " case", " cases") + ", else "
	switch {
	case b.Else.Drop:
		return s + "drop)"
	case len(b.Else.Stages) == 0 && b.Else.Delivery == nil:
		return s + "pass)"
	}
	return s + "stages)"
}
