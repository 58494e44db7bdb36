package node

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"github.com/hashicorp/raft"

	"github.com/millrace-io/millrace/cluster/state"
	"github.com/millrace-io/millrace/runtime/record"
)

const crashParts = 4

// crashConfig makes snapshots, compactions and memtable flushes frequent.
func crashConfig(fs vfs.FS) Config {
	return Config{Dir: "data", FS: fs, database: state.Options{MemTableBytes: 64 << 10, CacheBytes: 256 << 10}, tune: func(c *raft.Config) {
		c.TrailingLogs, c.SnapshotThreshold, c.SnapshotInterval = 8, 16, 5*time.Millisecond
	}}
}

// failing is a commit that moves a partition's watermark past one record, which
// it files in the failure queue.
func failing(n *Node, flow state.FlowID, s state.Slot, part uint32, off int64) *state.Commit {
	e := &record.Entry{Flow: "default/orders", Stage: "1-map", Class: record.Rejected, Message: strings.Repeat("x", int(off%400)), Attempts: 1,
		Input: record.Record{Topic: "orders", Partition: int32(part), Offset: off, Value: []byte("{}")}}
	return &state.Commit{Node: n.ID(), Incarnation: n.Incarnation(),
		Items:    []state.CommitItem{{Flow: flow, Slot: s.Slot, Epoch: s.Epoch, Part: part, Low: off + 1, Deploy: 1}},
		Failures: []state.CommitFailure{{Flow: flow, Part: part, Entry: e}}}
}

// lows returns the watermarks and checks what must hold of any surviving state:
// every record below a watermark lies in the queue, none above does, the
// counters count, and the hash is that of the contents.
func lows(t *testing.T, n *Node, flow state.FlowID) [crashParts]int64 {
	t.Helper()
	var low [crashParts]int64
	wms, err := n.State().Watermarks(flow)
	if err != nil {
		t.Fatal(err)
	}
	total := int64(0)
	for _, w := range wms {
		low[w.Part] = w.Low
		total += w.Low
	}
	for p, l := range low {
		keys, err := n.State().FailedSince(flow, uint32(p), 0)
		if err != nil || int64(len(keys)) != l || (l > 0 && keys[l-1].Offset != l-1) {
			t.Fatalf("partition %d: watermark %d, but %d records in the queue, %v", p, l, len(keys), err)
		}
	}
	if q, err := n.State().QueueStats(flow); err != nil || int64(q.Entries) != total || int64(q.Last) != total {
		t.Fatalf("queue counters %+v for %d entries, %v", q, total, err)
	}
	if kept, computed, err := n.State().VerifyHash(); err != nil || kept != computed {
		t.Fatalf("hash %x, recomputed %x, %v", kept, computed, err)
	}
	return low
}

// TestPowerLoss takes the power away at random points while proposals run, with
// a random part of what was not synced surviving, and opens what is left.
func TestPowerLoss(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	fs := vfs.NewCrashableMem()
	const crashes = 15
	for range crashRounds {
		fs = crashRound(t, rng, fs, crashes)
	}
}

func crashRound(t *testing.T, rng *rand.Rand, fs *vfs.MemFS, crashes int) *vfs.MemFS {
	n, err := Open(testContext(t), crashConfig(fs))
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	flow, slots := ownedFlow(t, n, "orders", crashParts, crashParts)
	start := lows(t, n, flow)

	run := &crashRun{acked: start, stop: make(chan struct{}), tokens: make(chan struct{}, crashParts)}
	run.cond.L = &run.mu
	var wg sync.WaitGroup
	for p := range crashParts {
		wg.Go(func() {
			for off := start[p]; run.next(); off++ {
				_, err := n.Propose(testContext(t), failing(n, flow, slots[p], uint32(p), off))
				if err != nil {
					t.Errorf("partition %d at %d: %v", p, off, err)
				}
				run.ack(p)
			}
		})
	}
	var left *vfs.MemFS
	for range crashes {
		grant := 4 + rng.IntN(12)
		target := run.total() + int64(rng.IntN(grant))
		wg.Go(func() {
			for range grant {
				run.tokens <- struct{}{}
			}
		})
		before := run.wait(target)
		for range rng.IntN(20) {
			runtime.Gosched()
		}
		left = fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: rng.IntN(101), RNG: rng})
		checkSurvivor(t, left.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 100, RNG: rng}), flow, before)
		if t.Failed() {
			break
		}
	}
	run.drain(&wg)
	return left
}

// crashRun is what the workers of a round share.
type crashRun struct {
	tokens chan struct{} // one for each proposal; as many as there are workers may lie ready
	stop   chan struct{}

	mu    sync.Mutex
	cond  sync.Cond
	acked [crashParts]int64 // guarded by mu
}

// next waits until another proposal is granted; false at the end.
func (r *crashRun) next() bool {
	select {
	case <-r.tokens:
		return true
	case <-r.stop:
		return false
	}
}

