package sandbox

import (
	"context"
	"errors"
	"io"
	"math"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/imports/wasi_snapshot_preview1"
	"github.com/tetratelabs/wazero/sys"

	"github.com/millrace-io/millrace/plugins/rewrite"
)

// errnos of WASI preview 1.
const (
	errnoBadf         = 8
	errnoFault        = 21
	errnoInval        = 28
	errnoIO           = 29
	errnoNotSupported = 58
)

// exportWASI adds WASI preview 1 to w. What looks at as much memory as a guest
// says is of our own, and charges for it; the rest is wazero's. The file
// descriptors 0 to 2 cannot be closed or renumbered: a guest's table of them
// is not part of its image. There are no others, and no paths.
func exportWASI(w wazero.HostModuleBuilder) {
	wasi_snapshot_preview1.NewFunctionExporter().ExportFunctions(w)
	const i32, i64 = api.ValueTypeI32, api.ValueTypeI64
	export := func(name string, f func(context.Context, api.Module, []uint64), params ...api.ValueType) {
		results := []api.ValueType{i32}
		if name == "proc_exit" {
			results = nil
		}
		w.NewFunctionBuilder().WithGoModuleFunction(api.GoModuleFunc(f), params, results).Export(name)
	}
	answer := func(n uint64) func(context.Context, api.Module, []uint64) {
		return func(_ context.Context, _ api.Module, stack []uint64) { stack[0] = n }
	}
	export("fd_close", answer(0), i32)
	export("fd_renumber", answer(errnoNotSupported), i32, i32)
	export("fd_fdstat_set_flags", answer(0), i32, i32)
	export("fd_read", hostRead, i32, i32, i32, i32)
	export("fd_write", hostWrite, i32, i32, i32, i32)
	export("poll_oneoff", hostPoll, i32, i32, i32, i32)
	export("proc_exit", hostExit, i32)
	export("random_get", hostRandom, i32, i32)

	badf := answer(errnoBadf)
	export("fd_pread", badf, i32, i32, i32, i64, i32)
	export("fd_pwrite", badf, i32, i32, i32, i64, i32)
	export("fd_readdir", badf, i32, i32, i32, i64, i32)
	export("path_create_directory", badf, i32, i32, i32)
	export("path_filestat_get", badf, i32, i32, i32, i32, i32)
	export("path_filestat_set_times", badf, i32, i32, i32, i32, i64, i64, i32)
	export("path_link", badf, i32, i32, i32, i32, i32, i32, i32)
	export("path_open", badf, i32, i32, i32, i32, i32, i64, i64, i32, i32)
	export("path_readlink", badf, i32, i32, i32, i32, i32, i32)
	export("path_remove_directory", badf, i32, i32, i32)
	export("path_rename", badf, i32, i32, i32, i32, i32, i32)
	export("path_symlink", badf, i32, i32, i32, i32, i32)
	export("path_unlink_file", badf, i32, i32, i32)
	export("sock_recv", badf, i32, i32, i32, i32, i32, i32)
	export("sock_send", badf, i32, i32, i32, i32, i32)
}

// hostRead is fd_read: STDIN is the input of a program, and empty in call
// mode.
func hostRead(ctx context.Context, mod api.Module, stack []uint64) {
	e := envOf(ctx)
	fd, arguments := uint32(stack[0]), [3]uint32{uint32(stack[1]), uint32(stack[2]), uint32(stack[3])}
	if fd != 0 || e == nil {
		stack[0] = errnoBadf
		return
	}
	if p := e.program; p != nil && !p.reading {
		p.firstRead(ctx, arguments)
	}
	stack[0] = uint64(e.readInto(mod, arguments))
}

// readInto reads STDIN into the buffers that a guest gave: the address and the
// number of its iovecs, and where the number of bytes read belongs.
func (e *guestEnv) readInto(mod api.Module, arguments [3]uint32) uint32 {
	return e.vectors(mod, arguments, rewrite.FuelForLength, func(b []byte) (int, error) {
		if e.program == nil {
			return 0, nil
		}
		n, err := e.program.in.Read(b)
		if errors.Is(err, io.EOF) {
			err = nil
		}
		return n, err
	})
}

// hostWrite is fd_write: STDERR is the log, STDOUT the output of a program,
// and log as well in call mode.
func hostWrite(ctx context.Context, mod api.Module, stack []uint64) {
	e := envOf(ctx)
	fd, arguments := uint32(stack[0]), [3]uint32{uint32(stack[1]), uint32(stack[2]), uint32(stack[3])}
	if fd != 1 && fd != 2 || e == nil {
		stack[0] = errnoBadf
		return
	}
	if fd == 1 && e.program != nil {
		stack[0] = uint64(e.vectors(mod, arguments, fuelForOutput, e.program.out.Write))
		return
	}
	stack[0] = uint64(e.vectors(mod, arguments, rewrite.FuelForLength, logWriter{&e.World, int(fd - 1)}.Write))
}

