package node

import (
	"github.com/hashicorp/raft"
)

// transport is what raft talks to its peers through. campaign makes the node
// itself stand for election at once, without waiting for a leader that a lone
// voter cannot have.
type transport struct {
	raft.Transport
	campaign func() error
}

// loneTransport is the transport of a cluster of one: it reaches nobody but
// itself.
func loneTransport(id raft.ServerID, addr raft.ServerAddress) transport {
	_, t := raft.NewInmemTransport(addr)
	t.Connect(addr, t)
	return transport{t, func() error {
		req := &raft.TimeoutNowRequest{RPCHeader: raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax, ID: []byte(id), Addr: t.EncodePeer(id, addr)}}
		return t.TimeoutNow(id, addr, req, &raft.TimeoutNowResponse{})
	}}
}
