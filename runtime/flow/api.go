package flow

import "encoding/json"

// Resolver answers what a document alone cannot: what exists around it. The
// node's registry and state answer it for apply, local files for lint and run.
type Resolver interface {
	// Connection is the connection that a flow of the project means by a name,
	// false if there is none. Anonymous connections are not asked for.
	Connection(project, name string) (c *Connection, ok bool)

	// Plugin tells what the reference means now. The error's text becomes the
	// problem's message; errors that wrap ErrPluginNotFound get the code
	// E_PLUGIN_NOT_FOUND, all others (a wrong ABI, a broken file) E_PLUGIN.
	Plugin(ref PluginRef) (PluginInfo, error)
}

// PluginInfo is what linting needs to know of a plugin.
type PluginInfo struct {
	Namespace, Name, Version, Digest string
	// Mode is "call", "lines" or "extism".
	Mode string
	// Functions are the exports that a stage can name as its function, Function
	// the one that it has if it names none; empty where it needs one.
	Functions []string
	Function  string
	// UsesHTTP: the plugin asks for hosts.
	UsesHTTP bool
	// Signs: the plugin asks for signatures, and needs keys.
	Signs bool
	// Outputs of the manifest, the default one first; may be empty.
	Outputs []string
	// Config is the JSON Schema of `with`, nil if the plugin states none.
	Config json.RawMessage
	// TakesNoConfig: a stage of the plugin has no `with`.
	TakesNoConfig bool
}

// Options of Parse and Resolve.
type Options struct {
	// Resolver is asked for connections and plugins; nil skips the checks
	// that need one.
	Resolver Resolver
}

// Inputs are the values from outside that Resolve puts into a document.
type Inputs struct {
	// Vars override the document's vars by name. A text is converted to the
	// type of the var's default.
	Vars map[string]string
	// Env looks an environment variable up; nil: none is set.
	Env func(name string) (string, bool)
}
