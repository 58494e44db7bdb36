package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/spf13/cobra"

	"github.com/millrace-io/millrace/cmd/internal/cli"
	"github.com/millrace-io/millrace/runtime/connector/kafka"
	"github.com/millrace-io/millrace/runtime/expr"
	"github.com/millrace-io/millrace/runtime/flow"
	"github.com/millrace-io/millrace/runtime/record"
)

// sendOptions are the flags of `send`.
type sendOptions struct {
	key, connection string
	headers         []string
	timeout         time.Duration
}

// sent is what was sent, for machines.
type sent struct {
	Sent   int64    `json:"sent"`
	Topic  string   `json:"topic"`
	Broker []string `json:"brokers"`
}

// Codes of errors of `send`.
const (
	codeNoBroker = "E_NO_BROKER"
	codeSend     = "E_SEND_FAILED"
)

func (a *app) sendCommand() *cobra.Command {
	o := sendOptions{timeout: 10 * time.Second}
	cmd := &cobra.Command{
		Use: "send TOPIC [FILE]", Short: "Send the lines of a file or of STDIN to a topic, one record a line",
		Long: "Send the lines of FILE, or of STDIN, to a topic: each line that is not empty is the value of\n" +
			"a record. TOPIC is a topic of the broker of the nearest `flowctl dev`, of a connection of the\n" +
			"node (--connection), or whole: kafka://HOST:PORT/TOPIC, kafka://CONNECTION/TOPIC.\n\n" +
			"--key is a field of the value (customer.id), or an expression: value.customer.id, or\n" +
			"'lower(value.country)'. A record that has no such field is sent without a key.",
		Example: a.example("send in < testdata/in.ndjson", "send in orders.ndjson --key customer --header source=test",
			"send kafka://127.0.0.1:9092/orders orders.ndjson", "send orders orders.ndjson --connection main"),
		Args: a.args(1, 2, "TOPIC", "FILE"),
		RunE: func(cmd *cobra.Command, args []string) error { return a.send(cmd.Context(), args, o) },
	}
	cmd.Flags().StringVar(&o.key, "key", "", "field of the value, or expression, that is the record's key")
	cmd.Flags().StringArrayVar(&o.headers, "header", nil, "NAME=VALUE for each record; may be repeated")
	cmd.Flags().StringVar(&o.connection, "connection", "", "connection of the node whose broker has the topic")
	cmd.Flags().DurationVar(&o.timeout, "timeout", o.timeout, "how long to wait for the broker to begin with, and for its answers at the end")
	return cmd
}

func (a *app) send(ctx context.Context, args []string, o sendOptions) error {
	headers, err := parseHeaders(o.headers)
	if err != nil {
		return err
	}
	key, err := parseKey(o.key)
	if err != nil {
		return err
	}
	brokers, topic, from, err := a.sendTarget(ctx, args[0], o.connection)
	if err != nil {
		return err
	}
	in := a.stdin
	if len(args) > 1 && args[1] != "-" {
		f, err := os.Open(a.path(args[1]))
		if err != nil {
			return a.fileError(args[1], a.path(args[1]), err)
		}
		defer f.Close()
		in = f
	} else if a.terminal() {
		fmt.Fprintln(a.stderr, "reading records from the terminal, one a line; Ctrl-D ends")
	}
	cfg := kafka.Config{Brokers: brokers}
	reach, cancel := context.WithTimeout(ctx, o.timeout)
	defer cancel()
	if err := kafka.Check(reach, cfg); err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return &cli.Error{Exit: cli.ExitUnreachable, Code: codeNoBroker, Detail: fmt.Sprintf("no broker at %s (from %s): %s", strings.Join(brokers, ", "), from, cause(err)),
			Next: fmt.Sprintf("start one: `%s dev` in a plugin's folder, or `%s broker`; or name another as kafka://HOST:PORT/%s", a.program, a.program, topic), Err: err}
	}
	sink, err := kafka.NewSink(kafka.SinkConfig{Config: cfg, Topic: topic})
	if err != nil {
		return err
	}
	s := &sender{sink: sink, topic: topic, key: key, headers: headers, now: a.now, window: make(chan struct{}, sendWindow)}
	err = s.all(ctx, in)
	err = errors.Join(err, s.finish(ctx, o.timeout), sink.Close())
	n := s.sent.Load()
	if err != nil {
		e := *cli.AsError(err)
		if ctx.Err() != nil {
			// Not with err below it, which is told without a count.
			e = cli.Error{Exit: cli.ExitInterrupted, Code: cli.CodeInterrupted, Detail: "interrupted"}
		}
		e.Detail += fmt.Sprintf("; %s went to topic %s", cli.Plural(n, "record"), topic)
		return &e
	}
	return cli.View[sent]{
		Name: func(v sent) string { return v.Topic },
		Detail: func(w io.Writer, _ cli.Format, v sent) error {
			_, err := fmt.Fprintf(w, "sent %s to topic %s at %s\n", cli.Plural(v.Sent, "record"), cli.Safe(v.Topic), strings.Join(v.Broker, ", "))
			return err
		},
	}.One(a.stdout, a.format, sent{n, topic, brokers})
}

