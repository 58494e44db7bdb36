//go:build !linux && !darwin && !windows

package sandbox

// reserve takes n bytes at once.
func reserve(n int) ([]byte, error) { return make([]byte, n), nil }

func commit([]byte) bool { return true }

func release([]byte) {}
