package sandbox

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/millrace-io/millrace/plugins/manifest"
	"github.com/millrace-io/millrace/plugins/rewrite"
)

// ABIVersion is the major version of the plugin ABI that this host runs.
const ABIVersion = 1

// Info is what can be told about a plugin without running or compiling it.
type Info struct {
	// Mode is manifest.ModeCall, manifest.ModeLines or manifest.ModeExtism,
	// empty if the plugin has none that this host runs. Why is the reason in
	// words.
	Mode, Why string
	// ABI is the major version that the binary or its manifest names; 0 if
	// neither does.
	ABI int
	// Digest is "sha256:" and 64 hex digits; Size is in bytes.
	Digest string
	Size   int

	Imports []rewrite.Import
	Exports []rewrite.Export
	// Manifest is nil if there is none or it cannot be read.
	Manifest *manifest.Manifest

	// MemoryMinBytes is what the guest starts with, MemoryMaxBytes its own
	// limit, 0 if it has none.
	MemoryMinBytes, MemoryMaxBytes int64
	// Functions counts own functions; CodeBytes is the size of their bodies.
	Functions, CodeBytes, DataSegments int
	// Configurable: it exports stage_init, or runs in extism mode.
	Configurable bool
	// Callable are the exports that a stage in extism mode can name as its
	// function, in their order in the binary; empty in call mode.
	Callable []string
	// UsesHTTP: it imports what reaches hosts, which only a stage with `hosts`
	// lets it do.
	UsesHTTP bool
	// Signs: it imports what signs, and needs a stage with keys for it.
	Signs bool
	// ExactRestore: an instance can be put back to its image. If not,
	// RestoreObstacles says why, and each batch gets a fresh instance.
	ExactRestore     bool
	RestoreObstacles []string

	// Refusals is why the plugin cannot run here; empty if it can.
	Refusals []*RefusedError
}

// Err is what keeps the plugin from running here, joined; nil if it can run.
func (i *Info) Err() error {
	errs := make([]error, len(i.Refusals))
	for n, r := range i.Refusals {
		errs[n] = r
	}
	return errors.Join(errs...)
}

// Named is the plugin's manifest with name and version filled in from the
// file's name and the digest where it has none.
func (i *Info) Named(file string) manifest.Manifest {
	m := manifest.Manifest{Deterministic: true}
	if i.Manifest != nil {
		m = *i.Manifest
	}
	return m.WithDefaults(file, i.Digest)
}

// Outputs are the names of the plugin's outputs, the default first.
func (i *Info) Outputs() []string {
	if i.Manifest == nil {
		return []string{"default"}
	}
	return i.Manifest.OutputNames()
}

// Inspect reads a Wasm binary without compiling it, in milliseconds. Whatever
// speaks against running it is in Info.Refusals; the error is a *RefusedError
// when the bytes cannot even be read as a module.
func Inspect(wasm []byte) (*Info, error) { return InspectAs(wasm, "") }

// InspectAs is Inspect for a plugin whose stage asks for a mode: "" for the one
// that the binary shows, or manifest.ModeExtism.
func InspectAs(wasm []byte, mode string) (*Info, error) {
	info, _, err := inspect(wasm, mode)
	return info, err
}

func digestOf(wasm []byte) string {
	sum := sha256.Sum256(wasm)
	return "sha256:" + hex.EncodeToString(sum[:])
}

func inspect(wasm []byte, mode string) (*Info, *rewrite.Module, error) {
	m, err := rewrite.Parse(wasm)
	if err != nil {
		if e, ok := errors.AsType[*rewrite.RefusedError](err); ok {
			return nil, nil, refusedBy(e)
		}
		return nil, nil, &RefusedError{Kind: RefusedFormat, Reason: err.Error(), Err: err}
	}
	f := m.Facts()
	info := &Info{
		Digest: digestOf(wasm), Size: len(wasm), Imports: f.Imports, Exports: f.Exports,
		Functions: f.Functions, CodeBytes: f.CodeBytes, DataSegments: f.DataSegments,
		ExactRestore: f.ExactRestore, RestoreObstacles: f.RestoreObstacles,
	}
	if f.Memory != nil {
		info.MemoryMinBytes = int64(f.Memory.Min) * pageBytes
		if f.Memory.HasMax {
			info.MemoryMaxBytes = int64(f.Memory.Max) * pageBytes
		}
	}
	for _, r := range m.Refusals(rewrite.Limits{}) {
		info.Refusals = append(info.Refusals, refusedBy(r))
	}
	info.checkTables(f)
	if content, ok := m.Custom(manifest.Section); ok {
		info.Manifest, err = manifest.Parse(content)
		if err != nil {
			info.Refusals = append(info.Refusals, &RefusedError{
				Kind: RefusedManifest, Reason: err.Error(), Err: err, Advice: "mend the custom section stage.manifest",
			})
		}
	}
	info.findMode(f, mode)
	info.checkImports()
	return info, m, nil
}

// The exports of call mode.
const (
	exportMarker     = "stage_abi_"
	exportInitialize = "_initialize"
	exportInit       = "stage_init"
	exportAlloc      = "stage_alloc"
	exportBatch      = "stage_batch"
	exportMemory     = "memory"
	exportStart      = "_start"
)