// sendTarget finds the brokers and the topic, and says where it found them.
func (a *app) sendTarget(ctx context.Context, target, connection string) (brokers []string, topic, from string, err error) {
	topic = target
	if rest, ok := strings.CutPrefix(target, "kafka://"); ok {
		if err := checkTopic("TOPIC", target); err != nil {
			return nil, "", "", err
		}
		name, of, _ := strings.Cut(rest, "/")
		if c, ok := flow.Anonymous("kafka://" + name); ok && strings.Contains(name, ":") {
			if connection != "" {
				return nil, "", "", cli.Usage("leave one of them out", "--connection %s and %s both name a broker", connection, target)
			}
			return c.Kafka.Brokers, of, "TOPIC", nil
		}
		if connection != "" && connection != name {
			return nil, "", "", cli.Usage("leave one of them out", "--connection %s and %s both name a connection", connection, target)
		}
		connection, topic = name, of
	}
	switch {
	case strings.ContainsAny(topic, "/: ") || topic == "":
		return nil, "", "", cli.Usage("give TOPIC, or kafka://HOST:PORT/TOPIC", "%q is not the name of a topic", topic)
	case connection != "":
		brokers, err := a.connectionBrokers(ctx, connection)
		return brokers, topic, "connection " + connection, err
	}
	if addr, path := brokerFile(a.dir); addr != "" {
		return []string{addr}, topic, path, nil
	}
	return nil, "", "", &cli.Error{Exit: cli.ExitInvalid, Code: codeNoBroker, Detail: fmt.Sprintf("which broker has topic %s? There is no `flowctl dev` in this folder or above it", topic),
		Next: fmt.Sprintf("go to the folder of one, or name the broker: `%s send kafka://HOST:PORT/%s`, or --connection NAME", a.program, topic)}
}

// brokerFile is the content of the nearest .millrace/broker upward, and its
// path.
func brokerFile(dir string) (addr, path string) {
	for dir != "" {
		path := filepath.Join(dir, ".millrace", "broker")
		if b, err := os.ReadFile(path); err == nil {
			if addr, _, _ := strings.Cut(strings.TrimSpace(string(b)), "\n"); addr != "" {
				return addr, path
			}
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			break
		}
		dir = parent
	}
	return "", ""
}

// connectionBrokers are those of a connection that the node knows.
func (a *app) connectionBrokers(ctx context.Context, name string) ([]string, error) {
	node, err := a.node()
	if err != nil {
		return nil, err
	}
	c, err := node.Connection(ctx, name)
	if err != nil {
		return nil, err
	}
	if c.Kind != "kafka" {
		return nil, cli.Usage(fmt.Sprintf("name a connection of kind kafka; `%s connection list` shows them", a.program), "connection %s is of kind %s: it has no topics", name, c.Kind)
	}
	docs, _ := flow.Parse(name, []byte(c.Document), flow.Options{})
	if len(docs) == 1 && docs[0].Connection != nil && (docs[0].Connection.Kafka.TLS != nil || docs[0].Connection.Kafka.SASL != nil) {
		return nil, cli.Usage(fmt.Sprintf("write a flow with `source: { stream: {} }` and `push: kafka://%s/TOPIC`, and give it to `%s run` with --secrets", name, a.program),
			"connection %s is a secure one, and its secrets are the node's: send has none", name)
	}
	// A connection has several brokers, Target joins them.
	return strings.FieldsFunc(c.Target, func(r rune) bool { return r == ',' || r == ' ' }), nil
}

func parseHeaders(all []string) (hs []record.Header, err error) {
	for _, h := range all {
		name, value, ok := strings.Cut(h, "=")
		if !ok || name == "" {
			return nil, cli.Usage("write --header NAME=VALUE", "--header %q has no name and value", h)
		}
		hs = append(hs, record.Header{Key: name, Value: []byte(value)})
	}
	return hs, nil
}

var plainPath = regexp.MustCompile(`^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*$`)

