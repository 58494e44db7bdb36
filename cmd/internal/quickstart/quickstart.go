// Package quickstart is what `flowctl quickstart` does: it starts a node and a
// Kafka broker, sends order events through the orders example, kills the node
// half way, starts it again, and proves from the topics themselves that
// nothing was lost. It is a client like any other: it knows the node by its
// admin API and its signals only.
package quickstart

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/millrace-io/millrace/cmd/internal/api"
	"github.com/millrace-io/millrace/cmd/internal/cli"
	"github.com/millrace-io/millrace/cmd/internal/devbroker"
)

// Bounds of Config.Records.
const (
	DefaultRecords = 100_000
	MinRecords     = 1000
)

// CodeBroken is the code of the error of a run that broke a promise.
const CodeBroken = "E_PROMISE_BROKEN"

// Config configures a run.
type Config struct {
	// Dir keeps the data and may hold that of earlier runs. Empty: a temporary
	// folder, which is removed unless the run goes wrong.
	Dir string
	// Records to produce, at least MinRecords. 0: DefaultRecords.
	Records int
	// Once ends the run with its report, instead of keeping the node up until
	// the context ends.
	Once bool
	// Format of the report. Empty: cli.Table.
	Format cli.Format
	// Program is how this program is called in hints. Empty: flowctl.
	Program string
	// Node is the command line of a node, without --data and --listen, which
	// logs to its standard error. Nil: this program's `node run`.
	Node []string
	// Stdout gets the report and Stderr what is going on; nil discards.
	Stdout, Stderr io.Writer
	// Terminal tells that Stderr is one: progress is drawn.
	Terminal bool
}

func (c Config) defaults() Config {
	if c.Records == 0 {
		c.Records = DefaultRecords
	}
	if c.Format == "" {
		c.Format = cli.Table
	}
	if c.Program == "" {
		c.Program = "flowctl"
	}
	if c.Stdout == nil {
		c.Stdout = io.Discard
	}
	if c.Stderr == nil {
		c.Stderr = io.Discard
	}
	return c
}

// Validate reports what cannot be run.
func (c Config) Validate() error {
	if c.Records != 0 && c.Records < MinRecords {
		return cli.Usage(fmt.Sprintf("give a number from %d", MinRecords), "--records %d: too few to kill the node half way", c.Records)
	}
	return nil
}

// Pacing of the last records, whose latency is measured.
const (
	pacedRecords = 10_000
	pacedRate    = 5000 // a second
)

// What a kill explains: outputs that were written but whose watermark was not
// committed yet.
const (
	killWindow      = 250 * time.Millisecond
	partitionWindow = 1000 // records
)

// Run does a run from start to end; it blocks. A promise that was broken is a
// *cli.Error with CodeBroken, after the report.
func Run(ctx context.Context, cfg Config) error {
	if err := cfg.Validate(); err != nil {
		return err
	}
	cfg = cfg.defaults()
	r := &run{cfg: cfg, console: &console{w: cfg.Stderr, terminal: cfg.Terminal}}
	r.console.say("quickstart: starting a node and an embedded Kafka, for %s order events", group(cfg.Records))
	if err := r.folder(); err != nil {
		return err
	}
	err := r.all(ctx)
	return r.finish(ctx, err)
}

// run is one run of the quickstart.
type run struct {
	cfg       Config
	console   *console
	dir       string
	temporary bool

	broker  *devbroker.Broker
	node    *node
	backend api.Backend
	load    *load
	follow  *follower

	startOut, startIn positions // where the topics ended before the run

	began     time.Time // the first record
	killed    time.Time
	restarted time.Time
	ready     time.Time // again
}

func (r *run) folder() error {
	var err error
	if r.temporary = r.cfg.Dir == ""; r.temporary {
		r.dir, err = os.MkdirTemp("", "millrace-quickstart-")
	} else if r.dir, err = filepath.Abs(r.cfg.Dir); err == nil {
		err = os.MkdirAll(r.dir, 0o755)
	}
	if err != nil {
		return surroundings(fmt.Errorf("make the folder of the quickstart: %w", err))
	}
	return nil
}

