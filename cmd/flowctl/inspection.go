package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/millrace-io/millrace/cmd/internal/cli"
	"github.com/millrace-io/millrace/plugins/extism"
	"github.com/millrace-io/millrace/plugins/manifest"
	"github.com/millrace-io/millrace/plugins/sandbox"
)

// inspection is what `plugin inspect` shows: the sandbox's report in a form
// that outlives it.
type inspection struct {
	Plugin         string          `json:"plugin"` // name@version
	Runs           bool            `json:"runs"`
	Refusals       []refusal       `json:"refusals,omitempty"`
	Mode           string          `json:"mode,omitempty"`
	Why            string          `json:"why,omitempty"`
	ABI            int             `json:"abi,omitempty"`
	Digest         string          `json:"digest"`
	Size           int             `json:"size"`
	Manifest       bool            `json:"manifest"`
	Outputs        []string        `json:"outputs,omitempty"`
	Config         json.RawMessage `json:"config,omitempty"` // JSON Schema
	Configurable   bool            `json:"configurable"`
	Deterministic  bool            `json:"deterministic"`
	MemoryMinBytes int64           `json:"memory_min_bytes"`
	MemoryMaxBytes int64           `json:"memory_max_bytes,omitempty"`
	ExactRestore   bool            `json:"exact_restore"`
	Obstacles      []string        `json:"restore_obstacles,omitempty"`
	Functions      int             `json:"functions"`
	CodeBytes      int             `json:"code_bytes"`
	// Callable are what `function:` of a stage may name, in extism mode.
	Callable []string `json:"callable,omitempty"`
	Function string   `json:"function,omitempty"` // the default of the manifest
	UsesHTTP bool     `json:"uses_http"`
	Signs    bool     `json:"signs,omitempty"`
	// What an instance and a record may take, and who says so: the manifest,
	// or the default of nodes.
	MemoryLimitBytes int64    `json:"memory_limit_bytes"`
	MemoryLimitFrom  string   `json:"memory_limit_from"`
	FuelPerRecord    int64    `json:"fuel_per_record"`
	FuelFrom         string   `json:"fuel_from"`
	Imports          []symbol `json:"imports"`
	Exports          []symbol `json:"exports"`
}

type refusal struct {
	Kind   string `json:"kind"`
	Reason string `json:"reason"`
	Advice string `json:"advice,omitempty"`
}

type symbol struct {
	Name string `json:"name"` // of imports module.name
	Kind string `json:"kind"`
	Type string `json:"type,omitempty"`
}

func newInspection(name string, i *sandbox.Info) *inspection {
	v := &inspection{
		Plugin: name, Runs: len(i.Refusals) == 0, Mode: i.Mode, Why: i.Why, ABI: i.ABI, Digest: i.Digest, Size: i.Size,
		Manifest: i.Manifest != nil, Configurable: i.Configurable, Deterministic: true,
		MemoryMinBytes: i.MemoryMinBytes, MemoryMaxBytes: i.MemoryMaxBytes, ExactRestore: i.ExactRestore, Obstacles: i.RestoreObstacles,
		Functions: i.Functions, CodeBytes: i.CodeBytes, Imports: []symbol{}, Exports: []symbol{}, Outputs: i.Outputs(),
	}
	v.Callable, v.UsesHTTP, v.Signs = i.Callable, i.UsesHTTP, i.Signs
	v.limits(i)
	if m := i.Manifest; m != nil {
		v.Deterministic, v.Function = m.Deterministic, m.Function
		if string(m.Config) != "null" { // as it comes from far away
			v.Config = m.Config
		}
	}
	for _, r := range i.Refusals {
		v.Refusals = append(v.Refusals, refusal{string(r.Kind), r.Reason, r.Advice})
	}
	for _, im := range i.Imports {
		v.Imports = append(v.Imports, symbol{im.Module + "." + im.Name, fmt.Sprint(im.Kind), im.Signature})
	}
	for _, e := range i.Exports {
		v.Exports = append(v.Exports, symbol{e.Name, fmt.Sprint(e.Kind), e.Signature})
	}
	return v
}

// Where a limit comes from.
const (
	fromManifest = "manifest"
	fromNode     = "default of nodes"
	fromNodeLess = "default of nodes, the manifest asks for more"
)

func (v *inspection) limits(i *sandbox.Info) {
	v.MemoryLimitBytes, v.MemoryLimitFrom = sandbox.DefaultMaxMemoryBytes, fromNode
	v.FuelPerRecord, v.FuelFrom = sandbox.DefaultMaxFuel, fromNode
	if i.Mode == manifest.ModeExtism {
		v.FuelPerRecord = extism.DefaultMaxFuelPerRecord
	}
	if m := i.Manifest; m != nil {
		v.MemoryLimitBytes, v.MemoryLimitFrom = limited(int64(m.MemoryMB)<<20, v.MemoryLimitBytes)
		v.FuelPerRecord, v.FuelFrom = limited(m.FuelPerRecord, v.FuelPerRecord)
	}
}

// limited is what a manifest asks for, 0 for nothing, where nodes give most.
func limited(asked, most int64) (limit int64, from string) {
	switch {
	case asked == 0:
		return most, fromNode
	case asked > most:
		return most, fromNodeLess
	}
	return asked, fromManifest
}

