package state

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2"

	"github.com/millrace-io/millrace/runtime/record"
)

// TestRecordsScript runs testdata/records.script: blocks of commands, each on
// a line of its own, and the state of the partition after them. The n-th command
// of a block is stamped n*1000. Every command is applied twice: one that changes
// the state the second time is marked with an `!`.
func TestRecordsScript(t *testing.T) {
	const file = "testdata/records.script"
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	for block := range strings.SplitSeq(strings.TrimSpace(string(b)), "\n\n") {
		input, _, ok := strings.Cut(block+"\n", "\n----\n")
		if !ok {
			t.Fatalf("block without ----:\n%s", block)
		}
		fmt.Fprintf(&out, "%s\n----\n%s\n\n", input, newScript(t).run(input))
	}
	got := strings.TrimSuffix(out.String(), "\n")
	if *rewrite {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if got != string(b) {
		t.Errorf("%s: run with -rewrite and review. Got:\n%s", file, got)
	}
}

type script struct {
	*fixture
	flow  FlowID
	at    int64
	epoch uint64
	notes []string
}

func newScript(t *testing.T) *script {
	f := newFixture(t)
	return &script{fixture: f, flow: f.running("a").Flow, epoch: 1}
}

func (s *script) run(input string) string {
	for line := range strings.SplitSeq(input, "\n") {
		if strings.HasPrefix(line, "#") {
			continue
		}
		s.at += 1000
		c := s.command(line)
		c.Stamp(s.at)
		s.note(s.apply(c))
		before := s.s.Hash()
		if s.apply(c); s.s.Hash() != before {
			s.notes = append(s.notes, "! "+strings.Fields(line)[0]+" again changes the state")
		}
	}
	return strings.Join(append(s.notes, s.dump()...), "\n")
}

func (s *script) note(res Result) {
	if res.Err != nil {
		s.notes = append(s.notes, "refused: "+res.Err.Error())
		return
	}
	switch v := res.Value.(type) {
	case *CommitResult:
		for _, r := range v.Refused {
			s.notes = append(s.notes, "item refused: "+r.Reason.String())
		}
	case *QueueOpResult:
		for _, k := range v.Skipped {
			s.notes = append(s.notes, fmt.Sprintf("skipped %d: %s", k.Seq, k.Reason))
		}
	}
}

// words splits "verb arg k=v ..." up.
func words(line string) (verb string, args []string, opts map[string]string) {
	opts = map[string]string{}
	for i, w := range strings.Fields(line) {
		k, v, ok := strings.Cut(w, "=")
		switch {
		case i == 0:
			verb = w
		case ok:
			opts[k] = v
		default:
			args = append(args, w)
		}
	}
	return verb, args, opts
}

func (s *script) int(text string) int64 {
	if text == "" {
		return 0
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		s.Fatal(err)
	}
	return n
}

func (s *script) emission(text string) record.Record {
	off, path, _ := strings.Cut(text, "#")
	r := record.Record{Topic: "t", Offset: s.int(off), Attempt: 1, To: -1}
	if path != "" {
		var err error
		if r.Path, err = record.ParsePath("#" + path); err != nil {
			s.Fatal(err)
		}
	}
	return r
}

func (s *script) seqs(args []string) (seqs []uint64) {
	for _, a := range args {
		seqs = append(seqs, uint64(s.int(a)))
	}
	return seqs
}

func (s *script) entry(arg string, opts map[string]string) *record.Entry {
	e := &record.Entry{Flow: "default/a", Stage: "push", Class: record.Rejected, Message: "no", Attempts: 1, Time: s.at, Generation: uint32(s.int(opts["gen"])), Requeues: uint32(s.int(opts["requeues"])), Input: s.emission(arg)}
	if opts["topic"] != "" {
		e.Input.Topic = opts["topic"]
	}
	e.InputOmitted = opts["omitted"] != ""
	return e
}

func (s *script) command(line string) Command {
	verb, args, opts := words(line)
	switch verb {
	case "drop":
		return &QueueOp{Flow: s.flow, Action: QueueDrop, Seqs: s.seqs(args)}
	case "replay":
		c := &QueueOp{Flow: s.flow, Action: QueueReplay, Seqs: s.seqs(args), Via: opts["via"]}
		if opts["h"] != "" {
			for range args {
				c.Holds = append(c.Holds, uint64(s.int(opts["h"])))
			}
		}
		return c
	case "expire":
		return &QueueExpire{Flow: s.flow, Before: s.int(opts["before"]), KeepEntries: uint64(s.int(opts["entries"])), KeepBytes: uint64(s.int(opts["bytes"]))}
	case "purge":
		return &QueuePurge{Flow: s.flow}
	case "import":
		c := &QueueImport{Flow: s.flow}
		for _, a := range args {
			c.Entries = append(c.Entries, ImportEntry{uint32(s.int(opts["part"])), s.entry(a, opts)})
		}
		return c
	case "pause":
		return &FlowState{Flow: s.flow, State: Paused}
	case "resume":
		return &FlowState{Flow: s.flow, State: Running}
	case "reset":
		return &OffsetReset{Flow: s.flow, IfGeneration: uint32(s.int(opts["gen"])), Positions: []Position{{0, s.int(args[0])}}}
	case "assign":
		s.epoch = uint64(s.int(args[0]))
		return &Assign{Slots: []SlotAssignment{{s.flow, 0, nodeA, 1}}}
	case "commit":
		return s.commit(line)
	}
	s.Fatalf("unknown command %q", line)
	return nil
}

func (s *script) commit(line string) *Commit {
	head, rest, _ := strings.Cut(line, ":")
	_, _, opts := words(head)
	t := Tally{Read: s.int(opts["read"]), Split: s.int(opts["split"]), Delivered: s.int(opts["delivered"]), Known: s.int(opts["known"]), Flying: s.int(opts["flying"])}
	if n := s.int(opts["dropped"]); n > 0 {
		t.Dropped = []DropCount{{"2-map", n}}
	}
	c := &Commit{Node: nodeA, Incarnation: 1, Items: []CommitItem{{Flow: s.flow, Epoch: s.epoch, Low: s.int(opts["low"]), Generation: uint32(s.int(opts["gen"])), Life: uint64(s.int(opts["life"])), Tally: t}}}
	for part := range strings.SplitSeq(rest, ";") {
		verb, args, opts := words(part)
		switch verb {
		case "":
		case "keep":
			for _, a := range args {
				c.Keeps = append(c.Keeps, CommitRetry{Flow: s.flow, Entry: &record.Retry{Stage: "push", Input: s.emission(a), Generation: uint32(s.int(opts["gen"])),
					Due: s.int(opts["due"]), At: s.at, Hold: uint64(s.int(opts["h"])), Group: opts["g"], Attempts: uint32(s.int(opts["n"]))}})
			}
		case "gone":
			for _, a := range args {
				r := s.emission(a)
				c.Gone = append(c.Gone, CommitGone{s.flow, 0, r.Offset, r.Path})
			}
		case "fail":
			for _, a := range args {
				c.Failures = append(c.Failures, CommitFailure{s.flow, 0, s.entry(a, opts)})
			}
		default:
			s.Fatalf("unknown part %q of a commit", part)
		}
	}
	return c
}

func (s *script) dump() (lines []string) {
	kept, err := s.s.Retries(s.flow, nil, 0, nil)
	if err != nil {
		s.Fatal(err)
	}
	for _, k := range kept {
		e := k.Entry
		line := fmt.Sprintf("kept %d%s", e.Input.Offset, e.Input.Path)
		if e.Due == 0 {
			line += " parked"
		} else {
			line += fmt.Sprintf(" due %d", e.Due)
		}
		if e.Hold != 0 {
			line += fmt.Sprintf(" h=%d", e.Hold)
		}
		if e.Group != "" {
			line += " g=" + e.Group
		}
		if e.Generation != 0 {
			line += fmt.Sprintf(" gen=%d", e.Generation)
		}
		if e.Attempts+e.Requeues != 0 {
			line += fmt.Sprintf(" attempts=%d requeues=%d", e.Attempts, e.Requeues)
		}
		if e.Via != "" {
			line += " via=" + e.Via
		}
		lines = append(lines, line)
	}
	failed, err := s.s.Failures(s.flow, 0, 0, nil)
	if err != nil {
		s.Fatal(err)
	}
	for _, e := range failed {
		lines = append(lines, fmt.Sprintf("filed %d%s seq=%d gen=%d", e.Input.Offset, e.Input.Path, e.Seq, e.Generation))
	}
	marks, err := s.s.Watermarks(s.flow)
	if err != nil {
		s.Fatal(err)
	}
	for _, w := range marks {
		lines = append(lines, fmt.Sprintf("watermark %d low=%d gen=%d", w.Part, w.Low, w.Generation))
	}
	receipts, err := s.s.Receipt(s.flow)
	if err != nil {
		s.Fatal(err)
	}
	for _, r := range receipts {
		lines = append(lines, fmt.Sprintf("receipt %d read=%d split=%d delivered=%d known=%d flying=%d dropped=%v filed=%d kept=%d unaccounted=%d",
			r.Part, r.Read, r.Split, r.Delivered, r.Known, r.Flying, r.Dropped, r.Filed, r.Kept, r.Unaccounted()))
	}
	if err := checkRetryKeys(s.s, s.flow); err != nil {
		lines = append(lines, err.Error())
	}
	q, err := s.s.QueueStats(s.flow)
	if err != nil || q.Kept != uint64(len(kept)) || q.Entries != uint64(len(failed)) {
		lines = append(lines, fmt.Sprintf("counters %+v, %v", q, err))
	}
	return lines
}

// checkRetryKeys reports what is wrong with the keys of kept entries: each has
// an order if it has a Hold, is due if and only if it is not parked, and the
// first of a Hold is never parked. The counters are what the entries take.
func checkRetryKeys(s *Store, flow FlowID) error {
	type place struct {
		part uint32
		off  int64
		path record.Path
	}
	type hold struct{ part, hold uint64 }
	entries, due, order := map[place]retryHead{}, map[place]int64{}, map[place]retryOrder{}
	size := uint64(0)
	first, parked := map[hold]bool{}, map[hold]bool{}
	var bad []string
	note := func(format string, args ...any) { bad = append(bad, fmt.Sprintf(format, args...)) }
	err := s.view(func(r pebble.Reader) error {
		each := func(kind byte, skip int, f func(p place, key, value []byte)) {
			prefix := flowPrefix(kind, flow)
			if err := scan(r, prefix, prefix, func(key, value []byte) bool {
				k, err := decodeRetryKey(key, skip)
				if err != nil {
					note("%v", err)
				}
				p := place{k.Part, k.Offset, k.Path}
				f(p, key, value)
				return true
			}); err != nil {
				note("%v", err)
			}
		}
		each(keyRetry, 0, func(p place, _, v []byte) {
			h, err := decodeRetryHead(v)
			if err != nil {
				note("%v", err)
			}
			entries[p] = h
			size += uint64(len(v))
		})
		each(keyRetryDue, dueBytes, func(p place, key, _ []byte) {
			if due[p] != 0 {
				note("%v is due twice", p)
			}
			due[p] = dueOf(key)
		})
		each(keyRetryOrder, holdBytes, func(p place, key, v []byte) {
			o, err := decodeRetryOrder(v)
			if err != nil {
				note("%v", err)
			}
			if _, twice := order[p]; twice {
				note("%v has two orders", p)
			}
			order[p] = o
			kr := keyReader{b: key[9:]}
			h := kr.u64()
			if entries[p].hold != h || groupHash(entries[p].group) != o.group {
				note("%v: the order is of hold %d and group %x, the entry %+v", p, h, o.group, entries[p])
			}
			k := hold{uint64(p.part), h}
			if parked[k] && o.due != 0 {
				note("%v is due behind a parked one of hold %d", p, h)
			}
			parked[k] = o.due == 0
			if !first[k] {
				if first[k] = true; o.due == 0 {
					note("%v is the first of hold %d and parked", p, h)
				}
			}
		})
		return nil
	})
	if err != nil {
		return err
	}
	for p, h := range entries {
		o, ordered := order[p]
		switch {
		case ordered != (h.hold != 0):
			note("%v with hold %d: order %t", p, h.hold, ordered)
		case ordered && o.due != due[p], !ordered && due[p] != clampDue(h.due):
			note("%v is due at %d, its order says %d, its entry %d", p, due[p], o.due, h.due)
		}
	}
	for p := range due {
		if _, ok := entries[p]; !ok {
			note("%v is due and not there", p)
		}
	}
	for p := range order {
		if _, ok := entries[p]; !ok {
			note("%v has an order and is not there", p)
		}
	}
	q, err := s.QueueStats(flow)
	if err != nil {
		return err
	}
	if q.Kept != uint64(len(entries)) || q.KeptBytes != size {
		note("%d entries of %d bytes, the counters say %+v", len(entries), size, q)
	}
	if len(bad) > 0 {
		return fmt.Errorf("%s", strings.Join(bad, "; "))
	}
	return nil
}
