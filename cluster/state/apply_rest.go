package state

import (
	"bytes"
	"slices"
	"strings"

	"github.com/google/uuid"
)

func (t *tx) node(id uuid.UUID) *Node {
	v, ok := t.get(nodeKey(id))
	if !ok {
		return nil
	}
	n, err := decodeNode(id, v)
	if err != nil {
		t.fault(err)
		return nil
	}
	return n
}

func (c *NodeUp) apply(t *tx) (any, error) {
	if c.Node == uuid.Nil || c.Incarnation == 0 {
		return nil, refuse(Invalid, "node up: a node has an id, and its lives count from 1")
	}
	old := t.node(c.Node)
	if old != nil && old.Incarnation > c.Incarnation {
		return nil, refuse(StaleIncarnation, "node %s: life %d is over, life %d is known", c.Node, c.Incarnation, old.Incarnation)
	}
	if old == nil || old.Incarnation < c.Incarnation {
		var orphans []Slot
		t.scan([]byte{keySlot}, func(key, value []byte) bool {
			r := keyReader{b: key[1:]}
			s, err := decodeSlot(FlowID(r.u32()), r.u16(), value)
			t.fault(err)
			if s.Owner == c.Node {
				orphans = append(orphans, s)
			}
			return err == nil
		})
		for _, s := range orphans {
			s.release()
			t.set(slotKey(s.Flow, s.Slot), s.encode())
		}
	}
	n := &Node{Incarnation: c.Incarnation, Up: true, Addr: c.Addr, Version: c.Version, At: c.At}
	t.set(nodeKey(c.Node), n.encode())
	return nil, nil
}

func (c *ConPut) apply(t *tx) (any, error) {
	if !validName(c.Name) {
		return nil, refuse(Invalid, "connection %q: a name has 1 to %d bytes, without a slash", c.Name, maxName)
	}
	con := &Connection{Name: c.Name, Document: c.Document, Revision: 1, At: c.At}
	key := connectionKey(c.Name)
	if v, ok := t.get(key); ok {
		old, err := decodeConnection(c.Name, v)
		if err != nil {
			t.fault(err)
			return nil, nil
		}
		if bytes.Equal(old.Document, c.Document) {
			return old, nil
		}
		con.Revision = old.Revision + 1
	}
	t.set(key, con.encode())
	return con, nil
}

func (c *ConDel) apply(t *tx) (any, error) {
	key := connectionKey(c.Name)
	if _, ok := t.get(key); !ok {
		return nil, refuse(NotFound, "connection %q does not exist", c.Name)
	}
	user := ""
	t.scan([]byte{keyFlow, flowHead}, func(_, value []byte) bool {
		f, err := decodeFlow(value)
		t.fault(err)
		if slices.Contains(f.Connections, c.Name) {
			user = f.FullName()
		}
		return err == nil && user == ""
	})
	if user != "" {
		return nil, refuse(InUse, "connection %q is used by flow %s", c.Name, user)
	}
	t.del(key)
	return nil, nil
}

// IsDevVersion reports whether a version may be stored again with other bytes:
// its base is 0.0.0, or it ends in -dev.
func IsDevVersion(v string) bool {
	v, _, _ = strings.Cut(v, "+")
	return v == "0.0.0" || strings.HasPrefix(v, "0.0.0-") || strings.HasSuffix(v, "-dev")
}

func (c *PluginPut) apply(t *tx) (any, error) {
	if c.Digest == (Digest{}) || !validName(c.Namespace) || !validName(c.Name) || c.Version == "" || len(c.Version) > maxName || c.Size < 0 {
		return nil, refuse(Invalid, "plugin %q in namespace %q, version %q: digest, namespace, name and version are needed", c.Name, c.Namespace, c.Version)
	}
	p := Plugin{Digest: c.Digest, Namespace: c.Namespace, Name: c.Name, Version: c.Version, Size: c.Size,
		ABI: c.ABI, Mode: c.Mode, Manifest: c.Manifest, At: c.At, Index: t.index}
	if !IsDevVersion(c.Version) {
		var other Digest
		t.scan([]byte{keyPlugin}, func(key, value []byte) bool {
			d := Digest(key[1:])
			names, err := decodePlugins(d, value)
			t.fault(err)
			for i := range names {
				if d != c.Digest && names[i].named(c.Namespace, c.Name, c.Version) {
					other = d
				}
			}
			return err == nil && other == Digest{}
		})
		if other != (Digest{}) {
			return nil, refuse(Exists, "plugin %s/%s@%s is stored with other bytes (%s); give the new ones another version, or one that ends in -dev", c.Namespace, c.Name, c.Version, other)
		}
	}
	names := []Plugin{p}
	if v, ok := t.get(pluginKey(c.Digest)); ok {
		old, err := decodePlugins(c.Digest, v)
		if err != nil {
			t.fault(err)
			return nil, nil
		}
		for _, o := range old {
			if !o.named(c.Namespace, c.Name, c.Version) {
				names = append(names, o)
			}
		}
	}
	t.set(pluginKey(c.Digest), encodePlugins(names))
	return &p, nil
}

func (p *Plugin) named(namespace, name, version string) bool {
	return p.Namespace == namespace && p.Name == name && p.Version == version
}

func (c *PluginDel) apply(t *tx) (any, error) {
	key := pluginKey(c.Digest)
	if _, ok := t.get(key); !ok {
		return nil, refuse(NotFound, "no plugin with digest %s is stored", c.Digest)
	}
	user := ""
	t.scan([]byte{keyFlow, flowHead}, func(_, value []byte) bool {
		f, err := decodeFlow(value)
		t.fault(err)
		if err != nil {
			return false
		}
		for gen := f.Deploy; gen > 0 && gen+PinnedDeployments > f.Deploy; gen-- {
			v, ok := t.get(deployKey(f.ID, gen))
			if !ok {
				continue
			}
			d, err := decodeDeployment(f.ID, gen, v)
			t.fault(err)
			if err == nil && slices.ContainsFunc(d.Pins, func(p Pin) bool { return p.Digest == c.Digest }) {
				user = f.FullName()
			}
		}
		return user == ""
	})
	if user != "" {
		return nil, refuse(InUse, "plugin %s is pinned by one of the last %d deployments of flow %s", c.Digest, PinnedDeployments, user)
	}
	t.del(key)
	return nil, nil
}
