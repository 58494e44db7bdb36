package extism

import (
	"fmt"

	"github.com/millrace-io/millrace/plugins/rewrite"
	"github.com/millrace-io/millrace/plugins/sandbox"
)

// The modules that a guest may import from.
const (
	envModule  = "extism:host/env"
	wasiModule = "wasi_snapshot_preview1"

	// httpRequest is the function that reaches hosts.
	httpRequest = "http_request"
)

// envFunctions is all that the SDK gives a guest, with the types.
var envFunctions = map[string]string{
	"alloc":            "(i64) -> i64",
	"config_get":       "(i64) -> i64",
	"error_get":        "() -> i64",
	"error_set":        "(i64)",
	"free":             "(i64)",
	"get_log_level":    "() -> i32",
	"http_headers":     "() -> i64",
	httpRequest:        "(i64, i64) -> i64",
	"http_status_code": "() -> i32",
	"input_length":     "() -> i64",
	"input_load_u64":   "(i64) -> i64",
	"input_load_u8":    "(i64) -> i32",
	"input_offset":     "() -> i64",
	"input_set":        "(i64, i64)",
	"length":           "(i64) -> i64",
	"length_unsafe":    "(i64) -> i64",
	"load_u64":         "(i64) -> i64",
	"load_u8":          "(i64) -> i32",
	"log_debug":        "(i64)",
	"log_error":        "(i64)",
	"log_info":         "(i64)",
	"log_trace":        "(i64)",
	"log_warn":         "(i64)",
	"memory_bytes":     "() -> i64",
	"output_length":    "() -> i64",
	"output_offset":    "() -> i64",
	"output_set":       "(i64, i64)",
	"reset":            "()",
	"store_u64":        "(i64, i64)",
	"store_u8":         "(i64, i32)",
	"var_get":          "(i64) -> i64",
	"var_set":          "(i64, i64)",
}

// checkImports is what of f's imports no stage can have. Names and types of
// WASI functions are left to the compiler, which knows them.
func checkImports(f *rewrite.Facts) []*sandbox.RefusedError {
	var out []*sandbox.RefusedError
	refuse := func(advice, format string, args ...any) {
		out = append(out, &sandbox.RefusedError{Kind: sandbox.RefusedImport, Reason: fmt.Sprintf(format, args...), Advice: advice})
	}
	for _, im := range f.Imports {
		what := fmt.Sprintf("%q %q", im.Module, im.Name)
		signature, known := envFunctions[im.Name]
		switch {
		case im.Kind != rewrite.KindFunc:
			refuse("define it in the module instead", "it imports the %s %s", im.Kind, what)
		case im.Module == wasiModule:
		case im.Module != envModule:
			refuse("an Extism plugin may import only "+envModule+" and WASI preview 1: functions of another host, or of another module, are not there",
				"it imports the function %s, which this host does not have", what)
		case !known:
			refuse("build it with an older PDK, or upgrade this host", "it imports the function %s, which the Extism SDK of this host does not have", what)
		case im.Signature != signature:
			refuse(fmt.Sprintf("declare it as %s", signature), "its import %s has the type %s", what, im.Signature)
		}
	}
	return out
}