// parseKey compiles the key: a plain path is a field of the value, unless it
// begins with a root of the language; everything else is an expression.
func parseKey(s string) (*expr.Program, error) {
	if s == "" {
		return nil, nil
	}
	src := s
	if root, _, _ := strings.Cut(s, "."); plainPath.MatchString(s) && !slices.Contains([]string{"value", "raw", "headers"}, root) {
		src = "value." + s
	}
	p, err := expr.Compile(src, expr.Scope{Roots: expr.Value | expr.Raw | expr.Headers})
	if err != nil {
		return nil, cli.Usage("give a field of the value, as customer.id, or an expression, as lower(value.country)", "--key %q: %v", s, err)
	}
	return p, nil
}

// sendWindow is how many records wait for the broker's answer at most.
const sendWindow = 1000

// sender sends lines.
type sender struct {
	sink    *kafka.Sink
	topic   string
	key     *expr.Program // nil: no key
	headers []record.Header
	now     func() time.Time
	window  chan struct{} // sendWindow places
	sent    atomic.Int64
	waiting sync.WaitGroup

	mu  sync.Mutex
	err error // guarded by mu; the first of a record
}

// maxSendLine is the longest line that is read; what a broker takes is less.
const maxSendLine = 16 << 20

// lines reads the lines of in, until ctx ends. Nothing ends a read of a
// terminal or a pipe: the goroutine that waits in one ends with the process.
func lines(ctx context.Context, in io.Reader) (<-chan []byte, func() error) {
	out := make(chan []byte)
	var err error // to be read once out is closed
	go func() {
		defer close(out)
		scan := bufio.NewScanner(in)
		scan.Buffer(nil, maxSendLine)
		n := 1
		for ; scan.Scan(); n++ {
			select {
			case out <- slices.Clone(scan.Bytes()):
			case <-ctx.Done():
				return
			}
		}
		if err = scan.Err(); errors.Is(err, bufio.ErrTooLong) {
			err = &cli.Error{Exit: cli.ExitInvalid, Code: codeSend, Detail: fmt.Sprintf("line %d is longer than %s", n, cli.Bytes(maxSendLine)), Next: "shorten the line; those before it are sent", Err: err}
		}
	}()
	return out, func() error { return err }
}

// all hands the lines of in over, until it ends or a line cannot be sent.
func (s *sender) all(ctx context.Context, in io.Reader) error {
	reading, cancel := context.WithCancel(ctx)
	defer cancel()
	read, readError := lines(reading, in)
	env := expr.NewEnv()
	for n := 1; ; n++ {
		var line []byte
		var more bool
		select {
		case line, more = <-read:
		case <-ctx.Done():
			return ctx.Err()
		}
		if !more {
			return readError()
		}
		if len(line) == 0 {
			continue
		}
		r := record.Record{Value: line, Headers: s.headers, Topic: s.topic, Timestamp: s.now().UnixMilli(), To: -1}
		if s.key != nil {
			env.Reset(&r)
			key, err := s.key.Key(env)
			if err != nil {
				return &cli.Error{Exit: cli.ExitInvalid, Code: codeSend, Detail: fmt.Sprintf("line %d: the key: %v", n, err), Next: "correct the line or --key; the lines before it are sent", Err: err}
			}
			r.Key = key
		}
		select {
		case s.window <- struct{}{}:
		case <-ctx.Done():
			return ctx.Err()
		}
		if err := s.failed(); err != nil {
			<-s.window
			return err
		}
		s.waiting.Add(1)
		s.sink.Deliver(ctx, []record.Record{r}, func(_ int, err error) {
			if err == nil {
				s.sent.Add(1)
			} else {
				s.fail(fmt.Errorf("line %d: %w", n, err))
			}
			<-s.window
			s.waiting.Done()
		})
	}
}

func (s *sender) fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err == nil {
		s.err = &cli.Error{Exit: cli.ExitFailed, Code: codeSend, Detail: err.Error(), Err: err}
	}
}

func (s *sender) failed() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// finish waits for the answers that are missing.
func (s *sender) finish(ctx context.Context, limit time.Duration) error {
	done := make(chan struct{})
	go func() { defer close(done); s.waiting.Wait() }()
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-done:
		return s.failed()
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return &cli.Error{Exit: cli.ExitFailed, Code: cli.CodeTimeout, Detail: fmt.Sprintf("the broker has not answered within %s: %s", limit, s.sink.Problem()), Next: "see whether the topic exists and the broker is well, then send again: what was not answered may have arrived"}
	}
}
