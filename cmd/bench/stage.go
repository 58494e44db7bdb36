package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"

	"github.com/millrace-io/millrace/examples"
	"github.com/millrace-io/millrace/examples/orders/gen"
	"github.com/millrace-io/millrace/examples/orders/orderstage"
	"github.com/millrace-io/millrace/plugins/extism"
	"github.com/millrace-io/millrace/plugins/plugintest/guests"
	"github.com/millrace-io/millrace/plugins/sandbox"
	"github.com/millrace-io/millrace/runtime/record"
)

const (
	// batchRecords is the batch of all figures that name no other.
	batchRecords = 128
	// extismC is the order stage as an Extism plugin.
	extismC = "Extism, C"
	// stageRounds is how many rounds each of -rounds is here: they are short.
	stageRounds = 3
)

// processor is a stage of any run mode.
type processor interface {
	Process(ctx context.Context, b *record.Batch, out *record.Results) error
	Close(ctx context.Context) error
}

// bench holds what the figures of stages need, and gives it back.
type bench struct {
	ctx     context.Context // of the command; it has no other calls
	rounds  int
	rt      *sandbox.Runtime
	ext     *extism.Runtime
	closers []func(context.Context) error
	last    map[string]*sandbox.Stage // by the name of its contestant
	rust    []byte
	golang  []byte
	rows    []row
}

// benchStage prints the figures of the plugin ABI.
func benchStage(ctx context.Context, o options) (rows []row, err error) {
	b := &bench{ctx: ctx, rounds: max(1, o.rounds) * stageRounds, last: map[string]*sandbox.Stage{}}
	defer func() { err = errors.Join(err, b.close()) }()
	if b.rust, err = examples.Files.ReadFile("orders/orders.wasm"); err != nil {
		return nil, err
	}
	if b.golang, err = guests.OrdersGo(ctx); err != nil {
		return nil, err
	}
	if b.rt, err = sandbox.New(ctx, sandbox.Config{Workers: 2}); err != nil {
		return nil, err
	}
	b.closers = append(b.closers, b.rt.Close)
	if b.ext, err = extism.New(ctx, extism.Config{Workers: 1}); err != nil {
		return nil, err
	}
	b.closers = append(b.closers, b.ext.Close)
	for _, part := range []func() error{b.boundary, b.orders, b.small, b.fuel, b.restore, b.lines, b.start, b.workers} {
		if err := part(); err != nil {
			return nil, err
		}
	}
	return b.rows, nil
}

func (b *bench) close() error {
	var errs []error
	for i := len(b.closers) - 1; i >= 0; i-- {
		errs = append(errs, b.closers[i](context.WithoutCancel(b.ctx)))
	}
	return errors.Join(errs...)
}

// of makes a contestant of a plugin that gets a batch of n order events.
func (b *bench) of(name string, wasm []byte, n int, cfg sandbox.StageConfig) (*contestant, error) {
	m, err := b.rt.Compile(b.ctx, wasm)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	cfg.Stage = "bench"
	s, err := m.NewStage(b.ctx, cfg)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	b.last[name] = s
	return b.with(name, s, n), nil
}

func (b *bench) with(name string, s processor, n int) *contestant {
	b.closers = append(b.closers, s.Close)
	batch := eventBatch(n)
	var out record.Results
	return &contestant{name: name, per: n, run: func() error {
		out.Reset()
		err := s.Process(b.ctx, batch, &out)
		if err == nil && len(out.Failures) > 0 {
			err = out.Failures[0].Err
		}
		return err
	}}
}

func (b *bench) native(name string, n int, f func(*record.Batch, *record.Results)) *contestant {
	batch := eventBatch(n)
	var out record.Results
	return &contestant{name: name, per: n, run: func() error {
		out.Reset()
		f(batch, &out)
		return nil
	}}
}

func (b *bench) add(rows ...row) { b.rows = append(b.rows, rows...) }

func shown(figure, format string, args ...any) row {
	return row{figure: figure, value: fmt.Sprintf(format, args...)}
}

// bounded is a figure with a bar, or without one if that is 0.
func bounded(figure string, v, bar float64, unit string) row {
	if bar == 0 {
		return shown(figure, "%.3g%s", v, unit)
	}
	return atMost(figure, v, bar, unit)
}

