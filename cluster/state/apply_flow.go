package state

import (
	"bytes"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/google/uuid"
)

const (
	// MaxSlots is how many slots the flows of a cluster may have together.
	MaxSlots = 4096
	// PinnedDeployments is how many of a flow's last deployments keep their
	// plugins from being deleted.
	PinnedDeployments = 5
	// dedupeMillis is how long a request id is remembered.
	dedupeMillis = 10 * 60 * 1000
	maxName      = 255
)

// FlowPutResult answers FlowPut and Activate.
type FlowPutResult struct {
	Flow     FlowID
	UID      uint64
	Revision uint32
	// Deploy is the deploy generation.
	Deploy uint32
	// Created: the flow is new. Unchanged: the state held the very same, and
	// no revision was made.
	Created, Unchanged bool
}

func (r *FlowPutResult) encode() []byte {
	b := appendFixed64(putUint(nil, uint64(r.Flow)), r.UID)
	b = putUint(putUint(b, uint64(r.Revision)), uint64(r.Deploy))
	return putBool(putBool(b, r.Created), r.Unchanged)
}

func decodeFlowPutResult(b []byte) (*FlowPutResult, error) {
	d := &decoder{b: b}
	r := &FlowPutResult{FlowID(d.uint32()), d.fixed64(), d.uint32(), d.uint32(), d.bool(), d.bool()}
	return r, d.end()
}

func (t *tx) flow(id FlowID) *Flow {
	v, ok := t.get(flowHeadKey(id))
	if !ok {
		return nil
	}
	f, err := decodeFlow(v)
	if err != nil {
		t.fault(err)
		return nil
	}
	return f
}

func (t *tx) slot(flow FlowID, slot uint16) (Slot, bool) {
	v, ok := t.get(slotKey(flow, slot))
	if !ok {
		return Slot{}, false
	}
	s, err := decodeSlot(flow, slot, v)
	t.fault(err)
	return s, err == nil
}

func (t *tx) queue(flow FlowID) queueCounters {
	v, ok := t.get(queueCounterKey(flow))
	if !ok {
		return queueCounters{}
	}
	q, err := decodeQueueCounters(v)
	t.fault(err)
	return q
}

// nextFlow takes the next flow number.
func (t *tx) nextFlow() FlowID {
	var last uint64
	if v, ok := t.get(nextFlowKey()); ok {
		t.fault(decodeValue("flow counter", v, func(d *decoder) { last = d.uint() }))
	}
	last++
	t.set(nextFlowKey(), putUint(newValue(8), last))
	return FlowID(last)
}

// remembered looks a request up, and forgets those that are too old.
func (t *tx) remembered(id string, kind Kind, at int64) (*FlowPutResult, error) {
	if id == "" {
		return nil, nil
	}
	if len(id) > maxName {
		return nil, refuse(Invalid, "request id: longer than %d bytes", maxName)
	}
	var old [][]byte
	t.scan([]byte{keyRequest}, func(key, value []byte) bool {
		r, err := decodeRequest(value)
		if err != nil {
			t.fault(err)
			return false
		}
		if r.at < at-dedupeMillis {
			old = append(old, append([]byte(nil), key...))
		}
		return true
	})
	for _, key := range old {
		t.del(key)
	}
	v, ok := t.get(requestKey(id))
	if !ok {
		return nil, nil
	}
	r, err := decodeRequest(v)
	if err == nil && r.kind != kind {
		return nil, refuse(Invalid, "request id %q was used for a %s", id, r.kind)
	}
	var res *FlowPutResult
	if err == nil {
		res, err = decodeFlowPutResult(r.result)
	}
	t.fault(err)
	return res, nil
}

func (t *tx) remember(id string, kind Kind, at int64, res *FlowPutResult) {
	if id != "" {
		r := request{at, kind, res.encode()}
		t.set(requestKey(id), r.encode())
	}
}

func validName(s string) bool {
	return s != "" && len(s) <= maxName && utf8.ValidString(s) && !strings.ContainsAny(s, "\x00/")
}

func (p *Preflight) check() error {
	if p != nil && len(p.Accepted) > maxName {
		return refuse(Invalid, "pre-flight: what accepted it is longer than %d bytes", maxName)
	}
	return nil
}

func (t *tx) checkPins(pins []Pin) error {
	seen := make(map[string]bool, len(pins))
	for _, p := range pins {
		if seen[p.Stage] {
			return refuse(Invalid, "stage %q is pinned twice", p.Stage)
		}
		seen[p.Stage] = true
		if _, ok := t.get(pluginKey(p.Digest)); !ok {
			return refuse(NotFound, "stage %q: no plugin with digest %s is stored", p.Stage, p.Digest)
		}
	}
	return nil
}

