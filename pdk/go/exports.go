//go:build wasm || tinygo.wasm

package millrace

import (
	"strconv"
	"unsafe"
)

// What the host calls and offers. A file of this name ending in _wasm would be
// left out of TinyGo's target wasm-unknown.

var (
	running engine
	// incoming is the buffer of stage_alloc.
	incoming []byte
	// described is the answer of stage_manifest.
	described []byte
)

func addressOf(b []byte) uint32 { return uint32(uintptr(unsafe.Pointer(unsafe.SliceData(b)))) }

func located(b []byte) uint64 { return uint64(addressOf(b))<<32 | uint64(len(b)) }

//go:wasmexport stage_abi_1
func stageABI1() {}

//go:wasmexport stage_alloc
func stageAlloc(size uint32) uint32 {
	if size > 1<<30 {
		return 0
	}
	if int(size) > cap(incoming) || incoming == nil {
		// As a rule answers are about as long. One block for both: TinyGo's heap
		// doubles when it grows, and what is left of it behind the block is what a
		// stage can allocate in a batch before garbage is collected. That costs
		// more fuel than most records have, and so does to grow.
		n := (int(size) + 15) &^ 7
		both := newBuffer(2*n + n/8)
		incoming = both[:0:n]
		if cap(running.out.b) < n {
			running.out.b = both[n:n]
		}
	}
	return addressOf(incoming)
}

// received is what the host wrote into the buffer of stage_alloc.
func received(ptr, length uint32) ([]byte, bool) {
	if incoming == nil || ptr != addressOf(incoming) || uint64(length) > uint64(cap(incoming)) {
		return nil, false
	}
	return incoming[:length:length], true
}

//go:wasmexport stage_init
func stageInit(ptr, length uint32) int32 {
	config, ok := received(ptr, length)
	if !ok {
		Error("stage_init: the configuration is not in the buffer of stage_alloc")
		return 1
	}
	// The buffer is written again; a configuration may keep views of its text.
	stage, err := configured(append([]byte(nil), config...))
	if err != nil {
		Error(err.Error())
		return 1
	}
	running.stage = stage
	return 0
}

//go:wasmexport stage_batch
func stageBatch(ptr, length uint32) uint64 {
	frame, ok := received(ptr, length)
	if running.stage == nil {
		running.stage = notConfigured
	}
	if ok {
		if result := running.batch(frame); result != nil {
			return located(result)
		}
	}
	Error("the batch of " + strconv.Itoa(int(length)) + " bytes is no frame of stage/1")
	return 0
}

func notConfigured(*Record, *Out) error {
	return Fail(1, "the stage was not configured: stage_init was not called")
}

//go:wasmexport stage_manifest
func stageManifest() uint64 {
	if plugin.configure == nil {
		// TinyGo's wasm-unknown has nowhere to print what a panic says.
		Error(noStage)
		panic(noStage)
	}
	if described = appendManifest(described[:0]); len(described) == 0 {
		return 0
	}
	return located(described)
}

//go:wasmimport stage log
func importedLog(level int32, ptr unsafe.Pointer, length uint32)

//go:wasmimport stage count
func importedCount(ptr unsafe.Pointer, length uint32, delta float64)

// hostLog tells the host the record under way too: its number in the batch and
// one stand above the level.
func hostLog(level Level, line string) {
	about := uint32(level)
	if id := running.about; id < 1<<24 {
		about |= id << 8
	}
	importedLog(int32(about), unsafe.Pointer(unsafe.StringData(line)), uint32(len(line)))
}

func hostCount(name string, delta float64) {
	importedCount(unsafe.Pointer(unsafe.StringData(name)), uint32(len(name)), delta)
}
