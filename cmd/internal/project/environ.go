package project

import (
	"os"
	"path/filepath"
	"runtime"
	"strings"
)

// environ is an environment, NAME=VALUE; of several of a name the last counts.
type environ []string

func environOf(list []string) environ {
	if list == nil {
		list = os.Environ()
	}
	return list
}

func (e environ) get(name string) string {
	for i := len(e) - 1; i >= 0; i-- {
		n, v, _ := strings.Cut(e[i], "=")
		if n == name || runtime.GOOS == "windows" && strings.EqualFold(n, name) {
			return v
		}
	}
	return ""
}

// with is e and further variables, which win over those that it has.
func (e environ) with(pairs ...string) environ {
	return append(append(environ(nil), e...), pairs...)
}

// unless is e with a variable that it does not set itself.
func (e environ) unless(name, value string) environ {
	if e.get(name) != "" {
		return e
	}
	return e.with(name + "=" + value)
}

// look is the program of that name on the PATH of e, or at that path; empty if
// there is none.
func (e environ) look(program string) string {
	endings := []string{""}
	if runtime.GOOS == "windows" {
		endings = []string{".exe", ".cmd", ".bat", ""}
	}
	dirs := filepath.SplitList(e.get("PATH"))
	if strings.ContainsAny(program, `/\`) {
		dirs = []string{""}
	}
	for _, dir := range dirs {
		for _, ending := range endings {
			path := filepath.Join(dir, program+ending)
			if runs(path) {
				if abs, err := filepath.Abs(path); err == nil {
					return abs
				}
			}
		}
	}
	return ""
}

// runs reports whether path is a program.
func runs(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular() && (runtime.GOOS == "windows" || info.Mode()&0o111 != 0)
}

// exists reports whether a file or folder is there.
func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// isFolder reports whether path is a folder.
func isFolder(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}

// empty reports whether a folder has nothing in it, or is not there.
func empty(dir string) (bool, error) {
	entries, err := os.ReadDir(dir)
	if os.IsNotExist(err) {
		return true, nil
	}
	return len(entries) == 0, err
}
