package rocketmq

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
)

// Request codes of the remoting protocol.
const (
	reqPull         = 11
	reqSearchOffset = 29
	reqMaxOffset    = 30
	reqMinOffset    = 31
	reqHeartbeat    = 34
	reqRoute        = 105
	reqClusterInfo  = 106
	reqSendV2       = 310
	reqSendBatch    = 320
)

// Response codes.
const (
	respSuccess         = 0
	respSystemError     = 1
	respFlushDisk       = 10
	respNoSlave         = 11
	respFlushSlave      = 12
	respMessageIllegal  = 13
	respNoPermission    = 16
	respNoTopic         = 17
	respPullNotFound    = 19
	respPullRetry       = 20
	respPullOffsetMoved = 21
	respBadSubscription = 23
	respNoGroup         = 26
	respBadParameter    = 29
)

// frame is a request or its answer: on the wire a length, the header's length
// (its highest byte is the header's encoding, 0 for JSON), the header, the body.
type frame struct {
	Code     int               `json:"code"`
	Language string            `json:"language"`
	Version  int               `json:"version"`
	Opaque   int32             `json:"opaque"`
	Flag     int               `json:"flag"`
	Remark   string            `json:"remark,omitempty"`
	Fields   map[string]string `json:"extFields,omitempty"`
	body     []byte
}

// isAnswer is the bit of Flag that answers carry.
const isAnswer = 1

// maxFrame is what a broker takes at most (16 MiB, the length excluded), and
// maxAnswer what we do: a pull brings one message at least, however large.
const (
	maxFrame  = 16 << 20
	maxAnswer = 64 << 20
)

// encode writes the frame as it goes over the wire.
func (f *frame) encode() ([]byte, error) {
	header, err := json.Marshal(f)
	if err != nil {
		return nil, fmt.Errorf("encode request %d: %w", f.Code, err)
	}
	n := 4 + len(header) + len(f.body)
	if n > maxFrame {
		return nil, fmt.Errorf("encode request %d: %d bytes, and a broker takes %d: %w", f.Code, n, maxFrame, errTooLarge)
	}
	b := make([]byte, 0, 4+n)
	b = binary.BigEndian.AppendUint32(b, uint32(n))
	b = binary.BigEndian.AppendUint32(b, uint32(len(header)))
	b = append(b, header...)
	return append(b, f.body...), nil
}

// readFrame reads one frame. Its body is a slice of a buffer of its own.
func readFrame(r io.Reader) (*frame, error) {
	var head [8]byte
	if _, err := io.ReadFull(r, head[:4]); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint32(head[:4])
	if n < 4 || n > maxAnswer {
		return nil, fmt.Errorf("read frame: its length is %d: is this a RocketMQ port?", n)
	}
	if _, err := io.ReadFull(r, head[4:]); err != nil {
		return nil, err
	}
	kind, header := head[4], binary.BigEndian.Uint32(head[4:])&0xffffff
	if kind != 0 || header > n-4 {
		return nil, fmt.Errorf("read frame: a header of encoding %d and %d of %d bytes: is this a RocketMQ port?", kind, header, n)
	}
	buf := make([]byte, n-4)
	if _, err := io.ReadFull(r, buf); err != nil {
		return nil, err
	}
	f := &frame{}
	if err := json.Unmarshal(buf[:header], f); err != nil {
		return nil, fmt.Errorf("read frame: header: %w", err)
	}
	f.body = buf[header:]
	return f, nil
}
