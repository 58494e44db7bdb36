package cli

import (
	"path/filepath"
	"regexp"
	"strings"
)

// Program is how the program was called, for hints: arg0, or the `go run` that
// made it, which leaves nothing to call by name. Name is flowctl or flowd.
func Program(arg0, name string) string {
	if arg0 == "" {
		return name
	}
	if builtByGoRun(arg0) {
		return "go run ./cmd/" + name
	}
	return arg0
}

// Sibling is how another program of ours is called: beside arg0 if exists
// reports a file there, by `go run` if arg0 was, else by its bare name.
func Sibling(arg0, name string, exists func(path string) bool) string {
	if builtByGoRun(arg0) {
		return "go run ./cmd/" + name
	}
	if strings.ContainsAny(arg0, `/\`) {
		path := filepath.Join(filepath.Dir(arg0), name+filepath.Ext(arg0))
		if exists(path) {
			return path
		}
	}
	return name
}

var cachedExecutable = regexp.MustCompile(`^[0-9a-f]{64}-d$`)

func builtByGoRun(arg0 string) bool {
	dir := filepath.ToSlash(filepath.Dir(arg0))
	if cachedExecutable.MatchString(dir[strings.LastIndexByte(dir, '/')+1:]) {
		return true
	}
	for part := range strings.SplitSeq(dir, "/") {
		if strings.HasPrefix(part, "go-build") {
			return true
		}
	}
	return false
}
