//go:build !race

package guests_test

const race = false
