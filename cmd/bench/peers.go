package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/millrace-io/millrace/cmd/bench/arena"
)

// base is the contestant that all are compared with, floor the one whose CPU
// time theirs is compared with.
const (
	base  = "native-order"
	floor = "native-pass"
)

// benchPeers lets Millrace and what people use today do the same work on the
// same real broker.
func benchPeers(ctx context.Context, o options) ([]table, error) {
	all, w, done, err := meet(ctx, arena.Kafka, o)
	if err != nil {
		return nil, err
	}
	defer done()
	series, err := arena.Compete(ctx, w, all, o.rounds, os.Stderr)
	if err != nil {
		return nil, err
	}
	return []table{peerTable(series), rowTable(peerBars(series))}, nil
}

// meet brings the contestants that o picks and a real broker together; done
// ends both.
func meet(ctx context.Context, kind arena.Kind, o options) (picked []arena.Contestant, w *arena.World, done func(), err error) {
	o.kind = kind
	picked, remove, err := built(ctx, o)
	if err != nil {
		return nil, nil, nil, err
	}
	if w, err = realWorld(ctx, kind, o); err != nil {
		remove()
		return nil, nil, nil, err
	}
	return picked, w, func() { w.Close(); remove() }, nil
}

// realWorld is a real broker with a topic of o.n order events.
func realWorld(ctx context.Context, kind arena.Kind, o options) (*arena.World, error) {
	root, err := repository()
	if err != nil {
		return nil, err
	}
	w, err := arena.NewWorld(ctx, kind, root, o.dir, o.n, o.partitions)
	if err != nil {
		return nil, err
	}
	w.Compression = o.compression
	return w, nil
}

// built are the contestants that o picks, built; done removes them.
func built(ctx context.Context, o options) (picked []arena.Contestant, done func(), err error) {
	root, err := repository()
	if err != nil {
		return nil, nil, err
	}
	bin, err := os.MkdirTemp("", "millrace-bench-bin-")
	if err != nil {
		return nil, nil, err
	}
	done = func() { _ = os.RemoveAll(bin) }
	all, err := contestants(root, bin, o)
	if err == nil {
		picked, err = arena.Pick(append(all, o.extra...), o.contestants)
	}
	if err == nil {
		err = buildPeers(ctx, root, bin, picked)
	}
	if err != nil {
		done()
	}
	return picked, done, err
}

// benchRocketMQ lets Millrace and a loop by hand do the same work on the same
// real RocketMQ.
func benchRocketMQ(ctx context.Context, o options) ([]table, error) {
	all, w, done, err := meet(ctx, arena.RocketMQ, o)
	if err != nil {
		return nil, err
	}
	defer done()
	series, err := arena.Compete(ctx, w, all, o.rounds, os.Stderr)
	if err != nil {
		return nil, err
	}
	var rows []row
	if node, native := find(series, "node-rust"), find(series, base); node != nil && native != nil {
		rows = append(rows, atLeast("records/s, node-rust / "+base, node.Against(native, rate, ratio), 0.7, "x"))
	}
	return []table{peerTable(series), rowTable(rows)}, nil
}

