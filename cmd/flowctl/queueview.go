package main

import (
	"strconv"

	"github.com/millrace-io/millrace/cmd/internal/api"
	"github.com/millrace-io/millrace/cmd/internal/cli"
	"github.com/millrace-io/millrace/runtime/record"
)

// textWidth is how much of a message or an input a table shows.
const textWidth = 60

// noteWidth is how much of a note a list shows.
const noteWidth = 100

// cut is a text as a table shows it.
func (a *app) cut(s string) string { return a.shorten(s, textWidth) }

// note is a reason as a list shows it.
func (a *app) note(s string) string { return a.shorten(s, noteWidth) }

func (a *app) shorten(s string, width int) string {
	if s = cli.Safe(s); a.format == cli.Wide {
		return s
	}
	return cli.Shorten(s, width)
}

func (a *app) entryView() cli.View[*record.Entry] {
	return cli.View[*record.Entry]{
		Name: func(e *record.Entry) string { return shortFlow(e.Flow) + "/" + strconv.FormatUint(e.Seq, 10) },
		Columns: []cli.Column[*record.Entry]{
			{Title: "SEQ", Cell: func(e *record.Entry) string { return strconv.FormatUint(e.Seq, 10) }},
			{Title: "AGE", Cell: func(e *record.Entry) string { return cli.Age(a.now(), e.Time) }},
			{Title: "RECORD", Cell: func(e *record.Entry) string { return e.ID() }},
			{Title: "STAGE", Cell: func(e *record.Entry) string { return e.Stage }},
			{Title: "PLUGIN", Cell: func(e *record.Entry) string { return e.Called().Plugin }},
			{Title: "DIGEST", Cell: func(e *record.Entry) string { return cli.Digest(e.Called().Digest) }},
			{Title: "CLASS", Cell: func(e *record.Entry) string { return e.Class.String() }},
			{Title: "CODE", Wide: true, Cell: func(e *record.Entry) string { return strconv.FormatUint(uint64(e.Code), 10) }},
			{Title: "ATTEMPTS", Wide: true, Cell: func(e *record.Entry) string { return strconv.FormatUint(uint64(e.Attempts), 10) }},
			{Title: "REQUEUES", Wide: true, Cell: func(e *record.Entry) string { return strconv.FormatUint(uint64(e.Requeues), 10) }},
			{Title: "FUEL", Wide: true, Cell: func(e *record.Entry) string {
				r := e.Called().Replay
				if r == nil || r.FuelLimit == 0 {
					return ""
				}
				return strconv.FormatInt(r.Fuel, 10)
			}},
			{Title: "KEY", Wide: true, Cell: func(e *record.Entry) string { return string(e.Input.Key) }},
			{Title: "MESSAGE", Cell: func(e *record.Entry) string { return a.cut(e.Message) }},
			{Title: "INPUT", Cell: func(e *record.Entry) string {
				if e.InputOmitted {
					return "(too large: read it at the source)"
				}
				return a.cut(string(e.Input.Value))
			}},
		},
	}
}

// keptView shows what is kept for another attempt.
func (a *app) keptView() cli.View[*api.Retry] {
	return cli.View[*api.Retry]{
		Name: func(r *api.Retry) string { return r.ID },
		Columns: []cli.Column[*api.Retry]{
			{Title: "RECORD", Cell: func(r *api.Retry) string { return r.ID }},
			{Title: "STAGE", Cell: func(r *api.Retry) string { return r.Stage }},
			{Title: "SINCE", Cell: func(r *api.Retry) string {
				if r.First == 0 {
					return cli.Age(a.now(), r.At)
				}
				return cli.Age(a.now(), r.First)
			}},
			{Title: "ATTEMPTS", Cell: func(r *api.Retry) string { return strconv.FormatUint(uint64(r.Attempts), 10) }},
			{Title: "NEXT", Cell: func(r *api.Retry) string {
				if r.Held {
					return "behind its key"
				}
				return inFuture(a.now(), max(r.Due, 1))
			}},
			{Title: "CLASS", Cell: func(r *api.Retry) string { return r.Class }},
			{Title: "CODE", Wide: true, Cell: func(r *api.Retry) string { return strconv.FormatUint(uint64(r.Code), 10) }},
			{Title: "BATCH", Wide: true, Cell: func(r *api.Retry) string { return r.Batch }},
			{Title: "REQUEUES", Wide: true, Cell: func(r *api.Retry) string { return strconv.FormatUint(uint64(r.Requeues), 10) }},
			{Title: "PLUGIN", Wide: true, Cell: func(r *api.Retry) string { return cli.Digest(r.Plugin) }},
			{Title: "MESSAGE", Cell: func(r *api.Retry) string { return a.cut(r.Message) }},
		},
	}
}
