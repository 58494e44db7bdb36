package api

import (
	"context"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/millrace-io/millrace/cmd/internal/twin/capture"
)

// Bounds of an ExchangePage.
const (
	MaxExchangeTime  = 10 * time.Second
	MaxExchanges     = 500
	MaxExchangeBytes = 4 << 20
)

// ExchangeQuery says what is to be recorded of a connection.
type ExchangeQuery struct {
	Connection string
	// Millis is how long to look, Count how many exchanges end it sooner; 0,
	// and what is beyond, is the most: MaxExchangeTime and MaxExchanges.
	Millis int64
	Count  int
}

// ExchangePage is what went over a connection while it was looked at.
type ExchangePage struct {
	// Items have neither credentials nor signatures, and of bodies the first 16
	// KiB at most. They are in the order in which they ended.
	Items []capture.Exchange `json:"items" nullable:"false"`
	// Missed were too many to be recorded beside the others.
	Missed int64 `json:"missed"`
	Millis int64 `json:"ms" doc:"How long it was looked."`
}

func (s *service) exchangeRoutes(doc huma.API) {
	call(s, doc, http.MethodGet, connectionPath+"/exchanges", "record-exchanges", "What goes over a connection from now on, for at most 10 seconds", func(ctx context.Context, in *struct {
		Name  string `path:"name"`
		For   int64  `query:"for" minimum:"0" doc:"How long to look, in ms; 0, and more than 10 seconds: 10 seconds."`
		Count int    `query:"count" minimum:"0" doc:"Ends it sooner; 0, and more than 500: 500."`
	}) (*ExchangePage, error) {
		return s.Exchanges(ctx, &ExchangeQuery{Connection: in.Name, Millis: in.For, Count: in.Count})
	})
}

// Exchanges implements Backend.
func (c *Client) Exchanges(ctx context.Context, q *ExchangeQuery) (*ExchangePage, error) {
	query := url.Values{}
	if q.Millis > 0 {
		query.Set("for", strconv.FormatInt(q.Millis, 10))
	}
	if q.Count > 0 {
		query.Set("count", strconv.Itoa(q.Count))
	}
	return one[ExchangePage](func(out any) error { return c.get(ctx, out, query, "connections", q.Connection, "exchanges") })
}