func (i *Info) refuse(kind Refusal, advice, format string, args ...any) {
	i.Refusals = append(i.Refusals, refuse(kind, advice, format, args...))
}

func (i *Info) findMode(f *rewrite.Facts, asked string) {
	marked := i.markers()
	if len(marked) == 0 {
		i.Callable = callable(f)
	}
	_, hasStart := f.Export(exportStart, rewrite.KindFunc)
	wanted := ""
	if i.Manifest != nil {
		wanted = i.Manifest.Mode
		i.ABI = i.Manifest.ABI
	}
	switch {
	case asked == manifest.ModeExtism && len(marked) > 0:
		i.refuse(RefusedMode, "take `function` away: the host knows what to call", "a function is named for it, but it is a plugin for stage/%d, which has none", ABIVersion)
	case marked[ABIVersion] && !(wanted == manifest.ModeLines && hasStart):
		i.ABI = ABIVersion
		i.Mode, i.Why = manifest.ModeCall, fmt.Sprintf("it exports %s%d", exportMarker, ABIVersion)
		i.checkCall(f)
		if wanted == manifest.ModeExtism {
			i.refuse(RefusedABI, "make the two agree", "it exports %s%d, but its manifest says mode %q", exportMarker, ABIVersion, wanted)
		}
	case len(marked) > 0 && wanted != manifest.ModeLines:
		for v := range marked {
			i.ABI = max(i.ABI, v)
		}
		i.refuse(RefusedABI, fmt.Sprintf("build it with a PDK for stage/%d, or upgrade this host", ABIVersion),
			"it exports %s%d: this host runs %s%d", exportMarker, i.ABI, exportMarker, ABIVersion)
	case asked == manifest.ModeExtism, wanted == manifest.ModeExtism, i.importsFrom(ExtismModule):
		i.Mode, i.Why = manifest.ModeExtism, "its stage names a function"
		switch {
		case i.importsFrom(ExtismModule):
			i.Why = "it imports " + ExtismModule
		case wanted == manifest.ModeExtism:
			i.Why = "its manifest says so"
		}
		i.checkExtism(wanted)
	case wanted == manifest.ModeCall:
		i.refuse(RefusedABI, "build it with a Millrace PDK, or remove \"mode\" from the manifest",
			"its manifest says mode \"call\", but it does not export %s%d", exportMarker, ABIVersion)
	case hasStart:
		i.Mode, i.Why = manifest.ModeLines, "it is a WASI command: it exports _start"
		if wanted == manifest.ModeLines {
			i.Why = "its manifest says so, and it exports _start"
		}
		i.checkLines(f)
	default:
		i.refuse(RefusedMode, "a kit makes its exports by one line, which is not there: stage!(f); in Rust, millrace.Stage(f) in init() in Go, the export line of the package in AssemblyScript; "+
			"without a kit build a WASI command, which has a main function (Rust: --target wasm32-wasip1)",
			"it exports neither %s%d nor _start, and does not import %s", exportMarker, ABIVersion, ExtismModule)
	}
}

// markers are the ABI versions whose marker is exported.
func (i *Info) markers() map[int]bool {
	found := map[int]bool{}
	for _, e := range i.Exports {
		if rest, ok := strings.CutPrefix(e.Name, exportMarker); ok && e.Kind == rewrite.KindFunc {
			if v, err := strconv.Atoi(rest); err == nil && v > 0 {
				found[v] = true
			}
		}
	}
	return found
}

func (i *Info) importsFrom(module string) bool {
	for _, im := range i.Imports {
		if im.Module == module {
			return true
		}
	}
	return false
}

func (i *Info) checkCall(f *rewrite.Facts) {
	i.checkExport(f, exportAlloc, "(i32) -> i32", true)
	i.checkExport(f, exportBatch, "(i32, i32) -> i64", true)
	i.Configurable = i.checkExport(f, exportInit, "(i32, i32) -> i32", false)
	i.checkExport(f, exportInitialize, "()", false)
	i.checkMemory(f)
	if i.Manifest != nil && i.Manifest.ABI > 0 && i.Manifest.ABI != ABIVersion {
		i.refuse(RefusedABI, "make the two agree", "it exports %s%d, but its manifest says abi %d", exportMarker, ABIVersion, i.Manifest.ABI)
	}
}

func (i *Info) checkLines(f *rewrite.Facts) {
	i.checkExport(f, exportStart, "()", true)
	i.checkMemory(f)
	if i.ABI > ABIVersion {
		i.refuse(RefusedABI, "build it for this version, or upgrade this host", "its manifest says abi %d: this host runs %d", i.ABI, ABIVersion)
	}
}

// runtimeExports are functions of toolchains that a stage does not call.
var runtimeExports = []string{exportInitialize, "__wasm_call_ctors", "hs_init", "hs_exit"}

// callable are the functions that a stage in extism mode can call.
func callable(f *rewrite.Facts) []string {
	var names []string
	for _, e := range f.Exports {
		if e.Kind != rewrite.KindFunc || slices.Contains(runtimeExports, e.Name) || strings.HasPrefix(e.Name, "asyncify_") {
			continue
		}
		switch e.Signature {
		case "()", "() -> i32", "() -> i64":
			names = append(names, e.Name)
		}
	}
	return names
}

