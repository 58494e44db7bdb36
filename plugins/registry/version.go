package registry

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/Masterminds/semver/v3"
)

// Version is one stored version of a plugin.
type Version struct {
	// Version is a semantic version, Digest that of its file.
	Version, Digest string
	// Deployed orders versions by when they were deployed; the greatest came
	// last.
	Deployed uint64
}

// ErrNoVersion is reported when no version lies in a range: deploy one, or
// widen the range.
var ErrNoVersion = errors.New("no version lies in the range")

// CheckRange tells whether s can stand behind the @ of name@range.
func CheckRange(s string) error {
	if _, err := parseRange(s); err != nil {
		return fmt.Errorf("version range %q: %w", s, err)
	}
	return nil
}

// constraint is a parsed range; nil admits everything.
type constraint = semver.Constraints

func parseRange(s string) (*constraint, error) {
	s = strings.TrimSpace(s)
	if s == "" || s == "*" {
		return nil, nil
	}
	return semver.NewConstraint(s)
}

// Admits tells whether a range (of Masterminds/semver) admits a version. "*"
// and the empty range admit everything. A version that ends in -dev is
// admitted where its base version is; other pre-releases as the range says.
// A version without build metadata in an exact range admits any metadata.
func Admits(rangeText, version string) (bool, error) {
	c, err := parseRange(rangeText)
	if err != nil {
		return false, fmt.Errorf("version range %q: %w", rangeText, err)
	}
	v, err := semver.StrictNewVersion(version)
	if err != nil {
		return false, fmt.Errorf("version %q: %w", version, err)
	}
	return admits(c, v), nil
}

func admits(c *constraint, v *semver.Version) bool {
	if c == nil || c.Check(v) {
		return true
	}
	if IsDev(v.Original()) {
		base, err := v.SetPrerelease("")
		return err == nil && c.Check(&base)
	}
	return false
}

// IsDev tells whether a version may be deployed again with other bytes: it
// ends in -dev, or is 0.0.0, with or without build metadata.
func IsDev(version string) bool {
	v, err := semver.StrictNewVersion(version)
	if err != nil {
		return false
	}
	p := v.Prerelease()
	return p == "dev" || strings.HasSuffix(p, "-dev") || v.Major() == 0 && v.Minor() == 0 && v.Patch() == 0 && p == ""
}

// Resolve chooses among candidates the greatest version that the range admits;
// among equals (build metadata does not count) the one deployed last. The
// error wraps ErrNoVersion if there is none. Candidates whose version cannot
// be read are passed over.
func Resolve(rangeText string, candidates []Version) (Version, error) {
	c, err := parseRange(rangeText)
	if err != nil {
		return Version{}, fmt.Errorf("version range %q: %w", rangeText, err)
	}
	var best *semver.Version
	var chosen Version
	for _, cand := range candidates {
		v, err := semver.StrictNewVersion(cand.Version)
		if err != nil || !admits(c, v) {
			continue
		}
		if best != nil {
			if o := v.Compare(best); o < 0 || o == 0 && cand.Deployed < chosen.Deployed {
				continue
			}
		}
		best, chosen = v, cand
	}
	if best == nil {
		return Version{}, fmt.Errorf("version range %q: %w; there are: %s", rangeText, ErrNoVersion, versionList(candidates))
	}
	return chosen, nil
}

func versionList(candidates []Version) string {
	if len(candidates) == 0 {
		return "none"
	}
	names := make([]string, len(candidates))
	for i, c := range candidates {
		names[i] = c.Version
	}
	slices.Sort(names)
	names = slices.Compact(names)
	if n := len(names); n > 8 {
		names = append(names[n-8:], fmt.Sprintf("and %d more", n-8))
	}
	return strings.Join(names, ", ")
}
