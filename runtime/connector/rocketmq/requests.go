package rocketmq

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"time"

	"github.com/millrace-io/millrace/runtime/record"
)

// queueRoute is what a broker has of a topic.
type queueRoute struct {
	Broker string `json:"brokerName"`
	Read   int32  `json:"readQueueNums"`
	Write  int32  `json:"writeQueueNums"`
	Perm   int    `json:"perm"`
}

// maxQueues bounds the queues of a topic, over all brokers.
const maxQueues = 1 << 16

// Bits of a topic's permission at a broker.
const (
	permWrite = 2
	permRead  = 4
)

// errNoBroker says that a name server knows no broker: it has just started,
// and brokers tell it of themselves every 10 to 30 seconds.
var errNoBroker = errors.New("no broker has told the name server of itself yet")

// route asks for a topic's queues, in the order of the brokers' names, and
// remembers where the brokers' masters are. An answer without the topic is an
// answerError, or errNoBroker where there is no broker at all.
func (cl *client) route(ctx context.Context, topic string) ([]queueRoute, error) {
	f, err := cl.askNameServer(ctx, frame{Code: reqRoute, Fields: map[string]string{"topic": topic, "acceptStandardJsonOnly": "true"}})
	if err != nil {
		return nil, err
	}
	if f.Code != respSuccess {
		if f.Code == respNoTopic && cl.noBroker(ctx) {
			return nil, errNoBroker
		}
		return nil, &answerError{f.Code, f.Remark}
	}
	var body struct {
		Brokers []struct {
			Name  string            `json:"brokerName"`
			Addrs map[string]string `json:"brokerAddrs"`
		} `json:"brokerDatas"`
		Queues []queueRoute `json:"queueDatas"`
	}
	if err := unmarshal(f.body, &body); err != nil {
		return nil, fmt.Errorf("route of topic %q: %w", topic, err)
	}
	slices.SortFunc(body.Queues, func(a, b queueRoute) int { return cmp.Compare(a.Broker, b.Broker) })
	body.Queues = slices.CompactFunc(body.Queues, func(a, b queueRoute) bool { return a.Broker == b.Broker })
	n := 0
	for _, q := range body.Queues {
		if n += int(max(q.Read, q.Write, 0)); n > maxQueues {
			return nil, fmt.Errorf("route of topic %q: it has more than %d queues", topic, maxQueues)
		}
	}
	cl.mu.Lock()
	defer cl.mu.Unlock()
	for _, b := range body.Brokers {
		if addr := b.Addrs["0"]; addr != "" {
			cl.masters[b.Name] = addr
		}
	}
	return body.Queues, nil
}

// noBroker reports whether the name server says that it knows none.
func (cl *client) noBroker(ctx context.Context) bool {
	f, err := cl.askNameServer(ctx, frame{Code: reqClusterInfo})
	if err != nil || f.Code != respSuccess {
		return false
	}
	var body struct {
		Brokers map[string]json.RawMessage `json:"brokerAddrTable"`
	}
	return unmarshal(f.body, &body) == nil && len(body.Brokers) == 0
}

// bareKey is a number as a key, which name servers write without quotes.
var bareKey = regexp.MustCompile(`([{,])(\d+):`)

// unmarshal reads what name servers take for JSON.
func unmarshal(b []byte, v any) error {
	if json.Valid(b) {
		return json.Unmarshal(b, v)
	}
	return json.Unmarshal(bareKey.ReplaceAll(b, []byte(`$1"$2":`)), v)
}

// offset asks a broker for an offset of a queue.
func (cl *client) offset(ctx context.Context, p record.Partition, code int, fields map[string]string) (int64, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, askTimeout, fmt.Errorf("broker %s: %w for %s", p.Broker, errSilent, askTimeout))
	defer cancel()
	if fields == nil {
		fields = map[string]string{}
	}
	fields["topic"], fields["queueId"] = p.Topic, strconv.Itoa(int(p.Num))
	f, err := cl.ask(ctx, p.Topic, p.Broker, frame{Code: code, Fields: fields})
	if err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return 0, err
	}
	if f.Code != respSuccess {
		return 0, &answerError{f.Code, f.Remark}
	}
	n, err := strconv.ParseInt(f.Fields["offset"], 10, 64)
	if err != nil {
		return 0, fmt.Errorf("broker %s: offset of %s/%d: %w", p.Broker, p.Topic, p.Num, err)
	}
	return max(n, 0), nil // a queue that was never written to may be at -1
}

// bounds are the first offset of a queue and the one after its last.
func (cl *client) bounds(ctx context.Context, p record.Partition) (first, end int64, err error) {
	if first, err = cl.offset(ctx, p, reqMinOffset, nil); err != nil {
		return 0, 0, err
	}
	end, err = cl.offset(ctx, p, reqMaxOffset, nil)
	return first, end, err
}

// offsetAt is the offset of the first message that was stored at t or later,
// or the end.
func (cl *client) offsetAt(ctx context.Context, p record.Partition, t time.Time) (int64, error) {
	return cl.offset(ctx, p, reqSearchOffset, map[string]string{"timestamp": strconv.FormatInt(max(t.UnixMilli(), 0), 10)})
}

// Bits of a pull's sysFlag: hold the request while there is nothing, and take
// the subscription out of the request.
const (
	pullSuspend      = 2
	pullSubscription = 4
)

// pullHold is how long a broker holds a pull when there is nothing to give.
const pullHold = 15 * time.Second

// pulled is what a broker answered to a pull.
type pulled struct {
	code      int
	remark    string // the store's own word for what it found, like NO_MATCHED_MESSAGE
	next      int64  // where the broker would go on
	first     int64  // of the queue
	end       int64
	messages  []byte
	requested int64
}

// pull asks for messages of a queue from an offset on. tags is a subscription
// like "a || b", or "*".
func (cl *client) pull(ctx context.Context, p record.Partition, offset int64, n int, tags string) (*pulled, error) {
	f, err := cl.ask(ctx, p.Topic, p.Broker, frame{Code: reqPull, Fields: map[string]string{
		"consumerGroup":        consumerGroup,
		"topic":                p.Topic,
		"queueId":              strconv.Itoa(int(p.Num)),
		"queueOffset":          strconv.FormatInt(offset, 10),
		"maxMsgNums":           strconv.Itoa(n),
		"sysFlag":              strconv.Itoa(pullSuspend | pullSubscription),
		"commitOffset":         "0",
		"suspendTimeoutMillis": strconv.FormatInt(pullHold.Milliseconds(), 10),
		"subscription":         tags,
		"subVersion":           "0",
		"expressionType":       "TAG",
	}})
	if err != nil {
		return nil, err
	}
	switch f.Code {
	case respSuccess, respPullNotFound, respPullRetry, respPullOffsetMoved:
	default:
		return nil, &answerError{f.Code, f.Remark}
	}
	a := &pulled{code: f.Code, remark: f.Remark, messages: f.body, requested: offset}
	for name, to := range map[string]*int64{"nextBeginOffset": &a.next, "minOffset": &a.first, "maxOffset": &a.end} {
		if *to, err = strconv.ParseInt(f.Fields[name], 10, 64); err != nil {
			return nil, fmt.Errorf("broker %s: pull from %s/%d: %s: %w", p.Broker, p.Topic, p.Num, name, err)
		}
	}
	return a, nil
}
