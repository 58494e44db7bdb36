//go:build race

package rewrite_test

// The spec tests run in one goroutine: the race detector finds nothing there
// and makes them five times slower, so that it gets the smaller release only,
// and that once.
const (
	defaultSpec = "v1"
	defaultFuel = false
	raceEnabled = true
)
