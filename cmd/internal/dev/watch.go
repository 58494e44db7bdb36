package dev

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/fsnotify/fsnotify"

	"github.com/millrace-io/millrace/cmd/internal/cli"
)

// quiet is how long nothing must happen before a change counts as saved:
// editors write a file in several steps.
const quiet = 30 * time.Millisecond

// save is a change of a project's sources.
type save struct {
	at    time.Time // of the first event
	files []string  // what changed, from the project's folder
}

// watcher tells when the sources of a project change.
type watcher struct {
	dir     string
	sources func() ([]string, error)
	fs      *fsnotify.Watcher
	known   map[string]stamp
	saves   chan save // 1: the newest that nobody has taken yet
}

// stamp tells versions of a file apart.
type stamp struct {
	size int64
	at   time.Time
}

// newWatcher watches the folders of the sources. It knows them as they are
// now: what changes from here on is told.
func newWatcher(dir string, sources func() ([]string, error)) (*watcher, error) {
	fw, err := fsnotify.NewWatcher()
	if err != nil {
		return nil, fmt.Errorf("watch %s: %w", dir, err)
	}
	w := &watcher{dir: dir, sources: sources, fs: fw, saves: make(chan save, 1)}
	if w.known, err = w.look(); err == nil {
		err = w.addAll(w.known)
	}
	if err != nil {
		_ = fw.Close()
		return nil, fmt.Errorf("watch %s: %w", dir, err)
	}
	return w, nil
}

// byproducts are files that toolchains write beside the sources.
var byproducts = []string{"Cargo.lock", "go.sum", "package-lock.json"}

// ignored reports whether a change of a source needs no build: the records of
// testdata are read by the feed, prose by people.
func (w *watcher) ignored(path string) bool {
	rel, err := filepath.Rel(w.dir, path)
	if err != nil {
		return false
	}
	name := filepath.Base(rel)
	return slices.Contains(byproducts, name) || filepath.Ext(name) == ".md" || strings.HasPrefix(filepath.ToSlash(rel), "testdata/") || backup(name)
}

// backup reports whether a file is an editor's own.
func backup(name string) bool {
	return strings.HasSuffix(name, "~") || strings.HasPrefix(name, ".#") || strings.HasPrefix(name, "#") || name == "4913" ||
		slices.Contains([]string{".swp", ".swo", ".swx", ".tmp"}, filepath.Ext(name))
}

// look is the present state of the sources.
func (w *watcher) look() (map[string]stamp, error) {
	files, err := w.sources()
	if err != nil {
		return nil, err
	}
	now := make(map[string]stamp, len(files))
	for _, path := range files {
		if w.ignored(path) {
			continue
		}
		if info, err := os.Stat(path); err == nil {
			now[path] = stamp{info.Size(), info.ModTime()}
		}
	}
	return now, nil
}

// addAll watches the project's folder and those of its sources.
func (w *watcher) addAll(files map[string]stamp) error {
	dirs := map[string]bool{w.dir: true}
	for path := range files {
		for dir := filepath.Dir(path); len(dir) > len(w.dir) && !dirs[dir]; dir = filepath.Dir(dir) {
			dirs[dir] = true
		}
	}
	for dir := range dirs {
		if err := w.fs.Add(dir); err != nil {
			return err
		}
	}
	return nil
}

// made are folders that toolchains and this program fill; what is in a new one
// of another name may become a source.
var made = []string{"build", "target", "node_modules", ".git", stateDir}

// ambiguous are those of them that may be the author's below the project's
// folder.
var ambiguous = []string{"build", "target"}

// addNew watches a folder that has just come, with those in it.
func (w *watcher) addNew(path string) {
	_ = filepath.WalkDir(path, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil || !d.IsDir():
			return nil // gone again, or a file
		case slices.Contains(made, d.Name()) && (filepath.Dir(path) == w.dir || !slices.Contains(ambiguous, d.Name())):
			return filepath.SkipDir
		}
		_ = w.fs.Add(path) // it may be gone again
		return nil
	})
}

// run tells of saves until ctx ends.
func (w *watcher) run(ctx context.Context, say func(string, ...any)) {
	defer w.fs.Close()
	var first time.Time
	settle := time.NewTimer(time.Hour)
	settle.Stop()
	defer settle.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case e, ok := <-w.fs.Events:
			if !ok {
				return
			}
			if e.Has(fsnotify.Create) {
				w.addNew(e.Name)
			}
			// A stream of events does not put a save off for ever.
			if first.IsZero() {
				first = time.Now()
				settle.Reset(quiet)
			} else if time.Since(first) < 10*quiet {
				settle.Reset(quiet)
			}
		case err, ok := <-w.fs.Errors:
			if !ok {
				return
			}
			// Events were lost: look at everything.
			say("watch: %s", cli.Safe(err.Error()))
			settle.Reset(quiet)
		case <-settle.C:
			if first.IsZero() {
				first = time.Now()
			}
			if files := w.changed(say); len(files) > 0 {
				w.put(save{at: first, files: files})
			}
			first = time.Time{}
		}
	}
}

// changed are the sources that are others than when it was called last.
func (w *watcher) changed(say func(string, ...any)) []string {
	now, err := w.look()
	if err != nil {
		say("watch: %s", cli.Safe(err.Error()))
		return nil
	}
	if err := w.addAll(now); err != nil {
		say("watch: %s", cli.Safe(err.Error()))
	}
	var files []string
	for path, s := range now {
		if was, ok := w.known[path]; !ok || was != s {
			files = append(files, w.short(path))
		}
	}
	for path := range w.known {
		if _, ok := now[path]; !ok {
			files = append(files, w.short(path))
		}
	}
	w.known = now
	slices.Sort(files)
	return files
}

func (w *watcher) short(path string) string {
	if rel, err := filepath.Rel(w.dir, path); err == nil {
		return filepath.ToSlash(rel)
	}
	return path
}

// put replaces a save that nobody has taken yet, and has its files too.
func (w *watcher) put(s save) {
	select {
	case old := <-w.saves:
		for _, f := range old.files {
			if !slices.Contains(s.files, f) {
				s.files = append(s.files, f)
			}
		}
	default:
	}
	w.saves <- s
}
