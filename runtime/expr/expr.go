// Package expr is the expression language of flow files: the language of
// expr-lang, read and type-checked by its parser and checker, and evaluated
// here, because three rules are ours: a missing field is nil and nil never
// compares, integers stay int64, and every evaluation is bounded in steps and
// memory. It also holds templates (${...} inside strings) and paths.
//
// The package is pure: no clock, environment, random or I/O, so that a record
// meets the same verdict when it is replayed. It does not know YAML or flows.
//
// # Values
//
// A value is nil, bool, int64, float64, string, a list, a map, a time or a
// duration. JSON integers in the range of int64 become int64 exactly; every
// other number is the nearest float64. Arithmetic on integers that leaves the
// range is an error; / and ** give floats.
//
// A field that is missing is nil, and so is everything below it, an index out
// of range, and a field of something that has no fields. `x == nil` and
// `x != nil` test for it. Any other comparison with a nil side is false:
// == != < <= > >= in contains startsWith endsWith matches. All else with nil
// (arithmetic, !, &&, functions) fails; `x ?? other` replaces nil. Values of
// different types are never equal; ordering them fails.
//
// # Roots
//
// value is the record's value as JSON, nil for a null value; using it fails
// when the value is not JSON. raw is the value's bytes as a string ("" if
// null), key the key's bytes as a string or nil, headers a map from name to
// the last value of that name. topic, partition, offset, attempt, trace and id
// are the record's own, time is its timestamp in UTC. vars and env are the
// flow's. request, response and failure exist only where a Scope has them, and
// have the fields that it says; those of failure are always FailureShape.
//
// A failure at run time is a *record.Error of class schema.
package expr

import (
	"fmt"
	"slices"
	"strings"
)

// MaxLength is the longest source of an expression or template, in bytes.
const MaxLength = 8192

// Limits of one evaluation.
const (
	// MaxSteps is how many iterations and calls it may take; work on long
	// strings counts as several.
	MaxSteps = 200_000
	// MaxMemoryBytes is about how much it may build.
	MaxMemoryBytes = 16 << 20
	maxNodes       = 1000
)

// Roots is a set of the names that an expression can begin with.
type Roots uint32

// The roots.
const (
	Value Roots = 1 << iota
	Raw
	Key
	Headers
	Topic
	Partition
	Offset
	Time
	Attempt
	Trace
	ID
	Request
	Response
	Failure
	Vars
	EnvVars
)

const (
	// RecordRoots are known wherever there is a record.
	RecordRoots = Value | Raw | Key | Headers | Topic | Partition | Offset | Time | Attempt | Trace | ID | Vars | EnvVars
	// StaticRoots are known before there is one: an expression of them alone
	// is a constant.
	StaticRoots = Vars | EnvVars
	allRoots    = RecordRoots | Request | Response | Failure
)

var rootNames = []string{"value", "raw", "key", "headers", "topic", "partition", "offset", "time", "attempt", "trace", "id", "request", "response", "failure", "vars", "env"}

// Names lists the roots of r in their documented order.
func (r Roots) Names() []string {
	var out []string
	for i, name := range rootNames {
		if r&(1<<i) != 0 {
			out = append(out, name)
		}
	}
	return out
}

func rootOf(name string) Roots {
	if i := slices.Index(rootNames, name); i >= 0 {
		return 1 << i
	}
	return 0
}

// Scope says what an expression may name.
type Scope struct {
	Roots Roots
	// Vars and their values: string, bool, int64 or float64.
	Vars map[string]any
	// Shapes are the fields that Request and Response have. A field that a shape
	// lacks is an error, and so is the root alone; a root without a shape may
	// have any.
	Shapes map[Roots]Shape
	// Env holds the environment variables. If it is nil their values are not
	// known yet: every name is taken to be a string, and evaluation fails.
	Env map[string]string
}

// Shape is the fields of a root and what they hold.
type Shape map[string]Kind

// Kind is what a field holds.
type Kind uint8

// The kinds.
const (
	AnyKind Kind = iota
	TextKind
	IntKind
	TimeKind
)

// FailureShape is what failure is: why a record cannot go on.
var FailureShape = Shape{
	"class": TextKind, "code": IntKind, "message": TextKind,
	// stage is the id of the stage or delivery, plugin its name and version,
	// nil for one that is built in.
	"stage": TextKind, "plugin": AnyKind,
	"attempts": IntKind, "time": TimeKind,
	// id is the record's.
	"id": TextKind,
}

// shape is what a scope says of a root, nil if it may have any field.
func (s Scope) shape(r Roots) Shape {
	if r == Failure {
		return FailureShape
	}
	return s.Shapes[r]
}

// Error reports an expression or template that cannot be compiled.
type Error struct {
	// Source is the whole text.
	Source string
	// Offset and Length, in characters, are the part of Source at fault.
	Offset, Length int
	// Message says what is wrong, in one line.
	Message string
	// Help says what to do, "" if there is nothing to say.
	Help string
}

func (e *Error) Error() string {
	s := fmt.Sprintf("expression %s: %s", quote(e.Source), e.Message)
	if e.Help != "" {
		s += "; " + e.Help
	}
	return s
}

// quote cuts a source down to what fits into a message.
func quote(src string) string {
	src = strings.Join(strings.Fields(src), " ")
	if r := []rune(src); len(r) > 80 {
		src = string(r[:77]) + "..."
	}
	return "`" + src + "`"
}

// Nearest is the candidate that a mistyped name most likely means, "" if none
// is near.
func Nearest(name string, candidates []string) string {
	best, bestDist := "", 1+(len(name)+1)/3
	lower := strings.ToLower(name)
	for _, c := range candidates {
		if d := distance(lower, strings.ToLower(c)); d < bestDist {
			best, bestDist = c, d
		}
	}
	return best
}

// distance is the number of edits (insert, delete, replace, swap neighbours)
// between a and b, bytewise, or 99 for texts too long to be typed names.
func distance(a, b string) int {
	if len(a) > 64 || len(b) > 64 {
		return 99
	}
	prev2, prev, cur := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range prev {
		prev[j] = j
	}
	for i := 1; i <= len(a); i++ {
		cur[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			cur[j] = min(prev[j]+1, cur[j-1]+1, prev[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				cur[j] = min(cur[j], prev2[j-2]+1)
			}
		}
		prev2, prev, cur = prev, cur, prev2
	}
	return prev[len(b)]
}
