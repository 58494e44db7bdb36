package sign

import (
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
)

// hidden stands for what is not told.
const hidden = "***"

// Secret is a named value that does not show itself: not with any verb of
// fmt, in JSON or in a log, also inside other values. The zero Secret is no
// secret.
type Secret struct {
	name string
	// A function, so that nothing that walks over memory meets the bytes.
	value func() []byte
}

// NewSecret makes a secret of a name, as documents name it, and its value.
func NewSecret(name string, value []byte) Secret {
	v := append([]byte(nil), value...)
	return Secret{name: name, value: func() []byte { return v }}
}

// Name is the name that documents give the secret.
func (s Secret) Name() string { return s.name }

// IsZero reports whether s is no secret.
func (s Secret) IsZero() bool { return s.value == nil }

func (s Secret) bytes() []byte {
	if s.value == nil {
		return nil
	}
	return s.value()
}

// String names the secret.
func (s Secret) String() string { return fmt.Sprintf("secret %q", s.name) }

// Format names the secret, whatever the verb.
func (s Secret) Format(w fmt.State, _ rune) { _, _ = io.WriteString(w, s.String()) }

// MarshalJSON writes what documents have in its place.
func (s Secret) MarshalJSON() ([]byte, error) {
	return json.Marshal(map[string]string{"secret": s.name})
}

// LogValue names the secret.
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.String()) }
