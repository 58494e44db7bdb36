package brokers

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// Kafka is a broker of a test. Its methods fail the test.
type Kafka struct {
	*KafkaProcess
	t      testing.TB
	shared bool
}

// StartKafka starts a broker of the test's own, which ends with it.
func StartKafka(t testing.TB, o KafkaOptions) *Kafka {
	t.Helper()
	need(t, "kafka")
	dir := tempDir(t)
	p, err := startKafka(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	k := &Kafka{KafkaProcess: p, t: t}
	t.Cleanup(func() { end(t, p.Process) })
	return k
}

// startKafka takes other ports when somebody was faster.
func startKafka(dir string, o KafkaOptions) (*KafkaProcess, error) {
	return started(func() (*KafkaProcess, error) { return NewKafka(dir, o) })
}

// started tries again with other ports when somebody took one of them.
func started[P interface{ Start() error }](prepare func() (P, error)) (P, error) {
	for try := 1; ; try++ {
		p, err := prepare()
		if err != nil {
			return p, err
		}
		err = p.Start()
		if err == nil || try == 3 || !taken(err) {
			return p, err
		}
	}
}

func taken(err error) bool {
	return strings.Contains(err.Error(), "is taken") || strings.Contains(err.Error(), "Address already in use")
}

// tempDir is a folder that is removed after the broker of it was ended. A
// broker that is killed leaves nothing open, so that t.TempDir would do, but
// its path is too long for what some brokers make of it.
func tempDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "broker-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// end kills what runs, and shows its log if the test failed.
func end(t testing.TB, p *Process) {
	p.Kill()
	if t.Failed() {
		t.Logf("the end of %s", p.Log())
	}
}

// shared are the brokers of this test process.
var shared struct {
	mu       sync.Mutex
	dir      string           // guarded by mu
	kafka    *KafkaProcess    // guarded by mu
	kafkaErr error            // guarded by mu
	rocket   *RocketMQProcess // guarded by mu
	rockErr  error            // guarded by mu
}

// Main runs the tests and ends the shared brokers: for TestMain of packages
// that use them.
func Main(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	defer func() {
		shared.mu.Lock()
		defer shared.mu.Unlock()
		if shared.kafka != nil {
			shared.kafka.Kill()
		}
		if shared.rocket != nil {
			shared.rocket.Kill()
		}
		if shared.dir != "" {
			_ = os.RemoveAll(shared.dir)
		}
	}()
	return m.Run()
}

// sharedDir is a folder for a shared broker. The caller holds shared.mu.
func sharedDir(name string) (string, error) {
	if shared.dir == "" {
		dir, err := os.MkdirTemp("", "brokers-")
		if err != nil {
			return "", err
		}
		shared.dir = dir
	}
	return filepath.Join(shared.dir, name), nil
}

// SharedKafka is one broker per test process. Tests use topics of their own
// and leave it running; TestMain calls Main, which ends it.
func SharedKafka(t testing.TB) *Kafka {
	t.Helper()
	need(t, "kafka")
	shared.mu.Lock()
	defer shared.mu.Unlock()
	if shared.kafka == nil && shared.kafkaErr == nil {
		dir, err := sharedDir("kafka")
		if err == nil {
			shared.kafka, err = startKafka(dir, KafkaOptions{})
		}
		shared.kafkaErr = err
	}
	if shared.kafkaErr != nil {
		t.Fatal(shared.kafkaErr)
	}
	return &Kafka{KafkaProcess: shared.kafka, t: t, shared: true}
}

func (k *Kafka) own() {
	k.t.Helper()
	if k.shared {
		k.t.Fatal("the broker is shared: use StartKafka to trouble one")
	}
}

// Start starts it again on the kept data and the same ports, and returns when
// it answers.
func (k *Kafka) Start() {
	k.t.Helper()
	k.own()
	check(k.t, k.KafkaProcess.Start())
}

// Kill ends it without warning and waits until it is gone.
func (k *Kafka) Kill() {
	k.t.Helper()
	k.own()
	k.KafkaProcess.Kill()
}

// Stop ends it with SIGTERM and waits.
func (k *Kafka) Stop() {
	k.t.Helper()
	k.own()
	check(k.t, k.KafkaProcess.Stop())
}

// Pause holds the whole process; Continue lets it go on.
func (k *Kafka) Pause() {
	k.t.Helper()
	k.own()
	check(k.t, k.Signal(stopSignal))
}

// Continue ends Pause.
func (k *Kafka) Continue() {
	k.t.Helper()
	k.own()
	check(k.t, k.Signal(continueSignal))
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(fmt.Errorf("broker: %w", err))
	}
}
