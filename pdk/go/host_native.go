//go:build !wasm && !tinygo.wasm

package millrace

import "github.com/millrace-io/millrace/pdk/go/internal/bridge"

// In unit tests lines and counts are kept for package millracetest. It holds
// the lock while a stage runs.

func hostLog(level Level, line string) {
	bridge.Lines = append(bridge.Lines, bridge.Line{Level: int(level), Text: line})
}

func hostCount(name string, delta float64) {
	if bridge.Counts == nil {
		bridge.Counts = map[string]float64{}
	}
	bridge.Counts[name] += delta
}
