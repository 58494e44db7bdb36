package pdktest

import (
	"testing"

	"github.com/millrace-io/millrace/examples/orders/gen"
	"github.com/millrace-io/millrace/plugins/sandbox"
)

const goOrders = "go/examples/order_stage_go/order_stage_go.wasm"

func TestGoOrdersAnswerAsNative(t *testing.T) {
	s := newStage(t, newRuntime(t), goOrders, sandbox.StageConfig{})
	events := gen.New(11)
	for range 50 {
		values := make([][]byte, 128)
		for i := range values {
			values[i] = events.Next().Value
		}
		checkAsNative(t, values, process(t, s, values...))
	}
	cutOff(t, s, events, 8)
	if stats := s.Stats(); stats.ImageLevel != 0 || stats.Instances != 1 {
		t.Errorf("stats %+v: the memory grew", stats)
	}
}

func TestGoOrdersFixture(t *testing.T) { ordersFixture(t, goOrders) }

func TestGoOrdersRefuseWhatIsNotJSON(t *testing.T) {
	refuseWhatIsNotJSON(t, goOrders, 13, 60, 300)
}

// The size, and the fuel of an order: both are the same on every machine.
func TestGoOrdersCost(t *testing.T) {
	const mostBytes, mostFuel = 150_000, 25_000
	if n := len(readWasm(t, goOrders)); n > mostBytes {
		t.Errorf("the order stage has %d bytes, at most %d are wanted", n, mostBytes)
	}
	s := newStage(t, newRuntime(t), goOrders, sandbox.StageConfig{})
	events := gen.New(1)
	const records = 128
	for range records {
		process(t, s, events.Next().Value)
	}
	fuel := s.Stats().Fuel / records
	t.Logf("%d units of fuel an order", fuel)
	if fuel > mostFuel {
		t.Errorf("an order takes %d units of fuel, at most %d are wanted", fuel, mostFuel)
	}
}

// BenchmarkGoOrders is BenchmarkOrders for the kit for Go, compiled by TinyGo.
func BenchmarkGoOrders(b *testing.B) {
	benchOrders(b, guestFile{"tinygo-by-hand", "../plugins/plugintest/guests/orders-tinygo/orders-tinygo.wasm"}, guestFile{"tinygo-pdk", goOrders})
}
