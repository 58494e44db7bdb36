package arena

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Contestant is a program that reads the input topic and writes an output
// topic; package contract says how it is told.
type Contestant struct {
	Name    string
	Command []string
	Env     []string // NAME=VALUE, beside the task
	Work    Work
}

// ParseContestant reads NAME=COMMAND; the command goes to sh, its work is the
// order stage.
func ParseContestant(text string) (Contestant, error) {
	name, command, ok := strings.Cut(text, "=")
	name, command = strings.TrimSpace(name), strings.TrimSpace(command)
	if !ok || name == "" || command == "" {
		return Contestant{}, fmt.Errorf("contestant %q: it is NAME=COMMAND, for instance mine='./mine -fast'", text)
	}
	if strings.ContainsAny(name, ", |") {
		return Contestant{}, fmt.Errorf("contestant %q: a name has no comma, space or bar", text)
	}
	return Contestant{Name: name, Command: []string{"sh", "-c", "exec " + command}}, nil
}

// Pick takes the named contestants, comma-separated, in their order in all; ""
// takes all.
func Pick(all []Contestant, names string) ([]Contestant, error) {
	seen := map[string]bool{}
	for _, c := range all {
		if seen[c.Name] {
			return nil, fmt.Errorf("two contestants are called %s", c.Name)
		}
		seen[c.Name] = true
	}
	if names == "" {
		return all, nil
	}
	wanted := strings.Split(names, ",")
	for i, w := range wanted {
		wanted[i] = strings.TrimSpace(w)
		if !seen[wanted[i]] {
			var known []string
			for _, c := range all {
				known = append(known, c.Name)
			}
			return nil, errors.New("no contestant " + wanted[i] + ": there are " + strings.Join(known, ", "))
		}
	}
	return slices.DeleteFunc(slices.Clone(all), func(c Contestant) bool { return !slices.Contains(wanted, c.Name) }), nil
}
