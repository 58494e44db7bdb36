package plugtest

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/millrace-io/millrace/cmd/internal/cli"
	"github.com/millrace-io/millrace/runtime/flow"
	"github.com/millrace-io/millrace/runtime/record"
)

// edit replaces the lines from first to last, counted from 1; first above last
// inserts before it.
type edit struct {
	first, last int
	lines       []string
}

// judge compares a case and knows how its file would have to change.
type judge struct {
	result
	file     *file
	testCase *testCase
	given    []record.Record // as the flow got them; nil: as the case has them
	flow     bool
}

// add adds findings; written says whether an edit mends them.
func (j *judge) add(findings []Finding, written bool) {
	j.findings = append(j.findings, findings...)
	if !written {
		j.left = append(j.left, findings...)
	}
}

// expectations compares the outcomes of each given record.
func (j *judge) expectations(gots [][]got) {
	c := j.testCase
	given := c.given
	if j.given != nil {
		given = j.given
	}
	if c.expect == nil {
		j.add([]Finding{{Line: c.at.Line, Path: "expect", Message: "the case expects nothing: write expect, or let --update write it", Got: gotLine(gots)}}, j.insertExpect(gots))
		return
	}
	field := c.node.Field("expect")
	var wrong []Finding
	for i, gs := range gots {
		path := "expect"
		if len(gots) > 1 {
			path = fmt.Sprintf("expect[%d]", i)
		}
		var cmp comparison
		at := field.Pos
		if field.Value.Kind == flow.ListValue {
			at = field.Value.Items[i].Pos
		}
		cmp.outcomes(at, path, c.expect[i], gs, &given[i])
		if len(cmp.findings) == 0 {
			continue
		}
		wrong = append(wrong, cmp.findings...)
		if field.Value.Kind == flow.ListValue {
			if e, ok := j.file.item(field.Value.Items[i], outcomeNode(c.expect[i], gs, &given[i])); ok {
				j.edits = append(j.edits, e)
				continue
			}
		}
		j.edits = nil
		break
	}
	if len(wrong) == 0 || len(j.edits) > 0 {
		j.add(wrong, true)
		return
	}
	var all nodes
	for i, gs := range gots {
		all = append(all, outcomeNode(c.expect[i], gs, &given[i]))
	}
	wrong = nil
	for i, gs := range gots { // all of them
		path := "expect"
		if len(gots) > 1 {
			path = fmt.Sprintf("expect[%d]", i)
		}
		var cmp comparison
		cmp.outcomes(field.Pos, path, c.expect[i], gs, &given[i])
		wrong = append(wrong, cmp.findings...)
	}
	j.add(wrong, j.replaceKey("expect", expectNode(field.Value, all)))
}

// expectNode is the whole of expect: the outcome itself where it was so.
func expectNode(was *flow.Value, all nodes) node {
	if was.Kind != flow.ListValue && len(all) == 1 {
		if _, several := all[0].(nodes); !several {
			return all[0]
		}
	}
	return all
}

func gotLine(gots [][]got) string {
	var out []string
	for _, gs := range gots {
		for i := range gs {
			out = append(out, gs[i].String())
		}
	}
	return strings.Join(out, "; ")
}

// replaceKey writes the value of a key of the case anew, as replace does.
func (j *judge) replaceKey(key string, n node) bool {
	f := j.testCase.node.Field(key)
	return f != nil && j.replace(f.Pos, key, n)
}

// replace writes a key and its value anew; false where the file is not written
// line by line there.
func (j *judge) replace(at flow.Pos, key string, n node) bool {
	line := j.file.lines[at.Line-1]
	prefix := string([]rune(line)[:at.Column-1])
	if strings.Trim(prefix, " -") != "" {
		return false
	}
	last := j.file.end(at.Line, at.Column-1, true)
	j.edits = append(j.edits, edit{at.Line, last, render(fields{{key, n}}, prefix, strings.Repeat(" ", at.Column-1))})
	return true
}

