package arena

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
)

// ErrNoBroker says that the machine cannot run the real brokers. Its text ends
// with the next step.
var ErrNoBroker = errors.New("no real broker: Java 17 and the jars are needed; run make brokers-fetch")

// prepared says whether the brokers of a kind, a folder of examples/brokers,
// can be started.
func prepared(root, kind string) error {
	if _, err := exec.LookPath("java"); err != nil {
		return ErrNoBroker
	}
	if _, err := os.Stat(filepath.Join(root, ".toolchains/brokers", kind, "lib/.done")); err != nil {
		return ErrNoBroker
	}
	return nil
}
