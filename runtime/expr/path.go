package expr

import (
	"fmt"
	"strings"
)

// Path names a place in a JSON object by the keys that lead to it.
type Path []string

// MaxPathLength is the largest number of keys in a path.
const MaxPathLength = 64

// ParsePath reads a path: keys with dots between them, `customer.address.city`.
// Inside a key, \. stands for a dot and \\ for a backslash; a backslash before
// anything else is an error, and so is an empty key. Every other character,
// also a space or a bracket, is part of the key: a path does not reach into
// lists.
func ParsePath(s string) (Path, error) {
	var p Path
	var key strings.Builder
	for i := 0; i <= len(s); i++ {
		switch {
		case i == len(s) || s[i] == '.':
			if key.Len() == 0 {
				if s == "" {
					return nil, fmt.Errorf("a path is empty")
				}
				return nil, fmt.Errorf("path %q: an empty key", s)
			}
			if len(p) == MaxPathLength {
				return nil, fmt.Errorf("path %q: more than %d keys", s, MaxPathLength)
			}
			p = append(p, key.String())
			key.Reset()
		case s[i] == '\\':
			i++
			if i >= len(s) || s[i] != '.' && s[i] != '\\' {
				return nil, fmt.Errorf(`path %q: \ stands before a dot or another \ only`, s)
			}
			key.WriteByte(s[i])
		default:
			key.WriteByte(s[i])
		}
	}
	return p, nil
}

// String is the path as ParsePath reads it.
func (p Path) String() string {
	r := strings.NewReplacer(`\`, `\\`, `.`, `\.`)
	keys := make([]string, len(p))
	for i, k := range p {
		keys[i] = r.Replace(k)
	}
	return strings.Join(keys, ".")
}