// Isolations: each call from the image, or none put back.
var (
	restored   = sandbox.StageConfig{}
	unrestored = sandbox.StageConfig{Isolation: sandbox.IsolationFailure}
)

// boundary is what crossing costs, by a guest in C that emits all as it is.
func (b *bench) boundary() error {
	base := b.native("native", batchRecords, orderstage.Pass)
	all := []*contestant{base}
	for _, n := range []int{1, 16, batchRecords} {
		for _, cfg := range []sandbox.StageConfig{unrestored, restored} {
			name := fmt.Sprintf("pass, batch of %d", n)
			if cfg.Isolation == "" {
				name += ", image restored"
			}
			c, err := b.of(name, guests.Pass, n, cfg)
			if err != nil {
				return err
			}
			all = append(all, c)
		}
	}
	if err := race(b.rounds, all...); err != nil {
		return err
	}
	b.add(shown("pass, batch of 128, native Go", "%.0f ns", base.ns()).designed("46 ns"))
	for _, c := range all[1:] {
		unrestored := !strings.HasSuffix(c.name, "restored")
		switch {
		case unrestored && c.per == batchRecords:
			b.add(atMost(c.name, c.ns(), 110, " ns").designed("75 ns"))
		case unrestored && c.per == 1:
			b.add(shown(c.name, "%.0f ns", c.ns()).designed("112 ns"))
		default:
			b.add(shown(c.name, "%.0f ns", c.ns()))
		}
	}
	return nil
}

// assemblyScriptKit has the guest by hand as its measure.
const assemblyScriptKit = "AssemblyScript kit"

// orders is the order stage in all languages, by hand and by the kits, with
// fuel, each call from the image.
func (b *bench) orders() error {
	native := b.native("order stage, native Go", batchRecords, orderstage.Batch)
	all := []*contestant{native}
	bars := map[string]float64{"Rust": 3.6, "C": 3.4, "AssemblyScript": 3.8, "Rust kit": 2.2, "TinyGo kit": 16}
	// ns of the guest, and over the native 358.
	design := map[string][2]string{
		"Rust": {"1144 ns", "3.2x"}, "C": {"1044 ns", "2.9x"}, "AssemblyScript": {"1202 ns", "3.4x"}, "Go": {"3645 ns", "10x"}, extismC: {"6629 ns (Rust)", "19x"},
	}
	for _, g := range []struct {
		name string
		wasm []byte
	}{{"Rust", b.rust}, {"C", guests.OrdersC}, {"AssemblyScript", guests.OrdersAS}, {"TinyGo", guests.OrdersTinyGo}, {"Go", b.golang}} {
		c, err := b.of(g.name, g.wasm, batchRecords, restored)
		if err != nil {
			return err
		}
		all = append(all, c)
	}
	for _, k := range []struct{ name, file string }{
		{"Rust kit", "pdk/rust/examples/order_stage/order_stage.wasm"},
		{assemblyScriptKit, "pdk/assemblyscript/examples/order_stage_as/order_stage_as.wasm"},
		{"TinyGo kit", "pdk/go/examples/order_stage_go/order_stage_go.wasm"},
	} {
		wasm, err := os.ReadFile(k.file)
		if err != nil {
			return fmt.Errorf("%w (the bench runs in the checkout's root)", err)
		}
		c, err := b.of(k.name, wasm, batchRecords, restored)
		if err != nil {
			return err
		}
		all = append(all, c)
	}
	c, err := b.extism(extismC)
	if err != nil {
		return err
	}
	all = append(all, c)
	if err := race(b.rounds, all...); err != nil {
		return err
	}
	b.add(shown(native.name, "%.0f ns", native.ns()).designed("358 ns"))
	seen := map[string]*contestant{}
	for _, c := range all[1:] {
		was := design[c.name]
		seen[c.name] = c
		if c.name == assemblyScriptKit {
			b.add(shown("order stage, "+c.name, "%.0f ns", c.ns()), atMost(c.name+" / AssemblyScript by hand", c.over(seen["AssemblyScript"]), 1.2, "x"))
			continue
		}
		b.add(shown("order stage, "+c.name, "%.0f ns", c.ns()).designed(was[0]), bounded(c.name+" / native", c.over(native), bars[c.name], "x").designed(was[1]))
	}
	return nil
}

