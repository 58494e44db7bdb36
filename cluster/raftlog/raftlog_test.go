package raftlog

import (
	"encoding/hex"
	"errors"
	"flag"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/hashicorp/raft"
	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"github.com/millrace-io/millrace/cluster/state"
)

var rewrite = flag.Bool("rewrite", false, "write the golden file anew")

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type fataler interface{ Fatal(...any) }

func open(t fataler, fs vfs.FS) (*Store, func()) {
	st, err := state.Open("db", state.Options{FS: fs, CacheBytes: 1 << 20, MemTableBytes: 256 << 10})
	if err != nil {
		t.Fatal(err)
	}
	s, err := New(st)
	if err != nil {
		t.Fatal(err)
	}
	return s, func() {
		s.Close()
		if err := st.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func logs(from, to, term uint64) (l []*raft.Log) {
	for i := from; i <= to; i++ {
		l = append(l, &raft.Log{Index: i, Term: term, Type: raft.LogCommand, Data: []byte{byte(i)}, AppendedAt: time.Unix(0, int64(i))})
	}
	return l
}

// TestLogModel compares the log with a map over writes, deletions at either
// end and reopening.
func TestLogModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		fs := vfs.NewMem()
		s, done := open(t, fs)
		defer func() { done() }()
		model := map[uint64]uint64{} // index -> term
		var first, last uint64
		term := uint64(1)
		t.Repeat(map[string]func(*rapid.T){
			"append": func(t *rapid.T) {
				n := rapid.Uint64Range(1, 5).Draw(t, "n")
				from := last + 1
				if last == 0 {
					from = rapid.Uint64Range(1, 300).Draw(t, "from")
				}
				if err := s.StoreLogs(logs(from, from+n-1, term)); err != nil {
					t.Fatal(err)
				}
				if last == 0 {
					first = from
				}
				last = from + n - 1
				for i := from; i <= last; i++ {
					model[i] = term
				}
			},
			"compact": func(t *rapid.T) {
				if last == 0 {
					return
				}
				max := rapid.Uint64Range(first, last).Draw(t, "max")
				if err := s.DeleteRange(first, max); err != nil {
					t.Fatal(err)
				}
				for i := first; i <= max; i++ {
					delete(model, i)
				}
				if first = max + 1; first > last {
					first, last = 0, 0
				}
			},
			"truncate": func(t *rapid.T) {
				if last == 0 {
					return
				}
				min := rapid.Uint64Range(first, last).Draw(t, "min")
				if err := s.DeleteRange(min, last); err != nil {
					t.Fatal(err)
				}
				for i := min; i <= last; i++ {
					delete(model, i)
				}
				if last = min - 1; last < first {
					first, last = 0, 0
				}
				term++
			},
			"reopen": func(t *rapid.T) {
				done()
				s, done = open(t, fs)
			},
			"": func(t *rapid.T) {
				f, _ := s.FirstIndex()
				l, _ := s.LastIndex()
				if f != first || l != last {
					t.Fatalf("log from %d to %d, want %d to %d", f, l, first, last)
				}
				for i := uint64(0); i < last+2; i++ {
					var l raft.Log
					err := s.GetLog(i, &l)
					if want, ok := model[i]; !ok {
						if !errors.Is(err, raft.ErrLogNotFound) {
							t.Fatalf("entry %d: %v", i, err)
						}
					} else if err != nil || l.Term != want || l.Index != i || l.Data[0] != byte(i) || !l.AppendedAt.Equal(time.Unix(0, int64(i))) {
						t.Fatalf("entry %d: %+v, %v", i, l, err)
					}
				}
			},
		})
	})
}

func TestDeleteInsideIsRefused(t *testing.T) {
	s, done := open(t, vfs.NewMem())
	defer done()
	if err := s.StoreLogs(logs(1, 10, 1)); err != nil {
		t.Fatal(err)
	}
	if err := s.DeleteRange(3, 5); err == nil {
		t.Error("a hole was made")
	}
	if err := s.DeleteRange(5, 3); err != nil {
		t.Error(err)
	}
}

