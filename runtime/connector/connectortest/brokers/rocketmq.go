package brokers

import (
	"crypto/hmac"
	"crypto/sha1"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// RocketMQOptions are those of one name server with one broker.
type RocketMQOptions struct {
	Extra string // lines of broker.conf; the last one of a key wins
	Heap  string // of the broker, "512m", the default

	// ACL lets only the access key "rocketmq" with the secret key
	// "rocketmq-secret" do anything.
	ACL bool
}

// The one user of a broker with ACL.
const (
	aclAccessKey = "rocketmq"
	aclSecretKey = "rocketmq-secret"
)

// RocketMQProcess is a name server and a broker without a test.
type RocketMQProcess struct {
	NS, Node         *Process // the name server and the broker
	nsPort, port     int
	acl              bool
	script           string
	env              []string
	lastRegistration time.Time
}

// NewRocketMQ prepares both in a folder, which it makes and the caller
// removes. Start starts them; they are killed when this process ends.
func NewRocketMQ(dir string, o RocketMQOptions) (*RocketMQProcess, error) {
	repo, err := root()
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	// The broker takes the ports at -2 and +1, too.
	first, err := freePorts(0, 1, 3, 4)
	if err != nil {
		return nil, err
	}
	r := &RocketMQProcess{nsPort: first, port: first + 3, acl: o.ACL, script: filepath.Join(repo, "examples", "brokers", "rocketmq", "rocketmq.sh")}
	heap, tier := o.Heap, 4
	if heap == "" {
		heap, tier = "512m", 1
	}
	acl := ""
	if o.ACL {
		acl = "1"
	}
	r.env = []string{
		"RMQ_RUN=" + dir,
		"RMQ_LIB=" + filepath.Join(repo, ".toolchains", "brokers", "rocketmq", "lib"),
		fmt.Sprintf("RMQ_NS_PORT=%d", r.nsPort),
		fmt.Sprintf("RMQ_PORT=%d", r.port),
		"RMQ_EXTRA=" + o.Extra,
		"RMQ_ACL=" + acl,
		fmt.Sprintf("RMQ_JVM=-Xms128m -Xmx%s -XX:MaxDirectMemorySize=512m -XX:TieredStopAtLevel=%d", heap, tier),
	}
	r.NS = &Process{name: "rocketmq name server", argv: []string{"bash", r.script, "run", "ns"}, env: r.env, log: filepath.Join(dir, "ns.log"), ready: r.nsAnswers}
	r.Node = &Process{name: "rocketmq broker", argv: []string{"bash", r.script, "run", "broker"}, env: r.env, log: filepath.Join(dir, "broker.log"), ready: r.registered}
	return r, nil
}

// NameServer is HOST:PORT of the name server.
func (r *RocketMQProcess) NameServer() string { return fmt.Sprintf("127.0.0.1:%d", r.nsPort) }

// Broker is HOST:PORT of the broker, whose name is broker-a.
func (r *RocketMQProcess) Broker() string { return fmt.Sprintf("127.0.0.1:%d", r.port) }

// Start starts what does not run, and returns when the name server knows the
// broker.
func (r *RocketMQProcess) Start() error {
	for _, p := range []*Process{r.NS, r.Node} {
		if p.Alive() {
			continue
		}
		if err := p.Start(); err != nil {
			r.Kill()
			return err
		}
	}
	return nil
}

// Kill ends both without warning.
func (r *RocketMQProcess) Kill() {
	r.Node.Kill()
	r.NS.Kill()
}

// nsAnswers waits for the name server, and for the broker's route if the
// broker runs.
func (r *RocketMQProcess) nsAnswers() error {
	if r.Node.Alive() {
		return r.registered()
	}
	_, err := r.ask(r.NameServer(), clusterInfo, "")
	return err
}

// Codes of requests.
const (
	updateConfig = 25
	clusterInfo  = 106
)

// registered is nil when the name server knows the broker. A broker whose
// registration is missed comes again after 10 s; it is made to do so at once
// by a change of its permission that changes nothing.
func (r *RocketMQProcess) registered() error {
	info, err := r.ask(r.NameServer(), clusterInfo, "")
	if err != nil {
		return err
	}
	if strings.Contains(string(info), r.Broker()) {
		return nil
	}
	if time.Since(r.lastRegistration) > 300*time.Millisecond {
		r.lastRegistration = time.Now()
		if _, err := r.ask(r.Broker(), updateConfig, "brokerPermission=6"); err != nil {
			return err
		}
	}
	return errors.New("the name server does not know the broker yet")
}

// ask sends one request, written and, with ACL, signed by hand, and returns
// the body of the answer. An answer other than success is an error.
func (r *RocketMQProcess) ask(addr string, code int, body string) ([]byte, error) {
	return ask(addr, code, body, r.acl)
}

func ask(addr string, code int, body string, signed bool) ([]byte, error) {
	conn, err := net.DialTimeout("tcp", addr, time.Second)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(2 * time.Second)); err != nil {
		return nil, err
	}
	fields := map[string]string{}
	if signed {
		mac := hmac.New(sha1.New, []byte(aclSecretKey))
		mac.Write([]byte(aclAccessKey + body))
		fields["AccessKey"], fields["Signature"] = aclAccessKey, base64.StdEncoding.EncodeToString(mac.Sum(nil))
	}
	header, err := json.Marshal(map[string]any{"code": code, "language": "JAVA", "version": 0, "opaque": 1, "flag": 0, "extFields": fields})
	if err != nil {
		return nil, err
	}
	frame := binary.BigEndian.AppendUint32(nil, uint32(4+len(header)+len(body)))
	frame = binary.BigEndian.AppendUint32(frame, uint32(len(header)))
	frame = append(append(frame, header...), body...)
	if _, err := conn.Write(frame); err != nil {
		return nil, err
	}
	var answer []byte
	if err := readFrame(conn, &answer); err != nil {
		return nil, err
	}
	if len(answer) < 4 {
		return nil, fmt.Errorf("an answer of %d bytes", len(answer))
	}
	n := int(binary.BigEndian.Uint32(answer)&0xffffff) + 4
	if n > len(answer) {
		return nil, fmt.Errorf("an answer of %d bytes with a header of %d", len(answer), n-4)
	}
	var said struct {
		Code   int    `json:"code"`
		Remark string `json:"remark"`
	}
	if err := json.Unmarshal(answer[4:n], &said); err != nil {
		return nil, err
	}
	if said.Code != 0 {
		return nil, fmt.Errorf("code %d: %s", said.Code, said.Remark)
	}
	return answer[n:], nil
}

