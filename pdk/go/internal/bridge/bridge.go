// Package bridge is how package millracetest reaches into package millrace. It
// is not for Wasm.
package bridge

import "sync"

// What package millrace fills in.
var (
	// New configures the stage and returns what answers a frame: nil for a
	// broken one.
	New func(config []byte) (func(frame []byte) []byte, error)
	// Manifest is the manifest's JSON, nil without one.
	Manifest func() []byte
	// Samples are those of the manifest.
	Samples func() []Sample
	// Outputs are those beside the default one.
	Outputs func() []string
)

// Sample is a millrace.Sample.
type Sample struct {
	Key       string
	Value     string
	Tombstone bool
	Headers   map[string]string
}

// Line is a line of log.
type Line struct {
	Level int
	Text  string
}

// Mu guards Lines and Counts, and is held while a stage runs in a test.
var Mu sync.Mutex

// What the stage logged and counted since the two were emptied.
var (
	Lines  []Line
	Counts map[string]float64
)
