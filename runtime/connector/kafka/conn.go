package kafka

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"sync/atomic"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// waitError is why a connection did not come about, as an error of the network.
// The client waits such errors out, with pauses that grow: it fails no record
// for them, so nothing is lost or comes out of order, and goes on by itself once
// a password, a certificate or a file is put right.
type waitError struct{ err error }

func (e *waitError) Error() string   { return e.err.Error() }
func (e *waitError) Unwrap() error   { return e.err }
func (e *waitError) Timeout() bool   { return false }
func (e *waitError) Temporary() bool { return true }

// How connections end, other than by an answer of Kafka's.
var (
	errSpeaksTLS   = errors.New("the listener answers with TLS")
	errSpeaksHTTP  = errors.New("the listener answers with HTTP")
	errNoTLS       = errors.New("the listener does not answer with TLS")
	errLate        = errors.New("no answer in time")
	errLoginClosed = errors.New("the listener closed the connection at the login")
)

// refusal is a broker's no to a login. It does not unwrap: the client would fail
// records for the code.
type refusal struct {
	code    *kerr.Error
	offered []string // mechanisms that the listener takes, where that is the reason
}

func (e *refusal) Error() string { return e.code.Error() }

// brokerConn looks at the answers that decide over a connection, the first one
// and those to logins, and ends the connection with a *waitError if they say no.
// All others pass through.
type brokerConn struct {
	net.Conn
	rest  bytes.Buffer // of an answer that was looked at; the reader's
	asked atomic.Int32 // what the next answer belongs to: first, or a login's key and version; 0: anything
}

// first stands for the first request of a connection.
const first = -1

// maxLooked bounds the answers that are looked at, in bytes.
const maxLooked = 1 << 20

func newBrokerConn(c net.Conn) *brokerConn {
	b := &brokerConn{Conn: c}
	b.asked.Store(first)
	return b
}

// Write implements net.Conn. The client writes a request at once, and a login
// only when it waits for no other answer.
func (c *brokerConn) Write(b []byte) (int, error) {
	if len(b) >= 8 {
		if key := int16(binary.BigEndian.Uint16(b[4:])); isLogin(key) {
			c.asked.Store(int32(key)<<16 | int32(binary.BigEndian.Uint16(b[6:])))
		}
	}
	return c.Conn.Write(b)
}

func isLogin(key int16) bool {
	return key == kmsg.SASLHandshake.Int16() || key == kmsg.SASLAuthenticate.Int16()
}

// Read implements net.Conn.
func (c *brokerConn) Read(b []byte) (int, error) {
	if c.rest.Len() > 0 {
		return c.rest.Read(b)
	}
	asked := c.asked.Load()
	if asked == 0 {
		return c.Conn.Read(b)
	}
	if err := c.look(asked); err != nil {
		return 0, err
	}
	c.asked.Store(0)
	return c.rest.Read(b)
}

// look reads one answer into rest.
func (c *brokerConn) look(asked int32) error {
	var head [4]byte
	if _, err := io.ReadFull(c.Conn, head[:]); err != nil {
		if asked != first && closed(err) {
			return &waitError{errLoginClosed}
		}
		return err
	}
	switch {
	case head[0] == 0x15 && head[1] == 3: // an alert
		return &waitError{errSpeaksTLS}
	case string(head[:]) == "HTTP":
		return &waitError{errSpeaksHTTP}
	}
	c.rest.Write(head[:])
	size := binary.BigEndian.Uint32(head[:])
	if size > maxLooked {
		return nil // for the client to judge
	}
	if _, err := io.CopyN(&c.rest, c.Conn, int64(size)); err != nil {
		return err
	}
	if no := refused(asked, c.rest.Bytes()[4:]); no != nil {
		return &waitError{no}
	}
	return nil
}

// refused is the no in an answer to a login, which begins with its correlation
// id.
func refused(asked int32, answer []byte) *refusal {
	if asked == first || len(answer) < 4 {
		return nil
	}
	body := answer[4:]
	version := int16(asked)
	var code int16
	var offered []string
	switch int16(asked >> 16) {
	case kmsg.SASLHandshake.Int16():
		resp := kmsg.SASLHandshakeResponse{Version: version}
		if resp.ReadFrom(body) != nil {
			return nil
		}
		code, offered = resp.ErrorCode, resp.SupportedMechanisms
	case kmsg.SASLAuthenticate.Int16():
		resp := kmsg.SASLAuthenticateResponse{Version: version}
		if resp.IsFlexible() {
			if len(body) == 0 || body[0] != 0 { // fields of a later version
				return nil
			}
			body = body[1:]
		}
		if resp.ReadFrom(body) != nil {
			return nil
		}
		code = resp.ErrorCode
	}
	no, _ := errors.AsType[*kerr.Error](kerr.ErrorForCode(code))
	if no == nil || no.Retriable {
		return nil
	}
	return &refusal{no, offered}
}
