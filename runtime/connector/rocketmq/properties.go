package rocketmq

import (
	"strings"
	"unicode/utf8"
)

// Properties of a message are text: name, \x01, value, \x02 and so on. Names
// do not repeat, and their order is not kept.
const (
	nameEnd  = '\x01'
	valueEnd = '\x02'
)

// Properties with a meaning here.
const (
	propKeys  = "KEYS"
	propTags  = "TAGS"
	propDelay = "DELAY"
	// propExact is what the sink writes to get a record back as it was.
	propExact = "MILLRACE"
)

// maxProperties is what a broker takes of a message's properties.
const maxProperties = 32767

// reserved are the names that brokers and clients use for themselves. The
// sharding key is not among them: it is the producer's.
var reserved = set("KEYS TAGS WAIT DELAY RETRY_TOPIC REAL_TOPIC REAL_QID TRAN_MSG PGROUP MIN_OFFSET MAX_OFFSET BUYER_ID ORIGIN_MESSAGE_ID " +
	"TRANSFER_FLAG CORRECTION_FLAG MQ2_FLAG RECONSUME_TIME MSG_REGION TRACE_ON UNIQ_KEY EXTEND_UNIQ_INFO MAX_RECONSUME_TIMES CONSUME_START_TIME " +
	"INNER_NUM INNER_BASE DUP_INFO CHECK_IMMUNITY_TIME_IN_SECONDS TRAN_PREPARED_QUEUE_OFFSET __transactionId__ TRANSACTION_CHECK_TIMES " +
	"INSTANCE_ID CORRELATION_ID REPLY_TO_CLIENT TTL ARRIVE_TIME PUSH_REPLY_TIME CLUSTER MSG_TYPE POP_CK POP_CK_OFFSET 1ST_POP_TIME " +
	"PROPERTY_FORWARD_QUEUE_ID REDIRECT INNER_MULTI_DISPATCH INNER_MULTI_QUEUE_OFFSET TRACE_CONTEXT TIMER_DELAY_SEC TIMER_DELIVER_MS " +
	"__BORNHOST BORN_TIMESTAMP TIMER_ENQUEUE_MS TIMER_DEQUEUE_MS TIMER_ROLL_TIMES TIMER_OUT_MS TIMER_DEL_UNIQKEY TIMER_DELAY_LEVEL TIMER_DELAY_MS " +
	"DLQ_ORIGIN_TOPIC DLQ_ORIGIN_MESSAGE_ID __CRC32# MILLRACE")

func set(words string) map[string]bool {
	m := map[string]bool{}
	for w := range strings.FieldsSeq(words) {
		m[w] = true
	}
	return m
}

// isReserved reports whether a name cannot be a header's.
func isReserved(name string) bool {
	return reserved[name] || strings.HasPrefix(name, "__RMQ.")
}

// isText reports whether s can be a name or a value as it is.
func isText(s string) bool {
	return s != "" && utf8.ValidString(s) && strings.IndexByte(s, nameEnd) < 0 && strings.IndexByte(s, valueEnd) < 0 && strings.IndexByte(s, 0) < 0
}

// parseProperties reads properties. What is malformed is passed over.
func parseProperties(s string) map[string]string {
	m := map[string]string{}
	for len(s) > 0 {
		var one string
		one, s, _ = strings.Cut(s, string(valueEnd))
		if name, value, ok := strings.Cut(one, string(nameEnd)); ok && name != "" {
			m[name] = value
		}
	}
	return m
}

// appendProperty writes one property. name and value are text.
func appendProperty(b []byte, name, value string) []byte {
	b = append(append(b, name...), nameEnd)
	return append(append(b, value...), valueEnd)
}
