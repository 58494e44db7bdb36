package extism

import (
	"context"
	"errors"
	"fmt"

	sdk "github.com/extism/go-sdk"
	"github.com/tetratelabs/wazero/api"

	"github.com/millrace-io/millrace/plugins/rewrite"
	"github.com/millrace-io/millrace/plugins/sandbox"
)

// ownModule is where a rewritten guest finds those functions of
// sandbox.ExtismModule that this package gives in place of the SDK. Extism's own
// module has no fuel: a guest that wrote over the lists of its allocator would
// hold its worker for ever, one that has the SDK read a large block again and
// again for hours. So a guest may write only to blocks that it was given, and
// what its calls make the host copy and search is charged.
const ownModule = "millrace:extism"

// importFrom is rewrite.Options.ImportFrom.
func importFrom(module, name string) string {
	if _, own := ownFunctions[name]; own && module == sandbox.ExtismModule {
		return ownModule
	}
	return ""
}

type instanceKey struct{}

// context is that of a call: own functions find the instance in it.
func (in *instance) context(ctx context.Context) context.Context {
	return context.WithValue(ctx, instanceKey{}, in)
}

// errHostFuel ends a guest in a host function.
var errHostFuel = errors.New("out of fuel")

// charge pays for work of the host.
func (in *instance) charge(units int64) {
	if in.hostFuel += units; in.hostFuel > in.stage.fuel {
		panic(errHostFuel)
	}
}

// search pays for a walk along the allocator's list.
func (in *instance) search() { in.charge(int64(len(in.blocks.list)) / 8) }

type ownFunction struct {
	params, results []api.ValueType
	call            func(ctx context.Context, in *instance, p *sdk.CurrentPlugin, stack []uint64)
}

var ownFunctions = map[string]ownFunction{
	"alloc": {i64s(1), i64s(1), func(_ context.Context, in *instance, p *sdk.CurrentPlugin, stack []uint64) {
		stack[0] = in.allocate(p, stack[0])
	}},
	"free": {i64s(1), nil, func(_ context.Context, in *instance, p *sdk.CurrentPlugin, stack []uint64) {
		in.free(p, stack[0])
	}},
	"length": {i64s(1), i64s(1), func(_ context.Context, in *instance, p *sdk.CurrentPlugin, stack []uint64) {
		stack[0] = in.length(p, stack[0])
	}},
	"reset": {nil, nil, func(ctx context.Context, in *instance, _ *sdk.CurrentPlugin, _ []uint64) {
		in.charge(rewrite.FuelForLength(uint64(in.memory.Size()))) // it is cleared
		in.blocks.clear()
		kernel, _ := ctx.Value(sdk.PluginCtxKey("extism")).(api.Module)
		must(kernel.ExportedFunction("reset").CallWithStack(ctx, nil))
	}},
	"store_u64": {i64s(2), nil, func(ctx context.Context, in *instance, _ *sdk.CurrentPlugin, stack []uint64) {
		in.mayWrite(ctx, stack[0], 8)
		in.memory.WriteUint64Le(uint32(stack[0]), stack[1])
	}},
	"store_u8": {[]api.ValueType{api.ValueTypeI64, api.ValueTypeI32}, nil, func(ctx context.Context, in *instance, _ *sdk.CurrentPlugin, stack []uint64) {
		in.mayWrite(ctx, stack[0], 1)
		in.memory.WriteByte(uint32(stack[0]), byte(stack[1]))
	}},
	"config_get": {i64s(1), i64s(1), func(_ context.Context, in *instance, p *sdk.CurrentPlugin, stack []uint64) {
		value, ok := in.stage.texts[in.text(p, stack[0])]
		stack[0] = 0
		if ok {
			stack[0] = in.give(p, []byte(value))
		}
	}},
	"var_get": {i64s(1), i64s(1), func(_ context.Context, in *instance, p *sdk.CurrentPlugin, stack []uint64) {
		name := in.text(p, stack[0])
		in.free(p, stack[0])
		value, ok := in.plugin.Var[name]
		stack[0] = 0
		if ok {
			stack[0] = in.give(p, value)
		}
	}},
	"var_set": {i64s(2), nil, func(_ context.Context, in *instance, p *sdk.CurrentPlugin, stack []uint64) {
		in.setVar(p, stack[0], stack[1])
	}},
	"log_trace": logFunction(sdk.LogLevelTrace),
	"log_debug": logFunction(sdk.LogLevelDebug),
	"log_info":  logFunction(sdk.LogLevelInfo),
	"log_warn":  logFunction(sdk.LogLevelWarn),
	"log_error": logFunction(sdk.LogLevelError),
}

