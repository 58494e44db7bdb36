package state

func (c *NodeUp) append(b []byte) []byte {
	b = append(b, c.Node[:]...)
	return putInt(putString(putString(putUint(b, c.Incarnation), c.Addr), c.Version), c.At)
}

func (c *NodeUp) decode(d *decoder) {
	c.Node, c.Incarnation = d.uuid(), d.uint()
	c.Addr, c.Version, c.At = d.string(), d.string(), d.int()
}

func (c *FlowPut) append(b []byte) []byte {
	b = appendFixed64(putString(putString(b, c.Project), c.Name), c.UID)
	b = putPins(putBytes(putBytes(b, c.Document), c.Resolved), c.Pins)
	b = putUint(putUint(putStrings(b, c.Connections), uint64(c.Slots)), uint64(c.IfMatch))
	return c.Preflight.append(putString(putInt(b, c.At), c.RequestID))
}

func (c *FlowPut) decode(d *decoder) {
	c.Project, c.Name, c.UID = d.string(), d.string(), d.fixed64()
	c.Document, c.Resolved, c.Pins = d.bytes(), d.bytes(), d.pins()
	c.Connections, c.Slots, c.IfMatch = d.strings(), d.uint16(), d.uint32()
	c.At, c.RequestID = d.int(), d.string()
	if d.form > 1 {
		c.Preflight = d.preflight()
	}
}

func (c *FlowState) append(b []byte) []byte {
	b = append(putUint(b, uint64(c.Flow)), byte(c.State))
	b = putInt(putString(b, c.Reason), c.At)
	if c.If == nil {
		return putBool(b, false)
	}
	return putInt(putString(append(putBool(b, true), byte(c.If.State)), c.If.Reason), c.If.At)
}

func (c *FlowState) decode(d *decoder) {
	c.Flow, c.State, c.Reason, c.At = FlowID(d.uint32()), RunState(d.byte()), d.string(), d.int()
	if d.form > 1 && d.bool() {
		c.If = &InState{RunState(d.byte()), d.string(), d.int()}
	}
}

func (c *FlowDelete) append(b []byte) []byte {
	return putInt(putBool(putUint(b, uint64(c.Flow)), c.Purge), c.At)
}

func (c *FlowDelete) decode(d *decoder) {
	c.Flow, c.Purge, c.At = FlowID(d.uint32()), d.bool(), d.int()
}

func (c *PartitionsAdd) append(b []byte) []byte {
	b = putUint(putUint(b, uint64(c.Flow)), uint64(len(c.Partitions)))
	for i := range c.Partitions {
		b = c.Partitions[i].append(b)
	}
	return putInt(b, c.At)
}

func (c *PartitionsAdd) decode(d *decoder) {
	c.Flow = FlowID(d.uint32())
	if n := d.count(21); n > 0 {
		c.Partitions = make([]PartitionKey, n)
		for i := range c.Partitions {
			c.Partitions[i] = d.partitionKey()
		}
	}
	c.At = d.int()
}

func (c *ConPut) append(b []byte) []byte {
	return putInt(putBytes(putString(b, c.Name), c.Document), c.At)
}

func (c *ConPut) decode(d *decoder) { c.Name, c.Document, c.At = d.string(), d.bytes(), d.int() }

func (c *ConDel) append(b []byte) []byte { return putString(b, c.Name) }
func (c *ConDel) decode(d *decoder)      { c.Name = d.string() }

func (c *PluginPut) append(b []byte) []byte {
	b = append(b, c.Digest[:]...)
	b = putInt(putString(putString(putString(b, c.Namespace), c.Name), c.Version), c.Size)
	return putInt(putBytes(putString(putString(b, c.ABI), c.Mode), c.Manifest), c.At)
}

func (c *PluginPut) decode(d *decoder) {
	c.Digest = d.digest()
	c.Namespace, c.Name, c.Version, c.Size = d.string(), d.string(), d.string(), d.int()
	c.ABI, c.Mode, c.Manifest, c.At = d.string(), d.string(), d.bytes(), d.int()
}

func (c *PluginDel) append(b []byte) []byte { return append(b, c.Digest[:]...) }
func (c *PluginDel) decode(d *decoder)      { c.Digest = d.digest() }

func (c *Activate) append(b []byte) []byte {
	return c.Preflight.append(putString(putInt(putPins(putUint(b, uint64(c.Flow)), c.Pins), c.At), c.RequestID))
}

func (c *Activate) decode(d *decoder) {
	c.Flow, c.Pins, c.At, c.RequestID = FlowID(d.uint32()), d.pins(), d.int(), d.string()
	if d.form > 1 {
		c.Preflight = d.preflight()
	}
}

func (c *Assign) append(b []byte) []byte {
	b = putUint(b, uint64(len(c.Slots)))
	for i := range c.Slots {
		s := &c.Slots[i]
		b = putUint(putUint(b, uint64(s.Flow)), uint64(s.Slot))
		b = putUint(append(b, s.Node[:]...), s.Incarnation)
	}
	return putInt(b, c.At)
}

func (c *Assign) decode(d *decoder) {
	if n := d.count(19); n > 0 {
		c.Slots = make([]SlotAssignment, n)
		for i := range c.Slots {
			c.Slots[i] = SlotAssignment{FlowID(d.uint32()), d.uint16(), d.uuid(), d.uint()}
		}
	}
	c.At = d.int()
}
