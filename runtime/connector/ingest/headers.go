package ingest

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/cespare/xxhash/v2"
	"github.com/google/uuid"

	"github.com/millrace-io/millrace/runtime/record"
)

// KeyHeader holds the record's key, if it is to have one.
const KeyHeader = "Millrace-Key"

// maxRef is the longest key of a sender that is an identity as it stands.
const maxRef = 200

// notRecorded are the headers that say something about the connection, or open
// a door, or are elsewhere in the record.
var notRecorded = []string{
	"Connection", "Keep-Alive", "Proxy-Authenticate", "Proxy-Authorization", "Proxy-Connection", "Te", "Trailer", "Transfer-Encoding", "Upgrade",
	"Content-Length", "Expect", "Authorization", "Cookie", "X-Api-Key", KeyHeader,
}

// traceHeaders are written in lower case, as W3C does and records have them.
var traceHeaders = map[string]string{"Traceparent": "traceparent", "Tracestate": "tracestate", "Baggage": "baggage"}

// refOf is the name of a request: its sender's if it gave one, else a new one.
func (s *Source) refOf(r *http.Request) (ref string, named bool, refused *refusal) {
	values := r.Header.Values(s.cfg.Key)
	if len(values) == 0 {
		id, err := uuid.NewV7()
		if err != nil {
			s.cfg.Logger.Error("no random bytes for a key", "err", err)
			return "", false, &refusal{Status: http.StatusInternalServerError, Code: CodeInternal, Detail: "the node has no random bytes", close: true}
		}
		return id.String(), false, nil
	}
	key := strings.TrimSpace(values[0])
	if len(values) > 1 || key == "" {
		return "", false, &refusal{Status: http.StatusBadRequest, Code: CodeUsage, Detail: "header " + s.cfg.Key + " has no value, or several", Next: "send one key, or leave the header out", close: true}
	}
	return refFor(key), true, nil
}

// refFor is a key as part of an identity.
func refFor(key string) string {
	if len(key) <= maxRef && !strings.ContainsFunc(key, func(c rune) bool {
		return (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && !strings.ContainsRune("._:-", c)
	}) {
		return key
	}
	sum := sha256.Sum256([]byte(key))
	return "sha256:" + hex.EncodeToString(sum[:])
}

// recordOf makes a record without an offset.
func (s *Source) recordOf(r *http.Request, ref string, body []byte) (record.Record, *refusal) {
	rec := record.Record{
		Value: body, Headers: s.headers(r.Header), Topic: Partition.Topic, Partition: Partition.Num, Ref: ref,
		Timestamp: s.cfg.Now().UnixMilli(), Attempt: 1, To: -1,
	}
	if keys := r.Header.Values(KeyHeader); len(keys) > 1 {
		return rec, &refusal{Status: http.StatusBadRequest, Code: CodeUsage, Detail: fmt.Sprintf("header %s stands there %d times", KeyHeader, len(keys)), Next: "send one key of the record, or none"}
	} else if len(keys) == 1 {
		rec.Key = []byte(keys[0])
	}
	if t, ok := record.TraceFromHeaders(rec.Headers); ok {
		rec.Trace = t
	} else {
		rec.Trace = s.seed.Trace(int64(xxhash.Sum64String(ref)))
	}
	return rec, nil
}

// headers are those that the record has, sorted by name; values of one name in
// their order.
func (s *Source) headers(in http.Header) []record.Header {
	connection := map[string]bool{}
	for _, line := range in.Values("Connection") {
		for name := range strings.SplitSeq(line, ",") {
			connection[http.CanonicalHeaderKey(strings.TrimSpace(name))] = true
		}
	}
	var out []record.Header
	for name, values := range in {
		if s.hidden[name] || connection[name] {
			continue
		}
		written := name
		if lower, ok := traceHeaders[name]; ok {
			written = lower
		}
		for _, v := range values {
			out = append(out, record.Header{Key: written, Value: []byte(v)})
		}
	}
	slices.SortStableFunc(out, func(a, b record.Header) int { return strings.Compare(a.Key, b.Key) })
	return out
}