// Tool runs mqadmin and returns all that it wrote.
func (r *RocketMQProcess) Tool(args ...string) (string, error) {
	cmd := exec.Command("bash", append([]string{r.script, "tool"}, args...)...)
	cmd.Env = append(os.Environ(), r.env...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		return string(out), fmt.Errorf("mqadmin %v: %w: %s", args, err, out)
	}
	return string(out), nil
}

// Process is the program that which names: "ns" or "broker".
func (r *RocketMQProcess) Process(which string) (*Process, error) {
	switch which {
	case "ns":
		return r.NS, nil
	case "broker":
		return r.Node, nil
	}
	return nil, fmt.Errorf("%q: it is ns or broker", which)
}

// RocketMQ is a name server and a broker of a test. Its methods fail the
// test; which is "ns" or "broker".
type RocketMQ struct {
	*RocketMQProcess
	t      testing.TB
	shared bool
}

// StartRocketMQ starts both for the test alone; they end with it.
func StartRocketMQ(t testing.TB, o RocketMQOptions) *RocketMQ {
	t.Helper()
	need(t, "rocketmq")
	dir := tempDir(t)
	p, err := startRocketMQ(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		end(t, p.Node)
		end(t, p.NS)
	})
	return &RocketMQ{RocketMQProcess: p, t: t}
}

func startRocketMQ(dir string, o RocketMQOptions) (*RocketMQProcess, error) {
	return started(func() (*RocketMQProcess, error) { return NewRocketMQ(dir, o) })
}

// SharedRocketMQ is one pair per test process. Tests use topics and groups of
// their own and leave it running; TestMain calls Main, which ends it.
func SharedRocketMQ(t testing.TB) *RocketMQ {
	t.Helper()
	need(t, "rocketmq")
	shared.mu.Lock()
	defer shared.mu.Unlock()
	if shared.rocket == nil && shared.rockErr == nil {
		dir, err := sharedDir("rocketmq")
		if err == nil {
			shared.rocket, err = startRocketMQ(dir, RocketMQOptions{})
		}
		shared.rockErr = err
	}
	if shared.rockErr != nil {
		t.Fatal(shared.rockErr)
	}
	return &RocketMQ{RocketMQProcess: shared.rocket, t: t, shared: true}
}

// one is the program that may be troubled.
func (r *RocketMQ) one(which string) *Process {
	r.t.Helper()
	if r.shared {
		r.t.Fatal("RocketMQ is shared: use StartRocketMQ to trouble one")
	}
	p, err := r.Process(which)
	check(r.t, err)
	return p
}

// Start starts it again on the kept data and the same ports, and returns when
// the name server knows the broker (of "ns": if the broker runs).
func (r *RocketMQ) Start(which string) {
	r.t.Helper()
	check(r.t, r.one(which).Start())
}

// Kill ends it without warning and waits until it is gone.
func (r *RocketMQ) Kill(which string) {
	r.t.Helper()
	r.one(which).Kill()
}

// Stop ends it with SIGTERM and waits; a broker takes 14 s.
func (r *RocketMQ) Stop(which string) {
	r.t.Helper()
	check(r.t, r.one(which).Stop())
}

// Pause holds the whole process; Continue lets it go on.
func (r *RocketMQ) Pause(which string) {
	r.t.Helper()
	check(r.t, r.one(which).Signal(stopSignal))
}

// Continue ends Pause.
func (r *RocketMQ) Continue(which string) {
	r.t.Helper()
	check(r.t, r.one(which).Signal(continueSignal))
}
