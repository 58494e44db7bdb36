package twin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"time"
)

// Server is a twin with an address.
type Server struct {
	twin *Twin
	ln   net.Listener
	http *http.Server
}

// Listen opens addr, or the file's address if addr is "". Port 0 is a free
// one. The connections of callers wait until Run.
func (t *Twin) Listen(addr string) (*Server, error) {
	if addr == "" {
		addr = t.file.Listen
	}
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", addr, err)
	}
	s := &http.Server{
		Handler: t, ReadHeaderTimeout: 30 * time.Second, MaxHeaderBytes: 1 << 20,
		// Callers that break off are part of the trouble.
		ErrorLog: log.New(io.Discard, "", 0),
	}
	return &Server{t, ln, s}, nil
}

// Addr is the HOST:PORT that the server listens on.
func (s *Server) Addr() string { return s.ln.Addr().String() }

// Run serves until ctx ends, then resets what is under way, closes the twin
// and returns nil. Call it once.
func (s *Server) Run(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() {
		s.twin.Close()
		_ = s.http.Close()
	})
	defer stop()
	err := s.http.Serve(s.ln)
	s.twin.Close()
	if ctx.Err() != nil && errors.Is(err, http.ErrServerClosed) {
		return s.drain()
	}
	return fmt.Errorf("serve the twin: %w", err)
}

// drainLimit bounds how long requests that were cut off may take to end.
const drainLimit = 5 * time.Second

func (s *Server) drain() error {
	ctx, cancel := context.WithTimeout(context.Background(), drainLimit)
	defer cancel()
	if err := s.twin.Wait(ctx); err != nil {
		return fmt.Errorf("stop the twin: requests are still under way after %v", drainLimit)
	}
	return nil
}
