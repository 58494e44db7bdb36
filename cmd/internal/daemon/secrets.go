package daemon

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"unicode"

	"github.com/millrace-io/millrace/runtime/delivery/sign"
	"github.com/millrace-io/millrace/runtime/record"
)

// maxSecret is the largest secret that is read.
const maxSecret = 64 << 10

// secrets are files below a folder, named as documents name them.
type secrets string

// get reads a secret that is one line; line ends at its end are not part of
// it. The error is one of class config that names the file and never holds a
// value.
func (s secrets) get(name string) (string, error) {
	b, err := s.read(name)
	if err != nil {
		return "", err
	}
	if i := bytes.IndexFunc(b, unicode.IsControl); i >= 0 {
		return "", record.Errorf(record.Config, "secret %q holds a line end or another control character: write its value alone to %s, in one line", name, s.file(name))
	}
	return string(b), nil
}

// key reads a secret that may be the PEM of a key, which is of several lines.
// Its errors are those of get.
func (s secrets) key(name string) ([]byte, error) {
	b, err := s.read(name)
	if err == nil && !bytes.Contains(b, []byte("-----BEGIN ")) {
		_, err = s.get(name)
	}
	return b, err
}

// secret is get as a value that does not show itself.
func (s secrets) secret(name string) (sign.Secret, error) {
	v, err := s.get(name)
	return sign.NewSecret(name, []byte(v)), err
}

// keySecret is key as a value that does not show itself.
func (s secrets) keySecret(name string) (sign.Secret, error) {
	v, err := s.key(name)
	return sign.NewSecret(name, v), err
}

func (s secrets) file(name string) string {
	return filepath.Join(string(s), filepath.FromSlash(name))
}

// read reads a secret without the line ends at its end.
func (s secrets) read(name string) ([]byte, error) {
	if !filepath.IsLocal(filepath.FromSlash(name)) {
		return nil, record.Errorf(record.Config, "secret %q: a name is a path below the secrets folder", name)
	}
	root, err := os.OpenRoot(string(s))
	if err != nil {
		return nil, s.missing(name, err)
	}
	defer root.Close()
	b, err := root.ReadFile(filepath.FromSlash(name))
	if err != nil {
		return nil, s.missing(name, err)
	}
	if len(b) > maxSecret {
		return nil, record.Errorf(record.Config, "secret %q: %s is larger than %d bytes", name, s.file(name), maxSecret)
	}
	b = bytes.TrimRight(b, "\r\n")
	if len(b) == 0 {
		return nil, record.Errorf(record.Config, "secret %q is empty: write its value to %s", name, s.file(name))
	}
	return b, nil
}

func (s secrets) missing(name string, err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return record.Errorf(record.Config, "secret %q is missing: write it to %s, readable by the node alone", name, s.file(name))
	}
	return record.Errorf(record.Config, "secret %q: %w", name, err)
}