func (b *bench) extism(name string) (*contestant, error) {
	m, err := b.ext.Compile(b.ctx, guests.OrdersExtism)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	s, err := m.NewStage(b.ctx, sandbox.StageConfig{Stage: "bench", Function: "order"})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return b.with(name, s, batchRecords), nil
}

// small is the order stage in small batches.
func (b *bench) small() error {
	for _, n := range []int{1, 16} {
		native := b.native("native", n, orderstage.Batch)
		c, err := b.of("Rust", b.rust, n, restored)
		if err != nil {
			return err
		}
		if err := race(b.rounds, native, c); err != nil {
			return err
		}
		b.add(shown(fmt.Sprintf("order stage, Rust, batch of %d", n), "%.0f ns (%.2fx)", c.ns(), c.over(native)))
	}
	return nil
}

// fuel asks the benchmark of the rewriter, the only one that can run a module
// without it: a sandbox always counts.
func (b *bench) fuel() error {
	const name = "order stage, Rust, the guest alone: with fuel / without"
	root, err := repository()
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(b.ctx, "go", "test", "-run", "^$", "-bench", "^BenchmarkFuelOrders$", "./plugins/rewrite")
	cmd.Dir = root
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: go test: %w\n%s", name, err, out)
	}
	fields := strings.Fields(string(out))
	for i, f := range fields {
		if f == "ratio" && i > 0 {
			v, err := strconv.ParseFloat(fields[i-1], 64)
			if err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			b.add(atMost(name, v, 1.4, "x").designed("1.06x to 1.24x"))
			return nil
		}
	}
	return fmt.Errorf("%s: no ratio in\n%s", name, out)
}

// restore is what a call costs more that starts from the image.
func (b *bench) restore() error {
	for _, g := range []struct {
		name string
		wasm []byte
		bar  float64
		was  string
	}{{"Rust", b.rust, 10, "5 us"}, {"C", guests.OrdersC, 0, ""}, {"AssemblyScript", guests.OrdersAS, 0, "2.4 us"}, {"TinyGo", guests.OrdersTinyGo, 0, ""}, {"Go", b.golang, 200, "110 us"}} {
		with, err := b.of(g.name+", restored", g.wasm, 1, restored)
		if err != nil {
			return err
		}
		without, err := b.of(g.name, g.wasm, 1, unrestored)
		if err != nil {
			return err
		}
		if err := race(b.rounds, with, without); err != nil {
			return err
		}
		st := b.last[with.name].Stats()
		b.add(bounded("restore after one record, "+g.name, float64(st.RestoreTime.Nanoseconds())/float64(st.Restores)/1e3, g.bar, " us").designed(g.was),
			shown("  what a call takes longer with it", "%.3g us", with.beyond(without)/1e3))
	}
	return nil
}

// lines is what programs that read STDIN cost, by one that copies it.
func (b *bench) lines() error {
	program, err := examples.Files.ReadFile("lines/lines.wasm")
	if err != nil {
		return err
	}
	each, err := b.of("lines: each, copy", guests.Copy, 1, sandbox.StageConfig{Lines: sandbox.LinesEach})
	if err != nil {
		return err
	}
	whole, err := b.of("lines: batch, copy", guests.Copy, batchRecords, sandbox.StageConfig{Lines: sandbox.LinesBatch})
	if err != nil {
		return err
	}
	upper, err := b.of("lines: batch, examples/lines", program, batchRecords, sandbox.StageConfig{Lines: sandbox.LinesBatch})
	if err != nil {
		return err
	}
	if err := race(b.rounds, each, whole, upper); err != nil {
		return err
	}
	const batch = " of 128 order events"
	b.add(shown("lines: each, Rust, copies: a record", "%.3g us", each.ns()/1e3).designed("15 to 35 us"),
		atMost("lines: batch, Rust, copies: a batch"+batch, whole.ns()*batchRecords/1e3, 50, " us").designed("31 to 35 us"),
		shown("lines: batch, Rust, examples/lines: a batch"+batch, "%.3g us", upper.ns()*batchRecords/1e3))
	return nil
}