// TestPowerLoss checks that what StoreLogs and Set returned for is there, and
// that what was deleted without a sync does not matter.
func TestPowerLoss(t *testing.T) {
	fs := vfs.NewCrashableMem()
	s, done := open(t, fs)
	defer done()
	if err := errors.Join(s.StoreLogs(logs(1, 10, 1)), s.SetUint64([]byte("CurrentTerm"), 7), s.DeleteRange(8, 10), s.StoreLogs(logs(8, 9, 2))); err != nil {
		t.Fatal(err)
	}
	s2, done2 := open(t, fs.CrashClone(vfs.CrashCloneCfg{}))
	defer done2()
	last, _ := s2.LastIndex()
	var l raft.Log
	err := s2.GetLog(8, &l)
	if last != 9 || err != nil || l.Term != 2 {
		t.Errorf("last %d, entry 8 %+v, %v", last, l, err)
	}
	if term, err := s2.GetUint64([]byte("CurrentTerm")); term != 7 || err != nil {
		t.Errorf("term %d, %v", term, err)
	}
}

func TestStable(t *testing.T) {
	s, done := open(t, vfs.NewMem())
	defer done()
	if v, err := s.Get([]byte("none")); v != nil || err != nil {
		t.Errorf("%v, %v", v, err)
	}
	if v, err := s.GetUint64([]byte("none")); v != 0 || err != nil {
		t.Errorf("%v, %v", v, err)
	}
	if err := s.Set([]byte("k"), []byte("abc")); err != nil {
		t.Fatal(err)
	}
	if v, err := s.Get([]byte("k")); string(v) != "abc" || err != nil {
		t.Errorf("%s, %v", v, err)
	}
	if _, err := s.GetUint64([]byte("k")); !errors.Is(err, state.ErrMalformed) {
		t.Errorf("three bytes as a number: %v", err)
	}
}

func TestClosed(t *testing.T) {
	s, done := open(t, vfs.NewMem())
	done()
	for name, err := range map[string]error{
		"GetLog": s.GetLog(1, &raft.Log{}), "StoreLogs": s.StoreLogs(logs(1, 1, 1)), "DeleteRange": s.DeleteRange(1, 2), "Set": s.Set([]byte("k"), nil),
	} {
		if !errors.Is(err, ErrClosed) {
			t.Errorf("%s after close: %v", name, err)
		}
	}
}

func TestSnapshots(t *testing.T) {
	fs := vfs.NewMem()
	s, done := open(t, fs)
	defer func() { done() }()
	conf := raft.Configuration{Servers: []raft.Server{{ID: "a", Address: "x"}, {ID: "b", Address: "y", Suffrage: raft.Nonvoter}}}
	create := func(index uint64) *Sink {
		k, err := s.Snapshots().Create(1, index, 3, conf, 2, nil)
		if err != nil {
			t.Fatal(err)
		}
		return k.(*Sink)
	}
	if list, err := s.Snapshots().List(); len(list) != 0 || err != nil {
		t.Fatalf("%v, %v", list, err)
	}
	k := create(50)
	if err := errors.Join(k.Persist(0), k.Close(), k.Close()); err != nil {
		t.Fatal(err)
	}
	if _, err := k.Write([]byte("x")); !errors.Is(err, ErrNoDump) {
		t.Errorf("write: %v", err)
	}
	cancelled := create(60)
	if err := errors.Join(cancelled.Cancel(), cancelled.Close()); err != nil {
		t.Fatal(err)
	}
	done()
	s, done = open(t, fs)
	list, err := s.Snapshots().List()
	if err != nil || len(list) != 1 || list[0].Index != 50 || list[0].Term != 3 || list[0].ConfigurationIndex != 2 || !reflect.DeepEqual(list[0].Configuration, conf) {
		t.Fatalf("%+v, %v", list, err)
	}
	if _, _, err := s.Snapshots().Open(list[0].ID); !errors.Is(err, ErrNoDump) {
		t.Errorf("open: %v", err)
	}
	if _, _, err := s.Snapshots().Open("other"); err == nil || errors.Is(err, ErrNoDump) {
		t.Errorf("open of another: %v", err)
	}
}

