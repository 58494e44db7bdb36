package sign

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/millrace-io/millrace/runtime/record"
)

// Signer signs for a plugin, which knows keys by their handles only.
type Signer interface {
	// Sign signs a message with the key of a handle. message is not kept. The
	// error is a *record.Error of class config (no such handle, or a key that
	// does not go with alg), or ErrNotRecorded.
	Sign(handle uint32, alg Algorithm, message []byte) ([]byte, error)
}

// Keys are the keys that a plugin's stage was given: a handle is an index. It
// is safe for concurrent use.
type Keys []*Key

// Sign implements Signer.
func (k Keys) Sign(handle uint32, alg Algorithm, message []byte) ([]byte, error) {
	if uint64(handle) >= uint64(len(k)) {
		return nil, record.Errorf(record.Config, "sign: there is no key %d: the stage has %d, and handles count from 0", handle, len(k))
	}
	return k[handle].Sign(alg, message)
}

// Recorded is one signature that a plugin was given. Its JSON is part of
// stored entries. It holds no key and not the message.
type Recorded struct {
	Handle    uint32    `json:"handle"`
	Algorithm Algorithm `json:"alg"`
	// Message is the SHA-256 of what was signed.
	Message Digest `json:"message"`
	// Signature as the plugin got it.
	Signature []byte `json:"signature"`
}

// Digest is a SHA-256 sum; its text is lower-case hex.
type Digest [sha256.Size]byte

// MarshalText writes the sum.
func (d Digest) MarshalText() ([]byte, error) { return []byte(hex.EncodeToString(d[:])), nil }

// UnmarshalText reads the sum.
func (d *Digest) UnmarshalText(b []byte) error {
	if n, err := hex.Decode(d[:], b); err != nil || n != len(d) || len(b) != 2*len(d) {
		return fmt.Errorf("parse sha-256: not %d hex digits", 2*len(d))
	}
	return nil
}

// MarshalText writes the algorithm's name.
func (a Algorithm) MarshalText() ([]byte, error) {
	if _, ok := lookup(a); !ok {
		return nil, fmt.Errorf("marshal algorithm: %d is none", uint32(a))
	}
	return []byte(a.String()), nil
}

// UnmarshalText reads the algorithm's name.
func (a *Algorithm) UnmarshalText(b []byte) error {
	v, err := ParseAlgorithm(string(b))
	*a = v
	return err
}

// Recorder signs and keeps what it gave, for the replay of one call of a
// plugin. It serves one goroutine.
type Recorder struct {
	signer   Signer
	recorded Recording
}

// NewRecorder wraps a signer.
func NewRecorder(s Signer) *Recorder { return &Recorder{signer: s} }

// Sign implements Signer. What fails is not recorded.
func (r *Recorder) Sign(handle uint32, alg Algorithm, message []byte) ([]byte, error) {
	sig, err := r.signer.Sign(handle, alg, message)
	if err != nil {
		return nil, err
	}
	kept := append([]byte(nil), sig...)
	r.recorded = append(r.recorded, Recorded{handle, alg, sha256.Sum256(message), kept})
	return sig, nil
}

// Take returns what was recorded since the last Take, in order.
func (r *Recorder) Take() Recording {
	out := r.recorded
	r.recorded = nil
	return out
}

// Recording is the signatures of one call of a plugin, in their order.
type Recording []Recorded

// MarshalJSON writes a list, also for none.
func (r Recording) MarshalJSON() ([]byte, error) {
	if r == nil {
		return []byte("[]"), nil
	}
	return json.Marshal([]Recorded(r))
}

// ErrNotRecorded is a replay's answer to a plugin that asks for a signature
// which the recorded call did not ask for, in that place: another version of
// the plugin, or one that is not pure. The replay fails with it; nothing can
// be signed in its stead, as the key may be another by now.
var ErrNotRecorded = errors.New("the signature was not recorded")

// Player answers from a recording and has no keys. It serves one goroutine.
type Player struct {
	recorded Recording
	next     int
}

// NewPlayer begins at the first signature of a recording.
func NewPlayer(r Recording) *Player { return &Player{recorded: r} }

// Sign implements Signer: the next signature of the recording, if it was for
// the same handle, algorithm and message. Otherwise the error is a
// *record.Error of class protocol over ErrNotRecorded.
func (p *Player) Sign(handle uint32, alg Algorithm, message []byte) ([]byte, error) {
	if p.next >= len(p.recorded) {
		return nil, record.Errorf(record.Protocol, "sign: signature %d of a replay, of %d: %w", p.next+1, len(p.recorded), ErrNotRecorded)
	}
	r := p.recorded[p.next]
	switch {
	case r.Handle != handle || r.Algorithm != alg:
		return nil, record.Errorf(record.Protocol, "sign: signature %d of a replay: key %d and %v were recorded, and key %d and %v are asked for: %w", p.next+1, r.Handle, r.Algorithm, handle, alg, ErrNotRecorded)
	case r.Message != sha256.Sum256(message):
		return nil, record.Errorf(record.Protocol, "sign: signature %d of a replay: it was made over another message: %w", p.next+1, ErrNotRecorded)
	}
	p.next++
	return append([]byte(nil), r.Signature...), nil
}
