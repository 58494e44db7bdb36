//go:build !race

package testkit

// Race says that the race detector is on, with which all is several times
// slower.
const Race = false
