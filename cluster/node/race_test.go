//go:build race

package node

// Pebble traces every reference under the race detector.
const crashRounds = 4
