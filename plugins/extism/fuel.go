package extism

import (
	"context"

	"github.com/millrace-io/millrace/plugins/rewrite"
)

// DefaultMaxFuelPerRecord is the fuel that a call may use unless configured.
// It is more than a guest of our own ABI gets: an Extism guest copies each
// value by calls of the host, 8 bytes at a time.
const DefaultMaxFuelPerRecord int64 = 12_000_000

// MaxFuel is the most that Config.MaxFuelPerRecord can be.
const MaxFuel = rewrite.MaxExportFuel

// initializers are what the SDK may call on its own before a function.
var initializers = []string{"_initialize", "__wasm_call_ctors", "hs_init"}

// fuelOptions has each call from outside begin with the budget, which is a
// constant in the code: the SDK gives no access to globals.
func fuelOptions(budget int64) rewrite.Options {
	return rewrite.Options{
		Fuel: true, InitialFuel: budget,
		FuelPerExport: &rewrite.ExportFuel{Budget: budget, Initializers: initializers},
		ImportFrom:    importFrom,
	}
}

// fuelOf is what the last call used beside in.hostFuel; 0 if the instance
// cannot say.
func (in *instance) fuelOf() int64 {
	left, ok := in.ask(in.stage.code.fuelLeft)
	if !ok {
		return 0
	}
	return in.stage.fuel - int64(int32(left))
}

// account counts what the calls since the last time used. Each asking costs as
// much as a call that does nothing, so it is put off for as long as 32 bits
// tell enough.
func (in *instance) account() {
	in.owing = 0
	if spent, ok := in.ask(in.stage.code.fuelSpent); ok {
		in.stage.count.fuel.Add(int64(spent - in.spent))
		in.spent = spent
	}
}

// ask calls an export that the rewriter added. An instance that ended itself
// cannot be asked.
func (in *instance) ask(export string) (uint32, bool) {
	in.env.Silence(true)
	defer in.env.Silence(false)
	answer, _, err := in.run(context.Background(), export, nil)
	return answer, err == nil
}
