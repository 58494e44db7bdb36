package orderstage

import "github.com/millrace-io/millrace/runtime/record"

// Batch answers b with the order stage, as a stage would, and appends to out:
// with one allocation for all values. Its failures have no error.
func Batch(b *record.Batch, out *record.Results) {
	buf := make([]byte, 0, 320*len(b.Records))
	for i := range b.Records {
		at := len(buf)
		var o Outcome
		buf, o = Order(buf, b.Records[i].Value)
		switch o {
		case Emit:
			out.Emits = append(out.Emits, record.Emit{In: int32(i), Record: b.Records[i]})
			out.Emits[len(out.Emits)-1].Record.Value = buf[at:len(buf):len(buf)]
		case Drop:
			out.Drops = append(out.Drops, int32(i))
		default:
			out.Failures = append(out.Failures, record.Failure{In: int32(i)})
		}
	}
}

// Pass emits every record of b as it is: what any stage costs at least.
func Pass(b *record.Batch, out *record.Results) {
	for i := range b.Records {
		out.Emits = append(out.Emits, record.Emit{In: int32(i), Record: b.Records[i]})
	}
}
