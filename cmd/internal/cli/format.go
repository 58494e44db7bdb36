// Package cli is how flowctl speaks: output formats, tables, errors with exit
// codes, and the program's name in hints. It knows nothing of single commands.
package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/goccy/go-yaml"
)

// Format is an output format.
type Format string

// The output formats.
const (
	Table  Format = "table"
	Wide   Format = "wide"
	JSON   Format = "json"
	YAML   Format = "yaml"
	NDJSON Format = "ndjson"
	Name   Format = "name"
)

// Formats are all formats.
var Formats = []Format{Table, Wide, JSON, YAML, NDJSON, Name}

// FormatList is the formats as a help text names them.
func FormatList() string {
	names := make([]string, len(Formats))
	for i, f := range Formats {
		names[i] = string(f)
	}
	return strings.Join(names, "|")
}

// ParseFormat reads a format's name; the error is a usage error.
func ParseFormat(s string) (Format, error) {
	if f := Format(s); slices.Contains(Formats, f) {
		return f, nil
	}
	return "", &Error{Exit: ExitInvalid, Code: CodeUsage, Detail: fmt.Sprintf("-o %q is no output format", s), Next: "use one of " + FormatList()}
}

// Human reports whether the format is for people: the others are parsed.
func (f Format) Human() bool { return f == Table || f == Wide }

// Column is a column of a table of T.
type Column[T any] struct {
	Title string
	// Wide columns are shown by the format wide alone.
	Wide bool
	Cell func(T) string
}

// View is how values of a type are shown.
type View[T any] struct {
	Columns []Column[T]
	// Name is what the format name prints.
	Name func(T) string
	// Detail writes one value for people; nil: a table of one row.
	Detail func(w io.Writer, f Format, v T) error
}

// List writes values. JSON and YAML are one array, which is empty rather than
// null if there are none; NDJSON is a line for each.
func (v View[T]) List(w io.Writer, f Format, items []T) error {
	if items == nil {
		items = []T{}
	}
	switch f {
	case JSON, YAML:
		return Value(w, f, items)
	case NDJSON:
		for _, it := range items {
			if err := Value(w, f, it); err != nil {
				return err
			}
		}
		return nil
	case Name:
		for _, it := range items {
			if _, err := fmt.Fprintln(w, v.Name(it)); err != nil {
				return err
			}
		}
		return nil
	}
	var titles []string
	var columns []Column[T]
	for _, c := range v.Columns {
		if !c.Wide || f == Wide {
			columns = append(columns, c)
			titles = append(titles, c.Title)
		}
	}
	rows := make([][]string, 0, len(items))
	for _, it := range items {
		row := make([]string, len(columns))
		for i, c := range columns {
			row[i] = c.Cell(it)
		}
		rows = append(rows, row)
	}
	return Grid(w, titles, rows)
}

// One writes one value.
func (v View[T]) One(w io.Writer, f Format, item T) error {
	switch {
	case f == Name:
		_, err := fmt.Fprintln(w, v.Name(item))
		return err
	case !f.Human():
		return Value(w, f, item)
	case v.Detail != nil:
		return v.Detail(w, f, item)
	}
	return v.List(w, f, []T{item})
}

// Value writes any value as JSON, YAML or NDJSON; every other format gets
// JSON.
func Value(w io.Writer, f Format, v any) error {
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	if f != NDJSON {
		enc.SetIndent("", "  ")
	}
	if err := enc.Encode(v); err != nil {
		return fmt.Errorf("write %s: %w", f, err)
	}
	out := buf.Bytes()
	if f == YAML {
		var err error
		if out, err = yaml.JSONToYAML(out); err != nil {
			return fmt.Errorf("write yaml: %w", err)
		}
	}
	_, err := w.Write(out)
	return err
}

// Grid writes an aligned table. Cells are made safe for a terminal; an empty
// one is shown as -.
func Grid(w io.Writer, titles []string, rows [][]string) error {
	var buf bytes.Buffer
	tw := tabwriter.NewWriter(&buf, 0, 8, 2, ' ', 0)
	if len(titles) > 0 {
		fmt.Fprintln(tw, strings.Join(titles, "\t"))
	}
	for _, row := range rows {
		cells := make([]string, len(row))
		for i, c := range row {
			if cells[i] = Safe(c); cells[i] == "" {
				cells[i] = "-"
			}
		}
		fmt.Fprintln(tw, strings.Join(cells, "\t"))
	}
	if err := tw.Flush(); err != nil {
		return err
	}
	for line := range bytes.Lines(buf.Bytes()) {
		if _, err := w.Write(append(bytes.TrimRight(line, " \n"), '\n')); err != nil {
			return err
		}
	}
	return nil
}

// Pairs writes a list of titles and values, aligned; pairs without a value are
// left out.
func Pairs(w io.Writer, pairs [][2]string) error {
	var rows [][]string
	for _, p := range pairs {
		if p[1] != "" {
			rows = append(rows, []string{p[0] + ":", p[1]})
		}
	}
	return Grid(w, nil, rows)
}