func i64s(n int) []api.ValueType {
	return []api.ValueType{api.ValueTypeI64, api.ValueTypeI64}[:n:n]
}

func logFunction(level sdk.LogLevel) ownFunction {
	return ownFunction{i64s(1), nil, func(_ context.Context, in *instance, p *sdk.CurrentPlugin, stack []uint64) {
		if level >= guestLogLevel {
			p.Log(level, in.text(p, stack[0]))
		}
		in.free(p, stack[0])
	}}
}

// hostFunctions are ownFunctions for the SDK.
func hostFunctions() []sdk.HostFunction {
	var all []sdk.HostFunction
	for name, own := range ownFunctions {
		f := sdk.NewHostFunctionWithStack(name, func(ctx context.Context, p *sdk.CurrentPlugin, stack []uint64) {
			in, ok := ctx.Value(instanceKey{}).(*instance)
			if !ok {
				panic(errors.New("it called Extism before it was started"))
			}
			own.call(ctx, in, p, stack)
		}, own.params, own.results)
		f.SetNamespace(ownModule)
		all = append(all, f)
	}
	return all
}

// must has a host function end the guest.
func must(err error) {
	if err != nil {
		panic(err)
	}
}

// allocate is a block of n bytes for the guest, 0 if there is no memory.
func (in *instance) allocate(p *sdk.CurrentPlugin, n uint64) uint64 {
	at, err := p.Alloc(n)
	must(err)
	in.blocks.add(at, n)
	return at
}

func (in *instance) free(p *sdk.CurrentPlugin, at uint64) {
	in.search()
	in.blocks.remove(at)
	must(p.Free(at))
}

// length is that of the block at an offset, 0 if there is none.
func (in *instance) length(p *sdk.CurrentPlugin, at uint64) uint64 {
	if n, ok := in.blocks.at(at); ok {
		return n
	}
	in.search()
	n, err := p.Length(at)
	must(err)
	return n
}

// text is the content of the block at an offset.
func (in *instance) text(p *sdk.CurrentPlugin, at uint64) string {
	n := in.length(p, at)
	in.charge(rewrite.FuelForLength(n))
	b, ok := in.memory.Read(uint32(at), uint32(n))
	if !ok {
		panic(fmt.Errorf("there is no block of %d bytes at %#x", n, at))
	}
	return string(b)
}

// give is a new block with a content; 0 if there is no memory, which fails the
// call.
func (in *instance) give(p *sdk.CurrentPlugin, content []byte) uint64 {
	in.charge(rewrite.FuelForLength(uint64(len(content))))
	at := in.allocate(p, uint64(len(content)))
	if at != 0 && !in.memory.Write(uint32(at), content) {
		panic(fmt.Errorf("there is no room for %d bytes at %#x", len(content), at))
	}
	return at
}

// mayWrite ends a guest that writes to what it was not given.
func (in *instance) mayWrite(ctx context.Context, at, n uint64) {
	if in.blocks.hold(at, n) {
		return
	}
	input, ok := ctx.Value(sdk.InputOffsetKey("inputOffset")).(uint64)
	if size := uint64(in.inputBytes); ok && at >= input && at-input < size && n <= size-(at-input) {
		return
	}
	panic(fmt.Errorf("could not write value: the %d bytes at %#x are not in a block of its own", n, at))
}

// varBytes is what the SDK counts for a variable beside name and value.
const varBytes = 24 + 16

// setVar is var_set, with the SDK's bound for all variables.
func (in *instance) setVar(p *sdk.CurrentPlugin, nameAt, valueAt uint64) {
	vars := in.plugin.Var
	name := in.text(p, nameAt)
	in.free(p, nameAt)
	if valueAt == 0 {
		delete(vars, name)
		return
	}
	value := []byte(in.text(p, valueAt))
	in.free(p, valueAt)
	in.charge(int64(len(vars)))
	size := varBytes + len(name) + len(value)
	for k, v := range vars {
		size += varBytes + len(k) + len(v)
	}
	if size >= int(in.plugin.MaxVarBytes) {
		panic(errors.New("the variables are full"))
	}
	vars[name] = value
}