func TestCheck(t *testing.T) {
	for _, tc := range []struct {
		name       string
		from, to   uint64 // of the log; 0: empty
		snap, need uint64 // 0: no snapshot
		applied    uint64
		want       string
	}{
		{"new", 0, 0, 0, 0, 0, ""},
		{"not compacted", 1, 10, 0, 0, 3, ""},
		{"state behind a log without snapshot", 5, 10, 0, 0, 3, "it ends at entry 3, but the log begins at 5"},
		{"state ahead of the log", 1, 10, 0, 0, 11, "ends at entry 10, but the state at 11"},
		{"state and snapshot", 5, 10, 6, 4, 4, ""},
		{"state behind the snapshot", 5, 10, 6, 4, 3, "needs entry 4"},
		{"hole between snapshot and log", 8, 10, 6, 4, 9, "do not join"},
		{"log ends before the snapshot", 2, 5, 6, 4, 5, "do not join"},
		{"log empty but the state is further", 0, 0, 6, 4, 9, "do not join"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s, done := open(t, vfs.NewMem())
			defer done()
			if tc.applied > 0 {
				conf := state.LogEntry{Index: tc.applied, Term: 1, Configuration: []byte{1}}
				if _, err := s.st.Apply([]state.LogEntry{conf}); err != nil {
					t.Fatal(err)
				}
			}
			if tc.to > 0 {
				if err := s.StoreLogs(logs(tc.from, tc.to, 1)); err != nil {
					t.Fatal(err)
				}
			}
			if tc.snap > 0 {
				p := promise{index: tc.snap, term: 1, applied: tc.need, configurationIndex: 1, configuration: raft.EncodeConfiguration(raft.Configuration{})}
				if err := s.Set(snapshotKey, p.encode()); err != nil {
					t.Fatal(err)
				}
			}
			err := s.Check()
			if (tc.want == "") != (err == nil) || err != nil && !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, want %q", err, tc.want)
			}
		})
	}
}

func TestGolden(t *testing.T) {
	l := &raft.Log{Index: 7, Term: 3, Type: raft.LogConfiguration, Data: []byte("data"), Extensions: []byte("ext"), AppendedAt: time.Unix(1, 2)}
	p := &promise{index: 100, term: 3, applied: 98, configurationIndex: 2, configuration: []byte("conf")}
	got := "entry\t" + hex.EncodeToString(appendLog(nil, l)) + "\nsnapshot\t" + hex.EncodeToString(p.encode()) + "\n"
	if *rewrite {
		if err := os.WriteFile("testdata/forms.golden", []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile("testdata/forms.golden")
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("stored forms changed; give them a new version. Got:\n%s", got)
	}
	var back raft.Log
	if err := decodeLog(appendLog(nil, l), &back); err != nil || back.Term != 3 || back.Type != l.Type || string(back.Data) != "data" || string(back.Extensions) != "ext" || !back.AppendedAt.Equal(l.AppendedAt) {
		t.Errorf("%+v, %v", back, err)
	}
	if q, err := decodePromise(p.encode()); err != nil || !reflect.DeepEqual(p, q) {
		t.Errorf("%+v, %v", q, err)
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(appendLog(nil, logs(1, 1, 1)[0]))
	f.Add((&promise{index: 1}).encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		var l raft.Log
		if err := decodeLog(b, &l); err == nil {
			var again raft.Log
			if err := decodeLog(appendLog(nil, &l), &again); err != nil || !reflect.DeepEqual(l, again) {
				t.Fatalf("%+v read again as %+v, %v", l, again, err)
			}
		}
		_, _ = decodePromise(b)
	})
}
