package record

import "strings"

// Settlement says where what came of a source record has gone, once the record
// is settled: a set of the values below.
type Settlement uint8

const (
	// Delivered: a sink has acknowledged an emission of it.
	Delivered Settlement = 1 << iota
	// Dropped: a stage or a rule dropped one.
	Dropped
	// Filed: one lies in the failure queue.
	Filed
	// Kept: one waits in the state for another attempt.
	Kept
	// Aside: one was given to the topic for those that cannot go on.
	Aside
	// Known: one was not delivered again, since an entry of it was there.
	Known
)

// Has reports whether all of what are in s.
func (s Settlement) Has(what Settlement) bool { return s&what == what }

// String is the names of what is in s, joined with commas.
func (s Settlement) String() string {
	var names []string
	for i, name := range []string{"delivered", "dropped", "filed", "kept", "aside", "known"} {
		if s&(1<<i) != 0 {
			names = append(names, name)
		}
	}
	return strings.Join(names, ",")
}
