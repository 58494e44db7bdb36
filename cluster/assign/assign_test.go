package assign

import (
	"bufio"
	"flag"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

var rewrite = flag.Bool("rewrite", false, "write the answers of testdata anew")

// TestScript runs testdata/assign.txt: commands, then "----" and what they
// answer. "members A B slots=N" begins anew, "join", "leave" and "slots" change
// it, and "balance N" lets N slots move.
func TestScript(t *testing.T) {
	const path = "testdata/assign.txt"
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	var members []string
	var slots []Slot[int]
	var answer string
	sc := bufio.NewScanner(strings.NewReader(string(b)))
	inAnswer := false
	for sc.Scan() {
		line := sc.Text()
		switch {
		case line == "":
			inAnswer = false
			out.WriteString("\n")
		case inAnswer:
		case strings.HasPrefix(line, "#"):
			out.WriteString(line + "\n")
		case line == "----":
			inAnswer = true
			out.WriteString("----\n" + answer + "\n")
		default:
			out.WriteString(line + "\n")
			words := strings.Fields(line)
			number := func(s string) int {
				n, err := strconv.Atoi(s)
				if err != nil {
					t.Fatalf("%q: %v", line, err)
				}
				return n
			}
			rebalance := 0
			switch words[0] {
			case "members":
				members, slots = nil, nil
				for _, w := range words[1:] {
					if n, ok := strings.CutPrefix(w, "slots="); ok {
						slots = make([]Slot[int], number(n))
						for i := range slots {
							slots[i].ID = i
						}
						continue
					}
					members = append(members, w)
				}
			case "join":
				members = append(members, words[1:]...)
			case "leave":
				members = slices.DeleteFunc(members, func(m string) bool { return slices.Contains(words[1:], m) })
			case "slots":
				for range number(words[1]) {
					slots = append(slots, Slot[int]{ID: len(slots)})
				}
			case "balance":
				rebalance = number(words[1])
			default:
				t.Fatalf("unknown command %q", line)
			}
			moves := Plan(members, slots, rebalance)
			for _, m := range moves {
				slots[m.Slot].Owner = m.To
			}
			answer = render(members, slots, len(moves))
		}
	}
	if got := out.String(); got != string(b) {
		if *rewrite {
			if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
				t.Fatal(err)
			}
			return
		}
		t.Errorf("answers differ; run with -rewrite and review. Got:\n%s", got)
	}
}

func render(members []string, slots []Slot[int], moved int) string {
	parts := make([]string, 0, len(members)+1)
	for _, m := range members {
		s := m + ":"
		for _, slot := range slots {
			if slot.Owner == m {
				s += fmt.Sprintf(" %d", slot.ID)
			}
		}
		parts = append(parts, s)
	}
	return strings.Join(append(parts, fmt.Sprintf("moved=%d", moved)), "   ")
}

func TestPlanProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		members := rapid.SliceOfNDistinct(rapid.StringMatching(`n[1-9]`), 1, 6, rapid.ID[string]).Draw(t, "members")
		slots := make([]Slot[int], rapid.IntRange(0, 40).Draw(t, "slots"))
		for i := range slots {
			slots[i] = Slot[int]{i, rapid.SampledFrom([]string{"", "n1", "n2", "n3", "n4"}).Draw(t, "owner")}
		}
		moves := Plan(members, slots, 0)
		moved := map[int]bool{}
		for _, m := range moves {
			if moved[m.Slot] || slots[m.Slot].Owner != m.From || !slices.Contains(members, m.To) {
				t.Fatalf("bad move %+v", m)
			}
			if slices.Contains(members, m.From) {
				t.Fatalf("move %+v takes a slot from a living member", m)
			}
			moved[m.Slot] = true
			slots[m.Slot].Owner = m.To
		}
		for _, s := range slots {
			if !slices.Contains(members, s.Owner) {
				t.Fatalf("slot %d has owner %q", s.ID, s.Owner)
			}
		}
		Plan(members, slots, 0)
		for range len(slots) {
			moves := Plan(members, slots, 3)
			if len(moves) > 3 {
				t.Fatalf("%d moves, 3 were allowed", len(moves))
			}
			for _, m := range moves {
				slots[m.Slot].Owner = m.To
			}
		}
		count := map[string]int{}
		for _, m := range members {
			count[m] = 0
		}
		for _, s := range slots {
			count[s.Owner]++
		}
		low, high := len(slots), 0
		for _, n := range count {
			low, high = min(low, n), max(high, n)
		}
		if high-low > 1 {
			t.Fatalf("unbalanced after rebalancing: %v", count)
		}
		if more := Plan(members, slots, 8); len(more) != 0 {
			t.Fatalf("a balanced assignment moves: %v", more)
		}
	})
}