func (i *Info) checkExtism(wanted string) {
	i.Configurable, i.ExactRestore = true, false
	i.RestoreObstacles = []string{"the Extism SDK keeps the guest's memory to itself"}
	if wanted == manifest.ModeCall || wanted == manifest.ModeLines {
		i.refuse(RefusedABI, "make the two agree", "it runs in extism mode (%s), but its manifest says mode %q", i.Why, wanted)
	}
	switch m := i.Manifest; {
	case len(i.Callable) == 0:
		i.refuse(RefusedMode, "export one, of the type () -> i32", "it exports no function without parameters")
	case m != nil && m.Function != "" && !slices.Contains(i.Callable, m.Function):
		i.refuse(RefusedManifest, "name one of these in the manifest", "its manifest names the function %q, and the functions that can be called are %q", m.Function, i.Callable)
	}
	if i.Manifest != nil && len(i.Manifest.Outputs) > 1 {
		i.refuse(RefusedManifest, "remove the others from the manifest", "its manifest lists outputs, and an Extism plugin has only the default one")
	}
	i.UsesHTTP = slices.ContainsFunc(i.Imports, func(im rewrite.Import) bool { return im.Module == ExtismModule && im.Name == extismHTTP })
}

func (i *Info) checkMemory(f *rewrite.Facts) {
	if e, ok := f.Export(exportMemory, rewrite.KindMemory); !ok || f.Memory == nil {
		i.refuse(RefusedMemory, "export it under that name", "it exports no memory named \"memory\"")
	} else if f.Memory.Imported {
		i.refuse(RefusedMemory, "let the linker define the memory (no --import-memory)", "its memory %q is imported", e.Name)
	}
}

// checkTables bounds what tables take of the host's memory: at once, and where
// they can grow.
func (i *Info) checkTables(f *rewrite.Facts) {
	grows := slices.ContainsFunc(f.RestoreObstacles, func(s string) bool { return strings.HasPrefix(s, "table.grow ") })
	least, most := uint64(0), uint64(0)
	for _, t := range f.Tables {
		least += uint64(t.Min)
		if t.HasMax {
			most += uint64(t.Max)
		} else {
			most += math.MaxUint32
		}
	}
	switch {
	case least > maxTableEntries:
		i.refuse(RefusedLimits, "make its tables smaller", "its tables start with %d entries, the limit is %d", least, maxTableEntries)
	case grows && most > maxTableEntries:
		i.refuse(RefusedLimits, "declare a maximum for each table", "its tables can grow to %d entries, the limit is %d", most, maxTableEntries)
	}
}

// checkExport refuses a function of another type, and a missing one that is
// required. It tells whether the function is there.
func (i *Info) checkExport(f *rewrite.Facts, name, signature string, required bool) bool {
	e, ok := f.Export(name, rewrite.KindFunc)
	switch {
	case !ok && required:
		i.refuse(RefusedABI, fmt.Sprintf("export %s %s", name, signature), "it does not export the function %s", name)
	case ok && e.Signature != signature:
		i.refuse(RefusedABI, fmt.Sprintf("declare it as %s", signature), "its export %s has the type %s", name, e.Signature)
	}
	return ok
}

func (i *Info) checkImports() {
	modules := importable(i.Mode)
	advice := "a plugin may import only WASI preview 1 and the module \"stage\" (log, count, sign)"
	if i.Mode == manifest.ModeExtism {
		advice = "an Extism plugin may import only " + ExtismModule + " and WASI preview 1: functions of another host, or of another module, are not there"
	}
	for _, im := range i.Imports {
		what := fmt.Sprintf("%q %q", im.Module, im.Name)
		signature, has := hostModules[im.Module][im.Name]
		switch {
		case im.Kind != rewrite.KindFunc:
			i.refuse(RefusedImport, "define it in the module instead", "it imports the %s %s", im.Kind, what)
		case im.Module == "wasi_unstable":
			i.refuse(RefusedImport, "build it for wasm32-wasip1 (wasi_snapshot_preview1)", "it imports %s of an old WASI", what)
		case im.Module == ExtismModule && !has && i.Mode == manifest.ModeExtism:
			i.refuse(RefusedImport, "build it with an older PDK, or upgrade this host", "it imports the function %s, which the Extism SDK of this host does not have", what)
		case !slices.Contains(modules, im.Module) || !has:
			i.refuse(RefusedImport, advice, "it imports the function %s, which this host does not have", what)
		case im.Signature != signature:
			i.refuse(RefusedImport, fmt.Sprintf("declare it as %s", signature), "its import %s has the type %s", what, im.Signature)
		case im.Module == hostModule && im.Name == importSign:
			if i.Signs = i.Mode == manifest.ModeCall; i.Mode == manifest.ModeLines {
				i.refuse(RefusedImport, "build it with a Millrace PDK", "it imports the function %s, and a program that reads STDIN cannot sign", what)
			}
		}
	}
}
