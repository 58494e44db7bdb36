package millracetest

import (
	"encoding/json"
	"regexp"
	"slices"
	"testing"

	"github.com/millrace-io/millrace/pdk/go/internal/bridge"
)

var (
	nameForm    = regexp.MustCompile(`^(?:[a-z0-9](?:[a-z0-9._-]{0,62}[a-z0-9])?/)?[a-z0-9](?:[a-z0-9._-]{0,62}[a-z0-9])?$`)
	outputForm  = regexp.MustCompile(`^[a-z0-9](?:[a-z0-9._-]{0,62}[a-z0-9])?$`)
	versionForm = regexp.MustCompile(`^(?:0|[1-9]\d*)\.(?:0|[1-9]\d*)\.(?:0|[1-9]\d*)(?:-[0-9A-Za-z.-]+)?(?:\+[0-9A-Za-z.-]+)?$`)
)

// CheckSamples checks the manifest of millrace.Describe, and that the stage with
// this configuration answers each of its samples with a record or a drop.
func CheckSamples(t testing.TB, config string) {
	t.Helper()
	text := bridge.Manifest()
	if text == nil {
		t.Fatal("there is no manifest: call millrace.Describe in init")
	}
	var m struct {
		Name, Version string
		Outputs       []string
	}
	if err := json.Unmarshal(text, &m); err != nil {
		t.Fatalf("the manifest is no JSON: %v; Schema is text that is put in as it is", err)
	}
	if m.Name != "" && !nameForm.MatchString(m.Name) {
		t.Errorf("the manifest's name %q: a name has lower case letters, digits and - _ ., a letter or digit at both ends", m.Name)
	}
	if m.Version != "" && !versionForm.MatchString(m.Version) {
		t.Errorf("the manifest's version %q: a version has the form 1.2.3 or 1.2.3-dev", m.Version)
	}
	for i, o := range m.Outputs {
		if !outputForm.MatchString(o) || slices.Contains(m.Outputs[:i], o) {
			t.Errorf("the manifest's outputs %q: %q is listed twice or has other than lower case letters, digits and - _ .", m.Outputs[1:], o)
		}
	}
	samples := bridge.Samples()
	if len(samples) == 0 {
		t.Error("the manifest has no samples: give it records as the stage will get them")
		return
	}
	var records []Record
	for _, s := range samples {
		r := Value(s.Value)
		if s.Tombstone {
			r = Tombstone()
		}
		if s.Key != "" {
			r = r.WithKey(s.Key)
		}
		for name, value := range s.Headers {
			r = r.WithHeader(name, value)
		}
		records = append(records, r)
	}
	got := New(t, config).Run(t, records...)
	for i := range records {
		if f := got.Failure(i); f != nil {
			t.Errorf("sample %d fails with code %d: %s", i, f.Code, f.Message)
		}
	}
}
