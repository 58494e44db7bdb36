package sandbox

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"

	"github.com/tetratelabs/wazero/api"

	"github.com/millrace-io/millrace/runtime/record"
)

// SignRefusal is a reason why a guest gets no signature: the number that
// stage.sign answers it. It is an error that StageConfig.Sign may return.
type SignRefusal int32

// The refusals. The numbers are part of the ABI.
const (
	// SignNoKeys: the stage has no keys.
	SignNoKeys SignRefusal = -1
	// SignUnknownKey: it has none with that handle.
	SignUnknownKey SignRefusal = -2
	// SignUnknownAlgorithm: no algorithm has that number.
	SignUnknownAlgorithm SignRefusal = -3
	// SignKeyMismatch: the key is not one for the algorithm.
	SignKeyMismatch SignRefusal = -4
	// SignOutOfBounds: the message, or the room for a signature, does not lie
	// in the guest's memory, or the message has more than MaxSignedBytes. The
	// host looks before it asks for a signature.
	SignOutOfBounds SignRefusal = -5
)

func (r SignRefusal) Error() string {
	switch r {
	case SignNoKeys:
		return "the stage has no keys"
	case SignUnknownKey:
		return "there is no such key"
	case SignUnknownAlgorithm:
		return "there is no such algorithm"
	case SignKeyMismatch:
		return "the key does not go with the algorithm"
	case SignOutOfBounds:
		return "the message or the room for its signature lies outside of the memory, or the message is too long"
	}
	return fmt.Sprintf("no signature (%d)", int32(r))
}

// MaxSignedBytes is the longest message that a guest can have signed.
const MaxSignedBytes = 16 << 20

// warmSignatureBytes is the length of the signature, all zeros, that a guest
// gets before its first record.
const warmSignatureBytes = 64

// What a signature costs: by the family of the algorithm, which its number
// without the last four bits tells, and by the length of the message.
const (
	fuelHMAC           = 250
	fuelRSA            = 300_000
	fuelEllipticCurve  = 50_000
	signedBytesPerFuel = 8
)

func fuelForSignature(alg uint32, length int) int64 {
	family := int64(fuelEllipticCurve)
	switch alg >> 4 {
	case 0:
		family = fuelHMAC
	case 1, 2:
		family = fuelRSA
	}
	return family + int64(length/signedBytesPerFuel)
}

// signing is what an instance needs of stage.sign in one call.
type signing struct {
	// live: records are processed; before that the guest gets zeros.
	live bool
	with func(handle, alg uint32, message []byte) ([]byte, error)
	// keep says that asked is for a Replay; noReplay why there can be none.
	keep     bool
	asked    []record.Signature
	noReplay string
}

// signFailure ends a guest whose keys cannot be had: it is no answer that a
// guest could do anything about.
type signFailure struct{ err *record.Error }

func (e *signFailure) Error() string { return e.err.Error() }

func hostSign(ctx context.Context, mod api.Module, stack []uint64) {
	answer := int32(SignNoKeys)
	if e := envOf(ctx); e != nil {
		answer = e.sign(mod, uint32(stack[0]), uint32(stack[1]), uint32(stack[2]), uint32(stack[3]), uint32(stack[4]))
	}
	stack[0] = api.EncodeI32(answer)
}

// sign writes the signature of a message to the guest's memory at out, and
// answers its length or a SignRefusal.
func (e *guestEnv) sign(mod api.Module, handle, alg, ptr, n, out uint32) int32 {
	message, ok := mod.Memory().Read(ptr, n)
	room, fits := mod.Memory().Read(out, record.MaxSignatureBytes)
	if !ok || !fits || n > MaxSignedBytes {
		e.pay(mod, fuelForSignature(alg, 0))
		return int32(SignOutOfBounds)
	}
	e.pay(mod, fuelForSignature(alg, len(message)))
	s := &e.signing
	if !s.live {
		clear(room[:warmSignatureBytes])
		return warmSignatureBytes
	}
	sig, err := []byte(nil), error(SignNoKeys)
	if s.with != nil {
		sig, err = s.with(handle, alg, message)
	}
	if err == nil && len(sig) > len(room) {
		err = record.Errorf(record.Config, "sign: a signature of %d bytes, and a plugin can be given %d", len(sig), len(room))
	}
	refused, isRefusal := errors.AsType[SignRefusal](err)
	if err != nil && !isRefusal {
		s.noReplay = "a signature that it asked for could not be made: " + err.Error()
		panic(&signFailure{record.AsError(err)})
	}
	s.note(handle, alg, message, sig, refused)
	if isRefusal {
		return int32(refused)
	}
	return int32(copy(room, sig))
}

// note keeps what the guest asked for.
func (s *signing) note(handle, alg uint32, message, sig []byte, refused SignRefusal) {
	switch {
	case !s.keep:
	case len(s.asked) == record.MaxSignatures:
		s.noReplay = fmt.Sprintf("it asked for more than %d signatures", record.MaxSignatures)
	default:
		s.asked = append(s.asked, record.Signature{
			Handle: handle, Alg: alg, MessageSHA256: sha256.Sum256(message), Signature: append([]byte(nil), sig...), Refused: int32(refused),
		})
	}
}

// ErrNotRecorded is the cause of an *UnrepeatableError where a guest asks for
// a signature that the recorded call did not ask for: a replay has no keys, as
// they may be others by now.
var ErrNotRecorded = errors.New("the signature was not recorded")

// player answers stage.sign in a replay.
type player struct {
	plugin   string
	recorded []record.Signature
	next     int
	err      *UnrepeatableError // what it had no answer for
}

func (p *player) sign(handle, alg uint32, message []byte) ([]byte, error) {
	if p.next == len(p.recorded) {
		return p.none("it asks for %d signatures, and %d were recorded", p.next+1, len(p.recorded))
	}
	r := &p.recorded[p.next]
	switch {
	case r.Handle != handle || r.Alg != alg:
		return p.none("its signature %d is by key %d and algorithm %d, and by key %d and algorithm %d was recorded", p.next+1, handle, alg, r.Handle, r.Alg)
	case r.MessageSHA256 != sha256.Sum256(message):
		return p.none("its signature %d is of another message than was recorded", p.next+1)
	}
	p.next++
	if r.Refused != 0 {
		return nil, SignRefusal(r.Refused)
	}
	return r.Signature, nil
}

func (p *player) none(format string, args ...any) ([]byte, error) {
	reason := fmt.Sprintf(format, args...) + "; keys are not used again"
	p.err = &UnrepeatableError{Plugin: p.plugin, Reason: reason, Err: record.Errorf(record.Protocol, "sign: %s: %w", reason, ErrNotRecorded)}
	return nil, p.err
}
