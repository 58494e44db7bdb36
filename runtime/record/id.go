package record

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
)

// MaxPathLevels is how deep emissions can be nested.
const MaxPathLevels = 8

// Path tells apart the emissions that come from one source record: a number a
// level, from 0. It is empty as long as the record was passed on one to one.
// The bytes are big-endian u16, so paths sort as their emissions do.
type Path string

// Child is the path of the n-th emission of a record at p. It reports an
// error of class protocol when n does not fit or the path is too deep.
func (p Path) Child(n int) (Path, error) {
	if n < 0 || n > 0xffff {
		return "", Errorf(Protocol, "emission %d of one record: at most %d are possible", n, 1<<16)
	}
	if len(p) >= 2*MaxPathLevels {
		return "", Errorf(Protocol, "emission of an emission, %d levels deep: at most %d are possible", len(p)/2+1, MaxPathLevels)
	}
	return p + Path([]byte{byte(n >> 8), byte(n)}), nil
}

// String is "" for the empty path, else "#n[.m...]".
func (p Path) String() string {
	if p == "" {
		return ""
	}
	return string(p.append(nil))
}

func (p Path) append(b []byte) []byte {
	for i := 0; i+1 < len(p); i += 2 {
		if i == 0 {
			b = append(b, '#')
		} else {
			b = append(b, '.')
		}
		b = strconv.AppendUint(b, uint64(p[i])<<8|uint64(p[i+1]), 10)
	}
	return b
}

// ParsePath reads what Path.String writes.
func ParsePath(s string) (Path, error) {
	if s == "" {
		return "", nil
	}
	if s[0] != '#' {
		return "", fmt.Errorf("parse emission path %q: it begins with #", s)
	}
	parts := strings.Split(s[1:], ".")
	if len(parts) > MaxPathLevels {
		return "", fmt.Errorf("parse emission path %q: more than %d levels", s, MaxPathLevels)
	}
	b := make([]byte, 0, 2*len(parts))
	for _, part := range parts {
		n, err := strconv.ParseUint(part, 10, 16)
		if err != nil || part != strconv.FormatUint(n, 10) {
			return "", fmt.Errorf("parse emission path %q: %q is no number from 0 to 65535", s, part)
		}
		b = append(b, byte(n>>8), byte(n))
	}
	return Path(b), nil
}

// ID is the record's identity in its flow: topic/partition/offset, with the
// broker behind the topic where the source has one, and the emission path.
func (r *Record) ID() string { return string(r.AppendID(nil)) }

// AppendID appends the record's ID to b.
func (r *Record) AppendID(b []byte) []byte {
	b = append(b, r.Topic...)
	if r.Broker != "" {
		b = append(append(b, '/'), r.Broker...)
	}
	b = strconv.AppendInt(append(b, '/'), int64(r.Partition), 10)
	if b = append(b, '/'); r.Ref != "" {
		b = append(b, r.Ref...)
	} else {
		b = strconv.AppendInt(b, r.Offset, 10)
	}
	return r.Path.append(b)
}

// checkRef refuses a Ref that would make an ID ambiguous.
func checkRef(ref string) error {
	if strings.ContainsAny(ref, "/#") {
		return fmt.Errorf("ref %q: it holds a / or a #", ref)
	}
	return nil
}

// Trace is a W3C trace id. The zero value means none.
type Trace [16]byte

// IsZero reports whether t is no trace id.
func (t Trace) IsZero() bool { return t == Trace{} }

// String is the id as 32 lower-case hex digits.
func (t Trace) String() string { return hex.EncodeToString(t[:]) }

// TraceSeed is the part of derived trace ids that is the same for a whole
// partition; sources compute it once.
type TraceSeed uint64

// NewTraceSeed makes the seed of a partition.
func NewTraceSeed(p Partition) TraceSeed {
	h := uint64(14695981039346656037) // FNV-1a, 64 bits
	add := func(s string) {
		for i := 0; i < len(s); i++ {
			h = (h ^ uint64(s[i])) * 1099511628211
		}
		h = (h ^ 0xff) * 1099511628211
	}
	add(p.Topic)
	add(p.Broker)
	return TraceSeed(mix(h ^ uint64(uint32(p.Num))))
}

// Trace derives the trace id of the record at an offset, so that a redelivery
// or a replay has the same one. It is never zero.
func (s TraceSeed) Trace(offset int64) Trace {
	var t Trace
	binary.BigEndian.PutUint64(t[:8], mix(uint64(s)+uint64(offset)*0x9e3779b97f4a7c15))
	binary.BigEndian.PutUint64(t[8:], mix(uint64(s)^mix(uint64(offset)+1))|1)
	return t
}

// mix is the finaliser of SplitMix64 (Steele, Lea and Flood, "Fast splittable
// pseudorandom number generators", 2014).
func mix(x uint64) uint64 {
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// TraceFromHeaders reads the trace id of a "traceparent" header (W3C Trace
// Context, version 00 and later). It reports false when there is none that is
// valid.
func TraceFromHeaders(hs []Header) (Trace, bool) {
	for i := range hs {
		if hs[i].Key != "traceparent" {
			continue
		}
		v := hs[i].Value
		var t Trace
		if len(v) < 55 || v[2] != '-' || v[35] != '-' {
			return t, false
		}
		if _, err := hex.Decode(t[:], v[3:35]); err != nil || t.IsZero() {
			return Trace{}, false
		}
		return t, true
	}
	return Trace{}, false
}

func (t *Trace) parse(s string) error {
	if len(s) != 32 {
		return fmt.Errorf("%q is not 32 hex digits", s)
	}
	_, err := hex.Decode(t[:], []byte(s))
	return err
}

func hex64(v uint64) string { return fmt.Sprintf("%016x", v) }

func parseHex64(s string) (uint64, error) {
	if s == "" {
		return 0, nil
	}
	return strconv.ParseUint(s, 16, 64)
}
