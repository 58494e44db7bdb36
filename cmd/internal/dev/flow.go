package dev

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/millrace-io/millrace/cmd/internal/api"
	"github.com/millrace-io/millrace/cmd/internal/cli"
	"github.com/millrace-io/millrace/runtime/flow"
)

// Names of what a development node makes by itself.
const (
	connectionName = "dev"
	sourceTopic    = "in"
	sinkTopic      = "out"
	generatedLabel = "made-by"
	generatedBy    = "flowctl-dev"
	otherSuffix    = "-dev" // of its name where that is taken
)

// layout is the flow that is run, and what it needs.
type layout struct {
	project, name string
	file, text    string
	// env has the environment variables that the document names.
	env map[string]string
	// paths are the plugins that it names by path, as it names them.
	paths []string
	// connections are documents.
	connections []api.PutConnection
	// feed is the topic of the dev broker that it reads; empty: none.
	feed string
	// alone: it has one stage before its delivery.
	alone bool
	// notes are for the developer: what is not as the documents say, and what
	// is real.
	notes []string
}

func (l *layout) fullName() string { return l.project + "/" + l.name }

// generated is the flow around one plugin: topic in, the plugin, topic out. It
// is named like the plugin, with a suffix.
func generated(plugin, path, broker, suffix string) *layout {
	_, name, ok := strings.Cut(plugin, "/")
	if !ok {
		name = plugin
	}
	name += suffix
	return &layout{
		project: flow.DefaultProject, name: name, file: "flow.yaml", paths: []string{path}, feed: sourceTopic, alone: true,
		text: fmt.Sprintf("flow: v1\nname: %s\nlabels: { %s: %s }\nsource: kafka://%s/%s\nstages:\n  - map: %s\n  - push: kafka://%s/%s\n",
			strconv.Quote(name), generatedLabel, generatedBy, connectionName, sourceTopic, strconv.Quote(path), connectionName, sinkTopic),
		connections: []api.PutConnection{brokerConnection(connectionName, broker, nil)},
	}
}

// brokerConnection is a connection to the dev broker; registry may be nil.
func brokerConnection(name, broker string, registry *flow.Registry) api.PutConnection {
	kafka := "brokers: [" + strconv.Quote(broker) + "]"
	if b, err := json.Marshal(registry); err == nil && registry != nil {
		kafka += ", registry: " + string(b) // whose fields are the document's
	}
	return api.PutConnection{File: "flowctl dev", Document: fmt.Sprintf("connection: v1\nname: %s\nkafka: { %s }\n", strconv.Quote(name), kafka)}
}

// findFlow is the file with the flow of a folder; empty if there is none.
func findFlow(dir string) (string, error) {
	var found []string
	entries, err := os.ReadDir(dir)
	if err != nil {
		return "", err
	}
	for _, e := range entries {
		name := e.Name()
		ext := filepath.Ext(name)
		if e.IsDir() || ext != ".yaml" && ext != ".yml" || strings.HasSuffix(strings.TrimSuffix(name, ext), ".test") {
			continue
		}
		src, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			return "", err
		}
		docs, _ := flow.Parse(name, src, flow.Options{})
		if slices.ContainsFunc(docs, func(d *flow.Document) bool { return d.Kind == flow.KindFlow }) {
			found = append(found, name)
		}
	}
	if len(found) > 1 && !slices.Contains(found, "flow.yaml") {
		return "", cli.Usage("name the one to run with --flow FILE", "%s: there are several flows: %s", dir, strings.Join(found, ", "))
	}
	if len(found) == 0 {
		return "", nil
	}
	if slices.Contains(found, "flow.yaml") {
		return filepath.Join(dir, "flow.yaml"), nil
	}
	return filepath.Join(dir, found[0]), nil
}

