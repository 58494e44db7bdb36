//go:build !race

package rewrite_test

const (
	defaultSpec = "v1,v2"
	defaultFuel = true
	raceEnabled = false
)