// contestants are all that the bench knows for the kind of broker. Those that
// are programs of their own are built into bin.
func contestants(root, bin string, o options) ([]arena.Contestant, error) {
	exe, err := os.Executable()
	if err != nil {
		return nil, err
	}
	native := filepath.Join(bin, "native")
	node := func(name, plugin string, work arena.Work) arena.Contestant {
		c := arena.Contestant{Name: name, Command: []string{exe, "flow"}, Work: work}
		if plugin != "" {
			c.Env = append(c.Env, pluginVar+"="+filepath.Join(root, plugin))
		}
		if o.profiles != "" {
			c.Env = append(c.Env, profileVar+"="+filepath.Join(o.profiles, name+".pprof"))
		}
		return c
	}
	if o.kind == arena.RocketMQ {
		native = filepath.Join(bin, "rocketmq")
		all := []arena.Contestant{
			{Name: floor, Command: []string{native, "pass"}, Work: arena.Pass},
			{Name: base, Command: []string{native, "order"}},
			node("node-pass", "", arena.Pass),
			node("node-rust", "examples/orders/orders.wasm", arena.Order),
		}
		for i := range all {
			all[i].Env = append(all[i].Env, kindVar+"="+string(o.kind))
		}
		return all, nil
	}
	return []arena.Contestant{
		{Name: floor, Command: []string{native, "pass"}, Work: arena.Pass},
		{Name: base, Command: []string{native, "order"}},
		{Name: "native-json", Command: []string{native, "json"}},
		node("node-pass", "", arena.Pass),
		node("node-rust", "examples/orders/orders.wasm", arena.Order),
		node("node-as", "pdk/assemblyscript/examples/order_stage_as/order_stage_as.wasm", arena.Order),
		node("node-tinygo", "pdk/go/examples/order_stage_go/order_stage_go.wasm", arena.Order),
		{Name: "benthos", Command: []string{filepath.Join(bin, "benthos")}},
	}, nil
}

// buildPeers builds the programs that the picked contestants are.
func buildPeers(ctx context.Context, root, bin string, picked []arena.Contestant) error {
	built := map[string]bool{}
	for _, c := range picked {
		name := filepath.Base(c.Command[0])
		if filepath.Dir(c.Command[0]) != bin || built[name] {
			continue
		}
		built[name] = true
		cmd := exec.CommandContext(ctx, "go", "build", "-o", c.Command[0], "./peers/"+name)
		cmd.Dir = filepath.Join(root, "cmd", "bench")
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("build the contestant %s: %w: %s", name, err, out)
		}
	}
	return nil
}

// repository is the folder of the checkout that the bench was started in.
func repository() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for ; ; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "examples", "brokers", "kafka", "kafka.sh")); err == nil {
			return dir, nil
		}
		if dir == filepath.Dir(dir) {
			return "", errors.New("start the bench inside the repository: examples/brokers is not above this folder")
		}
	}
}

// peerTable is a line for each contestant, medians of the rounds.
func peerTable(series []*arena.Series) table {
	t := table{head: []string{"contestant", "records/s", "to " + base, "CPU us a record", "broker's", "peak RSS MiB", "output"}}
	for _, s := range series {
		to := "-"
		if b := find(series, base); b != nil {
			to = fmt.Sprintf("%.2f", s.Against(b, rate, ratio))
		}
		t.lines = append(t.lines, []string{s.Name, fmt.Sprintf("%.0f", s.Median(rate)), to, fmt.Sprintf("%.2f", s.Median(cpu)),
			fmt.Sprintf("%.2f", s.Median(brokerCPU)), fmt.Sprintf("%.0f", s.Median(peak)), s.Verdict.String()})
	}
	return t
}

// find is the series of a contestant, nil if it does not take part.
func find(series []*arena.Series, name string) *arena.Series {
	for _, s := range series {
		if s.Name == name {
			return s
		}
	}
	return nil
}

func rate(f arena.Figures) float64      { return f.Rate }
func cpu(f arena.Figures) float64       { return f.CPU }
func brokerCPU(f arena.Figures) float64 { return f.BrokerCPU }
func peak(f arena.Figures) float64      { return f.PeakMiB }

func ratio(a, b float64) float64      { return a / b }
func difference(a, b float64) float64 { return a - b }

// peerBars are the bars that the contestants that took part can be held to.
func peerBars(series []*arena.Series) []row {
	node := find(series, "node-rust")
	if node == nil {
		return nil
	}
	var rows []row
	for _, b := range []struct {
		than string
		bar  float64
	}{{base, 0.7}, {"native-json", 4}, {"benthos", 5}} {
		if s := find(series, b.than); s != nil {
			rows = append(rows, atLeast("records/s, node-rust / "+b.than, node.Against(s, rate, ratio), b.bar, "x"))
		}
	}
	if s := find(series, floor); s != nil {
		rows = append(rows, atMost("CPU a record, node-rust - "+floor, node.Against(s, cpu, difference), 1.3, " us"))
	}
	return rows
}
