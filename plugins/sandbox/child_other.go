//go:build !linux && !darwin

package sandbox

// limitProcess can do nothing here: watchMemory remains.
func limitProcess(int64) {}
