package main

import (
	"slices"
	"strings"
)

// diffLine is a line of a comparison: ' ' both sides have it, '-' the old one
// alone, '+' the new one alone.
type diffLine struct {
	op   byte
	text string
}

// maxTable bounds the table that a comparison takes: 16 MiB.
const maxTable = 4 << 20

// lineDiff compares two texts by lines with the fewest changes. What lies
// between the first and the last change of two long texts is given as all
// removed and all added.
func lineDiff(old, now string) []diffLine {
	a, b := textLines(old), textLines(now)
	var head, tail []diffLine
	for len(a) > 0 && len(b) > 0 && a[0] == b[0] {
		head = append(head, diffLine{' ', a[0]})
		a, b = a[1:], b[1:]
	}
	for len(a) > 0 && len(b) > 0 && a[len(a)-1] == b[len(b)-1] {
		tail = append(tail, diffLine{' ', a[len(a)-1]})
		a, b = a[:len(a)-1], b[:len(b)-1]
	}
	if len(a)*len(b) > maxTable {
		return slices.Concat(head, marked('-', a), marked('+', b), reversed(tail))
	}
	// common[i][j] is the length of the longest common subsequence of a[i:]
	// and b[j:].
	common := make([][]int32, len(a)+1)
	for i := range common {
		common[i] = make([]int32, len(b)+1)
	}
	for i := len(a) - 1; i >= 0; i-- {
		for j := len(b) - 1; j >= 0; j-- {
			if a[i] == b[j] {
				common[i][j] = common[i+1][j+1] + 1
			} else {
				common[i][j] = max(common[i+1][j], common[i][j+1])
			}
		}
	}
	out := head
	for i, j := 0, 0; i < len(a) || j < len(b); {
		switch {
		case i < len(a) && j < len(b) && a[i] == b[j]:
			out = append(out, diffLine{' ', a[i]})
			i, j = i+1, j+1
		case i < len(a) && (j == len(b) || common[i+1][j] >= common[i][j+1]):
			out = append(out, diffLine{'-', a[i]})
			i++
		default:
			out = append(out, diffLine{'+', b[j]})
			j++
		}
	}
	return append(out, reversed(tail)...)
}

func marked(op byte, lines []string) []diffLine {
	out := make([]diffLine, len(lines))
	for i, l := range lines {
		out[i] = diffLine{op, l}
	}
	return out
}

func reversed(lines []diffLine) []diffLine {
	slices.Reverse(lines)
	return lines
}

func textLines(s string) []string {
	if s = strings.TrimSuffix(strings.ReplaceAll(s, "\r\n", "\n"), "\n"); s == "" {
		return nil
	}
	return strings.Split(s, "\n")
}

// around is how many unchanged lines are shown before and after a change.
const around = 2

// hunks are the changed lines with some around them; "..." stands for lines
// that are left out. It is empty if nothing changed.
func hunks(lines []diffLine) []string {
	near := make([]bool, len(lines))
	changed := false
	for i, l := range lines {
		if l.op == ' ' {
			continue
		}
		changed = true
		for j := max(0, i-around); j <= min(len(lines)-1, i+around); j++ {
			near[j] = true
		}
	}
	out := []string{}
	if !changed {
		return out
	}
	for i, l := range lines {
		switch {
		case near[i]:
			out = append(out, string(l.op)+" "+l.text)
		case i == 0 || near[i-1]:
			out = append(out, "...")
		}
	}
	return out
}
