package flow

import (
	"strconv"
	"strings"
)

// maxBranchDepth is how deep branches may lie inside each other.
const maxBranchDepth = 8

func (l *linter) branchStage(n *node, id string, s *Stage, in *way) {
	b := &Branch{}
	s.Branch = b
	l.stageKeys(n, "branch", id, func(key, v *node) {
		switch key.text {
		case "every":
			b.Every, _ = l.boolean(v, "every")
		case "branch":
			l.cases(key, v, b, id, in)
		}
	})
}

func (l *linter) cases(key, n *node, b *Branch, id string, in *way) {
	if n.kind != listNode {
		l.fail(n, CodeType, "each begins with `- when: EXPRESSION` or `- else:`", "the cases of a branch are a list")
		return
	}
	if in.depth >= maxBranchDepth {
		l.fail(key, CodeValue, "make several flows of it, which topics join", "more than %d branches inside each other", maxBranchDepth)
		return
	}
	var otherwise *node
	for i, it := range n.items {
		when, isElse := it.get("when") != nil, it.get("else") != nil
		if it.kind != mapNode || !when && !isElse {
			l.noCase(it)
			continue
		}
		if otherwise != nil {
			l.fail(it, CodeStageUnreachable, "put `else` last, and once", "no record comes here: `else` in line %d takes all that are left", otherwise.pos.Line)
			continue
		}
		inside := &way{otherwise: in.otherwise, aside: in.aside, depth: in.depth + 1, ids: in.ids}
		if isElse {
			otherwise = it
			inside.prefix = id + ".else."
			b.Else = l.elseCase(it, inside)
			continue
		}
		inside.prefix = id + "." + strconv.Itoa(i+1) + "."
		b.Cases = append(b.Cases, l.whenCase(it, inside))
	}
	switch {
	case len(n.items) == 0:
		l.fail(key, CodeKeyMissing, "write a list of `- when: EXPRESSION` with `stages:`, and `- else:` as its last", "the branch has no cases")
	case otherwise == nil && !l.nearElse(n):
		l.fail(key, CodeBranchElse, "add as its last case `- else: drop`, `- else: pass` (they go on behind the branch) or `- else:` with a list of stages",
			"the branch does not say what happens to a record that no case takes")
	case len(b.Cases) == 0 && len(n.items) == 1 && otherwise != nil:
		l.fail(otherwise, CodeKeyMissing, "put `- when: EXPRESSION` with `stages:` before it", "a branch has at least one case beside `else`")
	}
}

// nearElse reports whether an item of a branch was meant to be its else: it
// has its message already.
func (l *linter) nearElse(n *node) bool {
	for _, it := range n.items {
		if it.kind != mapNode || it.get("default") != nil || it.get("when") == nil && it.get("else") == nil {
			return true
		}
	}
	return false
}

// noCase says what is wrong with an item that is neither case nor else.
func (l *linter) noCase(n *node) {
	help := "write `- when: EXPRESSION` with `stages:`, or `- else:` as the last"
	switch {
	case n.kind == badNode:
		return
	case n.kind == scalarNode && (n.text == "drop" || n.text == "pass" || n.text == "else"):
		help = "did you mean `- else: " + strings.Replace(n.text, "else", "drop", 1) + "`?"
	case n.get("default") != nil:
		help = "did you mean `else`?"
	case n.get("if") != nil || n.get("case") != nil || n.get("filter") != nil:
		help = "did you mean `when`?"
	}
	l.fail(n, CodeKeyMissing, help, "a case of a branch has `when` or `else`")
}

func (l *linter) whenCase(n *node, in *way) BranchCase {
	c := BranchCase{Pos: n.pos}
	l.each(n, "branch.case", "a case", func(key, v *node) {
		if key.text == "when" {
			c.When, _ = l.expression(v, "when", true)
			return
		}
		c.Stages, c.Delivery, _ = l.way(v, in)
	})
	if lacks(n, "branch.case", "stages") {
		l.fail(n, CodeKeyMissing, "write stages: [ ... ]; an empty list goes on behind the branch", "the case has no `stages`")
	}
	return c
}

func (l *linter) elseCase(n *node, in *way) BranchCase {
	c := BranchCase{Pos: n.pos}
	l.each(n, "branch.else", "`else`", func(key, v *node) {
		switch {
		case key.text == "reason":
			c.Reason, _ = l.name(v, "reason")
			if e := n.get("else"); e.kind != scalarNode || e.text != "drop" {
				l.fail(key, CodeStageKey, "it goes with `else: drop`", "`reason` is what dropped records are counted by")
			}
		case v.kind == listNode:
			c.Stages, c.Delivery, _ = l.way(v, in)
		default:
			if v.kind == mapNode {
				l.fail(v, CodeType, "write drop, pass or a list of stages", "`else` is no stage by itself")
				return
			}
			s, _ := l.oneOf(v, "else", []string{"drop", "pass"}, nil)
			c.Drop = s == "drop"
		}
	})
	return c
}

// openCases reports the cases of a branch behind which there is nothing and
// which end nowhere.
func (l *linter) openCases(b *Branch) {
	report := func(c *BranchCase, what string) {
		if c.ends() {
			return
		}
		if n := len(c.Stages); n > 0 && c.Stages[n-1].Branch != nil {
			l.openCases(c.Stages[n-1].Branch)
			return
		}
		l.failAt(c.Pos, c.Pos.Column+4, CodeDeliveryMissing, "end it with a delivery, such as `- push: kafka://CONNECTION/TOPIC`, or put one behind the branch", "%s", what)
	}
	for i := range b.Cases {
		report(&b.Cases[i], "the records of this case go on behind the branch, and there is no delivery")
	}
	report(&b.Else, "the records that no case takes go on behind the branch, and there is no delivery")
}
