package sandbox

import (
	"errors"
	"strconv"

	"github.com/tetratelabs/wazero/api"

	"github.com/millrace-io/millrace/plugins/manifest"
	"github.com/millrace-io/millrace/plugins/rewrite"
	"github.com/millrace-io/millrace/runtime/record"
)

// FuelCosts is the version of what things cost: the weights of package
// rewrite, and what host functions charge in every mode. It rises with each
// change of them, so that fuel is compared only where it was counted the same.
const FuelCosts = 2

const (
	// DefaultMaxFuel is what a record may cost unless configured: 1.2 million
	// units are 0.1 to 0.7 ms of honest code, and at most about 40 ms of code
	// that is written to be slow.
	DefaultMaxFuel = 1_200_000
	// callFuel is what a call of several records may cost: a running guest
	// cannot be preempted. A call that needs more is split.
	callFuel = 1_200_000
	// fuelPerByte is what each byte of a record adds: a stage that reads a
	// record of a megabyte works longer than on one of a hundred bytes, and is
	// no worse for it. The order stage takes 12 units a byte, a loop that looks
	// at each byte by itself 14, a Rust program that splits words 31.
	fuelPerByte = 160
	// startFuel is what everything before the first batch may cost, each call
	// of the guest by itself: _initialize, stage_init, stage_alloc, the warm-up.
	// A Go program needs 0.8 million units for its start. It is paid once where
	// further instances are copies of the first.
	startFuel = 5 * callFuel
	// restartFuel is the same where each further instance starts anew, which a
	// guest that fails on purpose can bring about with every record.
	restartFuel = 2 * callFuel
	// instanceFuel is what a start function may cost: it runs in copies too.
	instanceFuel = callFuel
)

// startFuel is what each call before the first batch may cost.
func (s *Stage) startFuel() int64 {
	if s.mod.info.Mode == manifest.ModeLines || !s.mod.info.ExactRestore {
		return restartFuel
	}
	return startFuel
}

// errOutOfFuel ends a guest in a host function; its counter is below zero.
var errOutOfFuel = errors.New("out of fuel")

// meter is the fuel counter of an instance.
type meter struct {
	counter api.MutableGlobal
	budget  int64
}

// bind looks the counter up; it is needed before set.
func (m *meter) bind(mod api.Module, export string) {
	m.counter, _ = mod.ExportedGlobal(export).(api.MutableGlobal)
}

func (m *meter) set(budget int64) {
	m.budget = budget
	m.counter.Set(uint64(budget))
}

// out reports whether the guest was ended for want of fuel.
func (m *meter) out() bool { return m.counter != nil && int64(m.counter.Get()) < 0 }

// used is what was used since set, a little more than the budget if out.
func (m *meter) used() int64 {
	if m.counter == nil {
		return 0
	}
	return m.budget - int64(m.counter.Get())
}

// What host functions charge for what takes longer than to copy it.
const (
	fuelPerSubscription = 8
	iovecsPerFuel       = 2
	randomPerFuel       = 2 // bytes
	// outputPerFuel is for bytes of STDOUT that the host keeps: each is new
	// memory, faulted in, moved as the output grows, and collected. A record
	// of some bytes can have it keep 4.8 MB.
	outputPerFuel = 4
)

// charge pays for a length that the guest gave to a host function, and ends
// the guest if it cannot.
func (e *guestEnv) charge(mod api.Module, length uint64) {
	e.pay(mod, rewrite.FuelForLength(length))
}

// pay takes cost from the guest's fuel, and ends the guest if it cannot.
func (e *guestEnv) pay(mod api.Module, cost int64) {
	if cost == 0 {
		return
	}
	if e.fuel.counter == nil { // a start function runs
		e.fuel.bind(mod, e.fuelExport)
	}
	left := int64(e.fuel.counter.Get()) - cost
	e.fuel.counter.Set(uint64(left))
	if left < 0 {
		panic(errOutOfFuel)
	}
}

// learnFuel notes what records cost, so that calls are made small enough.
func (s *Stage) learnFuel(used int64, records int, out bool) {
	per := max(1, used/int64(records))
	old := s.fuelPerRecord.Load()
	switch {
	case out: // they cost at least that
		per = max(old, per)
	case old > 0:
		per = old + (per-old)/8
	}
	s.fuelPerRecord.Store(per)
}

// budget is the fuel of a call of that many records in that many bytes. A call
// of several gets no more for its bytes than one of them would.
func (s *Stage) budget(records, bytes int) int64 {
	return max(s.fuel, min(s.fuel*int64(records), callFuel)) + s.perByte*int64(bytes/max(1, records))
}

// text is what a guest did that ran out of fuel.
func (m *meter) text() string {
	return "it used up its fuel: " + strconv.FormatInt(m.used(), 10) + " units, the budget is " + strconv.FormatInt(m.budget, 10)
}

// fuelError is the failure of a guest that ran out of fuel.
func (m *meter) error() *record.Error {
	return record.Errorf(record.Fuel, "%s", m.text())
}
