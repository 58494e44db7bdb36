package main

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/millrace-io/millrace/cmd/internal/devbroker"
)

func TestQuickstartRefusals(t *testing.T) {
	h := newHarness(t)
	dir := t.TempDir()
	b, err := devbroker.Start(devbroker.Config{Dir: filepath.Join(dir, "broker")})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	for _, tc := range []struct {
		name string
		args []string
		code int
		want string
	}{
		{"too few records", []string{"--records", "999"}, 2, "E_USAGE: --records 999: too few to kill the node half way\nnext: give a number from 1000\n"},
		{"an argument", []string{"orders"}, 2, "unexpected argument \"orders\""},
		{"folder in use", []string{"--dir", dir, "--once"}, 3, "is in use by the broker of process"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			code, stdout, stderr := h.call("", append([]string{"quickstart"}, tc.args...)...)
			if code != tc.code || stdout != "" || !strings.Contains(stderr, tc.want) {
				t.Errorf("exit %d, stdout %q, stderr %q; want exit %d and %q", code, stdout, stderr, tc.code, tc.want)
			}
		})
	}
}
