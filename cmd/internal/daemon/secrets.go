package daemon

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"unicode"

	"github.com/millrace-io/millrace/runtime/record"
)

// maxSecret is the largest secret that is read.
const maxSecret = 64 << 10

// secrets are files below a folder, named as documents name them.
type secrets string

// get reads a secret; line ends at its end are not part of it. The error is
// one of class config that names the file and never holds a value.
func (s secrets) get(name string) (string, error) {
	if !filepath.IsLocal(filepath.FromSlash(name)) {
		return "", record.Errorf(record.Config, "secret %q: a name is a path below the secrets folder", name)
	}
	file := filepath.Join(string(s), filepath.FromSlash(name))
	root, err := os.OpenRoot(string(s))
	if err != nil {
		return "", s.missing(name, file, err)
	}
	defer root.Close()
	b, err := root.ReadFile(filepath.FromSlash(name))
	if err != nil {
		return "", s.missing(name, file, err)
	}
	if len(b) > maxSecret {
		return "", record.Errorf(record.Config, "secret %q: %s is larger than %d bytes", name, file, maxSecret)
	}
	b = bytes.TrimRight(b, "\r\n")
	if len(b) == 0 {
		return "", record.Errorf(record.Config, "secret %q is empty: write its value to %s", name, file)
	}
	if i := bytes.IndexFunc(b, unicode.IsControl); i >= 0 {
		return "", record.Errorf(record.Config, "secret %q holds a line end or another control character: write its value alone to %s, in one line", name, file)
	}
	return string(b), nil
}

func (s secrets) missing(name, file string, err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return record.Errorf(record.Config, "secret %q is missing: write it to %s, readable by the node alone", name, file)
	}
	return record.Errorf(record.Config, "secret %q: %w", name, err)
}
