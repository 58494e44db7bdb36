package main

import (
	"bytes"
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestDevRefusals(t *testing.T) {
	h := newHarness(t)
	h.write("mask/.millrace/project.json", `{"format":1,"lang":"rust","name":"mask"}`)
	for _, tc := range []struct {
		name string
		args []string
		code int
		want string
	}{
		{"no project", nil, 2, "E_NO_PROJECT: "},
		{"no folder", []string{"missing"}, 2, "missing: there is no such folder"},
		{"two folders", []string{"mask", "other"}, 2, `unexpected argument "other"`},
		{"for machines", []string{"mask", "-o", "json"}, 2, "E_USAGE"},
		{"no rate", []string{"mask", "--rate", "0"}, 2, "--rate 0: nothing would be fed"},
		{"a rate below", []string{"mask", "--rate", "-1"}, 2, "--rate -1 is no number of records a second"},
		{"no language", []string{"mask", "--lang", "cobol"}, 2, `--lang "cobol"`},
		{"an address for everybody", []string{"mask", "--listen", "0.0.0.0:7070", "--broker", "127.0.0.1:0"}, 2, "not a loopback address"},
		{"a broker for everybody", []string{"mask", "--broker", "0.0.0.0:0"}, 3, "names no host"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			code, stdout, stderr := h.call("", append([]string{"dev"}, tc.args...)...)
			if code != tc.code || stdout != "" || !strings.Contains(stderr, tc.want) {
				t.Errorf("exit %d, stdout %q, stderr %q; want exit %d and %q", code, stdout, stderr, tc.code, tc.want)
			}
		})
	}
}

// lockedBuffer stops a session once it has said something.
type lockedBuffer struct {
	bytes.Buffer
	until string
	stop  func()
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	n, err := b.Buffer.Write(p) // the console's turns are its own
	if strings.Contains(b.String(), b.until) {
		b.stop()
	}
	return n, err
}

// TestDevInterrupted: without a toolchain the node is there all the same, the
// error is said, and Ctrl-C ends with 0.
func TestDevInterrupted(t *testing.T) {
	h := newHarness(t)
	t.Setenv("PATH", t.TempDir())
	h.write("mask/.millrace/project.json", `{"format":1,"lang":"rust","name":"mask"}`)
	h.write("mask/Cargo.toml", "[package]\nname = \"mask\"\n")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	stderr := &lockedBuffer{until: "nothing runs yet", stop: cancel}
	code := h.start(ctx, strings.NewReader(""), io.Discard, stderr, "dev", "mask", "--ephemeral", "--listen", "127.0.0.1:0", "--broker", "127.0.0.1:0")
	if said := stderr.String(); code != 0 || !strings.HasPrefix(said, "development node, no TLS, no tokens\n") || !strings.Contains(said, "E_TOOLCHAIN") || !strings.HasSuffix(said, "stopping the node\n") {
		t.Errorf("exit %d: %s", code, said)
	}
	if _, err := os.Stat(filepath.Join(h.dir, "mask", ".millrace", "node")); !os.IsNotExist(err) {
		t.Errorf("the node's address is left: %v", err)
	}
}
