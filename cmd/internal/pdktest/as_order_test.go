package pdktest

import (
	"testing"

	"github.com/millrace-io/millrace/examples/orders/gen"
	"github.com/millrace-io/millrace/plugins/sandbox"
)

const asOrders = "assemblyscript/examples/order_stage_as/order_stage_as.wasm"

func TestASOrdersAnswerAsNative(t *testing.T) {
	s := newStage(t, newRuntime(t), asOrders, sandbox.StageConfig{})
	events := gen.New(31)
	for _, n := range []int{1, 2, 17, 128, 1000} {
		values := make([][]byte, n)
		for i := range values {
			values[i] = events.Next().Value
		}
		checkAsNative(t, values, process(t, s, values...))
	}
}

func TestASOrdersCutOff(t *testing.T) {
	cutOff(t, newStage(t, newRuntime(t), asOrders, sandbox.StageConfig{}), gen.New(32), 4)
}

func TestASOrdersRefuseWhatIsNotJSON(t *testing.T) {
	refuseWhatIsNotJSON(t, asOrders, 33, 100, 1000)
}

func TestASOrdersSize(t *testing.T) {
	const most = 40_000
	if n := len(readWasm(t, asOrders)); n > most {
		t.Errorf("the order stage has %d bytes, at most %d are wanted", n, most)
	}
}

// BenchmarkASOrders is the order stage from records to records, fuel and
// restore included: native, by hand, and by the kit.
func BenchmarkASOrders(b *testing.B) {
	benchOrders(b, guestFile{"as-by-hand", "../plugins/plugintest/guests/orders-as/orders-as.wasm"}, guestFile{"as-kit", asOrders})
}