func (c *FlowPut) apply(t *tx) (any, error) {
	res, err := t.remembered(c.RequestID, KindFlowPut, c.At)
	if res != nil || err != nil {
		return res, err
	}
	if err := c.Preflight.check(); err != nil {
		return nil, err
	}
	if !validName(c.Project) || !validName(c.Name) {
		return nil, refuse(Invalid, "flow %q in project %q: names have 1 to %d bytes, without a slash", c.Name, c.Project, maxName)
	}
	nameKey := flowNameKey(c.Project, c.Name)
	var f *Flow
	if v, ok := t.get(nameKey); ok {
		var id FlowID
		t.fault(decodeValue("flow name", v, func(d *decoder) { id = FlowID(d.uint32()) }))
		f = t.flow(id)
	}
	current := uint32(0)
	if f != nil {
		current = f.Revision
	}
	if c.IfMatch != 0 && c.IfMatch != current {
		return nil, refuse(RevisionMismatch, "flow %s/%s has revision %d, not %d", c.Project, c.Name, current, c.IfMatch)
	}
	if err := t.checkPins(c.Pins); err != nil {
		return nil, err
	}
	if f == nil {
		if f, err = c.create(t, nameKey); err != nil {
			return nil, err
		}
		res = t.newRevision(f, &Revision{Document: c.Document, Resolved: c.Resolved, Pins: c.Pins, Connections: c.Connections, At: c.At, Preflight: c.Preflight})
		res.Created = true
		t.remember(c.RequestID, KindFlowPut, c.At, res)
		return res, nil
	}
	if c.Slots != 0 && c.Slots != f.Slots {
		return nil, refuse(Invalid, "flow %s/%s has %d slots, not %d; they are fixed when a flow is made", c.Project, c.Name, f.Slots, c.Slots)
	}
	old := t.revision(f)
	if old != nil && bytes.Equal(old.Document, c.Document) && bytes.Equal(old.Resolved, c.Resolved) &&
		slices.Equal(old.Pins, c.Pins) && slices.Equal(old.Connections, c.Connections) {
		res = &FlowPutResult{Flow: f.ID, UID: f.UID, Revision: f.Revision, Deploy: f.Deploy, Unchanged: true}
	} else {
		res = t.newRevision(f, &Revision{Document: c.Document, Resolved: c.Resolved, Pins: c.Pins, Connections: c.Connections, At: c.At, Preflight: c.Preflight})
	}
	t.remember(c.RequestID, KindFlowPut, c.At, res)
	return res, nil
}

func (c *FlowPut) create(t *tx, nameKey []byte) (*Flow, error) {
	slots := max(c.Slots, 1)
	total := int(slots)
	t.scan([]byte{keyFlow, flowHead}, func(_, value []byte) bool {
		f, err := decodeFlow(value)
		t.fault(err)
		total += int(f.Slots)
		return err == nil
	})
	if total > MaxSlots {
		return nil, refuse(TooMany, "flow %s/%s: with its %d slots the cluster would have %d; at most %d are possible", c.Project, c.Name, slots, total, MaxSlots)
	}
	f := &Flow{ID: t.nextFlow(), UID: c.UID, Project: c.Project, Name: c.Name, StateAt: c.At, CreatedAt: c.At, Slots: slots}
	t.set(nameKey, putUint(newValue(8), uint64(f.ID)))
	for k := range slots {
		t.set(slotKey(f.ID, k), (&Slot{Layout: 1}).encode())
	}
	return f, nil
}

func (t *tx) revision(f *Flow) *Revision {
	v, ok := t.get(flowRevKey(f.ID, f.Revision))
	if !ok {
		return nil
	}
	r, err := decodeRevision(f.ID, f.Revision, v)
	t.fault(err)
	return r
}

// newRevision makes r the flow's next revision and deployment.
func (t *tx) newRevision(f *Flow, r *Revision) *FlowPutResult {
	f.Revision++
	f.Deploy++
	f.UpdatedAt, f.Connections = r.At, r.Connections
	r.Deploy = f.Deploy
	t.set(flowRevKey(f.ID, f.Revision), r.encode())
	t.set(deployKey(f.ID, f.Deploy), (&Deployment{Revision: f.Revision, Pins: r.Pins, At: r.At}).encode())
	t.set(flowHeadKey(f.ID), f.encode())
	return &FlowPutResult{Flow: f.ID, UID: f.UID, Revision: f.Revision, Deploy: f.Deploy}
}

func (c *Activate) apply(t *tx) (any, error) {
	res, err := t.remembered(c.RequestID, KindActivate, c.At)
	if res != nil || err != nil {
		return res, err
	}
	f := t.flow(c.Flow)
	if f == nil {
		return nil, refuse(NotFound, "flow %d does not exist", c.Flow)
	}
	if err := c.Preflight.check(); err != nil {
		return nil, err
	}
	if err := t.checkPins(c.Pins); err != nil {
		return nil, err
	}
	old := t.revision(f)
	if old == nil {
		return nil, refuse(NotFound, "flow %s has no revision %d", f.FullName(), f.Revision)
	}
	pins := slices.Clone(old.Pins)
	for _, p := range c.Pins {
		i := slices.IndexFunc(pins, func(o Pin) bool { return o.Stage == p.Stage })
		if i < 0 {
			return nil, refuse(NotFound, "flow %s has no stage %q that runs a plugin", f.FullName(), p.Stage)
		}
		pins[i] = p
	}
	if slices.Equal(pins, old.Pins) {
		res = &FlowPutResult{Flow: f.ID, UID: f.UID, Revision: f.Revision, Deploy: f.Deploy, Unchanged: true}
	} else {
		res = t.newRevision(f, &Revision{Document: old.Document, Resolved: old.Resolved, Pins: pins, Connections: old.Connections, At: c.At, Preflight: c.Preflight})
	}
	t.remember(c.RequestID, KindActivate, c.At, res)
	return res, nil
}

