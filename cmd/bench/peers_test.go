package main

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	"github.com/millrace-io/millrace/cmd/bench/arena"
)

func series(name string, rates, cpus []float64) *arena.Series {
	s := &arena.Series{Contestant: arena.Contestant{Name: name}, Verdict: arena.Verdict{InOrder: true, Bytes: true}}
	for i := range rates {
		s.Rounds = append(s.Rounds, arena.Figures{Rate: rates[i], CPU: cpus[i]})
	}
	return s
}

func TestPeerBars(t *testing.T) {
	node := series("node-rust", []float64{80, 50, 70}, []float64{3, 3, 3})
	all := []*arena.Series{series(base, []float64{100, 100, 100}, []float64{2, 2, 2}), series(floor, []float64{110, 110, 110}, []float64{1.8, 1.6, 1.7}),
		series("native-json", []float64{10, 20, 20}, []float64{9, 9, 9}), series("benthos", []float64{10, 10, 10}, []float64{20, 20, 20}), node}
	got := map[string]string{}
	for _, r := range peerBars(all) {
		got[r.figure] = r.value + " " + r.bar + " " + r.verdict
	}
	for figure, want := range map[string]string{
		"records/s, node-rust / native-order":   "0.7x >= 0.7x held",
		"records/s, node-rust / native-json":    "3.5x >= 4x MISSED",
		"records/s, node-rust / benthos":        "7x >= 5x held",
		"CPU a record, node-rust - native-pass": "1.3 us <= 1.3 us held",
	} {
		if got[figure] != want {
			t.Errorf("%s: got %q, want %q", figure, got[figure], want)
		}
	}
	if rows := peerBars(all[:4]); len(rows) != 0 {
		t.Errorf("bars of a node that took no part: %v", rows)
	}
	if rows := peerBars(all[4:]); len(rows) != 0 {
		t.Errorf("bars against nobody: %v", rows)
	}
	if line := peerTable(all).lines[4]; line[0] != "node-rust" || line[1] != "70" || line[2] != "0.70" || line[6] != "same bytes, in order" {
		t.Errorf("got %q", line)
	}
}

func TestMarkdown(t *testing.T) {
	tab := rowTable([]row{atMost("a|b", 3, 2, " us"), {figure: "c", value: "1"}})
	var out bytes.Buffer
	if err := tab.markdown(&out); err != nil {
		t.Fatal(err)
	}
	want := "| figure | value | bar |  |\n| --- | --- | --- | --- |\n| a\\|b | 3 us | <= 2 us | MISSED |\n| c | 1 |  |  |\n"
	if out.String() != want {
		t.Errorf("got\n%s\nwant\n%s", &out, want)
	}
	if !tab.missed || rowTable([]row{atMost("a", 1, 2, "")}).missed {
		t.Error("a missed bar is not told, or one is that was held")
	}
}

func TestCommandCanBeRepeated(t *testing.T) {
	args := []string{"-only", "peers", "-contestant", "mine=./mine 'x'"}
	if got, want := command(slices.Clone(args)), `make bench ARGS="-only peers -contestant 'mine=./mine '\''x'\'''"`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestArgumentsAreRefused(t *testing.T) {
	for _, args := range [][]string{{"-only", "peer"}, {"-contestant", "mine"}, {"-no"}} {
		var out, errs bytes.Buffer
		if code := run(t.Context(), args, &out, &errs); code != 2 || errs.Len() == 0 {
			t.Errorf("%v: exit code %d, %q", args, code, &errs)
		}
	}
	var out, errs bytes.Buffer
	if code := run(t.Context(), []string{"-only", "peers", "-contestants", "nobody"}, &out, &errs); code == 0 || !strings.Contains(errs.String(), "there are native-pass") {
		t.Errorf("exit code %d, %q", code, &errs)
	}
}
