package plugintest

import (
	"fmt"
	"slices"
	"strings"

	"github.com/millrace-io/millrace/runtime/record"
)

// tally counts what became of records.
type tally struct {
	records, emitted, emits, dropped int
	classes                          map[record.Class]int
	first                            map[record.Class]*record.Failure
}

func (t *trace) tally() (*tally, error) {
	all, err := t.byRecord()
	if err != nil {
		return nil, err
	}
	c := &tally{records: len(all), classes: map[record.Class]int{}, first: map[record.Class]*record.Failure{}}
	for i := range all {
		switch a := &all[i]; {
		case a.failure != nil:
			class := a.failure.Err.Class
			if c.classes[class]++; c.classes[class] == 1 {
				c.first[class] = a.failure
			}
		case a.drops > 0:
			c.dropped++
		default:
			c.emitted++
			c.emits += len(a.emits)
		}
	}
	return c, nil
}

func (c *tally) String() string {
	parts := []string{fmt.Sprintf("%d emitted", c.emitted)}
	if c.emits != c.emitted {
		parts[0] += fmt.Sprintf(" (as %d)", c.emits)
	}
	if c.dropped > 0 {
		parts = append(parts, fmt.Sprintf("%d dropped", c.dropped))
	}
	for _, class := range c.sorted() {
		parts = append(parts, fmt.Sprintf("%d failed (%v)", c.classes[class], class))
	}
	return strings.Join(parts, ", ")
}

func (c *tally) sorted() []record.Class {
	var classes []record.Class
	for class := range c.classes {
		classes = append(classes, class)
	}
	slices.Sort(classes)
	return classes
}

func (c *tally) merge(o *tally) {
	c.records, c.emitted, c.emits, c.dropped = c.records+o.records, c.emitted+o.emitted, c.emits+o.emits, c.dropped+o.dropped
	for class, n := range o.classes {
		if c.classes[class] == 0 {
			c.first[class] = o.first[class]
		}
		c.classes[class] += n
	}
}

// deaths are how a guest fails that did not mean to.
var deaths = map[record.Class]string{
	record.Trap:     "handle the case, and answer fail with a message where the record cannot be processed",
	record.Fuel:     "do less for a record, or allow more: fuel_per_record of the manifest, limits: {fuel: ...} of the stage",
	record.Memory:   "use less memory, or allow more: memory_mb of the manifest, limits: {memory: ...} of the stage",
	record.Internal: "the plugin host failed, not the plugin: report it",
	record.TooLarge: "answer with less",
}

const protocolNext = "the answers of stage_batch break a rule of stage/1 (docs/reference/abi.md): mend its frame code, or use a PDK"

// judge turns a tally into a result: broken rules are never right, deaths not
// on what the plugin is made for.
func (s *suite) judge(check, what string, own bool, c *tally) {
	if f := c.first[record.Protocol]; f != nil {
		s.fail(check, protocolNext, "%s: %d of %d records: %s", what, c.classes[record.Protocol], c.records, clip(f.Err.Message))
		return
	}
	for _, class := range c.sorted() {
		next, dead := deaths[class]
		if !dead {
			continue
		}
		f := c.first[class]
		detail := fmt.Sprintf("%s: %d of %d records fail with class %v: %s", what, c.classes[class], c.records, class, clip(f.Err.Message))
		if own || class == record.Internal {
			s.fail(check, next, "%s", detail)
		} else {
			s.note(check, next, "%s", detail)
		}
		return
	}
	if c.emitted+c.dropped == 0 && c.classes[record.Rejected]+c.classes[record.Schema] > 0 {
		for _, class := range c.sorted() {
			s.note(check, "give the manifest a sample, or the test --input, that it takes", "%s: it takes none of them: %s", what, clip(c.first[class].Err.Error()))
			return
		}
	}
	s.pass(check, "%s: %v", what, c)
}