// insertExpect adds the outcomes at the end of the case; false where that is
// not written line by line.
func (j *judge) insertExpect(gots [][]got) bool {
	at := j.testCase.at
	prefix := string([]rune(j.file.lines[at.Line-1])[:at.Column-1])
	dash := strings.LastIndexByte(prefix, '-')
	if strings.Trim(prefix, " -") != "" || dash < 0 {
		return false
	}
	var all nodes
	for i, gs := range gots {
		all = append(all, outcomeNode(nil, gs, &j.testCase.given[i]))
	}
	indent := strings.Repeat(" ", at.Column-1)
	last := j.file.end(at.Line, dash, false)
	j.edits = append(j.edits, edit{last + 1, last, render(fields{{"expect", all}}, indent, indent)})
	return true
}

// item replaces one item of a list that is written line by line.
func (f *file) item(v *flow.Value, n node) (edit, bool) {
	line := f.lines[v.Pos.Line-1]
	prefix := string([]rune(line)[:v.Pos.Column-1])
	dash := strings.LastIndexByte(prefix, '-')
	if strings.TrimLeft(prefix[:max(dash, 0)], " ") != "" || dash < 0 || strings.TrimSpace(prefix[dash+1:]) != "" {
		return edit{}, false
	}
	indent := prefix[:dash]
	return edit{v.Pos.Line, f.end(v.Pos.Line, dash, false), render(nodes{n}, indent, indent)}, true
}

// end is the last line of what begins in a line and is indented by more than
// indent; of a key's value items may stand below the key itself. Comments and
// empty lines at the end are not part of it.
func (f *file) end(line, indent int, key bool) int {
	last := line
	for n := line + 1; n <= len(f.lines); n++ {
		text := strings.TrimSpace(f.lines[n-1])
		if text == "" || text[0] == '#' {
			continue
		}
		own := len(f.lines[n-1]) - len(strings.TrimLeft(f.lines[n-1], " "))
		if own < indent || own == indent && !(key && strings.HasPrefix(text, "-")) {
			break
		}
		last = n
	}
	return last
}

// rewrite carries edits out. A file that could not be read afterwards, or that
// somebody else changed meanwhile, is left as it is.
func (f *file) rewrite(edits []edit) error {
	if len(edits) == 0 {
		return nil
	}
	failed := func(err error) error {
		return &cli.Error{Exit: cli.ExitFailed, Code: cli.CodeFile, Detail: fmt.Sprintf("%s: %v", f.name, pathless(err)), Next: "make the file and its folder writable", Err: err}
	}
	full, err := filepath.EvalSymlinks(f.full)
	if err != nil {
		return failed(err)
	}
	src, err := os.ReadFile(full)
	if err != nil {
		return failed(err)
	}
	if !slices.Equal(linesOf(src), f.lines) {
		return &cli.Error{Exit: cli.ExitFailed, Code: cli.CodeFile, Detail: f.name + ": it was changed while its cases ran; nothing was written into it", Next: "test again"}
	}
	slices.SortStableFunc(edits, func(a, b edit) int { // from the end; what replaces a line before what goes in front of it
		return cmp.Or(cmp.Compare(b.first, a.first), cmp.Compare(b.last, a.last))
	})
	lines := slices.Clone(f.lines)
	for _, e := range edits {
		lines = slices.Replace(lines, e.first-1, e.last, e.lines...)
	}
	text := strings.Join(lines, "\n")
	if strings.Contains(string(src), "\r\n") {
		text = strings.ReplaceAll(text, "\n", "\r\n")
	}
	if _, problems := parse(f.name, f.full, []byte(text)); len(problems) > 0 {
		return &cli.Error{Exit: cli.ExitFailed, Code: cli.CodeFile, Detail: fmt.Sprintf("%s: what came cannot be written into it: %v", f.name, problems.Err()), Next: "write the expectations by hand; without --update the test shows them"}
	}
	if err := replaceFile(full, text); err != nil {
		return failed(err)
	}
	return nil
}

// replaceFile puts a text in the place of a file in one step.
func replaceFile(path, text string) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	t, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	_, err = t.WriteString(text)
	err = errors.Join(err, t.Chmod(info.Mode().Perm()), t.Sync(), t.Close())
	if err == nil {
		err = os.Rename(t.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(t.Name()))
	}
	return nil
}
