package rewrite

import (
	"fmt"
	"strings"
)

// Kind tells why a module is refused.
type Kind uint8

const (
	// Malformed: the bytes are not a WebAssembly module, or a broken one.
	Malformed Kind = iota + 1
	// Unsupported: it uses a proposal, section or opcode that is not known here.
	Unsupported
	// SharedMemory: it declares or imports a shared memory.
	SharedMemory
	// TooLarge: it exceeds one of the Limits, or a fixed bound of Parse.
	TooLarge
)

func (k Kind) String() string {
	switch k {
	case Malformed:
		return "malformed"
	case Unsupported:
		return "unsupported"
	case SharedMemory:
		return "shared-memory"
	case TooLarge:
		return "too-large"
	}
	return fmt.Sprintf("kind(%d)", uint8(k))
}

// RefusedError says why a module is not run, where in it the reason lies, and
// what its author can do.
type RefusedError struct {
	Kind Kind

	// Feature is the proposal of an Unsupported module ("tail-call",
	// "threads", "gc", ...; empty if the bytes belong to none that is known),
	// or the limit that a TooLarge one exceeds ("function body", "locals", ...).
	Feature string

	// Offset is a byte offset in the module, or -1.
	Offset int64

	// Func is the index of the function concerned, imports counted, or -1.
	Func int64

	// Reason is what was found, Advice the next step (may be empty). Both
	// are text for people.
	Reason string
	Advice string
}

func (e *RefusedError) Error() string {
	var b strings.Builder
	b.WriteString("wasm module refused: ")
	b.WriteString(e.Reason)
	switch {
	case e.Func >= 0 && e.Offset >= 0:
		fmt.Fprintf(&b, " (function %d, byte offset %#x)", e.Func, e.Offset)
	case e.Func >= 0:
		fmt.Fprintf(&b, " (function %d)", e.Func)
	case e.Offset >= 0:
		fmt.Fprintf(&b, " (byte offset %#x)", e.Offset)
	}
	if e.Advice != "" {
		b.WriteString(": ")
		b.WriteString(e.Advice)
	}
	return b.String()
}

const (
	adviceRebuild = "the file is damaged or cut short; build or upload it again"
	adviceInvalid = "its toolchain made an invalid module, or the file is damaged; build it again"
)

func malformed(off int, format string, args ...any) *RefusedError {
	return &RefusedError{
		Kind: Malformed, Offset: int64(off), Func: -1,
		Reason: fmt.Sprintf(format, args...), Advice: adviceRebuild,
	}
}

func invalidIndex(off int, format string, args ...any) *RefusedError {
	e := malformed(off, format, args...)
	e.Advice = adviceInvalid
	return e
}

// unsupported reports the use of a proposal; what names the construct.
func unsupported(off int, proposal, what string) *RefusedError {
	e := &RefusedError{Kind: Unsupported, Feature: proposal, Offset: int64(off), Func: -1}
	if proposal == "" {
		e.Reason = what + " is not known"
		e.Advice = "build for WebAssembly 2.0, without experimental features"
		return e
	}
	e.Reason = fmt.Sprintf("%s belongs to the proposal %s, which is not supported", what, proposal)
	e.Advice = proposalAdvice[proposal]
	if e.Advice == "" {
		e.Advice = "build for WebAssembly 2.0, without " + proposal
	}
	return e
}

func tooLarge(off int, feature, format string, args ...any) *RefusedError {
	return &RefusedError{
		Kind: TooLarge, Feature: feature, Offset: int64(off), Func: -1,
		Reason: fmt.Sprintf(format, args...),
	}
}

// The names of proposals as their repositories at github.com/WebAssembly have them.
const (
	propTailCall     = "tail-call"
	propExceptions   = "exception-handling"
	propFuncRefs     = "function-references"
	propGC           = "gc"
	propThreads      = "threads"
	propMemory64     = "memory64"
	propMultiMemory  = "multi-memory"
	propExtendedCons = "extended-const"
	propRelaxedSIMD  = "relaxed-simd"
	propWideArith    = "wide-arithmetic"
	propPageSizes    = "custom-page-sizes"
	propStackSwitch  = "stack-switching"
	propStringRef    = "stringref"
	propMemControl   = "memory-control"
	propComponents   = "component-model"
)

var proposalAdvice = map[string]string{
	propTailCall:     "compile without tail calls (clang: -mno-tail-call; Rust: -C target-feature=-tail-call)",
	propExceptions:   "compile without WebAssembly exceptions (clang: -fno-exceptions; Rust: -C panic=abort)",
	propThreads:      "compile for one thread (no -pthread, no atomics target feature)",
	propMemory64:     "compile for wasm32 instead of wasm64",
	propMultiMemory:  "link to a single memory",
	propExtendedCons: "compile without it (clang: -mno-extended-const; Rust: -C target-feature=-extended-const)",
	propRelaxedSIMD:  "compile with plain simd128 instead",
	propGC:           "use a toolchain that brings its own memory management instead of WasmGC",
	propComponents:   "build a core module (Rust: target wasm32-wasip1 instead of wasm32-wasip2), or extract it with wasm-tools component unbundle",
}
