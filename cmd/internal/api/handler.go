package api

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"reflect"
	"strings"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/millrace-io/millrace/runtime/record"
)

// Config of a handler.
type Config struct {
	// Backend answers; required.
	Backend Backend
	// Metrics serves /metrics; nil: there is no such path.
	Metrics http.Handler
	// Ingest finds the sources that take records; nil: there is no such path.
	Ingest Ingest
	// Logger gets refused requests and internal errors; nil discards.
	Logger *slog.Logger
	// Version of the program, in the OpenAPI document.
	Version string
	// AllowedHosts are values of the Host header, HOST:PORT, that are served
	// beside 127.0.0.1, [::1] and localhost with any port: the listen address.
	AllowedHosts []string
}

// New is the admin API over a Backend. It refuses foreign Host and Origin
// headers with 403; serve it with Server, whose time limits it relies on.
func New(cfg Config) http.Handler {
	useOurErrors()
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	mux := http.NewServeMux()
	doc := humago.New(mux, huma.Config{
		OpenAPI: &huma.OpenAPI{
			OpenAPI: "3.1.0",
			Info:    &huma.Info{Title: "Millrace admin API", Version: cfg.Version},
			Components: &huma.Components{
				Schemas: huma.NewMapRegistry("#/components/schemas/", huma.DefaultSchemaNamer),
			},
		},
		Formats:                      map[string]huma.Format{"application/json": huma.DefaultJSONFormat, "json": huma.DefaultJSONFormat},
		DefaultFormat:                "application/json",
		RejectUnknownQueryParameters: true,
	})
	doc.OpenAPI().Components.Schemas.RegisterTypeAlias(reflect.TypeFor[record.Entry](), reflect.TypeFor[FailureEntry]())
	doc.OpenAPI().Components.Schemas.RegisterTypeAlias(reflect.TypeFor[record.Setting](), reflect.TypeFor[FailureSetting]())
	s := &service{Backend: cfg.Backend, logger: cfg.Logger}
	s.routes(doc)
	if cfg.Ingest != nil {
		ingestRoute(mux, doc, cfg.Ingest)
	}

	spec, err := json.MarshalIndent(doc.OpenAPI(), "", "  ")
	if err != nil {
		panic(fmt.Sprintf("write the OpenAPI document: %v", err))
	}
	mux.HandleFunc("GET /openapi.json", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/openapi+json")
		_, _ = w.Write(spec)
	})
	mux.HandleFunc("GET /livez", func(w http.ResponseWriter, _ *http.Request) { writeText(w, "ok") })
	mux.HandleFunc("GET /readyz", s.ready)
	if cfg.Metrics != nil {
		mux.Handle("GET /metrics", cfg.Metrics)
	}
	mux.HandleFunc("/", noRoute(mux))

	hosts := make([]string, len(cfg.AllowedHosts))
	for i, h := range cfg.AllowedHosts {
		hosts[i] = strings.ToLower(h)
	}
	return &guard{next: newOnce(mux), hosts: hosts, logger: cfg.Logger}
}

// noRoute answers for what no other pattern of mux matches.
func noRoute(mux *http.ServeMux) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		var allowed []string
		for _, method := range []string{"GET", "PUT", "POST", "DELETE"} {
			probe := r.Clone(r.Context())
			probe.Method = method
			if _, pattern := mux.Handler(probe); pattern != "/" && method != r.Method {
				allowed = append(allowed, method)
			}
		}
		const next = "GET /openapi.json lists the paths"
		if len(allowed) == 0 {
			writeError(w, &Error{Code: CodeUsage, Status: http.StatusNotFound, Detail: fmt.Sprintf("there is no path %s", r.URL.Path), Next: next})
			return
		}
		w.Header().Set("Allow", strings.Join(allowed, ", "))
		writeError(w, &Error{Code: CodeUsage, Status: http.StatusMethodNotAllowed,
			Detail: fmt.Sprintf("%s does not take %s, but %s", r.URL.Path, r.Method, strings.Join(allowed, ", ")), Next: next})
	}
}

func (s *service) ready(w http.ResponseWriter, r *http.Request) {
	n, err := s.Node(r.Context())
	switch {
	case err != nil:
		writeError(w, err)
	case !n.Ready:
		writeError(w, &Error{Code: CodeUnavailable, Detail: "the node is not ready yet, or is shutting down"})
	default:
		writeText(w, "ready")
	}
}

func writeText(w http.ResponseWriter, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	_, _ = fmt.Fprintln(w, text)
}

// service carries requests to the Backend.
type service struct {
	Backend
	logger *slog.Logger
}

// fail turns a Backend's error into an answer.
func (s *service) fail(ctx context.Context, err error) error {
	e := asError(err)
	if e.Code == CodeInternal {
		r := requestOf(ctx)
		s.logger.Error("request failed", "method", r.Method, "path", r.URL.Path, "err", err)
	}
	return e
}
