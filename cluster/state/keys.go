package state

import (
	"encoding/binary"
	"fmt"

	"github.com/google/uuid"

	"github.com/millrace-io/millrace/runtime/record"
)

// Key prefixes. They are a stored format and never change. Keys from 0x11 to
// 0x7f are replicated and hashed; 0x01, 0x02 and 0x10 belong to the log and to
// this replica's position in it; from 0x80 on keys are local to the node.
const (
	KeyLog    byte = 0x01
	KeyStable byte = 0x02
	keyMeta   byte = 0x10

	keyNode       byte = 0x11
	keyFlow       byte = 0x12
	keySlot       byte = 0x13
	keyWatermark  byte = 0x14
	keyRetry      byte = 0x15
	keyRetryDue   byte = 0x16
	keyRetryOrder byte = 0x17
	keyFailure    byte = 0x18
	keyFailureIdx byte = 0x19
	keyPlugin     byte = 0x1a
	keyDeploy     byte = 0x1b
	keyTrust      byte = 0x1c
	keyRequest    byte = 0x1d
	keyPartition  byte = 0x1e
	keyConnection byte = 0x1f
	keyCounter    byte = 0x20
	keyIngest     byte = 0x21
	keyIngestAge  byte = 0x22

	flowByName byte = 0x00
	flowHead   byte = 0x01
	flowRev    byte = 0x02
)

// firstHashed and firstLocal bound the replicated keys.
const (
	firstHashed = keyNode
	firstLocal  = byte(0x80)
)

func key32(prefix byte, ids ...uint32) []byte {
	b := append(make([]byte, 0, 1+4*len(ids)), prefix)
	for _, id := range ids {
		b = binary.BigEndian.AppendUint32(b, id)
	}
	return b
}

func metaKey() []byte { return []byte{keyMeta} }

func nodeKey(id uuid.UUID) []byte { return append([]byte{keyNode}, id[:]...) }

func flowNameKey(project, name string) []byte {
	b := append(make([]byte, 0, 3+len(project)+len(name)), keyFlow, flowByName)
	b = append(append(b, project...), 0)
	return append(b, name...)
}

func flowHeadKey(flow FlowID) []byte {
	return binary.BigEndian.AppendUint32([]byte{keyFlow, flowHead}, uint32(flow))
}

func flowRevPrefix(flow FlowID) []byte {
	return binary.BigEndian.AppendUint32([]byte{keyFlow, flowRev}, uint32(flow))
}

func flowRevKey(flow FlowID, rev uint32) []byte {
	return binary.BigEndian.AppendUint32(flowRevPrefix(flow), rev)
}

func slotKey(flow FlowID, slot uint16) []byte {
	return binary.BigEndian.AppendUint16(key32(keySlot, uint32(flow)), slot)
}

func watermarkKey(flow FlowID, part uint32) []byte { return key32(keyWatermark, uint32(flow), part) }
func partitionKey(flow FlowID, part uint32) []byte { return key32(keyPartition, uint32(flow), part) }
func deployKey(flow FlowID, gen uint32) []byte     { return key32(keyDeploy, uint32(flow), gen) }

func failureKey(flow FlowID, seq uint64) []byte {
	return binary.BigEndian.AppendUint64(key32(keyFailure, uint32(flow)), seq)
}

func failureIdxKey(flow FlowID, part uint32, off int64, path record.Path) []byte {
	b := binary.BigEndian.AppendUint64(key32(keyFailureIdx, uint32(flow), part), uint64(off))
	return append(b, path...)
}

func pluginKey(d Digest) []byte          { return append([]byte{keyPlugin}, d[:]...) }
func connectionKey(name string) []byte   { return append([]byte{keyConnection}, name...) }
func requestKey(id string) []byte        { return append([]byte{keyRequest}, id...) }
func counterKey(name string) []byte      { return append([]byte{keyCounter}, name...) }
func queueCounterKey(flow FlowID) []byte { return append(counterKey("queue/"), u32(uint32(flow))...) }
func nextFlowKey() []byte                { return counterKey("flow") }
func u32(v uint32) []byte                { return binary.BigEndian.AppendUint32(nil, v) }
func flowPrefix(p byte, f FlowID) []byte { return key32(p, uint32(f)) }
func retryKey(f FlowID, part uint32, off int64, path record.Path) []byte {
	b := binary.BigEndian.AppendUint64(key32(keyRetry, uint32(f), part), uint64(off))
	return append(b, path...)
}

func appendU48(b []byte, v uint64) []byte {
	return append(b, byte(v>>40), byte(v>>32), byte(v>>24), byte(v>>16), byte(v>>8), byte(v))
}

func ingestKey(f FlowID, part uint32, ref string) []byte {
	return append(key32(keyIngest, uint32(f), part), ref...)
}

func ingestAgeKey(f FlowID, part uint32, at int64, ref string) []byte {
	return append(appendU48(key32(keyIngestAge, uint32(f), part), uint64(at)), ref...)
}

func retryDueKey(f FlowID, part uint32, due uint64, off int64, path record.Path) []byte {
	b := appendU48(key32(keyRetryDue, uint32(f), part), due)
	return append(binary.BigEndian.AppendUint64(b, uint64(off)), path...)
}

func retryOrderKey(f FlowID, part uint32, key uint64, off int64, path record.Path) []byte {
	b := binary.BigEndian.AppendUint64(key32(keyRetryOrder, uint32(f), part), key)
	return append(binary.BigEndian.AppendUint64(b, uint64(off)), path...)
}

func trustKey(name string) []byte { return append([]byte{keyTrust}, name...) }

