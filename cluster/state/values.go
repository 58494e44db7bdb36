package state

import (
	"fmt"

	"github.com/google/uuid"
)

// Values begin with the version of their form.
const valueVersion = 1

func newValue(size int) []byte { return append(make([]byte, 0, size), valueVersion) }

// decodeValue reads a value by f and names what it was.
func decodeValue(what string, b []byte, f func(d *decoder)) error {
	d := &decoder{b: b}
	d.version(valueVersion)
	f(d)
	if err := d.end(); err != nil {
		return fmt.Errorf("read %s: %w", what, err)
	}
	return nil
}

// decodeVersions reads a value whose form has versions from 1 to newest.
func decodeVersions(what string, b []byte, newest byte, f func(d *decoder, version byte)) error {
	d := &decoder{b: b}
	v := d.byte()
	if v == 0 || v > newest {
		d.fail(fmt.Sprintf("version %d, this program knows versions up to %d", v, newest))
	}
	f(d, v)
	if err := d.end(); err != nil {
		return fmt.Errorf("read %s: %w", what, err)
	}
	return nil
}

// flowVersion is the version of a flow that knows what it first found; version
// 1 did not.
const flowVersion = 2

func (f *Flow) encode() []byte {
	b := append(make([]byte, 0, 96), flowVersion)
	b = putUint(b, uint64(f.ID))
	b = appendFixed64(b, f.UID)
	b = putString(putString(b, f.Project), f.Name)
	b = putString(append(b, byte(f.State)), f.Reason)
	b = putInt(putInt(putInt(b, f.StateAt), f.CreatedAt), f.UpdatedAt)
	b = putUint(putUint(putUint(b, uint64(f.Revision)), uint64(f.Deploy)), uint64(f.Generation))
	b = putUint(putUint(b, uint64(f.Slots)), uint64(f.Parts))
	return putUint(putBool(putStrings(b, f.Connections), f.Looked), uint64(f.First))
}

func decodeFlow(b []byte) (*Flow, error) {
	f := &Flow{}
	err := decodeVersions("flow", b, flowVersion, func(d *decoder, version byte) {
		f.ID = FlowID(d.uint32())
		f.UID = d.fixed64()
		f.Project, f.Name = d.string(), d.string()
		f.State, f.Reason = RunState(d.byte()), d.string()
		f.StateAt, f.CreatedAt, f.UpdatedAt = d.int(), d.int(), d.int()
		f.Revision, f.Deploy, f.Generation = d.uint32(), d.uint32(), d.uint32()
		f.Slots, f.Parts = d.uint16(), d.uint32()
		f.Connections = d.strings()
		if version > 1 {
			f.Looked, f.First = d.bool(), d.uint32()
		} else {
			f.Looked, f.First = f.Parts > 0, f.Parts
		}
	})
	return f, err
}

func appendFixed64(b []byte, v uint64) []byte {
	return append(b, byte(v>>56), byte(v>>48), byte(v>>40), byte(v>>32), byte(v>>24), byte(v>>16), byte(v>>8), byte(v))
}

func putPins(b []byte, pins []Pin) []byte {
	b = putUint(b, uint64(len(pins)))
	for _, p := range pins {
		b = putString(b, p.Stage)
		b = append(b, p.Digest[:]...)
		b = putString(b, p.Version)
	}
	return b
}

func (d *decoder) pins() []Pin {
	n := d.count(34)
	if n == 0 {
		return nil
	}
	pins := make([]Pin, n)
	for i := range pins {
		pins[i] = Pin{Stage: d.string(), Digest: d.digest(), Version: d.string()}
	}
	return pins
}

// append writes p, which may be nil.
func (p *Preflight) append(b []byte) []byte {
	if p == nil {
		return putBool(b, false)
	}
	b = putBool(putBool(b, true), p.Skipped)
	return putString(putUint(putUint(putUint(b, p.Records), p.Differ), p.NewFailures), p.Accepted)
}

func (d *decoder) preflight() *Preflight {
	if !d.bool() {
		return nil
	}
	return &Preflight{Skipped: d.bool(), Records: d.uint(), Differ: d.uint(), NewFailures: d.uint(), Accepted: d.string()}
}

// revisionVersion is the version of a revision that may tell of a pre-flight.
const revisionVersion = 2

func (r *Revision) encode() []byte {
	b := append(make([]byte, 0, 64+len(r.Document)+len(r.Resolved)), revisionVersion)
	b = putInt(b, r.At)
	b = putUint(b, uint64(r.Deploy))
	b = putBytes(putBytes(b, r.Document), r.Resolved)
	return r.Preflight.append(putStrings(putPins(b, r.Pins), r.Connections))
}

func decodeRevision(flow FlowID, number uint32, b []byte) (*Revision, error) {
	r := &Revision{Flow: flow, Number: number}
	err := decodeVersions("flow revision", b, revisionVersion, func(d *decoder, version byte) {
		r.At, r.Deploy = d.int(), d.uint32()
		r.Document, r.Resolved = d.bytes(), d.bytes()
		r.Pins, r.Connections = d.pins(), d.strings()
		if version > 1 {
			r.Preflight = d.preflight()
		}
	})
	return r, err
}

