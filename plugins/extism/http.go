package extism

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"github.com/millrace-io/millrace/plugins/sandbox"
	"github.com/millrace-io/millrace/runtime/record"
)

// requestLimit bounds what the HTTP requests of one call may take together.
const requestLimit = 30 * time.Second

// maxRedirects is what net/http allows by default.
const maxRedirects = 10

type hostsKey struct{}

// init has redirects looked at: the SDK asks by http.DefaultClient, and holds
// only the first address against the hosts that are listed. Requests of others
// are treated as before.
func init() {
	before := http.DefaultClient.CheckRedirect
	http.DefaultClient.CheckRedirect = func(r *http.Request, via []*http.Request) error {
		if hosts, ok := r.Context().Value(hostsKey{}).([]string); ok && !hostListed(hosts, r.URL.Hostname()) {
			return &redirectError{r.URL.Hostname()}
		}
		if before != nil {
			return before(r, via)
		}
		if len(via) >= maxRedirects {
			return fmt.Errorf("stopped after %d redirects", maxRedirects)
		}
		return nil
	}
}

// redirectError reports that a listed host sent a guest to one that is not.
type redirectError struct{ host string }

func (e *redirectError) Error() string {
	return fmt.Sprintf("it was sent on to the host %q, which `hosts` of the stage does not list", e.host)
}

// withHosts is the context of a call that may reach hosts.
func withHosts(ctx context.Context, hosts []string) (context.Context, context.CancelFunc) {
	if len(hosts) == 0 {
		return ctx, func() {}
	}
	return context.WithTimeout(context.WithValue(ctx, hostsKey{}, hosts), requestLimit)
}

// requestError is the failure that an HTTP request of the guest ended in, nil
// if err is none.
func requestError(err error) *record.Error {
	if e, ok := errors.AsType[*redirectError](err); ok {
		return &record.Error{Class: record.Rejected, Message: e.Error(), Err: e}
	}
	if e, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return record.Errorf(record.TooLarge, "a host answered more than %s", sandbox.BytesText(e.Limit))
	}
	e, ok := errors.AsType[*url.Error](err)
	if !ok {
		return nil
	}
	class := record.Retryable
	if e.Timeout() {
		class = record.Timeout
	}
	return &record.Error{Class: class, Message: sandbox.Printable([]byte(e.Error())), Err: e}
}
