package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/google/uuid"
	"github.com/hashicorp/raft"
	"go.uber.org/goleak"

	"github.com/millrace-io/millrace/cluster/state"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func testContext(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func openNode(t testing.TB, cfg Config) *Node {
	t.Helper()
	n, err := Open(testContext(t), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return n
}

// propose returns the value of a command that must be accepted.
func propose[T any](t testing.TB, n *Node, cmd state.Command) T {
	t.Helper()
	res, err := n.Propose(testContext(t), cmd)
	if err != nil {
		t.Fatal(err)
	}
	v, _ := res.Value.(T)
	return v
}

// eventually waits for changes of the state until ok.
func eventually(t testing.TB, n *Node, what string, ok func() bool) {
	t.Helper()
	deadline := time.After(10 * time.Second)
	for {
		changed := n.State().Changed()
		if ok() {
			return
		}
		select {
		case <-changed:
		case <-deadline:
			t.Fatalf("%s did not come about", what)
		}
	}
}

// ownedFlow makes a flow with partitions whose slots all belong to n, and
// returns the slots by number.
func ownedFlow(t testing.TB, n *Node, name string, slots uint16, parts int) (state.FlowID, []state.Slot) {
	t.Helper()
	put := propose[*state.FlowPutResult](t, n, &state.FlowPut{Project: "default", Name: name, UID: 1, Document: []byte("flow: v1"), Slots: slots})
	keys := make([]state.PartitionKey, parts)
	for i := range keys {
		keys[i] = state.PartitionKey{Kind: "kafka", Connection: "main", Topic: "orders", Source: int32(i)}
	}
	propose[[]state.Partition](t, n, &state.PartitionsAdd{Flow: put.Flow, Partitions: keys})
	var owned []state.Slot
	eventually(t, n, "ownership of all slots", func() bool {
		var err error
		if owned, err = n.State().Slots(put.Flow); err != nil {
			t.Fatal(err)
		}
		for _, s := range owned {
			if s.Owner != n.ID() || s.Incarnation != n.Incarnation() {
				return false
			}
		}
		return len(owned) == int(slots)
	})
	return put.Flow, owned
}

func commitOf(n *Node, flow state.FlowID, slots []state.Slot, parts int, low int64) *state.Commit {
	c := &state.Commit{Node: n.ID(), Incarnation: n.Incarnation()}
	for p := range parts {
		s := slots[p%len(slots)]
		c.Items = append(c.Items, state.CommitItem{Flow: flow, Slot: s.Slot, Epoch: s.Epoch, Part: uint32(p), Low: low, Ranges: []state.Range{{From: low + 2, To: low + 5}}, Deploy: 1})
	}
	return c
}

func TestLifeOfANode(t *testing.T) {
	dir := t.TempDir()
	n := openNode(t, Config{Dir: dir, Version: "1.2.3", Addr: "127.0.0.1:7070"})
	if n.Incarnation() != 1 {
		t.Errorf("first life has incarnation %d", n.Incarnation())
	}
	flow, slots := ownedFlow(t, n, "orders", 4, 8)
	if res := propose[*state.CommitResult](t, n, commitOf(n, flow, slots, 8, 10)); len(res.Refused) != 0 {
		t.Fatalf("commit of the owner was refused: %v", res.Refused)
	}
	id, hash := n.ID(), n.State().Hash()
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
	if err := n.Close(); err != nil {
		t.Fatalf("second close: %v", err)
	}
	if _, err := n.Propose(testContext(t), &state.ConDel{Name: "x"}); !errors.Is(err, ErrClosed) {
		t.Errorf("proposal after close: got %v, want ErrClosed", err)
	}
	if _, err := n.State().Flows(); !errors.Is(err, state.ErrClosed) {
		t.Errorf("read after close: got %v, want state.ErrClosed", err)
	}

	n2 := openNode(t, Config{Dir: dir})
	if n2.ID() != id || n2.Incarnation() != 2 {
		t.Errorf("second life: id %s incarnation %d, want %s and 2", n2.ID(), n2.Incarnation(), id)
	}
	if n2.State().Hash() == hash {
		t.Error("the second life is not in the state")
	}
	wm, err := n2.State().Watermarks(flow)
	if err != nil || len(wm) != 8 || wm[3].Low != 10 {
		t.Errorf("watermarks after restart: %v, %v", wm, err)
	}
	eventually(t, n2, "ownership by the second life", func() bool {
		s, err := n2.State().Slots(flow)
		return err == nil && s[0].Incarnation == 2 && s[3].Incarnation == 2
	})
	now, _ := n2.State().Slots(flow)
	if now[0].Epoch != slots[0].Epoch+1 {
		t.Errorf("epoch after restart: %d, want %d", now[0].Epoch, slots[0].Epoch+1)
	}
	old := commitOf(n2, flow, slots, 8, 20)
	old.Incarnation = 1
	if res := propose[*state.CommitResult](t, n2, old); len(res.Refused) != 8 || res.Refused[0].Reason != state.StaleEpoch {
		t.Errorf("commit of the first life: %v", res.Refused)
	}
}

func TestSecondOpenerIsRefused(t *testing.T) {
	dir := t.TempDir()
	openNode(t, Config{Dir: dir})
	_, err := Open(testContext(t), Config{Dir: dir})
	locked, ok := errors.AsType[*LockedError](err)
	if !ok || locked.PID != os.Getpid() || locked.Path != dir {
		t.Fatalf("second open: %v", err)
	}
	if want := fmt.Sprintf("open data folder %s: locked by pid %d", dir, os.Getpid()); err.Error() != want {
		t.Errorf("message %q, want %q", err, want)
	}
}

func TestOtherFormatIsRefused(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "node.json"), []byte(`{"format": 2, "node": "`+uuid.NewString()+`"}`), 0o644); err != nil {
		t.Fatal(err)
	}
	_, err := Open(testContext(t), Config{Dir: dir})
	if f, ok := errors.AsType[*FormatError](err); !ok || f.Format != 2 || !strings.Contains(err.Error(), "it has format 2, this program knows format 1") {
		t.Errorf("open: %v", err)
	}
}

