package api

import (
	"context"
	"net/http"
	"net/url"
	"strconv"

	"github.com/danielgtaylor/huma/v2"
)

// LogQuery asks for what the plugins of a flow logged.
type LogQuery struct {
	Project, Name string
	// Stage, if not empty, is the only one; Level (debug, info, warn, error)
	// the least.
	Stage, Level string
	// After is the number of the last line that is known; 0: all that is kept.
	After uint64
	// Limit is how many lines at most, 0: all. Without After they are the last
	// ones, with it those that follow.
	Limit int
	// WaitMillis is how long to wait for a line when there is none, at most
	// 30,000.
	WaitMillis int
}

// LogPage is a page of a flow's log. The node keeps the last 1,000 lines and
// 128 KiB of a flow, in memory.
type LogPage struct {
	Lines []LogLine `json:"lines" nullable:"false"`
	// Next is the After of the next page.
	Next uint64 `json:"next"`
	// Missed is how many lines behind After are not kept any more.
	Missed int64 `json:"missed,omitempty"`
}

// LogLine is a line that a plugin logged or wrote to STDERR.
type LogLine struct {
	Seq    uint64 `json:"seq"`
	At     int64  `json:"at"` // Unix ms
	Stage  string `json:"stage"`
	Plugin string `json:"plugin"` // name@version
	Level  string `json:"level"`
	Line   string `json:"line"`
	// Record is the id of the record that the line is about. Where the plugin
	// did not say, First and Last are those of its batch; none of them where it
	// started.
	Record string `json:"record,omitempty"`
	First  string `json:"first,omitempty"`
	Last   string `json:"last,omitempty"`
	// Filed says that the record failed and the failure queue holds the line too.
	Filed bool `json:"filed,omitempty"`
}

func (s *service) logRoutes(doc huma.API) {
	call(s, doc, http.MethodGet, flowPath+"/logs", "get-logs", "What the plugins of a flow logged last on this node", func(ctx context.Context, in *struct {
		Project string `path:"project"`
		Name    string `path:"name"`
		Stage   string `query:"stage" doc:"Only this stage's plugin."`
		Level   string `query:"level" enum:"debug,info,warn,error" doc:"The least level; all if missing."`
		After   uint64 `query:"after" doc:"The answer's next; 0 or missing: all that is kept."`
		Limit   int    `query:"limit" minimum:"0" maximum:"1000" doc:"Lines at most; 0 or missing: all. Without after the last ones."`
		Wait    int    `query:"wait" minimum:"0" maximum:"30000" doc:"Milliseconds to wait for a line if there is none."`
	}) (*LogPage, error) {
		return s.Logs(ctx, &LogQuery{Project: in.Project, Name: in.Name, Stage: in.Stage, Level: in.Level, After: in.After, Limit: in.Limit, WaitMillis: in.Wait})
	})
}

// Logs implements Backend.
func (c *Client) Logs(ctx context.Context, q *LogQuery) (*LogPage, error) {
	query := url.Values{}
	for name, n := range map[string]uint64{"after": q.After, "limit": uint64(q.Limit), "wait": uint64(q.WaitMillis)} {
		if n > 0 {
			query.Set(name, strconv.FormatUint(n, 10))
		}
	}
	for name, v := range map[string]string{"stage": q.Stage, "level": q.Level} {
		if v != "" {
			query.Set(name, v)
		}
	}
	return one[LogPage](func(out any) error { return c.get(ctx, out, query, "flows", project(q.Project), q.Name, "logs") })
}