func (r *crashRun) ack(p int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.acked[p]++
	r.cond.Broadcast()
}

func (r *crashRun) sum() (n int64) {
	for _, a := range r.acked {
		n += a
	}
	return n
}

func (r *crashRun) total() int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.sum()
}

// wait returns what is acknowledged once that is target in all.
func (r *crashRun) wait(target int64) [crashParts]int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	for r.sum() < target {
		r.cond.Wait()
	}
	return r.acked
}

// drain ends the workers when the tokens are used up or nobody waits for them.
func (r *crashRun) drain(wg *sync.WaitGroup) {
	close(r.stop)
	done := make(chan struct{})
	go func() {
		wg.Wait()
		close(done)
	}()
	for {
		select {
		case <-r.tokens:
		case <-done:
			return
		}
	}
}

func checkSurvivor(t *testing.T, fs *vfs.MemFS, flow state.FlowID, acked [crashParts]int64) {
	t.Helper()
	n, err := Open(testContext(t), crashConfig(fs))
	if err != nil {
		t.Errorf("open after power loss: %v", err)
		return
	}
	defer n.Close()
	got := lows(t, n, flow)
	for p := range got {
		if got[p] < acked[p] || got[p] > acked[p]+16 {
			t.Errorf("partition %d: %d was acknowledged, %d survived", p, acked[p], got[p])
		}
	}
}

// TestDiskErrors makes the write-ahead log fail: no proposal may be
// acknowledged, the node says so, and what was acknowledged before is there
// afterwards.
func TestDiskErrors(t *testing.T) {
	for _, kind := range []errorfs.OpKind{errorfs.OpFileWrite, errorfs.OpFileSyncData, errorfs.OpFileSync} {
		t.Run(fmt.Sprint(kind), func(t *testing.T) {
			mem := vfs.NewCrashableMem()
			var broken atomic.Bool
			fs := errorfs.Wrap(mem, errorfs.InjectorFunc(func(op errorfs.Op) error {
				wal := strings.HasSuffix(op.Path, ".log")
				if broken.Load() && wal && (op.Kind == kind || (kind == errorfs.OpFileSync && op.Kind.ReadOrWrite() == errorfs.OpIsWrite)) {
					return errorfs.ErrInjected
				}
				return nil
			}))
			failed := make(chan error, 1)
			n, err := Open(testContext(t), Config{Dir: "data", FS: fs, OnFailure: func(err error) { failed <- err }})
			if err != nil {
				t.Fatal(err)
			}
			defer n.Close()
			for i := range 5 {
				propose[*state.Connection](t, n, &state.ConPut{Name: fmt.Sprintf("good%d", i), Document: []byte("x")})
			}
			broken.Store(true)
			for i := range 3 {
				if _, err := n.Propose(testContext(t), &state.ConPut{Name: fmt.Sprintf("bad%d", i), Document: []byte("x")}); err == nil {
					t.Errorf("proposal %d was acknowledged on a broken disk", i)
				}
			}
			if err := <-failed; !errors.Is(err, errorfs.ErrInjected) {
				t.Errorf("the node reported %v", err)
			}
			if _, ok := errors.AsType[*state.FailedError](n.Err()); !ok {
				t.Errorf("error of the node: %v", n.Err())
			}
			_ = n.Close()
			n2 := openNode(t, Config{Dir: "data", FS: mem.CrashClone(vfs.CrashCloneCfg{})})
			all, err := n2.State().Connections()
			if err != nil || len(all) < 5 || all[len(all)-1].Name != "good4" {
				t.Errorf("after the failure %d connections are there, %v", len(all), err)
			}
		})
	}
}

// TestHangingDisk blocks a sync: the node must report it by itself.
func TestHangingDisk(t *testing.T) {
	var hang atomic.Bool
	release := make(chan struct{})
	fs := errorfs.Wrap(vfs.NewMem(), errorfs.InjectorFunc(func(op errorfs.Op) error {
		if hang.Load() && strings.HasSuffix(op.Path, ".log") && op.Kind.ReadOrWrite() == errorfs.OpIsWrite {
			<-release
		}
		return nil
	}))
	failed := make(chan error, 1)
	n := openNode(t, Config{Dir: "data", FS: fs, StuckWarn: 50 * time.Millisecond, StuckExit: 200 * time.Millisecond, OnFailure: func(err error) { failed <- err }})
	hang.Store(true)
	_, err := n.Propose(testContext(t), &state.ConPut{Name: "c", Document: []byte("x")})
	if _, ok := errors.AsType[*StuckError](err); !ok || !errors.Is(err, ErrAmbiguous) {
		t.Errorf("proposal on a hanging disk: %v", err)
	}
	if _, ok := errors.AsType[*StuckError](<-failed); !ok {
		t.Error("the node reported something else")
	}
	close(release)
}
