package record

import (
	"encoding/json"
	"fmt"
)

// MaxCallInput is the size of the largest input that a Call keeps, in bytes.
const MaxCallInput = 1 << 20

// Call is the call of a plugin that signs or validates, in which a delivery
// failed, with what it can be repeated with. It holds no secret.
type Call struct {
	// Stage is the plugin's place: DELIVERY.sign or DELIVERY.validate.
	Stage string
	// Plugin is name@version, Digest "sha256:" and 64 hex digits.
	Plugin, Digest string
	// Class, Code and Message are what came of the call, without what the
	// delivery made of it.
	Class   Class
	Code    uint32
	Message string
	// Input is the request or the answer as the plugin got it: the value is
	// the body; see sign.Request.Record and verdict.Response.Record. Its value
	// and headers are nil and InputOmitted true when it is too large to keep;
	// InputHash is then the xxh64 of the value.
	Input        Record
	InputOmitted bool
	InputHash    uint64
	// Hidden names headers, and parameters of :url, whose values stand in
	// Input as so many asterisks.
	Hidden []string
	// Replay holds the circumstances of the call, nil if it cannot be
	// repeated; NoReplay then says why.
	Replay   *Replay
	NoReplay string
	// Setting is that of an Entry.
	Setting *Setting
}

// Called is e as an entry of the plugin that e failed in: of e's Call, if it
// has one, else e itself. Its ID is then not that of the record.
func (e *Entry) Called() *Entry {
	c := e.Call
	if c == nil {
		return e
	}
	out := *e
	out.Stage, out.Plugin, out.Digest, out.Setting = c.Stage, c.Plugin, c.Digest, c.Setting
	out.Class, out.Code, out.Message = c.Class, c.Code, c.Message
	out.Input, out.InputOmitted, out.InputHash = c.Input, c.InputOmitted, c.InputHash
	out.Replay, out.NoReplay, out.Call = c.Replay, c.NoReplay, nil
	return &out
}

// Size is about what a Call takes in a commit; 0 for nil.
func (c *Call) Size() int {
	if c == nil {
		return 0
	}
	n := c.Input.Size() + len(c.Stage) + len(c.Plugin) + len(c.Digest) + len(c.Message) + len(c.NoReplay) + 64
	for _, name := range c.Hidden {
		n += len(name) + 2
	}
	return n + c.Replay.Size()
}

// Size is about what a Replay takes in a commit; 0 for nil.
func (r *Replay) Size() int {
	if r == nil {
		return 0
	}
	n := 64
	for _, line := range r.Logs {
		n += len(line) + 2
	}
	for i := range r.Signatures {
		n += len(r.Signatures[i].Signature) + 48
	}
	return n
}

type callJSON struct {
	Stage     string    `json:"stage"`
	Plugin    string    `json:"plugin"`
	Digest    string    `json:"digest"`
	Class     Class     `json:"class"`
	Code      uint32    `json:"code,omitempty"`
	Message   string    `json:"message"`
	Input     *envelope `json:"input"`
	Omitted   bool      `json:"input_omitted,omitempty"`
	InputHash string    `json:"input_hash,omitempty"`
	Hidden    []string  `json:"hidden,omitempty"`
	Replay    *Replay   `json:"replay,omitempty"`
	NoReplay  string    `json:"no_replay,omitempty"`
	Setting   *Setting  `json:"setting,omitempty"`
}

// MarshalJSON writes the input as an envelope.
func (c *Call) MarshalJSON() ([]byte, error) {
	j := callJSON{
		Stage: c.Stage, Plugin: c.Plugin, Digest: c.Digest, Class: c.Class, Code: c.Code, Message: c.Message,
		Input: toEnvelope(&c.Input), Omitted: c.InputOmitted, Hidden: c.Hidden, Replay: c.Replay, NoReplay: c.NoReplay, Setting: c.Setting,
	}
	if c.InputOmitted {
		j.InputHash = hex64(c.InputHash)
	}
	return marshalPlain(&j)
}

// UnmarshalJSON reads what MarshalJSON writes.
func (c *Call) UnmarshalJSON(b []byte) error {
	var j callJSON
	if err := json.Unmarshal(b, &j); err != nil {
		return err
	}
	if j.Input == nil {
		return fmt.Errorf("call of %s: it has no input", j.Stage)
	}
	hash, err := parseHex64(j.InputHash)
	if err != nil {
		return fmt.Errorf("call of %s: input_hash: %w", j.Stage, err)
	}
	*c = Call{
		Stage: j.Stage, Plugin: j.Plugin, Digest: j.Digest, Class: j.Class, Code: j.Code, Message: j.Message,
		Input: j.Input.record(), InputOmitted: j.Omitted, InputHash: hash, Hidden: j.Hidden, Replay: j.Replay, NoReplay: j.NoReplay, Setting: j.Setting,
	}
	return nil
}
