package extism

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
)

// flatten makes the texts that a guest reads with config_get out of the
// configuration of a stage: strings as they are, other scalars and nested
// values as JSON text, null as if it were not there.
func flatten(config []byte) (map[string]string, error) {
	out := map[string]string{}
	if len(config) == 0 {
		return out, nil
	}
	var top map[string]json.RawMessage
	if err := json.Unmarshal(config, &top); err != nil {
		return nil, fmt.Errorf("configuration of the plugin: it is no JSON object: %w", err)
	}
	for name, raw := range top {
		var s string
		switch raw = bytes.TrimSpace(raw); {
		case string(raw) == "null":
			continue
		case raw[0] == '"':
			if err := json.Unmarshal(raw, &s); err != nil {
				return nil, fmt.Errorf("configuration of the plugin: %q: %w", name, err)
			}
		default:
			var b bytes.Buffer
			if err := json.Compact(&b, raw); err != nil {
				return nil, fmt.Errorf("configuration of the plugin: %q: %w", name, err)
			}
			s = b.String()
		}
		out[name] = s
	}
	return out, nil
}

// CheckHosts refuses patterns that the SDK would read in another way than
// they are meant: a host is a name in lower case or an address, in which *
// stands for any run of characters.
func CheckHosts(hosts []string) error {
	var errs []error
	for _, h := range hosts {
		if h == "" || strings.ContainsFunc(h, func(r rune) bool {
			return !(r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || strings.ContainsRune(".-_*:", r))
		}) {
			errs = append(errs, fmt.Errorf("hosts: %q is no host name; give it in lower case without scheme, port and path, * stands for any part", h))
		}
	}
	return errors.Join(errs...)
}

// hostListed reports whether a host matches one of the patterns.
func hostListed(hosts []string, name string) bool {
	for _, h := range hosts {
		if matches(h, name) {
			return true
		}
	}
	return false
}

func matches(pattern, name string) bool {
	parts := strings.Split(pattern, "*")
	if len(parts) == 1 {
		return pattern == name
	}
	first, last := parts[0], parts[len(parts)-1]
	if len(name) < len(first)+len(last) || !strings.HasPrefix(name, first) || !strings.HasSuffix(name, last) {
		return false
	}
	rest := name[len(first) : len(name)-len(last)]
	for _, part := range parts[1 : len(parts)-1] {
		i := strings.Index(rest, part)
		if i < 0 {
			return false
		}
		rest = rest[i+len(part):]
	}
	return true
}