func (v *Deployment) encode() []byte {
	b := newValue(64)
	b = putUint(putInt(b, v.At), uint64(v.Revision))
	return putPins(b, v.Pins)
}

func decodeDeployment(flow FlowID, gen uint32, b []byte) (*Deployment, error) {
	v := &Deployment{Flow: flow, Generation: gen}
	err := decodeValue("deployment", b, func(d *decoder) {
		v.At, v.Revision, v.Pins = d.int(), d.uint32(), d.pins()
	})
	return v, err
}

func (k *PartitionKey) append(b []byte) []byte {
	b = putString(putString(putString(b, k.Kind), k.Connection), k.Topic)
	b = append(b, k.TopicID[:]...)
	return putInt(putString(b, k.Broker), int64(k.Source))
}

func (d *decoder) partitionKey() (k PartitionKey) {
	k.Kind, k.Connection, k.Topic = d.string(), d.string(), d.string()
	copy(k.TopicID[:], d.fixed(16))
	k.Broker, k.Source = d.string(), d.int32()
	return k
}

func (k *PartitionKey) encode() []byte { return k.append(newValue(64)) }

func decodePartitionKey(b []byte) (k PartitionKey, err error) {
	err = decodeValue("partition", b, func(d *decoder) { k = d.partitionKey() })
	return k, err
}

func putRanges(b []byte, low int64, ranges []Range) []byte {
	b = putUint(b, uint64(len(ranges)))
	for _, r := range ranges {
		b = putUint(putUint(b, uint64(r.From-low)), uint64(r.To-r.From))
		low = r.To
	}
	return b
}

func (d *decoder) ranges(low int64) []Range {
	n := d.count(2)
	if n == 0 {
		return nil
	}
	ranges := make([]Range, n)
	for i := range ranges {
		from := low + int64(d.uint())
		low = from + int64(d.uint())
		ranges[i] = Range{from, low}
	}
	return ranges
}

// watermarkVersion is the version of a watermark whose receipt counts entries;
// version 2 had a receipt that did not, version 1 none.
const watermarkVersion = 3

// notBegun is the generation of a partition that has no watermark yet.
const notBegun = 1<<32 - 1

func (w *Watermark) append(b []byte) []byte {
	b = append(b, watermarkVersion)
	b = putUint(putUint(b, uint64(w.Generation)), uint64(w.Deploy))
	b = putRanges(putInt(b, w.Low), w.Low, w.Ranges)
	b = w.life.append(w.base.append(b))
	b = putInt(putInt(putUint(putUint(b, w.epoch), w.number), w.filed), w.kept)
	return putInt(w.carried.append(b), w.grown)
}

// decodeWatermark reads a watermark. One of the first version has no receipt:
// its filed is -1 until somebody counts.
func decodeWatermark(part uint32, b []byte) (w Watermark, err error) {
	w.Part = part
	err = decodeVersions("watermark", b, watermarkVersion, func(d *decoder, version byte) {
		w.Generation, w.Deploy, w.Low = d.uint32(), d.uint32(), d.int()
		w.Ranges = d.ranges(w.Low)
		if version == 1 {
			w.filed = -1
			return
		}
		w.base, w.life = d.tally(), d.tally()
		w.epoch, w.number, w.filed, w.kept = d.uint(), d.uint(), d.int(), d.int()
		if version > 2 {
			w.carried, w.grown = d.entryCount(), d.int()
		}
	})
	return w, err
}

func (s *Slot) encode() []byte {
	b := newValue(48)
	b = append(b, s.Owner[:]...)
	b = putUint(putUint(b, s.Incarnation), s.Epoch)
	b = append(b, s.Target[:]...)
	return putBool(putUint(putUint(b, uint64(s.Layout)), uint64(s.Deaths)), s.Quarantine)
}

func decodeSlot(flow FlowID, slot uint16, b []byte) (s Slot, err error) {
	s.Flow, s.Slot = flow, slot
	err = decodeValue("slot", b, func(d *decoder) {
		s.Owner = d.uuid()
		s.Incarnation, s.Epoch = d.uint(), d.uint()
		s.Target = d.uuid()
		s.Layout, s.Deaths, s.Quarantine = d.uint32(), d.uint32(), d.bool()
	})
	return s, err
}

func (c *Connection) encode() []byte {
	b := newValue(16 + len(c.Document))
	return putBytes(putUint(putInt(b, c.At), uint64(c.Revision)), c.Document)
}

func decodeConnection(name string, b []byte) (*Connection, error) {
	c := &Connection{Name: name}
	err := decodeValue("connection", b, func(d *decoder) {
		c.At, c.Revision, c.Document = d.int(), d.uint32(), d.bytes()
	})
	return c, err
}

