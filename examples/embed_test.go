package examples_test

import (
	"io/fs"
	"os"
	"testing"

	"github.com/millrace-io/millrace/examples"
)

func TestFilesAreThoseOnDisk(t *testing.T) {
	n := 0
	err := fs.WalkDir(examples.Files, ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		n++
		got, err := examples.Files.ReadFile(path)
		if err != nil {
			return err
		}
		want, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if len(got) == 0 || string(got) != string(want) {
			t.Errorf("%s: %d bytes embedded, %d on disk", path, len(got), len(want))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if n != 11 {
		t.Errorf("%d files embedded, want 11", n)
	}
}
