package plugtest

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/millrace-io/millrace/runtime/flow"
)

// IsTest reports whether a file's name is that of a test file.
func IsTest(name string) bool {
	ext := filepath.Ext(name)
	return (ext == ".yaml" || ext == ".yml") && strings.HasSuffix(strings.TrimSuffix(name, ext), ".test")
}

// FilesIn are the test files of a folder, without those below it, sorted.
func FilesIn(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var files []string
	for _, e := range entries {
		if !e.IsDir() && IsTest(e.Name()) {
			files = append(files, filepath.Join(dir, e.Name()))
		}
	}
	slices.Sort(files)
	return files, nil
}

// NamesNone reports whether a test file names neither a plugin nor a flow, so
// that it tests Options.Plugin. One that cannot be read does not.
func NamesNone(path string) bool {
	src, err := os.ReadFile(path)
	if err != nil {
		return false
	}
	root := flow.ReadValues(path, src).Root
	return root != nil && root.Get("plugin") == nil && root.Get("flow") == nil
}

// ConfigIn is the configuration of the plugin that a test file has, nil if
// there is none or the file cannot be read.
func ConfigIn(path string) json.RawMessage {
	src, err := os.ReadFile(path)
	if err != nil {
		return nil
	}
	f, problems := parse(path, path, src)
	if len(problems) > 0 {
		return nil
	}
	return f.config
}
