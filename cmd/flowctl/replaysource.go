package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/millrace-io/millrace/cmd/internal/api"
	"github.com/millrace-io/millrace/cmd/internal/cli"
	"github.com/millrace-io/millrace/plugins/registry"
	"github.com/millrace-io/millrace/runtime/record"
)

// pluginConfig reads --with: a JSON object, or a file with one.
func (a *app) pluginConfig(with string) (record.Text, error) {
	if with == "" {
		return nil, nil
	}
	text, what := []byte(with), "--with"
	if file := strings.TrimPrefix(with, "@"); strings.IndexAny(strings.TrimSpace(with), "{[\"") != 0 {
		var err error
		if text, err = os.ReadFile(a.path(file)); err != nil {
			e := cli.AsError(a.fileError(file, a.path(file), err))
			e.Next += `; or write a JSON object, as --with '{"field":"email"}'`
			return nil, e
		}
		text, what = bytes.TrimSpace(text), file
	}
	var object map[string]json.RawMessage
	if err := json.Unmarshal(text, &object); err != nil {
		if e, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
			err = fmt.Errorf("it is of type %s", e.Value)
		}
		return nil, cli.Usage(`write a JSON object, as --with '{"field":"email"}', or name a file with one`, "%s is not a JSON object: %v", what, err)
	}
	return text, nil
}

// replaySource is where entries come from.
type replaySource struct {
	entries []*record.Entry
	// node is asked for plugins; nil: there is none to ask.
	node api.Backend
	// blobs are the plugins that were found, by digest.
	blobs map[string][]byte
}

func (a *app) replaySource(cmd *cobra.Command, arg string, o replayOptions) (*replaySource, error) {
	src := &replaySource{blobs: map[string][]byte{}}
	var err error
	if flow, seq, ok := a.entryName(arg); ok {
		if len(o.only) > 0 {
			return nil, cli.Usage("leave it out", "--only goes with a file, and %s is one entry", arg)
		}
		project, name, err := splitFlow(flow)
		if err != nil {
			return nil, err
		}
		if src.node, err = a.node(); err != nil {
			return nil, err
		}
		e, err := src.node.Failure(cmd.Context(), project, name, seq)
		if err != nil {
			known := cli.AsError(err)
			if known.Code != api.CodeNotFound {
				return nil, err
			}
			if _, missing := src.node.Flow(cmd.Context(), project, name); missing != nil {
				return nil, a.missingFlow(cmd, src.node, flow, missing)
			}
			known.Next = fmt.Sprintf("list the entries with `%s queue peek %s`", a.program, flow)
			return nil, known
		}
		src.entries = []*record.Entry{e}
		return src, nil
	}
	if src.entries, err = a.readEntries(arg); err != nil {
		return nil, err
	}
	if len(o.only) > 0 {
		unseen := slices.Clone(o.only)
		src.entries = slices.DeleteFunc(src.entries, func(e *record.Entry) bool {
			wanted := false
			for _, id := range []string{e.ID(), strconv.FormatUint(e.Seq, 10)} {
				wanted = wanted || slices.Contains(o.only, id)
				unseen = slices.DeleteFunc(unseen, func(s string) bool { return s == id })
			}
			return !wanted
		})
		if len(unseen) > 0 {
			return nil, cli.Usage("the id of an entry is its field \"id\", its number \"seq\"", "--only %s: %s has no such entry", unseen[0], arg)
		}
	}
	if len(src.entries) == 0 {
		return nil, &cli.Error{Exit: cli.ExitInvalid, Code: api.CodeInvalid, Detail: arg + " holds no failure entries", Next: fmt.Sprintf("`%s run PLUGIN.wasm --failures FILE` and `%s queue peek FLOW -o ndjson` write such files", a.program, a.program)}
	}
	if slices.ContainsFunc(src.entries, func(e *record.Entry) bool { return e.Revision != 0 }) {
		src.node, err = a.node()
	}
	return src, err
}

// entryName reads [project/]flow/seq; a file of that name is meant instead.
func (a *app) entryName(arg string) (flow string, seq uint64, ok bool) {
	if _, err := os.Stat(a.path(arg)); err == nil {
		return "", 0, false
	}
	at := strings.LastIndexByte(arg, '/')
	if at <= 0 {
		return "", 0, false
	}
	seq, err := strconv.ParseUint(arg[at+1:], 10, 64)
	return arg[:at], seq, err == nil
}

// readEntries reads a file of entries: a line each, or one JSON array.
func (a *app) readEntries(path string) ([]*record.Entry, error) {
	b, err := []byte(nil), error(nil)
	if path == "-" {
		b, err = io.ReadAll(a.stdin)
	} else {
		b, err = os.ReadFile(a.path(path))
	}
	if err != nil {
		e := cli.AsError(a.fileError(path, a.path(path), err))
		if os.IsNotExist(err) {
			e.Next = fmt.Sprintf("correct the path; an entry of a queue is FLOW/SEQ, as `%s queue peek FLOW -o name` prints it", a.program)
		}
		return nil, e
	}
	var entries []*record.Entry
	if b = bytes.TrimSpace(b); bytes.HasPrefix(b, []byte("[")) {
		err = json.Unmarshal(b, &entries)
	} else {
		dec := json.NewDecoder(bytes.NewReader(b))
		for n := 1; err == nil; n++ {
			e := &record.Entry{}
			if err = dec.Decode(e); err == nil {
				entries = append(entries, e)
			} else if err != io.EOF {
				err = fmt.Errorf("entry %d: %w", n, err)
			}
		}
		if err == io.EOF {
			err = nil
		}
	}
	if err != nil {
		return nil, &cli.Error{Exit: cli.ExitInvalid, Code: api.CodeInvalid, Detail: fmt.Sprintf("%s: %v", path, err), Next: "the file holds failure entries as `run --failures` writes them, one a line", Err: err}
	}
	return entries, nil
}

// errNoPlugin says why a plugin could not be found.
type errNoPlugin struct{ tried []string }

func (e *errNoPlugin) Error() string {
	if len(e.tried) == 0 {
		return "nothing tells where it is"
	}
	return strings.Join(e.tried, "; ")
}

// plugin finds the bytes of the plugin that e failed in. The error is an
// *errNoPlugin if they cannot be had.
func (s *replaySource) plugin(ctx context.Context, e *record.Entry) ([]byte, error) {
	if b := s.blobs[e.Digest]; b != nil {
		return b, nil
	}
	none := &errNoPlugin{}
	keep := func(b []byte, err error, from string) bool {
		switch {
		case err != nil:
			none.tried = append(none.tried, fmt.Sprintf("%s: %s", from, cause(err)))
		case registry.Digest(b) != e.Digest:
			none.tried = append(none.tried, fmt.Sprintf("%s holds other bytes now (%s)", from, cli.Digest(registry.Digest(b))))
		default:
			s.blobs[e.Digest] = b
			return true
		}
		return false
	}
	if e.Setting != nil && e.Setting.File != "" {
		b, err := os.ReadFile(e.Setting.File)
		if keep(b, err, e.Setting.File) {
			return b, nil
		}
	}
	if s.node != nil && e.Revision != 0 {
		b, err := s.node.Blob(ctx, e.Digest)
		if err != nil && ctx.Err() != nil {
			return nil, err
		}
		if keep(b, err, "the node") {
			return b, nil
		}
	}
	return nil, none
}
