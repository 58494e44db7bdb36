package extism

import (
	"log/slog"

	sdk "github.com/extism/go-sdk"
	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/sys"

	"github.com/millrace-io/millrace/plugins/sandbox"
)

// moduleConfig is the configuration of an instance that sees w. The SDK fills
// in the name, so that there may be many.
func moduleConfig(w *sandbox.World) wazero.ModuleConfig {
	const resolution = sys.ClockResolution(sandbox.ReadingNanos)
	return wazero.NewModuleConfig().
		WithWalltime(w.Walltime, resolution).
		WithNanotime(w.Nanotime, resolution).
		WithNanosleep(w.Sleep).
		WithOsyield(func() {}).
		WithRandSource(w).
		WithStdout(w.Stdout()).
		WithStderr(w.Stderr())
}

// logTo is the callback that the SDK gives what guests log.
func logTo(w *sandbox.World) func(sdk.LogLevel, string) {
	return func(level sdk.LogLevel, text string) {
		l := slog.LevelInfo
		switch level {
		case sdk.LogLevelTrace, sdk.LogLevelDebug:
			l = slog.LevelDebug
		case sdk.LogLevelWarn:
			l = slog.LevelWarn
		case sdk.LogLevelError:
			l = slog.LevelError
		}
		w.Log(l, text)
	}
}