// fuelForOutput is the charge for bytes that a program writes to STDOUT.
func fuelForOutput(length uint64) int64 { return int64(length / outputPerFuel) }

// vectors lets move read or fill the buffers of a list of iovecs one after the
// other, until one is not used up, and writes down how much that was. Each is
// paid for before.
func (e *guestEnv) vectors(mod api.Module, arguments [3]uint32, price func(length uint64) int64, move func([]byte) (int, error)) uint32 {
	memory := mod.Memory()
	iovecs, count, result := arguments[0], arguments[1], arguments[2]
	if uint64(count)*8 > uint64(memory.Size()) {
		return errnoFault
	}
	e.pay(mod, int64(count/iovecsPerFuel))
	list, ok := memory.Read(iovecs, count*8)
	if !ok {
		return errnoFault
	}
	total := uint32(0)
	for ; len(list) > 0; list = list[8:] {
		at, size := le.Uint32(list), le.Uint32(list[4:])
		if size == 0 {
			continue
		}
		b, ok := memory.Read(at, size)
		if !ok {
			return errnoFault
		}
		e.pay(mod, price(uint64(size)))
		n, err := move(b)
		total += uint32(n)
		if err != nil {
			return errnoIO
		}
		if n < len(b) {
			break
		}
	}
	if !memory.WriteUint32Le(result, total) {
		return errnoFault
	}
	return 0
}

// hostRandom is random_get.
func hostRandom(ctx context.Context, mod api.Module, stack []uint64) {
	e := envOf(ctx)
	b, ok := mod.Memory().Read(uint32(stack[0]), uint32(stack[1]))
	if !ok || e == nil {
		stack[0] = errnoFault
		return
	}
	e.pay(mod, int64(len(b)/randomPerFuel))
	_, _ = e.Read(b)
	stack[0] = 0
}

// Sizes and tags of poll_oneoff.
const (
	subscriptionSize = 48
	eventSize        = 32
	eventClock       = 0
	eventRead        = 1
	eventWrite       = 2
	clockAbsolute    = 1
)

// hostPoll is poll_oneoff. Nothing ever waits: STDIN can always be read, the
// clock advances by the shortest timeout if there is nothing else.
func hostPoll(ctx context.Context, mod api.Module, stack []uint64) {
	e := envOf(ctx)
	if e == nil {
		stack[0] = errnoNotSupported
		return
	}
	stack[0] = uint64(e.poll(mod, uint32(stack[0]), uint32(stack[1]), uint32(stack[2]), uint32(stack[3])))
}

func (e *guestEnv) poll(mod api.Module, in, out, count, result uint32) uint32 {
	memory := mod.Memory()
	if count == 0 {
		return errnoInval
	}
	if uint64(count)*subscriptionSize > uint64(memory.Size()) {
		return errnoFault
	}
	e.pay(mod, int64(count)*fuelPerSubscription)
	from, ok := memory.Read(in, count*subscriptionSize)
	if !ok {
		return errnoFault
	}
	to, ok := memory.Read(out, count*eventSize)
	if !ok {
		return errnoFault
	}
	timeout, ready := int64(math.MaxInt64), false
	events := make([]byte, len(to)) // from and to may overlap
	for i := range int(count) {
		s, ev := from[i*subscriptionSize:][:subscriptionSize], events[i*eventSize:][:eventSize]
		copy(ev, s[:8]) // user data
		tag := s[8]
		ev[10] = tag
		switch tag {
		case eventClock:
			wait := int64(min(le.Uint64(s[24:]), math.MaxInt64))
			if le.Uint16(s[40:])&clockAbsolute != 0 {
				wait = max(0, wait-e.nanos)
			}
			timeout = min(timeout, wait)
		case eventRead, eventWrite:
			switch fd := le.Uint32(s[16:]); {
			case fd > 2:
				le.PutUint16(ev[8:], errnoBadf)
			case (fd == 0) != (tag == eventRead):
				le.PutUint16(ev[8:], errnoNotSupported)
			}
			ready = true
		default:
			return errnoInval
		}
	}
	copy(to, events)
	if !memory.WriteUint32Le(result, count) {
		return errnoFault
	}
	if !ready {
		e.Sleep(timeout)
	}
	return 0
}

// hostExit is proc_exit.
func hostExit(ctx context.Context, mod api.Module, stack []uint64) {
	code := uint32(stack[0])
	if e := envOf(ctx); e != nil && e.program != nil {
		e.program.ended(code)
	}
	_ = mod.CloseWithExitCode(ctx, code)
	panic(sys.NewExitError(code))
}
