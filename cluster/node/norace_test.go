//go:build !race

package node

const crashRounds = 25