// surroundings is an error that says that a run cannot begin here.
func surroundings(err error) error {
	return &cli.Error{Exit: cli.ExitUnreachable, Code: cli.CodeFailed, Detail: err.Error(), Err: err}
}

func (r *run) nodeLog() string { return filepath.Join(r.dir, "node.log") }

// finish says what remains of the run, and removes what does not.
func (r *run) finish(ctx context.Context, err error) error {
	started := r.node != nil
	ended := err == nil || ctx.Err() != nil
	if r.temporary && (ended || !started) {
		if rerr := os.RemoveAll(r.dir); rerr != nil {
			r.console.say("remove %s: %v", r.dir, rerr)
		}
	}
	if ended {
		if !r.temporary {
			r.console.say("the data is kept in %s; run it again with --dir %s", r.dir, r.cfg.Dir)
		}
		return err
	}
	e := *cli.AsError(err)
	if e.Next == "" && started {
		e.Next = fmt.Sprintf("look at the node's log, %s; the data is kept beside it", r.nodeLog())
	}
	e.Detail = "quickstart: " + e.Detail
	e.Err = err
	return &e
}

// all is the run with its surroundings, which it takes down at the end.
func (r *run) all(ctx context.Context) (err error) {
	if r.broker, err = devbroker.Start(devbroker.Config{Dir: filepath.Join(r.dir, "broker"), Partitions: partitions}); err != nil {
		return surroundings(err)
	}
	defer func() { err = errors.Join(err, r.broker.Close()) }()
	if r.load, err = newLoad(r.broker.Addr(), r.cfg.Records); err != nil {
		return err
	}
	defer r.load.client.Close()

	if err := makeTopics(ctx, r.load.client); err != nil {
		return err
	}
	defer r.stopNode()
	if err := r.startNode(ctx, "127.0.0.1:0"); err != nil {
		return err
	}
	r.backend = api.NewClient("http://" + r.node.addr)
	r.console.say("node %s, Kafka %s, data %s", r.node.addr, r.broker.Addr(), r.dir)

	following, fctx := errgroup.WithContext(ctx)
	fctx, stopFollowing := context.WithCancel(fctx)
	defer func() {
		stopFollowing()
		if ferr := following.Wait(); ferr != nil && (err == nil || errors.Is(err, context.Canceled)) {
			err = ferr
		}
	}()
	if err := r.prepare(fctx); err != nil {
		return err
	}
	following.Go(func() error { return r.follow.run(fctx) })

	rep, err := r.measure(fctx)
	if err != nil {
		return err
	}
	if err := r.print(rep); err != nil {
		return err
	}
	if err := broken(rep.result); err != nil || r.cfg.Once {
		return err
	}
	return r.stay(fctx)
}

func (r *run) startNode(ctx context.Context, listen string) (err error) {
	command := r.cfg.Node
	if command == nil {
		if command, err = thisProgram(); err != nil {
			return err
		}
	}
	n, err := startNode(ctx, command, filepath.Join(r.dir, "node"), listen, r.nodeLog())
	if err != nil {
		return err
	}
	r.node = n
	return nil
}

func (r *run) stopNode() {
	if r.node != nil {
		r.node.stop()
	}
}

// prepare deploys the example and finds where the topics end.
func (r *run) prepare(ctx context.Context) error {
	plugin, err := deployOrders(ctx, r.backend, r.broker.Addr())
	if err != nil {
		return err
	}
	r.console.say("deployed %s (%s) in flow %s: %s → %s", plugin.Ref(), cli.Digest(plugin.Digest), flowName, sourceTopic, outputTopic)
	if r.startIn, err = endOffsets(ctx, r.load.client, sourceTopic); err != nil {
		return err
	}
	// What an earlier run left in the source topic must not arrive in this one.
	if _, err := settle(ctx, r.backend, r.startIn, func() int { return 0 }, r.node.alive); err != nil {
		return fmt.Errorf("finish the records of an earlier run: %w", err)
	}
	if r.startOut, err = endOffsets(ctx, r.load.client, outputTopic); err != nil {
		return err
	}
	r.follow, err = follow(r.broker.Addr(), r.startOut)
	return err
}