func (c *FlowState) apply(t *tx) (any, error) {
	f := t.flow(c.Flow)
	switch {
	case f == nil:
		return nil, refuse(NotFound, "flow %d does not exist", c.Flow)
	case c.State >= numRunStates:
		return nil, refuse(Invalid, "flow %s: %s is no state", f.FullName(), c.State)
	case c.If != nil && *c.If != *f.InState():
		return nil, refuse(StateMismatch, "flow %s: its state was changed meanwhile, it is %s now", f.FullName(), f.State)
	case c.State == AutoPaused && f.State == Paused, c.State == f.State && c.Reason == f.Reason:
		return f, nil
	}
	f.State, f.Reason, f.StateAt = c.State, c.Reason, c.At
	t.set(flowHeadKey(f.ID), f.encode())
	return f, nil
}

func (c *FlowDelete) apply(t *tx) (any, error) {
	f := t.flow(c.Flow)
	if f == nil {
		return nil, refuse(NotFound, "flow %d does not exist", c.Flow)
	}
	if q := t.queue(f.ID); !c.Purge && q.kept > 0 {
		return nil, refuse(QueueNotEmpty, "flow %s: its failure queue holds %d entries and %d records wait for another attempt; delete with --purge to lose them", f.FullName(), q.entries, q.kept)
	} else if !c.Purge && q.entries > 0 {
		return nil, refuse(QueueNotEmpty, "flow %s: its failure queue holds %d entries; delete with --purge to lose them", f.FullName(), q.entries)
	}
	t.purgeQueue(f.ID)
	for _, p := range []byte{keyRetry, keyRetryDue, keyRetryOrder} {
		t.purge(flowPrefix(p, f.ID))
	}
	t.forgetRequests(f.ID)
	t.del(queueCounterKey(f.ID))
	t.del(flowNameKey(f.Project, f.Name))
	t.del(flowHeadKey(f.ID))
	t.delAll(flowRevPrefix(f.ID))
	for _, p := range []byte{keySlot, keyWatermark, keyDeploy, keyPartition} {
		t.delAll(flowPrefix(p, f.ID))
	}
	return nil, nil
}

func (c *PartitionsAdd) apply(t *tx) (any, error) {
	f := t.flow(c.Flow)
	if f == nil {
		return nil, refuse(NotFound, "flow %d does not exist", c.Flow)
	}
	known := make(map[PartitionKey]uint32)
	t.scan(flowPrefix(keyPartition, f.ID), func(key, value []byte) bool {
		k, err := decodePartitionKey(value)
		t.fault(err)
		r := keyReader{b: key[5:]}
		known[k] = r.u32()
		return err == nil
	})
	added := false
	parts := make([]Partition, len(c.Partitions))
	for i, k := range c.Partitions {
		part, ok := known[k]
		if !ok {
			part = f.Parts
			f.Parts++
			known[k], added = part, true
			t.set(partitionKey(f.ID, part), k.encode())
		}
		parts[i] = Partition{PartitionKey: k, Flow: f.ID, Part: part, Slot: uint16(part % uint32(f.Slots))}
	}
	if !f.Looked {
		f.Looked, f.First, added = true, f.Parts, true
	}
	if added {
		t.set(flowHeadKey(f.ID), f.encode())
	}
	return parts, nil
}

// AssignResult answers Assign.
type AssignResult struct {
	// Changed are the slots that have another owner now, with their epochs.
	Changed []Slot
	// Skipped counts assignments that no longer applied.
	Skipped int
}

func (c *Assign) apply(t *tx) (any, error) {
	res := &AssignResult{}
	for _, a := range c.Slots {
		s, ok := t.slot(a.Flow, a.Slot)
		if ok && a.Node != uuid.Nil {
			n := t.node(a.Node)
			ok = n != nil && n.Up && n.Incarnation == a.Incarnation
		}
		if !ok {
			res.Skipped++
			continue
		}
		if a.Node == uuid.Nil {
			a.Incarnation = 0
		}
		if s.Owner == a.Node && s.Incarnation == a.Incarnation {
			continue
		}
		s.Owner, s.Incarnation = a.Node, a.Incarnation
		s.Epoch++
		t.set(slotKey(a.Flow, a.Slot), s.encode())
		res.Changed = append(res.Changed, s)
	}
	return res, nil
}

// release leaves the slot without an owner. The epoch rises with the next one.
func (s *Slot) release() { s.Owner, s.Incarnation = uuid.Nil, 0 }