func TestIdentityFile(t *testing.T) {
	dir := t.TempDir()
	n := openNode(t, Config{Dir: dir})
	b, err := os.ReadFile(filepath.Join(dir, "node.json"))
	if err != nil {
		t.Fatal(err)
	}
	var id identity
	if err := json.Unmarshal(b, &id); err != nil || id.Format != 1 || id.Node != n.ID() {
		t.Errorf("node.json is %s, %v", b, err)
	}
}

func TestConcurrentProposals(t *testing.T) {
	n := openNode(t, Config{Dir: "data", FS: vfs.NewMem()})
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			for i := range 50 {
				name := fmt.Sprintf("c-%d-%d", w, i)
				if _, err := n.Propose(testContext(t), &state.ConPut{Name: name, Document: []byte("connection: v1")}); err != nil {
					t.Error(err)
					return
				}
				if c, err := n.State().Connection(name); err != nil || c == nil || c.At == 0 {
					t.Errorf("connection %s after its proposal: %v, %v", name, c, err)
				}
			}
		})
	}
	wg.Wait()
	if kept, computed, err := n.State().VerifyHash(); err != nil || kept != computed {
		t.Errorf("hash %x, recomputed %x, %v", kept, computed, err)
	}
}

func TestRefusalsAreTyped(t *testing.T) {
	n := openNode(t, Config{Dir: "data", FS: vfs.NewMem()})
	_, err := n.Propose(testContext(t), &state.ConDel{Name: "nope"})
	if !errors.Is(err, state.NotFound) {
		t.Fatalf("got %v", err)
	}
	if r, ok := errors.AsType[*state.Refusal](err); !ok || r.Code != state.NotFound {
		t.Fatalf("got %v", err)
	}
}

func TestProposalEndsWithItsContext(t *testing.T) {
	n := openNode(t, Config{Dir: "data", FS: vfs.NewMem()})
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := n.Propose(ctx, &state.ConDel{Name: "x"}); !errors.Is(err, context.Canceled) || errors.Is(err, ErrAmbiguous) {
		t.Errorf("got %v", err)
	}
}