// encodePlugins writes the names of one digest; what belongs to the bytes is
// taken from the first.
func encodePlugins(names []Plugin) []byte {
	p := &names[0]
	b := newValue(96 + len(p.Manifest))
	b = putString(putString(putInt(b, p.Size), p.ABI), p.Mode)
	b = putUint(putBytes(b, p.Manifest), uint64(len(names)))
	for i := range names {
		n := &names[i]
		b = putString(putString(putString(b, n.Namespace), n.Name), n.Version)
		b = putUint(putInt(b, n.At), n.Index)
	}
	return b
}

func decodePlugins(digest Digest, b []byte) ([]Plugin, error) {
	var names []Plugin
	err := decodeValue("plugin", b, func(d *decoder) {
		p := Plugin{Digest: digest, Size: d.int(), ABI: d.string(), Mode: d.string(), Manifest: d.bytes()}
		n := d.count(5)
		if n == 0 {
			d.fail("a plugin without a name")
			return
		}
		names = make([]Plugin, n)
		for i := range names {
			names[i] = p
			names[i].Namespace, names[i].Name, names[i].Version = d.string(), d.string(), d.string()
			names[i].At, names[i].Index = d.int(), d.uint()
		}
	})
	return names, err
}

func (n *Node) encode() []byte {
	b := putBool(putUint(newValue(48), n.Incarnation), n.Up)
	return putInt(putString(putString(b, n.Addr), n.Version), n.At)
}

func decodeNode(id uuid.UUID, b []byte) (*Node, error) {
	n := &Node{ID: id}
	err := decodeValue("node", b, func(d *decoder) {
		n.Incarnation, n.Up = d.uint(), d.bool()
		n.Addr, n.Version, n.At = d.string(), d.string(), d.int()
	})
	return n, err
}

// failureIdx is the value of key 0x19: where the entry is, and what is to be
// known of it without reading it.
type failureIdx struct {
	seq, size, hash uint64
	// generation is the entry's reset generation. The first version of the
	// value does not tell: old.
	generation uint32
	old        bool
}

// failureIdxVersion is the version of an index value with a generation.
const failureIdxVersion = 2

func (f failureIdx) encode() []byte {
	b := append(make([]byte, 0, 24), failureIdxVersion)
	return putUint(appendFixed64(putUint(putUint(b, f.seq), f.size), f.hash), uint64(f.generation))
}

func decodeFailureIdx(b []byte) (f failureIdx, err error) {
	err = decodeVersions("failure index", b, failureIdxVersion, func(d *decoder, version byte) {
		f.seq, f.size, f.hash = d.uint(), d.uint(), d.fixed64()
		if f.old = version == 1; !f.old {
			f.generation = d.uint32()
		}
	})
	return f, err
}

// queueCounters is the value of a flow's counter key.
type queueCounters struct {
	last, entries, bytes uint64
	kept, keptBytes      uint64
}

// queueCountersVersion is the version of counters with those of kept entries.
const queueCountersVersion = 2

func (q queueCounters) encode() []byte {
	b := append(make([]byte, 0, 24), queueCountersVersion)
	return putUint(putUint(putUint(putUint(putUint(b, q.last), q.entries), q.bytes), q.kept), q.keptBytes)
}

func decodeQueueCounters(b []byte) (q queueCounters, err error) {
	err = decodeVersions("queue counters", b, queueCountersVersion, func(d *decoder, version byte) {
		q.last, q.entries, q.bytes = d.uint(), d.uint(), d.uint()
		if version > 1 {
			q.kept, q.keptBytes = d.uint(), d.uint()
		}
	})
	return q, err
}

func (q queueCounters) stats(flow FlowID) QueueStats {
	return QueueStats{Flow: flow, Entries: q.entries, Bytes: q.bytes, Last: q.last, Kept: q.kept, KeptBytes: q.keptBytes}
}

// request is the value of a dedupe key.
type request struct {
	at     int64
	kind   Kind
	result []byte
}

func (r *request) encode() []byte {
	return putBytes(append(putInt(newValue(32), r.at), byte(r.kind)), r.result)
}

func decodeRequest(b []byte) (r request, err error) {
	err = decodeValue("request", b, func(d *decoder) {
		r.at, r.kind, r.result = d.int(), Kind(d.byte()), d.bytes()
	})
	return r, err
}

// meta is this replica's position: the value of key 0x10.
type meta struct {
	index, term, hash uint64
	// configuration is raft's own encoding, opaque here.
	configurationIndex uint64
	configuration      []byte
}

func (m *meta) append(b []byte) []byte {
	b = append(b, valueVersion)
	b = appendFixed64(putUint(putUint(b, m.index), m.term), m.hash)
	return putBytes(putUint(b, m.configurationIndex), m.configuration)
}

func decodeMeta(b []byte) (m meta, err error) {
	err = decodeValue("meta", b, func(d *decoder) {
		m.index, m.term, m.hash = d.uint(), d.uint(), d.fixed64()
		m.configurationIndex, m.configuration = d.uint(), d.bytes()
	})
	return m, err
}
