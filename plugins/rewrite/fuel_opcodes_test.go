package rewrite_test

import (
	"context"
	"fmt"
	"math"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/tetratelabs/wazero"

	"github.com/millrace-io/millrace/plugins/rewrite"
)

// A signature is the types of an instruction's operands and of its result, as
// letters of opcodeTypes.
var opcodeTypes = map[byte]struct {
	code        byte
	load, store []byte
	operands    []uint64
}{
	'i': {0x7f, []byte{0x28, 0}, []byte{0x36, 0}, []uint64{7, math.MaxUint32}},
	'I': {0x7e, []byte{0x29, 0}, []byte{0x37, 0}, []uint64{7, math.MaxUint64 - 5}},
	'f': {0x7d, []byte{0x2a, 0}, []byte{0x38, 0}, []uint64{uint64(math.Float32bits(1.5)), 3, uint64(math.Float32bits(1e38)), 0x7fc00000}},
	'F': {0x7c, []byte{0x2b, 0}, []byte{0x39, 0}, []uint64{math.Float64bits(1.5), 3, math.Float64bits(1e-310), math.Float64bits(1e300), 0x7ff8000000000000}},
	'v': {0x7b, []byte{0xfd, 0, 0}, []byte{0xfd, 11, 0}, []uint64{math.Float64bits(1.5), 3, math.MaxUint64}},
}

// numericOpcodes are all that only compute, with their signatures.
func numericOpcodes(t *testing.T) (out []numericOpcode) {
	signatures := []string{"i>i", "ii>i", "I>i", "II>i", "ff>i", "FF>i", "I>I", "II>I", "f>f", "ff>f", "F>F", "FF>F",
		"f>i", "F>i", "i>I", "f>I", "F>I", "i>f", "I>f", "F>f", "i>F", "I>F", "f>F",
		"v>v", "vv>v", "vi>v", "v>i", "vvv>v", "i>v", "I>v", "f>v", "F>v", "v>I", "v>f", "v>F", "vI>v", "vf>v", "vF>v"}
	add := func(op ...byte) {
		imms := [][]byte{nil, {0}, slices.Repeat([]byte{5}, 16)}
		for _, imm := range imms {
			for _, s := range signatures {
				o := numericOpcode{code: cat(op, imm), signature: s}
				if _, err := wazero.NewRuntimeWithConfig(t.Context(), wazero.NewRuntimeConfigInterpreter()).CompileModule(t.Context(), o.module(1, 0)); err == nil {
					out = append(out, o)
					return
				}
			}
		}
	}
	for op := 0x45; op <= 0xc4; op++ {
		add(byte(op))
	}
	for op := range byte(8) {
		add(0xfc, op)
	}
	for op := 0x0d; op <= 0xff; op++ {
		add(append([]byte{0xfd}, leb(op)...)...)
	}
	return out
}

type numericOpcode struct {
	code      []byte
	signature string
}

// module runs the instruction n times a turn, as often as its parameter says;
// operands come from address 0, 32, 64; chained ones from the last result where
// the types allow it.
func (o *numericOpcode) module(n int, chained int) []byte {
	operands, result := o.signature[:len(o.signature)-2], o.signature[len(o.signature)-1]
	var locals []byte
	var load []byte
	for i := range len(operands) {
		typ := opcodeTypes[operands[i]]
		locals = append(locals, 1, typ.code)
		load = cat(load, i32c(0), typ.load, leb(32*i), []byte{0x21, byte(1 + i)})
	}
	var step []byte
	for i := range len(operands) {
		step = append(step, 0x20, byte(1+i))
	}
	store := opcodeTypes[result].store
	if chained > 0 {
		step = cat(step, o.code, []byte{0x21, byte(chained)})
	} else {
		step = cat(i32c(0), step, o.code, store, leb(128))
	}
	var keep []byte
	if chained > 0 {
		keep = cat(i32c(0), []byte{0x20, byte(chained)}, store, leb(128))
	}
	code := cat(load, []byte{0x03, 0x40}, slices.Repeat(step, n), []byte{0x20, 0, 0x41, 1, 0x6b, 0x22, 0, 0x0d, 0, 0x0b}, keep)
	return newWasm().
		vec(1, funcTypeOf("\x7f", "")).
		vec(3, []byte{0}).
		vec(5, []byte{0, 1}).
		vec(7, exportOf("f", 0, 0), exportOf("memory", 2, 0)).
		vec(10, sized(leb(len(operands)), locals, code, []byte{0x0b})).out
}

// TestFuelOfEveryOpcode measures what each instruction that computes takes at
// most, and prints those above what a unit may be. It is for those who change
// weights: MILLRACE_OPCODES=1.
func TestFuelOfEveryOpcode(t *testing.T) {
	if os.Getenv("MILLRACE_OPCODES") == "" {
		t.Skip("MILLRACE_OPCODES is not set")
	}
	const n, turns = 200, 50
	rt := wazero.NewRuntime(t.Context())
	defer rt.Close(context.Background())
	for _, o := range numericOpcodes(t) {
		worst, how := 0.0, ""
		operands, result := o.signature[:len(o.signature)-2], o.signature[len(o.signature)-1]
		for chained := 0; chained <= len(operands); chained++ {
			if chained > 0 && operands[chained-1] != result {
				continue
			}
			mod, err := rt.InstantiateWithConfig(t.Context(), o.module(n, chained), wazero.NewModuleConfig().WithName(""))
			if err != nil {
				t.Fatal(err)
			}
			f := mod.ExportedFunction("f")
			for _, v := range opcodeTypes[operands[0]].operands {
				for i := range len(operands) {
					w := opcodeTypes[operands[i]].operands[0]
					if operands[i] == operands[0] && (i == 0 || v == 3) {
						w = v
					}
					if i > 0 && v == 3 && operands[i] == operands[0] && (operands[0] == 'F' || operands[0] == 'f' || operands[0] == 'v') {
						w = opcodeTypes[operands[0]].operands[0]
					}
					mod.Memory().WriteUint64Le(uint32(32*i), w)
					mod.Memory().WriteUint64Le(uint32(32*i+8), w)
				}
				best := time.Hour
				for range 5 {
					began := time.Now()
					if _, err := f.Call(t.Context(), turns); err != nil {
						best = 0
						break
					}
					best = min(best, time.Since(began))
				}
				if ns := float64(best.Nanoseconds()) / n / turns; ns > worst {
					worst, how = ns, fmt.Sprintf("chained %d operand %#x", chained, v)
				}
			}
			mod.Close(t.Context())
		}
		weight := rewrite.WeightOf(o.code)
		mark := ""
		if worst/float64(weight) > 2 {
			mark = "!!!"
		}
		fmt.Printf("%x %s %.2f ns weight %d = %.1f %s %s\n", o.code, o.signature, worst, weight, worst/float64(weight), how, mark)
	}
}