// written is the flow of a file. Its Kafka connections are the dev broker,
// whatever their documents say; those of other kinds are as they are written in
// the folder's documents, and real.
func written(path, broker string, getenv func(string) string) (*layout, error) {
	dir := filepath.Dir(path)
	src, err := os.ReadFile(path)
	if err != nil {
		return nil, &cli.Error{Exit: cli.ExitInvalid, Code: cli.CodeFile, Detail: err.Error(), Err: err}
	}
	docs, problems := flow.Parse(filepath.Base(path), src, flow.Options{})
	if err := refused(path, problems); err != nil {
		return nil, err
	}
	docs = slices.DeleteFunc(docs, func(d *flow.Document) bool { return d.Kind != flow.KindFlow })
	if len(docs) != 1 {
		return nil, cli.Usage("keep one flow in the file", "%s: there are %s in this file, not one", path, cli.Plural(len(docs), "flow"))
	}
	l := &layout{file: docs[0].File, text: string(docs[0].Source), env: map[string]string{}}
	_, problems = flow.Resolve(docs[0], flow.Inputs{Env: recorded(l.env, getenv)}, flow.Options{})
	if err := refused(path, problems); err != nil {
		return nil, err
	}
	f := docs[0].Flow
	l.project, l.name = f.Project, f.Name
	stages := f.AllStages()
	l.alone = len(stages) == 1
	for _, s := range f.Plugins() {
		if p := s.Plugin.Ref.Path; p != "" && !slices.Contains(l.paths, p) {
			l.paths = append(l.paths, p)
		}
	}
	return l, l.connect(f, dir, broker, getenv)
}

// recorded is getenv that keeps what it was asked for.
func recorded(env map[string]string, getenv func(string) string) func(string) (string, bool) {
	return func(name string) (string, bool) {
		v := getenv(name)
		if v != "" {
			env[name] = v
		}
		return v, v != ""
	}
}

// refused is the error of a document with errors, nil if it has none.
func refused(path string, problems flow.Problems) error {
	if !problems.HasErrors() {
		return nil
	}
	e := &cli.Error{Exit: cli.ExitInvalid, Code: cli.CodeLint, Detail: path + " has errors", Next: "correct what is said above"}
	for i := range problems {
		if p := &problems[i]; p.Level == flow.LevelError {
			e.Problems = append(e.Problems, api.Problem{Code: string(p.Code), Level: string(p.Level), File: p.File, Line: p.Line, Column: p.Column, Message: p.Message, Help: p.Help, Rendered: p.Render()})
		}
	}
	return e
}

// connect finds the flow's connections.
func (l *layout) connect(f *flow.Flow, dir, broker string, getenv func(string) string) error {
	kafka := f.KafkaConnections()
	documents, err := connectionDocuments(dir)
	if err != nil {
		return err
	}
	replaced := []string{connectionName}
	l.connections = append(l.connections, brokerConnection(connectionName, broker, nil))
	for _, name := range f.Connections() {
		if _, ok := flow.Anonymous(name); ok {
			l.notes = append(l.notes, fmt.Sprintf("%s is not the dev broker: the flow uses it as it is", name))
			continue
		}
		d := documents[name]
		switch {
		case slices.Contains(replaced, name):
		case slices.Contains(kafka, name):
			var registry *flow.Registry
			if d != nil && d.Connection.Kafka != nil {
				registry = d.Connection.Kafka.Registry
			}
			l.connections = append(l.connections, brokerConnection(name, broker, registry))
			replaced = append(replaced, name)
		case d != nil:
			env := map[string]string{}
			if _, problems := flow.Resolve(d, flow.Inputs{Env: recorded(env, getenv)}, flow.Options{}); problems.HasErrors() {
				return refused(filepath.Join(dir, d.File), problems)
			}
			l.connections = append(l.connections, api.PutConnection{Document: string(d.Source), File: d.File, Env: env})
			l.notes = append(l.notes, fmt.Sprintf("connection %s is real, as %s says: what the flow delivers there arrives", name, d.File))
		}
	}
	if len(replaced) > 1 {
		l.notes = append(l.notes, fmt.Sprintf("connection %s is the dev broker here", strings.Join(replaced[1:], ", ")))
	}
	if k := f.Source.Kafka; k != nil && len(k.Topics) > 0 && slices.Contains(replaced, k.Connection) {
		l.feed = k.Topics[0]
	}
	return nil
}

// connectionDocuments are the connections of a folder's documents, by name.
// Documents with errors are none.
func connectionDocuments(dir string) (map[string]*flow.Document, error) {
	found := map[string]*flow.Document{}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		name := e.Name()
		if ext := filepath.Ext(name); e.IsDir() || ext != ".yaml" && ext != ".yml" {
			continue
		}
		src, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			return nil, err
		}
		docs, _ := flow.Parse(name, src, flow.Options{})
		for _, d := range docs {
			if d.Connection != nil {
				found[d.Connection.Name] = d
			}
		}
	}
	return found, nil
}