// prefixEnd is the first key behind all that begin with prefix.
func prefixEnd(prefix []byte) []byte {
	end := append([]byte(nil), prefix...)
	for i := len(end) - 1; i >= 0; i-- {
		if end[i]++; end[i] != 0 {
			return end[:i+1]
		}
	}
	return nil
}

// DescribeKey renders any key of the database for people: its kind and parts,
// separated by slashes. It reports an error for a key of no known form.
func DescribeKey(key []byte) (string, error) {
	bad := func() (string, error) { return "", fmt.Errorf("read key %x: %w", key, ErrMalformed) }
	if len(key) == 0 {
		return bad()
	}
	r := keyReader{b: key[1:]}
	var s string
	switch key[0] {
	case KeyLog:
		s = fmt.Sprintf("log/%d", r.u64())
	case KeyStable:
		s = fmt.Sprintf("stable/%q", r.rest())
	case keyMeta:
		s = "meta"
	case keyNode:
		var id uuid.UUID
		copy(id[:], r.take(16))
		s = "node/" + id.String()
	case keyFlow:
		switch r.u8() {
		case flowByName:
			project, name, ok := cutNul(r.rest())
			if !ok {
				return bad()
			}
			s = fmt.Sprintf("flow-name/%q/%q", project, name)
		case flowHead:
			s = fmt.Sprintf("flow/%d", r.u32())
		case flowRev:
			s = fmt.Sprintf("flow/%d/rev/%d", r.u32(), r.u32())
		default:
			return bad()
		}
	case keySlot:
		s = fmt.Sprintf("slot/%d/%d", r.u32(), r.u16())
	case keyWatermark:
		s = fmt.Sprintf("wm/%d/%d", r.u32(), r.u32())
	case keyPartition:
		s = fmt.Sprintf("par/%d/%d", r.u32(), r.u32())
	case keyDeploy:
		s = fmt.Sprintf("dep/%d/%d", r.u32(), r.u32())
	case keyFailure:
		s = fmt.Sprintf("flq/%d/%d", r.u32(), r.u64())
	case keyFailureIdx, keyRetry:
		kind := map[byte]string{keyFailureIdx: "fqi", keyRetry: "rty"}[key[0]]
		s = fmt.Sprintf("%s/%d/%d/%d%s", kind, r.u32(), r.u32(), r.u64(), r.path())
	case keyRetryDue:
		s = fmt.Sprintf("rdu/%d/%d/%d/%d%s", r.u32(), r.u32(), r.u48(), r.u64(), r.path())
	case keyRetryOrder:
		s = fmt.Sprintf("rky/%d/%d/%016x/%d%s", r.u32(), r.u32(), r.u64(), r.u64(), r.path())
	case keyPlugin:
		s = fmt.Sprintf("plg/%x", r.take(32))
	case keyTrust:
		s = fmt.Sprintf("trust/%q", r.rest())
	case keyRequest:
		s = fmt.Sprintf("req/%q", r.rest())
	case keyConnection:
		s = fmt.Sprintf("con/%q", r.rest())
	case keyIngest:
		s = fmt.Sprintf("inr/%d/%d/%q", r.u32(), r.u32(), r.rest())
	case keyIngestAge:
		s = fmt.Sprintf("ind/%d/%d/%d/%q", r.u32(), r.u32(), r.u48(), r.rest())
	case keyCounter:
		s = fmt.Sprintf("ctr/%q", r.rest())
	default:
		if key[0] < firstLocal {
			return bad()
		}
		s = fmt.Sprintf("local/%x", key)
		r.rest()
	}
	if r.bad || len(r.b) != 0 {
		return bad()
	}
	return s, nil
}

type keyReader struct {
	b   []byte
	bad bool
}

func (r *keyReader) take(n int) []byte {
	if len(r.b) < n {
		r.bad, r.b = true, nil
		return make([]byte, n)
	}
	v := r.b[:n]
	r.b = r.b[n:]
	return v
}

func (r *keyReader) u8() byte    { return r.take(1)[0] }
func (r *keyReader) u16() uint16 { return binary.BigEndian.Uint16(r.take(2)) }
func (r *keyReader) u32() uint32 { return binary.BigEndian.Uint32(r.take(4)) }
func (r *keyReader) u64() uint64 { return binary.BigEndian.Uint64(r.take(8)) }
func (r *keyReader) u48() uint64 {
	v := r.take(6)
	return uint64(binary.BigEndian.Uint16(v))<<32 | uint64(binary.BigEndian.Uint32(v[2:]))
}

func (r *keyReader) path() record.Path {
	p := record.Path(r.rest())
	if !validPath(p) {
		r.bad = true
	}
	return p
}

func (r *keyReader) rest() []byte {
	v := r.b
	r.b = nil
	return v
}

func validPath(p record.Path) bool { return len(p)%2 == 0 && len(p) <= 2*record.MaxPathLevels }

func cutNul(b []byte) (before, after string, ok bool) {
	for i, c := range b {
		if c == 0 {
			return string(b[:i]), string(b[i+1:]), true
		}
	}
	return "", "", false
}

// decodeFailureIdxKey reads the offset and path out of a key of kind 0x19.
func decodeFailureIdxKey(key []byte) (part uint32, off int64, path record.Path, err error) {
	if len(key) < 17 || key[0] != keyFailureIdx || !validPath(record.Path(key[17:])) {
		return 0, 0, "", fmt.Errorf("read failure index key %x: %w", key, ErrMalformed)
	}
	return binary.BigEndian.Uint32(key[5:]), int64(binary.BigEndian.Uint64(key[9:])), record.Path(key[17:]), nil
}
