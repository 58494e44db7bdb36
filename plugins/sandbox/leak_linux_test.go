package sandbox

import (
	"bytes"
	"fmt"
	"os"
	"testing"

	"github.com/millrace-io/millrace/plugins/internal/testkit"
)

// addressSpace is the process's VmSize in MiB.
func addressSpace(t *testing.T) int {
	t.Helper()
	b, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := bytes.Cut(b, []byte("VmSize:"))
	var kb int
	if _, err := fmt.Sscan(string(rest), &kb); err != nil {
		t.Fatal(err)
	}
	return kb >> 10
}

// TestMemoryIsGivenBack makes and ends many instances in every way there is.
func TestMemoryIsGivenBack(t *testing.T) {
	rt := open(t, Config{Workers: 1})
	faulty := stageOf(t, rt, faultyWasm, StageConfig{Stage: "s"})
	wasi := stageOf(t, rt, wasiWasm, StageConfig{Stage: "s"})
	lines := stageOf(t, rt, linesWasm, StageConfig{Stage: "s"})
	startTrap := minimal()
	startTrap.funcs = append(startTrap.funcs, asmFunc{export: "_initialize", typ: "()", body: []byte{0x00}})
	bad := compile(t, rt, startTrap.build())
	round := func() {
		testkit.Process(t, faulty, testkit.Batch("grow"))
		testkit.Process(t, faulty, testkit.Batch("trap"))
		testkit.Process(t, wasi, testkit.Batch("exit"))
		testkit.Process(t, lines, testkit.Batch("abc", "error"))
		if _, err := bad.NewStage(t.Context(), StageConfig{}); err == nil {
			t.Fatal("a plugin that traps at its start was taken")
		}
	}
	for range 5 {
		round()
	}
	before := addressSpace(t)
	for range 40 {
		round()
	}
	// Each round ends four instances of 16 or 64 MiB of address space.
	if after := addressSpace(t); after > before+1024 {
		t.Errorf("address space grew from %d to %d MiB in 40 rounds", before, after)
	}
}
