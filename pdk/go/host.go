package millrace

import "fmt"

// Level is the level of a line of log.
type Level int

// The levels.
const (
	// LevelDebug is for whoever debugs the stage.
	LevelDebug Level = iota
	// LevelInfo is what is worth knowing.
	LevelInfo
	// LevelWarn is degraded and will heal.
	LevelWarn
	// LevelError is what someone must look after.
	LevelError
)

// Log writes a line to the node's log, under the name of flow and stage.
func Log(level Level, line string) { hostLog(level, line) }

// Debug logs for whoever debugs the stage.
func Debug(line string) { hostLog(LevelDebug, line) }

// Info logs what is worth knowing.
func Info(line string) { hostLog(LevelInfo, line) }

// Warn logs what is degraded and will heal.
func Warn(line string) { hostLog(LevelWarn, line) }

// Error logs what someone must look after.
func Error(line string) { hostLog(LevelError, line) }

// Logf is Log with a line made by fmt.Sprintf; see Failf.
func Logf(level Level, format string, args ...any) { hostLog(level, fmt.Sprintf(format, args...)) }

// Count adds to a counter of the stage, visible in `/metrics` of the node as
// `millrace_guest_count_total{flow, stage, name}`. Up to 64 names of at most 128
// bytes count in one call.
func Count(name string, delta float64) { hostCount(name, delta) }
