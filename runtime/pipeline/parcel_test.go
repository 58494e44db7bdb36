package pipeline

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/millrace-io/millrace/runtime/record"
)

// flightOf is what came of the kept entry at offset 9: one failure for each.
func flightOf(fails int, entry func(i int) *record.Entry, keeps int) parcel {
	p := parcel{flight: true}
	for i := range fails {
		e := entry(i)
		e.Input.Offset, e.Input.Path = 9, record.Path([]byte{0, byte(i)})
		p.file(e)
	}
	for i := range keeps {
		p.keep(&record.Retry{Input: record.Record{Offset: 9, Path: record.Path([]byte{1, byte(i)}), Value: make([]byte, 1<<20)}})
	}
	p.drop(record.EmissionKey{Offset: 9})
	return p
}

// collect takes all progress of a lane, every second commit of which fails.
func collect(t *testing.T, l *lane) (all []Progress) {
	t.Helper()
	for n := 0; ; n++ {
		p, ok := l.progress()
		if !ok {
			return all
		}
		if n%2 == 0 {
			l.ack(p, fmt.Errorf("no leader"))
			continue
		}
		l.ack(p, nil)
		all = append(all, p)
	}
}

func laneOf() *lane {
	return newLane(New(Config{}, nil, Linear(0, nil, pushInfo), only(nil)), LaneConfig{})
}

func size(p *Progress) (n int) {
	for _, e := range p.Failures {
		n += entrySize(e)
	}
	for _, k := range p.Keeps {
		n += k.Size()
	}
	return n + goneSize*len(p.Gone)
}

// TestExchangesGiveWayInALargeParcel: then logs, then nothing.
func TestExchangesGiveWayInALargeParcel(t *testing.T) {
	exchange := func() *record.Exchange { return &record.Exchange{ResponseBody: make([]byte, 4<<10)} }
	logs := func(n int) *record.Replay { return &record.Replay{BatchID: 7, Logs: []string{strings.Repeat("x", n)}} }
	for _, c := range []struct {
		name            string
		logs            int
		exchanges, kept bool // of the last entry
	}{
		{"neither", 50 << 10, true, true},
		{"exchanges", 66 << 10, false, true},
		{"logs", 100 << 10, false, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := laneOf()
			l.enqueue(flightOf(240, func(int) *record.Entry { return &record.Entry{Exchange: exchange(), Replay: logs(c.logs)} }, 0))
			ps := collect(t, l)
			if len(ps) != 1 || len(ps[0].Failures) != 240 || len(ps[0].Gone) != 1 || size(&ps[0]) > maxParcel || ps[0].Bytes != size(&ps[0]) {
				t.Fatalf("%d commits", len(ps))
			}
			e := ps[0].Failures[0]
			if (e.Exchange != nil) != c.exchanges || (len(e.Replay.Logs) > 0) != c.kept || e.Replay.BatchID != 7 {
				t.Errorf("entry %+v, replay %+v", e.Exchange, e.Replay)
			}
			if l.queueB != 0 {
				t.Errorf("%d bytes are said to wait", l.queueB)
			}
		})
	}
}

// TestLargeParcelComesInParts: the entry that it comes from is gone with the
// last one, and the parts add up.
func TestLargeParcelComesInParts(t *testing.T) {
	l := laneOf()
	value := bytes.Repeat([]byte("x"), 1<<20)
	l.enqueue(flightOf(40, func(int) *record.Entry { return &record.Entry{Input: record.Record{Value: value}} }, 20))
	ps := collect(t, l)
	if len(ps) != 4 {
		t.Fatalf("%d commits of a parcel of 60 MiB", len(ps))
	}
	var fails, keeps int
	for i := range ps {
		p := &ps[i]
		if n := size(p); n > maxParcel || n != p.Bytes {
			t.Errorf("commit %d has %d bytes, says %d", i, n, p.Bytes)
		}
		if p.Carried != (Carried{uint64(fails), uint64(keeps), 0}) {
			t.Errorf("commit %d carried %+v before, want %d and %d", i, p.Carried, fails, keeps)
		}
		for _, e := range p.Failures {
			if e.Input.Path != record.Path([]byte{0, byte(fails)}) || e.InputOmitted {
				t.Errorf("failure %d: %s, omitted %v", fails, e.ID(), e.InputOmitted)
			}
			fails++
		}
		keeps += len(p.Keeps)
		grown := int64(fails + keeps)
		if last := i == len(ps)-1; last {
			grown--
		}
		if p.Grown != grown || (len(p.Gone) == 1) != (i == len(ps)-1) {
			t.Errorf("commit %d: grown by %d, want %d; gone %v", i, p.Grown, grown, p.Gone)
		}
		if p.Tally.Flying != 59-grown {
			t.Errorf("commit %d: %d flying, want %d", i, p.Tally.Flying, 59-grown)
		}
	}
	if fails != 40 || keeps != 20 || l.queueB != 0 {
		t.Errorf("%d failures and %d kept entries, %d bytes are said to wait", fails, keeps, l.queueB)
	}
}

// TestEntryLargerThanACommand: its input is left out, whatever its flow keeps.
func TestEntryLargerThanACommand(t *testing.T) {
	l := laneOf()
	var p parcel
	p.file(&record.Entry{Input: record.Record{Value: make([]byte, maxEntry+1)}})
	l.enqueue(p)
	ps := collect(t, l)
	if len(ps) != 1 || size(&ps[0]) > maxParcel || !ps[0].Failures[0].InputOmitted || ps[0].Failures[0].InputHash == 0 {
		t.Fatalf("%d commits", len(ps))
	}
}