// schemaSummary names the fields of a configuration, those that are needed
// first.
func schemaSummary(schema json.RawMessage) string {
	var s struct {
		Properties map[string]struct {
			Type json.RawMessage `json:"type"`
		} `json:"properties"`
		Required   []string        `json:"required"`
		Additional json.RawMessage `json:"additionalProperties"`
	}
	if err := json.Unmarshal(schema, &s); err != nil || len(s.Properties) == 0 {
		return ""
	}
	names := slices.Sorted(maps.Keys(s.Properties))
	slices.SortStableFunc(names, func(a, b string) int {
		return cmp.Compare(boolInt(!slices.Contains(s.Required, a)), boolInt(!slices.Contains(s.Required, b)))
	})
	var parts []string
	for _, n := range names {
		part := n
		if t := strings.Trim(string(s.Properties[n].Type), `"`); t != "" {
			part += " " + t
		}
		if slices.Contains(s.Required, n) {
			part += " (required)"
		}
		parts = append(parts, part)
	}
	if string(s.Additional) != "false" {
		parts = append(parts, "others")
	}
	return strings.Join(parts, ", ")
}

func boolInt(b bool) int {
	if b {
		return 1
	}
	return 0
}

func (a *app) printInspection(v *inspection) error {
	return cli.View[*inspection]{
		Name:   func(v *inspection) string { return v.Plugin },
		Detail: inspectionDetail,
	}.One(a.stdout, a.format, v)
}

func inspectionDetail(w io.Writer, format cli.Format, v *inspection) error {
	runs := "yes"
	switch {
	case !v.Runs:
		runs = "no"
	case v.MemoryMinBytes > v.MemoryLimitBytes:
		runs = "not with its limit of memory; nodes may allow more (limits: {plugin_memory: ...})"
		if v.MemoryLimitFrom == fromManifest {
			runs = "not with the limit of memory in its manifest"
		}
	}
	mode := v.Mode
	if v.Why != "" {
		mode += ": " + v.Why
	}
	abi := ""
	if v.ABI > 0 {
		abi = fmt.Sprintf("stage/%d", v.ABI)
	}
	memory := "from " + cli.Bytes(v.MemoryMinBytes)
	if v.MemoryMaxBytes > 0 {
		memory += " to " + cli.Bytes(v.MemoryMaxBytes) + " of its own"
	}
	memory += fmt.Sprintf("; limit %s (%s)", cli.Bytes(v.MemoryLimitBytes), v.MemoryLimitFrom)
	fuel := fmt.Sprintf("%d units a record (%s)", v.FuelPerRecord, v.FuelFrom)
	restore := "exact: an instance is put back to its image"
	if !v.ExactRestore {
		restore = "a fresh instance for each batch: " + strings.Join(v.Obstacles, "; ")
	}
	functions := ""
	if v.Mode == manifest.ModeExtism {
		functions = strings.Join(v.Callable, ", ") + "; the flow names one"
		if v.Function != "" {
			functions = strings.Join(v.Callable, ", ") + "; " + v.Function + " unless the flow names another"
		}
	}
	state := "none: stateful only with isolation: failure in the flow"
	if v.Mode == manifest.ModeLines {
		state = "none: each run starts as if anew"
	}
	effects := "none"
	switch {
	case v.UsesHTTP:
		effects = "HTTP, to the hosts that the flow lists, which makes its stage impure; to none without"
	case !v.Deterministic:
		effects = "none; its manifest says that it is not deterministic"
	}
	if v.Mode == "" {
		state, effects = "", ""
	}
	signs := ""
	if v.Signs {
		signs = "needs keys (it imports stage.sign); the flow names them"
	}
	config := "not taken"
	switch {
	case v.Config != nil && v.Configurable:
		config = "taken, held against its JSON Schema"
		if fields := schemaSummary(v.Config); fields != "" {
			config += ": " + fields
		}
	case v.Configurable:
		config = "taken as it is"
	}
	manifest := "none: name and version are made up from file and digest"
	if v.Manifest {
		manifest = "yes"
	}
	err := cli.Pairs(w, [][2]string{
		{"Plugin", v.Plugin}, {"Runs", runs}, {"Mode", mode}, {"ABI", abi}, {"Digest", v.Digest}, {"Size", cli.Bytes(int64(v.Size))},
		{"Manifest", manifest}, {"Outputs", strings.Join(v.Outputs, ", ")}, {"Config", config}, {"Functions", functions}, {"Memory", memory}, {"Fuel", fuel}, {"Restore", restore},
		{"State", state}, {"Effects", effects}, {"Signs", signs},
		{"Code", fmt.Sprintf("%s, %s", cli.Plural(v.Functions, "function"), cli.Bytes(int64(v.CodeBytes)))},
	})
	if err != nil {
		return err
	}
	if len(v.Refusals) > 0 {
		var rows [][]string
		for _, r := range v.Refusals {
			rows = append(rows, []string{r.Kind, r.Reason, r.Advice})
		}
		fmt.Fprintln(w)
		if err := cli.Grid(w, []string{"REFUSED", "REASON", "ADVICE"}, rows); err != nil {
			return err
		}
	}
	if format != cli.Wide {
		return nil
	}
	for _, part := range []struct {
		title   string
		symbols []symbol
	}{{"IMPORT", v.Imports}, {"EXPORT", v.Exports}} {
		var rows [][]string
		for _, s := range part.symbols {
			rows = append(rows, []string{s.Name, s.Kind, s.Type})
		}
		fmt.Fprintln(w)
		if err := cli.Grid(w, []string{part.title, "KIND", "TYPE"}, rows); err != nil {
			return err
		}
	}
	return nil
}
