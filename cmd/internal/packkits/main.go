// Command packkits packs the plugin development kits into the files that
// flowctl takes along. It runs in the repository's root:
//
//	packkits [-check]
package main

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/millrace-io/millrace/pdk"
)

func main() {
	check := flag.Bool("check", false, "write nothing, and fail if a file is not what its kit makes")
	flag.Parse()
	var errs []error
	for _, name := range pdk.Kits() {
		errs = append(errs, pack("pdk", name, *check))
	}
	if err := errors.Join(errs...); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// pack packs the kit in folder/name into folder/packed.
func pack(folder, name string, check bool) error {
	zip, err := pdk.Pack(os.DirFS(filepath.Join(folder, name)))
	if err != nil {
		return fmt.Errorf("pack %s: %w", filepath.Join(folder, name), err)
	}
	path := filepath.Join(folder, "packed", name+".zip")
	old, err := os.ReadFile(path)
	switch {
	case err == nil && bytes.Equal(old, zip):
		return nil
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return err
	case check:
		return fmt.Errorf("%s is not what pdk/%s makes: run make generate", path, name)
	}
	return os.WriteFile(path, zip, 0o644)
}
