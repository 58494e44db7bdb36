package api

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"

	"github.com/danielgtaylor/huma/v2"
)

// Codes of errors that arise on the way to a Backend.
const (
	CodeUnreachable = "E_UNREACHABLE" // from Client: no node answered
	CodeTimeout     = "E_TIMEOUT"     // a request or its answer took too long
	CodeUsage       = "E_USAGE"       // no such path or method, or a malformed request
)

// statusOf is the HTTP status of an error whose Backend stated none.
func statusOf(code string) int {
	switch code {
	case CodeNotFound:
		return http.StatusNotFound
	case CodeInvalid, CodeRefused:
		return http.StatusUnprocessableEntity
	case CodeConflict, CodeQueueNotEmpty, CodeInUse, CodeVersionTaken, CodePreflight:
		return http.StatusConflict
	case CodeTooLarge:
		return http.StatusRequestEntityTooLarge
	case CodeUnavailable:
		return http.StatusServiceUnavailable
	case CodeForbidden:
		return http.StatusForbidden
	case CodeTimeout:
		return http.StatusRequestTimeout
	case CodeUsage:
		return http.StatusBadRequest
	}
	return http.StatusInternalServerError
}

// codeOf is the code of a request that was refused before it reached a Backend.
func codeOf(status int) string {
	switch status {
	case http.StatusNotFound:
		return CodeNotFound
	case http.StatusForbidden:
		return CodeForbidden
	case http.StatusRequestTimeout:
		return CodeTimeout
	case http.StatusConflict, http.StatusPreconditionFailed:
		return CodeConflict
	case http.StatusRequestEntityTooLarge:
		return CodeTooLarge
	case http.StatusUnprocessableEntity:
		return CodeInvalid
	case http.StatusServiceUnavailable:
		return CodeUnavailable
	}
	if status >= 400 && status < 500 {
		return CodeUsage
	}
	return CodeInternal
}

// asError is the one place where any error becomes one that a user sees. The
// answer is complete and not shared with err.
func asError(err error) *Error {
	var e Error
	var known *Error
	var tooLarge *http.MaxBytesError
	var timeout net.Error
	switch {
	case errors.As(err, &known):
		e = *known
	case errors.As(err, &tooLarge):
		e = Error{Code: CodeTooLarge, Detail: fmt.Sprintf("the request's body is larger than %s", bytesText(tooLarge.Limit))}
	case errors.Is(err, context.Canceled):
		e = Error{Code: CodeUnavailable, Detail: "the request ended before its answer was there, or the node is shutting down"}
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		e = Error{Code: CodeTimeout, Detail: err.Error()}
	default:
		e = Error{Code: CodeInternal, Detail: err.Error(), Next: "look at the node's log"}
	}
	if e.Code == "" {
		e.Code = codeOf(e.Status)
	}
	if e.Status == 0 {
		e.Status = statusOf(e.Code)
	}
	if e.Title == "" {
		e.Title = http.StatusText(e.Status)
	}
	return &e
}

// GetStatus is the HTTP status; huma asks for it.
func (e *Error) GetStatus() int { return e.Status }

// ContentType makes huma send errors as problem+json.
func (e *Error) ContentType(string) string { return problemType }

const problemType = "application/problem+json"

// useOurErrors makes huma's own refusals errors of ours. It sets a variable of
// the package huma, hence once.
var useOurErrors = sync.OnceFunc(func() {
	huma.NewError = func(status int, message string, causes ...error) huma.StatusError {
		e := &Error{Status: status, Code: codeOf(status), Title: http.StatusText(status), Detail: message}
		if status >= 400 && status < 500 {
			e.Next = "GET /openapi.json tells what each call takes"
		}
		var texts []string
		for _, cause := range causes {
			if cause == nil {
				continue
			}
			text := cause.Error()
			if d, ok := errors.AsType[*huma.ErrorDetail](cause); ok {
				text = d.Message
				if d.Location != "" {
					text = d.Location + ": " + d.Message
				}
			}
			texts = append(texts, text)
			e.Problems = append(e.Problems, Problem{Code: e.Code, Level: "error", Message: text, Rendered: text})
		}
		if len(texts) > 0 {
			e.Detail += ": " + strings.Join(texts, "; ")
		}
		return e
	}
})

func bytesText(n int64) string {
	for _, unit := range []struct {
		size int64
		name string
	}{{1 << 30, "GiB"}, {1 << 20, "MiB"}, {1 << 10, "KiB"}} {
		if n >= unit.size && n%unit.size == 0 {
			return fmt.Sprintf("%d %s", n/unit.size, unit.name)
		}
	}
	return fmt.Sprintf("%d bytes", n)
}