// start is what comes before the first batch.
func (b *bench) start() error {
	dir, err := os.MkdirTemp("", "bench-cache-*")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	for _, g := range []struct {
		name string
		wasm []byte
		bar  float64 // of the cache
		// What it took to compile, from the cache, and to instantiate and init.
		was [3]string
	}{
		{"Rust", b.rust, 5, [3]string{"51 ms (123 KB)", "2 ms", "153 us"}},
		{"AssemblyScript", guests.OrdersAS, 0, [3]string{"", "", "32 us"}},
		{"Go", b.golang, 0, [3]string{"947 ms (3.3 MB)", "43 ms", "3000 to 5000 us"}},
	} {
		compile := func(cfg sandbox.Config, use func(*sandbox.Module) error) error {
			rt, err := sandbox.New(b.ctx, cfg)
			if err != nil {
				return err
			}
			m, err := rt.Compile(b.ctx, g.wasm)
			if err == nil {
				err = errors.Join(use(m), m.Close(b.ctx))
			}
			return errors.Join(err, rt.Close(b.ctx))
		}
		nothing := func(*sandbox.Module) error { return nil }
		fresh := &contestant{name: g.name, per: 1, run: func() error { return compile(sandbox.Config{}, nothing) }}
		cached := &contestant{name: g.name, per: 1, run: func() error { return compile(sandbox.Config{CacheDir: dir}, nothing) }}
		if err := race(1, fresh); err != nil {
			return err
		}
		if err := race(b.rounds, cached); err != nil {
			return err
		}
		b.add(shown("compile, "+g.name, "%.3g ms", fresh.ns()/1e6).designed(g.was[0]),
			bounded("compile from the cache, "+g.name, cached.ns()/1e6, g.bar, " ms").designed(g.was[1]))
		err := compile(sandbox.Config{CacheDir: dir}, func(m *sandbox.Module) error {
			stage := &contestant{name: g.name, per: 1, run: func() error {
				s, err := m.NewStage(b.ctx, sandbox.StageConfig{Stage: "bench"})
				if err != nil {
					return err
				}
				return s.Close(b.ctx)
			}}
			if err := race(b.rounds, stage); err != nil {
				return err
			}
			b.add(shown("instantiate, init, warm-up of 128 records, image, "+g.name, "%.0f us", stage.ns()/1e3).designed(g.was[2] + " without warm-up"))
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// workers is what a second core adds, by the clock: the best of the rounds of
// each side, which other load on the machine disturbs least.
func (b *bench) workers() error {
	m, err := b.rt.Compile(b.ctx, b.rust)
	if err != nil {
		return err
	}
	s, err := m.NewStage(b.ctx, sandbox.StageConfig{Stage: "bench"})
	if err != nil {
		return err
	}
	b.closers = append(b.closers, s.Close)
	batch := eventBatch(batchRecords)
	guest := func() func() error {
		var out record.Results
		return func() error {
			out.Reset()
			return s.Process(b.ctx, batch, &out)
		}
	}
	native := func() func() error {
		var out record.Results
		return func() error {
			out.Reset()
			orderstage.Batch(batch, &out)
			return nil
		}
	}
	const runs = 1000
	var one, two, nativeOne, nativeTwo []float64
	for range b.rounds {
		for _, side := range []struct {
			workers int
			worker  func() func() error
			rates   *[]float64
		}{{1, guest, &one}, {2, guest, &two}, {1, native, &nativeOne}, {2, native, &nativeTwo}} {
			rate, err := throughput(side.workers, runs, side.worker)
			if err != nil {
				return err
			}
			*side.rates = append(*side.rates, rate)
		}
	}
	var gain, machine, part []float64
	for i := range one {
		gain, machine = append(gain, two[i]/one[i]), append(machine, nativeTwo[i]/nativeOne[i])
		part = append(part, gain[i]/machine[i])
	}
	b.add(shown("order stage, Rust, one worker", "%.0f records/s", median(one)*batchRecords),
		shown("two workers / one", "%.3gx", median(gain)).designed("2.00x"),
		shown("two workers / one, native Go: what the machine gives", "%.3gx", median(machine)),
		atLeast("two workers / one, of what the machine gives", median(part), 0.95, "x").designed("1x"))
	return nil
}

func eventBatch(n int) *record.Batch {
	g := gen.New(1)
	b := &record.Batch{Partition: record.Partition{Topic: "orders"}, Now: 1_700_000_000_000}
	for i := range n {
		e := g.Next()
		b.Records = append(b.Records, record.Record{Key: e.Key, Value: e.Value, Topic: "orders", Offset: int64(i), Attempt: 1, To: -1})
	}
	return b
}
