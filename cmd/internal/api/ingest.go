package api

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"
)

// ingestPath takes the records of flows whose source is `ingest`.
const (
	ingestPrefix = "/v1/ingest/"
	ingestPath   = ingestPrefix + "{project}/{name}"
)

// Ingest finds the handler of a flow's source. The error is an *Error: there is
// no such flow, its source is another, or it is not open on this node now.
type Ingest func(ctx context.Context, project, name string) (http.Handler, error)

// ingestRoute serves ingestPath. The answers are the source's own, so huma only
// documents them.
func ingestRoute(mux *http.ServeMux, doc huma.API, find Ingest) {
	mux.HandleFunc(http.MethodPost+" "+ingestPath, func(w http.ResponseWriter, r *http.Request) {
		h, err := find(r.Context(), r.PathValue("project"), r.PathValue("name"))
		if err != nil {
			if e := asError(err); e.Status == http.StatusServiceUnavailable || e.Status == http.StatusTooManyRequests {
				w.Header().Set("Retry-After", "5")
			}
			w.Header().Set("Connection", "close") // the body was not read
			writeError(w, err)
			return
		}
		h.ServeHTTP(w, r)
	})

	op := operation(http.MethodPost, ingestPath, "ingest", "Send a record to a flow whose source is ingest; the answer comes once the record is settled")
	text := func(name string) *huma.Param {
		return &huma.Param{Name: name, In: "path", Required: true, Schema: &huma.Schema{Type: huma.TypeString}}
	}
	key := &huma.Param{Name: "Idempotency-Key", In: "header", Schema: &huma.Schema{Type: huma.TypeString},
		Description: "Names the request: one that is sent again with the same key makes no other record. The flow may have another header for it."}
	recordKey := &huma.Param{Name: "Millrace-Key", In: "header", Schema: &huma.Schema{Type: huma.TypeString}, Description: "The record's key."}
	op.Parameters = []*huma.Param{text("project"), text("name"), key, recordKey}
	op.RequestBody = &huma.RequestBody{Content: map[string]*huma.MediaType{"*/*": {Schema: &huma.Schema{Type: huma.TypeString, Format: "binary"}}}}
	op.Responses = map[string]*huma.Response{}
	answer := &huma.Schema{Type: huma.TypeObject, Required: []string{"id"}, Properties: map[string]*huma.Schema{
		"id":       {Type: huma.TypeString, Description: "The record's identity."},
		"outcome":  {Type: huma.TypeString, Enum: []any{"delivered", "dropped", "failed", "waiting"}},
		"repeated": {Type: huma.TypeBoolean, Description: "An earlier request with the same key made the record."},
	}}
	op.Responses["200"] = &huma.Response{Description: "The record is settled", Content: map[string]*huma.MediaType{"application/json": {Schema: answer}}}
	refused := &huma.Schema{Ref: "#/components/schemas/Error"}
	for status, description := range map[string]string{
		"401": "The sender's check failed",
		"413": "The body is too large",
		"422": "The key was used for a request with another content",
		"429": "There is no room, or the flow is held; Retry-After tells when to send the request again",
		"503": "The outcome is not known yet, or the flow is not open; Retry-After tells when to send the request again",
	} {
		op.Responses[status] = &huma.Response{Description: description, Content: map[string]*huma.MediaType{problemType: {Schema: refused}}}
	}
	doc.OpenAPI().AddOperation(&op)
}
