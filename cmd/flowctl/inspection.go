package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"github.com/millrace-io/millrace/cmd/internal/cli"
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
	Imports        []symbol        `json:"imports"`
	Exports        []symbol        `json:"exports"`
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
	if m := i.Manifest; m != nil {
		v.Deterministic = m.Deterministic
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

func (a *app) printInspection(v *inspection) error {
	return cli.View[*inspection]{
		Name:   func(v *inspection) string { return v.Plugin },
		Detail: inspectionDetail,
	}.One(a.stdout, a.format, v)
}

func inspectionDetail(w io.Writer, format cli.Format, v *inspection) error {
	runs := "yes"
	if !v.Runs {
		runs = "no"
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
		memory += " to " + cli.Bytes(v.MemoryMaxBytes)
	}
	restore := "exact: an instance is put back to its image"
	if !v.ExactRestore {
		restore = "a fresh instance for each batch: " + strings.Join(v.Obstacles, "; ")
	}
	config := "not taken"
	switch {
	case v.Config != nil && v.Configurable:
		config = "taken, held against its JSON Schema"
	case v.Configurable:
		config = "taken as it is"
	}
	manifest := "none: name and version are made up from file and digest"
	if v.Manifest {
		manifest = "yes"
	}
	err := cli.Pairs(w, [][2]string{
		{"Plugin", v.Plugin}, {"Runs", runs}, {"Mode", mode}, {"ABI", abi}, {"Digest", v.Digest}, {"Size", cli.Bytes(int64(v.Size))},
		{"Manifest", manifest}, {"Outputs", strings.Join(v.Outputs, ", ")}, {"Config", config}, {"Memory", memory}, {"Restore", restore},
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
