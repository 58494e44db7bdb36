package kafka

import (
	"errors"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/twmb/franz-go/pkg/kerr"
)

// What a broker says of itself stands in problems and logs as one line that a
// terminal can show, however long it is; the next step stays.
func TestBrokersWordsAreBounded(t *testing.T) {
	cfg := Config{Brokers: []string{"b:9092"}, SASL: &SASL{Mechanism: Plain, Credentials: func() (string, string, error) { return "alice", "s3cret", nil }}}
	strange := strings.Repeat("X\x1b[2J\nY\xff", 100_000)
	for name, err := range map[string]error{
		"mechanisms":  &waitError{&refusal{kerr.UnsupportedSaslMechanism, []string{strange}}},
		"other words": errors.New(strange),
		"settings":    &settingsError{errors.New(strange)},
	} {
		got := cfg.explainConnect(3, strange+":9092", opening, err).Error()
		if len(got) > 2500 || strings.ContainsAny(got, "\n\x1b") || !utf8.ValidString(got) || strings.Contains(got, "s3cret") {
			t.Errorf("%s: %d bytes: %.200q", name, len(got), got)
		}
		if name == "mechanisms" && !strings.HasSuffix(got, "sasl.enabled.mechanisms") {
			t.Errorf("%s: no next step in %.100q", name, got[max(0, len(got)-100):])
		}
	}
}