// plan is how the records are split.
type plan struct {
	fast, paced int
	// The node is killed when killAt records were produced and killOut of
	// them have arrived.
	killAt, killOut int
}

func planOf(records int) plan {
	p := plan{paced: pacedRecords}
	if records < 2*pacedRecords {
		p.paced = records / 2
	}
	p.fast = records - p.paced
	p.killAt = min(records/2, p.fast*3/4)
	p.killOut = p.killAt * 4 / 5
	return p
}

// measure sends the records, kills the node in between, and checks.
func (r *run) measure(ctx context.Context) (*report, error) {
	p := planOf(r.cfg.Records)
	stopBar := r.console.progress(ctx, r.cfg.Records, "records", r.follow.highest)
	defer stopBar()
	if err := r.fast(ctx, p); err != nil {
		return nil, err
	}
	rep := &report{fast: p.fast, paced: p.paced}
	rep.restart = r.follow.longestPause(r.killed, r.ready)
	if took := r.follow.lastArrival().Sub(r.began) - rep.restart; took > 0 {
		rep.rate = float64(p.fast) / took.Seconds()
	}
	r.console.say("%s records through; now %s at %s/s, for their latency", group(p.fast), group(p.paced), group(pacedRate))

	if err := r.load.produce(ctx, p.paced, pacedRate); err != nil {
		return nil, err
	}
	f, err := r.settled(ctx)
	if err != nil {
		return nil, err
	}
	rep.seconds = time.Since(r.began).Seconds()
	rep.stages = f.Stages
	stopBar()

	failed, first, err := failures(ctx, r.backend, r.startIn)
	if err != nil {
		return nil, err
	}
	rep.poison = first
	rep.explained = r.follow.arrivedBetween(r.killed.Add(-killWindow), r.restarted) + partitionWindow*len(r.startIn)
	rep.result = check(r.load.events, r.follow.all(), failed, rep.explained)
	times := r.latencies()
	rep.p50, rep.p99 = percentile(times, 0.50), percentile(times, 0.99)
	for _, s := range r.load.samples {
		rep.samples = append(rep.samples, before{s.order, s.value, r.follow.value(s.order)})
	}
	rep.peek = func(after uint64) string {
		return r.hint("queue peek %s --after %d -n 1 -o wide", flowName, after)
	}
	return rep, nil
}

// fast produces the records before the paced part, and kills the node and
// starts it again meanwhile. It returns when all of them are settled.
func (r *run) fast(ctx context.Context, p plan) error {
	producing, pctx := errgroup.WithContext(ctx)
	r.began = time.Now()
	producing.Go(func() error { return r.load.produce(pctx, p.fast, 0) })
	err := r.crash(pctx, p)
	if perr := producing.Wait(); perr != nil && (err == nil || errors.Is(err, context.Canceled)) {
		err = perr
	}
	if err != nil {
		return err
	}
	_, err = r.settled(ctx)
	return err
}

// crash kills the node half way and starts it again on the same address.
func (r *run) crash(ctx context.Context, p plan) error {
	since, last := time.Now(), 0
	for int(r.load.produced.Load()) < p.killAt || r.follow.distinct() < p.killOut {
		if err := r.node.alive(); err != nil {
			return err
		}
		if now := r.follow.distinct(); now != last {
			last, since = now, time.Now()
		}
		if time.Since(since) > stallLimit {
			f, err := r.backend.Flow(ctx, flowProject, flowName)
			return stuck(f, r.startIn, err)
		}
		if err := pause(ctx, time.Millisecond); err != nil {
			return err
		}
	}
	produced, arrived := r.load.produced.Load(), r.follow.distinct()
	r.killed = time.Now()
	r.node.kill()
	addr := r.node.addr
	r.console.say("killed the node (SIGKILL) with %s records in and %s out; starting it again", group(int(produced)), group(arrived))
	r.restarted = time.Now()
	if err := r.startNode(ctx, addr); err != nil {
		return fmt.Errorf("start the node again: %w", err)
	}
	r.ready = time.Now()
	r.console.say("the node is ready again after %s", r.ready.Sub(r.restarted).Round(time.Millisecond))
	return nil
}

