package brokers

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"sync"
	"testing"
)

const javaVersion = 17

// missing says what the broker of a kind ("kafka", "rocketmq") needs and is
// not there.
func missing(kind string) error {
	if runtime.GOOS != "linux" {
		return errors.New("the brokers of tests run on Linux")
	}
	if err := javaMissing(); err != nil {
		return err
	}
	dir, err := root()
	if err != nil {
		return err
	}
	// What is looked at here is what the go command's cache of test results
	// knows of: a changed script is a changed test.
	for _, file := range []string{"jars.sh", filepath.Join(kind, kind+".sh"), filepath.Join(kind, "pom.xml")} {
		if _, err := os.Stat(filepath.Join(dir, "examples", "brokers", file)); err != nil {
			return err
		}
	}
	if _, err := os.Stat(filepath.Join(dir, ".toolchains", "brokers", kind, "lib", ".done")); err != nil {
		return fmt.Errorf("no jars of %s (make brokers-fetch)", kind)
	}
	return nil
}

var javaMissing = sync.OnceValue(func() error {
	for _, program := range []string{"bash", "openssl", "java"} {
		if _, err := exec.LookPath(program); err != nil {
			return fmt.Errorf("no %s (make brokers-fetch)", program)
		}
	}
	out, err := exec.Command("java", "-version").CombinedOutput()
	if err != nil {
		return fmt.Errorf("java -version: %w (make brokers-fetch)", err)
	}
	found := regexp.MustCompile(`version "(\d+)`).FindSubmatch(out)
	if found == nil {
		return fmt.Errorf("java -version says %q: Java %d or newer is needed (make brokers-fetch)", out, javaVersion)
	}
	if v, err := strconv.Atoi(string(found[1])); err != nil || v < javaVersion {
		return fmt.Errorf("java is version %s: %d or newer is needed (make brokers-fetch)", found[1], javaVersion)
	}
	return nil
})

// need skips the test when something is missing; with CI=true it fails.
func need(t testing.TB, kind string) {
	t.Helper()
	if testing.Short() {
		t.Skip("skipped: starts a real broker")
	}
	refuse(t, missing(kind))
}

func refuse(t testing.TB, err error) {
	t.Helper()
	switch {
	case err == nil:
	case os.Getenv("CI") == "true":
		t.Fatal(err)
	default:
		t.Skipf("skipped: %v", err)
	}
}

// Kcat runs kcat and returns what it wrote to STDOUT. It is a client that
// shares no code with ours.
func Kcat(t testing.TB, args ...string) string {
	t.Helper()
	if _, err := exec.LookPath("kcat"); err != nil {
		refuse(t, errors.New("no kcat (make brokers-fetch)"))
	}
	cmd := exec.CommandContext(t.Context(), "kcat", args...)
	out, err := cmd.Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			t.Fatalf("kcat %v: %v: %s", args, err, exit.Stderr)
		}
		t.Fatalf("kcat %v: %v", args, err)
	}
	return string(out)
}