// TestConfigurationSurvivesCompaction adds a member, has the log that says so
// deleted, and loses power: the configuration must come back from the snapshot.
func TestConfigurationSurvivesCompaction(t *testing.T) {
	fs := vfs.NewCrashableMem()
	tune := func(c *raft.Config) {
		c.TrailingLogs, c.SnapshotThreshold, c.SnapshotInterval = 4, 16, time.Hour
	}
	n := openNode(t, Config{Dir: "data", FS: fs, tune: tune})
	other := raft.ServerID(uuid.NewString())
	if err := n.raft.AddNonvoter(other, "elsewhere", 0, 0).Error(); err != nil {
		t.Fatal(err)
	}
	for i := range 40 {
		propose[*state.Connection](t, n, &state.ConPut{Name: fmt.Sprintf("c%d", i), Document: []byte("x")})
	}
	if err := n.Barrier(testContext(t)); err != nil {
		t.Fatal(err)
	}
	if err := n.raft.Snapshot().Error(); err != nil {
		t.Fatal(err)
	}
	first, _ := n.log.FirstIndex()
	if first < 30 {
		t.Fatalf("log begins at %d: nothing was compacted", first)
	}
	propose[*state.Connection](t, n, &state.ConPut{Name: "last", Document: []byte("x")})
	clone := fs.CrashClone(vfs.CrashCloneCfg{})

	n2 := openNode(t, Config{Dir: "data", FS: clone, tune: tune})
	f := n2.raft.GetConfiguration()
	if err := f.Error(); err != nil {
		t.Fatal(err)
	}
	servers := f.Configuration().Servers
	if len(servers) != 2 || servers[1].ID != other || servers[1].Suffrage != raft.Nonvoter {
		t.Errorf("configuration after the crash: %v", servers)
	}
	if c, err := n2.State().Connection("last"); err != nil || c == nil {
		t.Errorf("acknowledged connection after the crash: %v, %v", c, err)
	}
	if _, stored := n2.State().Configuration(); len(raft.DecodeConfiguration(stored).Servers) != 2 {
		t.Error("the state does not know the configuration")
	}
}

// TestStateBehindSnapshotIsRefused takes the state's position back below what a
// snapshot promised.
func TestStateBehindSnapshotIsRefused(t *testing.T) {
	fs := vfs.NewMem()
	n := openNode(t, Config{Dir: "data", FS: fs})
	for i := range 20 {
		propose[*state.Connection](t, n, &state.ConPut{Name: fmt.Sprintf("c%d", i), Document: []byte("x")})
	}
	if err := n.raft.Snapshot().Error(); err != nil {
		t.Fatal(err)
	}
	b := n.st.DB().NewBatch()
	if err := errors.Join(b.Delete([]byte{0x10}, nil), n.st.CommitBatch(b, true), n.Close()); err != nil {
		t.Fatal(err)
	}
	_, err := Open(testContext(t), Config{Dir: "data", FS: fs})
	if err == nil || !strings.Contains(err.Error(), "the data folder is damaged") {
		t.Errorf("open: %v", err)
	}
}

func TestUnknownCommandStopsTheNode(t *testing.T) {
	fs := vfs.NewMem()
	failed := make(chan error, 2)
	n := openNode(t, Config{Dir: "data", FS: fs, OnFailure: func(err error) { failed <- err }})
	f := n.raft.ApplyLog(raft.Log{Data: []byte{200, 1}}, 0)
	if err := f.Error(); err != nil {
		t.Fatal(err)
	}
	err := <-failed
	if u, ok := errors.AsType[*state.UnknownCommandError](err); !ok || u.Kind != 200 {
		t.Errorf("failure: %v", err)
	}
	if _, err := n.Propose(testContext(t), &state.ConDel{Name: "x"}); err == nil || errors.Is(err, state.NotFound) {
		t.Errorf("proposal to a failed node: %v", err)
	}
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
	if n, err := Open(testContext(t), Config{Dir: "data", FS: fs}); err == nil {
		n.Close()
		t.Error("the node starts over a command that it does not know")
	} else if !strings.Contains(err.Error(), "start a newer flowd") {
		t.Errorf("open: %v", err)
	}
}