// settled waits until all that was produced is committed, and all that was
// put out is read.
func (r *run) settled(ctx context.Context) (*api.Flow, error) {
	f, err := settle(ctx, r.backend, r.load.ends(), r.follow.distinct, r.node.alive)
	if err != nil {
		return nil, err
	}
	ends, err := endOffsets(ctx, r.load.client, outputTopic)
	if err != nil {
		return nil, err
	}
	for since := time.Now(); !r.follow.caughtUp(ends); {
		if time.Since(since) > stallLimit {
			return nil, fmt.Errorf("read topic %s back: its end was not reached in %s", outputTopic, stallLimit)
		}
		if err := pause(ctx, time.Millisecond); err != nil {
			return nil, err
		}
	}
	return f, nil
}

// latencies are the times from producing a paced order to its output.
func (r *run) latencies() []time.Duration {
	var times []time.Duration
	for i, at := range r.load.at {
		if arrived, ok := r.follow.arrival(r.load.pacedFrom + i); ok {
			times = append(times, arrived.Sub(at))
		}
	}
	return times
}

func (r *run) print(rep *report) error {
	if r.cfg.Format.Human() {
		r.console.say("")
		return rep.print(r.cfg.Stdout)
	}
	return cli.Value(r.cfg.Stdout, r.cfg.Format, rep.summary())
}

// broken is the error of a run that broke a promise.
func broken(res *Result) error {
	if res.OK() {
		return nil
	}
	var what []string
	for _, n := range []struct {
		n    int
		text string
	}{
		{res.Lost, "lost"}, {res.Duplicated, "duplicated beyond what the kill explains"}, {res.OutOfOrder, "out of order"}, {res.Altered, "altered"},
		{res.Unexpected, "not expected"}, {res.WronglyFailed, "wrongly in the failure queue"},
	} {
		if n.n > 0 {
			what = append(what, fmt.Sprintf("%d %s", n.n, n.text))
		}
	}
	if res.Failed != res.Malformed {
		what = append(what, fmt.Sprintf("%d in the failure queue of %d malformed", res.Failed, res.Malformed))
	}
	detail := "a promise was broken: " + strings.Join(what, ", ")
	for _, e := range res.Examples {
		detail += "\n" + e
	}
	return &cli.Error{Exit: cli.ExitFailed, Code: CodeBroken, Detail: detail}
}

// stay keeps everything up until ctx ends.
func (r *run) stay(ctx context.Context) error {
	r.console.say("\nThe node stays up until Ctrl-C. What to try next:")
	for _, line := range []string{
		r.hint("flow get %s", flowName),
		r.hint("flow offsets get %s", flowName),
		r.hint("queue list"),
		r.hint("plugin inspect %s", "orders"),
		r.hint("flow pause %s", flowName),
	} {
		r.console.say("  %s", line)
	}
	r.console.say("Kafka listens on %s, with topics %s and %s; the node logs to %s", r.broker.Addr(), sourceTopic, outputTopic, r.nodeLog())
	select {
	case <-ctx.Done():
		r.console.say("stopping the node")
		return nil
	case <-r.node.exited:
		return r.node.alive()
	}
}

// hint is a command line that works as long as the node runs.
func (r *run) hint(format string, args ...any) string {
	return r.cfg.Program + " " + fmt.Sprintf(format, args...) + " --server http://" + r.node.addr
}
