package brokers

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// KafkaOptions are those of one broker; the zero value is a broker with all
// listeners.
type KafkaOptions struct {
	Extra string // lines of server.properties; the last one of a key wins
	Dir   string // a folder for the data (log.dirs) instead of one that is removed
	Heap  string // "512m", the default

	// Advertise is the HOST:PORT that the listener of ProxiedAddr tells its
	// clients: that of a proxy before it. "": its own.
	Advertise string
}

// KafkaProcess is a Kafka broker without a test.
type KafkaProcess struct {
	*Process
	dir   string
	ports [kafkaPorts]int
	env   []string
}

// The listeners in the order of the script's ports.
const (
	plaintext = iota
	controller
	saslPlaintext
	ssl
	saslSSL
	expired
	proxied
	kafkaPorts
)

// NewKafka prepares a broker in a folder, which it makes and the caller
// removes. Start starts it; it is killed when this process ends.
func NewKafka(dir string, o KafkaOptions) (*KafkaProcess, error) {
	repo, err := root()
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	k := &KafkaProcess{dir: dir}
	first, err := freePorts(0, 1, 2, 3, 4, 5, 6)
	if err != nil {
		return nil, err
	}
	var others []string
	for i := range k.ports {
		k.ports[i] = first + i
		if i > 0 {
			others = append(others, fmt.Sprint(k.ports[i]))
		}
	}
	heap := o.Heap
	if heap == "" {
		heap = "512m"
	}
	k.env = []string{
		"KAFKA_RUN=" + dir,
		"KAFKA_LIB=" + filepath.Join(repo, ".toolchains", "brokers", "kafka", "lib"),
		"KAFKA_DATA=" + o.Dir,
		fmt.Sprintf("KAFKA_PORT=%d", k.ports[plaintext]),
		"KAFKA_PORTS=" + strings.Join(others, " "),
		"KAFKA_ADVERTISE=" + o.Advertise,
		"KAFKA_EXTRA=" + o.Extra,
		fmt.Sprintf("KAFKA_JVM=-Xms128m -Xmx%s -XX:+UseSerialGC -XX:TieredStopAtLevel=%d", heap, tier(o)),
	}
	script := filepath.Join(repo, "examples", "brokers", "kafka", "kafka.sh")
	k.Process = &Process{name: "kafka", argv: []string{"bash", script, "run"}, env: k.env, log: filepath.Join(dir, "kafka.log"), ready: k.answers}
	return k, nil
}

// tier is how far the compiler of the JVM goes: with the default heap, that
// of tests, a start should be short.
func tier(o KafkaOptions) int {
	if o.Heap == "" {
		return 1
	}
	return 4
}

// answers sends ApiVersions v0, written by hand, and waits for the length of
// the answer and its body.
func (k *KafkaProcess) answers() error {
	conn, err := net.DialTimeout("tcp", k.Addr(), time.Second)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(2 * time.Second)); err != nil {
		return err
	}
	// Length 10, api 18, version 0, correlation 1, client id null.
	if _, err := conn.Write([]byte{0, 0, 0, 10, 0, 18, 0, 0, 0, 0, 0, 1, 0xff, 0xff}); err != nil {
		return err
	}
	return readFrame(conn, nil)
}

// readFrame reads a length of four bytes and as many bytes; body gets them
// unless it is nil.
func readFrame(conn net.Conn, body *[]byte) error {
	var length [4]byte
	if _, err := io.ReadFull(conn, length[:]); err != nil {
		return err
	}
	n := binary.BigEndian.Uint32(length[:])
	if n == 0 || n > 1<<20 {
		return fmt.Errorf("an answer of %d bytes", n)
	}
	b := make([]byte, n)
	if _, err := io.ReadFull(conn, b); err != nil {
		return err
	}
	if body != nil {
		*body = b
	}
	return nil
}

func (k *KafkaProcess) addr(listener int) string {
	return fmt.Sprintf("127.0.0.1:%d", k.ports[listener])
}

// Addr is HOST:PORT of the plain listener.
func (k *KafkaProcess) Addr() string { return k.addr(plaintext) }

// SASLAddr is that of PLAIN and SCRAM without TLS.
func (k *KafkaProcess) SASLAddr() string { return k.addr(saslPlaintext) }

// SSLAddr is that of TLS; a client certificate is checked if one comes.
func (k *KafkaProcess) SSLAddr() string { return k.addr(ssl) }

// SASLSSLAddr is that of PLAIN and SCRAM with TLS.
func (k *KafkaProcess) SASLSSLAddr() string { return k.addr(saslSSL) }

// ExpiredAddr is that of TLS with a certificate that expired in 2021.
func (k *KafkaProcess) ExpiredAddr() string { return k.addr(expired) }

// ProxiedAddr is that of a plain listener that tells its clients
// KafkaOptions.Advertise.
func (k *KafkaProcess) ProxiedAddr() string { return k.addr(proxied) }

// TLSDir holds ca.pem, ca.key, server.crt, server.key, client.crt, client.key
// and expired.crt, and other-ca.pem, which signed none of them.
func (k *KafkaProcess) TLSDir() string { return filepath.Join(k.dir, "tls") }

// Tool runs a class of Kafka's own tools and returns all that it wrote.
func (k *KafkaProcess) Tool(class string, args ...string) (string, error) {
	cmd := exec.Command("bash", append([]string{k.argv[1], "tool", class}, args...)...)
	cmd.Env = append(os.Environ(), k.env...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		return string(out), fmt.Errorf("%s: %w: %s", class, err, out)
	}
	return string(out), nil
}
