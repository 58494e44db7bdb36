package sign

import (
	"fmt"

	"github.com/millrace-io/millrace/runtime/record"
)

// Keys are the keys that a plugin's stage was given: a handle is an index. It
// is safe for concurrent use.
type Keys []*Key

// Sign signs a message with the key of a handle. message is not kept. The error
// is a *record.Error of class config: there is no such handle, or the key does
// not go with alg.
func (k Keys) Sign(handle uint32, alg Algorithm, message []byte) ([]byte, error) {
	if uint64(handle) >= uint64(len(k)) {
		return nil, record.Errorf(record.Config, "sign: there is no key %d: the stage has %d, and handles count from 0", handle, len(k))
	}
	return k[handle].Sign(alg, message)
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
