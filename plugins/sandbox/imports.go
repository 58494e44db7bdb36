package sandbox

import "github.com/millrace-io/millrace/plugins/manifest"

// hostModules lists all that a guest may import, with the types: WASI preview
// 1 as wazero gives it, the module of our own, and that of Extism as its SDK
// gives it.
var hostModules = map[string]map[string]string{
	hostModule: {
		"log":      "(i32, i32, i32)",
		"count":    "(i32, i32, f64)",
		importSign: "(i32, i32, i32, i32, i32) -> i32",
	},
	wasiModule: {
		"args_get":                "(i32, i32) -> i32",
		"args_sizes_get":          "(i32, i32) -> i32",
		"clock_res_get":           "(i32, i32) -> i32",
		"clock_time_get":          "(i32, i64, i32) -> i32",
		"environ_get":             "(i32, i32) -> i32",
		"environ_sizes_get":       "(i32, i32) -> i32",
		"fd_advise":               "(i32, i64, i64, i32) -> i32",
		"fd_allocate":             "(i32, i64, i64) -> i32",
		"fd_close":                "(i32) -> i32",
		"fd_datasync":             "(i32) -> i32",
		"fd_fdstat_get":           "(i32, i32) -> i32",
		"fd_fdstat_set_flags":     "(i32, i32) -> i32",
		"fd_fdstat_set_rights":    "(i32, i64, i64) -> i32",
		"fd_filestat_get":         "(i32, i32) -> i32",
		"fd_filestat_set_size":    "(i32, i64) -> i32",
		"fd_filestat_set_times":   "(i32, i64, i64, i32) -> i32",
		"fd_pread":                "(i32, i32, i32, i64, i32) -> i32",
		"fd_prestat_dir_name":     "(i32, i32, i32) -> i32",
		"fd_prestat_get":          "(i32, i32) -> i32",
		"fd_pwrite":               "(i32, i32, i32, i64, i32) -> i32",
		"fd_read":                 "(i32, i32, i32, i32) -> i32",
		"fd_readdir":              "(i32, i32, i32, i64, i32) -> i32",
		"fd_renumber":             "(i32, i32) -> i32",
		"fd_seek":                 "(i32, i64, i32, i32) -> i32",
		"fd_sync":                 "(i32) -> i32",
		"fd_tell":                 "(i32, i32) -> i32",
		"fd_write":                "(i32, i32, i32, i32) -> i32",
		"path_create_directory":   "(i32, i32, i32) -> i32",
		"path_filestat_get":       "(i32, i32, i32, i32, i32) -> i32",
		"path_filestat_set_times": "(i32, i32, i32, i32, i64, i64, i32) -> i32",
		"path_link":               "(i32, i32, i32, i32, i32, i32, i32) -> i32",
		"path_open":               "(i32, i32, i32, i32, i32, i64, i64, i32, i32) -> i32",
		"path_readlink":           "(i32, i32, i32, i32, i32, i32) -> i32",
		"path_remove_directory":   "(i32, i32, i32) -> i32",
		"path_rename":             "(i32, i32, i32, i32, i32, i32) -> i32",
		"path_symlink":            "(i32, i32, i32, i32, i32) -> i32",
		"path_unlink_file":        "(i32, i32, i32) -> i32",
		"poll_oneoff":             "(i32, i32, i32, i32) -> i32",
		"proc_exit":               "(i32)",
		"proc_raise":              "(i32) -> i32",
		"random_get":              "(i32, i32) -> i32",
		"sched_yield":             "() -> i32",
		"sock_accept":             "(i32, i32, i32) -> i32",
		"sock_recv":               "(i32, i32, i32, i32, i32, i32) -> i32",
		"sock_send":               "(i32, i32, i32, i32, i32) -> i32",
		"sock_shutdown":           "(i32, i32) -> i32",
	},
	ExtismModule: {
		"alloc":            "(i64) -> i64",
		"config_get":       "(i64) -> i64",
		"error_get":        "() -> i64",
		"error_set":        "(i64)",
		"free":             "(i64)",
		"get_log_level":    "() -> i32",
		"http_headers":     "() -> i64",
		extismHTTP:         "(i64, i64) -> i64",
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
	},
}

// importable are the modules that a guest may import from in a mode.
func importable(mode string) []string {
	if mode == manifest.ModeExtism {
		return []string{ExtismModule, wasiModule}
	}
	return []string{hostModule, wasiModule}
}

// importSign is the function of hostModule that signs; only guests of call
// mode have it.
const importSign = "sign"

// ExtismModule is the module that Extism plugins import; a plugin that imports
// it runs in extism mode.
const ExtismModule = "extism:host/env"

// extismHTTP is its function that reaches hosts.
const extismHTTP = "http_request"
