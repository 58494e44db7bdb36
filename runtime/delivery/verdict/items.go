package verdict

import (
	"fmt"
	"strconv"
	"time"

	"github.com/millrace-io/millrace/runtime/record"
)

// items judges item by item.
func (j *judge) items(list []any, idField string) Verdicts {
	out := make([]*record.Error, j.x.Items)
	if idField == "" {
		if len(list) != len(out) {
			return Verdicts{All: failure(j.x, record.Retryable, fmt.Sprintf("each gives %d verdicts for %d items", len(list), len(out)))}
		}
		for i, el := range list {
			out[i] = j.item(el)
		}
		return Verdicts{Items: out}
	}
	type said struct{ err *record.Error }
	byID, first := make(map[string]said, len(list)), ""
	for _, el := range list {
		m, _ := el.(map[string]any)
		id, ok := idText(m[idField])
		if !ok {
			continue
		}
		if len(byID) == 0 {
			first = id
		}
		v := j.item(el)
		if before, ok := byID[id]; ok && severity(before.err) >= severity(v) {
			continue
		}
		byID[id] = said{v}
	}
	for i := range out {
		id := j.x.ID(i)
		v, ok := byID[id]
		if !ok {
			v.err = j.one(record.Retryable, 0, j.missing(idField, id, first), 0)
		}
		out[i] = v.err
	}
	return Verdicts{Items: out}
}

// missing says that no element is about an item with an id; first is the id of
// the first one.
func (j *judge) missing(field, id, first string) string {
	switch {
	case first == "":
		return fmt.Sprintf("no verdict on this item: no element has a field `%s` with a text or a whole number (see `item_id`)", field)
	case id == "":
		return "no verdict on this item: its own id is nothing (see `record_id`)"
	}
	return fmt.Sprintf("no verdict on this item: no element has `%s` %q, the first one has %q (see `record_id`)", field, j.x.quote([]byte(id)), j.x.quote([]byte(first)))
}

// idText is an id as text.
func idText(v any) (string, bool) {
	switch v := v.(type) {
	case string:
		return v, true
	case int64:
		return strconv.FormatInt(v, 10), true
	}
	return "", false
}

func severity(e *record.Error) int {
	switch {
	case e == nil:
		return 0
	case e.Class.Transient():
		return 1
	}
	return 2
}

// one is the verdict on an item that is not ok.
func (j *judge) one(c record.Class, code uint32, reason string, after time.Duration) *record.Error {
	e := &record.Error{Class: c, Code: code, Message: j.x.What + ": " + reason}
	if code == 0 {
		e.Code = uint32(j.x.Response.Status)
	}
	if c == record.Retryable {
		if e.RetryAfter = min(after, MaxRetryAfter); after == 0 {
			e.RetryAfter = RetryAfter(j.x.Response.Header, j.x.Now)
		}
	}
	return e
}

// item reads one element.
func (j *judge) item(el any) *record.Error {
	verdict, reason, code, after := el, "", uint32(0), time.Duration(0)
	if m, ok := el.(map[string]any); ok {
		if verdict = m["verdict"]; verdict == nil {
			verdict = m["status"]
		}
		for _, name := range []string{"message", "error", "reason"} {
			if text, ok := m[name].(string); ok && text != "" {
				reason = ": " + j.x.quote([]byte(text))
				break
			}
		}
		if n, ok := m["code"].(int64); ok && n > 0 && n <= 1<<32-1 {
			code = uint32(n)
		}
		after = seconds(m["retry_after"])
	}
	refused, again := "the item was refused"+reason, "the item is to be sent again"+reason
	switch v := verdict.(type) {
	case string:
		switch v {
		case "ok":
			return nil
		case "retry":
			return j.one(record.Retryable, code, again, after)
		case "reject":
			return j.one(record.Rejected, code, refused, 0)
		}
		return j.one(record.Retryable, code, fmt.Sprintf("the item's verdict is %q, not ok, retry or reject", j.x.quote([]byte(v))), after)
	case bool:
		if v {
			return nil
		}
		return j.one(record.Retryable, code, again, after)
	case int64:
		if v < 100 || v > 599 {
			break
		}
		if code == 0 {
			code = uint32(v)
		}
		switch c := class(int(v)); {
		case success(int(v)):
			return nil
		case c == record.Retryable:
			return j.one(c, code, again, after)
		}
		return j.one(record.Rejected, code, refused, 0)
	}
	return j.one(record.Retryable, code, "the item's verdict cannot be read"+reason, after)
}

// seconds reads a wait; 0 if there is none.
func seconds(v any) time.Duration {
	switch v := v.(type) {
	case int64:
		return time.Duration(min(max(v, 0), int64(MaxRetryAfter/time.Second))) * time.Second
	case float64:
		if v > 0 {
			return time.Duration(min(v, MaxRetryAfter.Seconds()) * float64(time.Second))
		}
	}
	return 0
}
