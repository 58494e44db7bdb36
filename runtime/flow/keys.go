package flow

import "slices"

// keySet is what a map may hold: keys that this version reads, and keys of the
// format that it does not.
type keySet struct {
	known, later []string
}

func (k keySet) all() []string { return append(slices.Clone(k.known), k.later...) }

// keySets are the maps of the format. The published JSON Schema has the same.
var keySets = map[string]keySet{
	"flow": {
		known: []string{"flow", "name", "project", "description", "labels", "vars", "source", "order", "slots", "limits", "otherwise", "queue", "requeue", "stages", "exceptions"},
		later: []string{"observe", "trigger", "run", "reconcile", "concurrent"},
	},
	"limits":    {known: []string{"records", "in_flight", "pause_at", "resume_at"}},
	"queue":     {known: []string{"keep", "entries", "bytes", "when_full"}},
	"requeue":   {known: []string{"every", "at_most"}},
	"otherwise": {known: []string{"topic"}},
	"exception": {known: []string{"when", "push"}},

	"source":          {known: []string{"kafka", "rocketmq", "file", "stream", "ingest"}, later: []string{"http", "http_poll"}},
	"source.kafka":    {known: []string{"connection", "topics", "pattern", "start", "out_of_range", "group", "decode"}},
	"source.rocketmq": {known: []string{"connection", "topic", "tags", "start"}},
	"decode":          {known: []string{DecodeAvro, DecodeJSONSchema}},
	"source.ingest":   {known: []string{"body", "wait", "idempotency", "sender"}},
	"sender":          {known: []string{"hmac", "key", "over", "header", "value", "encoding", "canonical", "signed_headers", "key_encoding", "key_prefix"}},
	"file":            {known: []string{"path"}},
	"stream":          {},

	"stage.filter":  {known: []string{"id", "filter", "otherwise"}, later: []string{"schema"}},
	"stage.map":     {known: []string{"id", "map", "otherwise", "with", "function", "hosts", "lines", "envelope", "isolation", "limits"}, later: []string{"outputs", "schema"}},
	"stage.cleanup": {known: []string{"id", "cleanup", "otherwise"}},
	"stage.branch":  {known: []string{"id", "branch", "every", "otherwise"}},
	"stage.push":    {known: []string{"id", "push", "otherwise", "batch", "sign", "validate", "retry"}, later: []string{"schema"}},
	"stage.limits":  {known: []string{"memory", "fuel"}},
	"map":           {known: []string{"plugin", "set", "rename", "drop", "keep"}, later: []string{"script"}},
	"cleanup":       {known: []string{"drop", "drop_headers"}},
	"branch.case":   {known: []string{"when", "stages"}},
	"branch.else":   {known: []string{"else", "reason"}},

	"push":          {known: []string{"kafka", "rocketmq", "http", "webhook", "file", "stream"}},
	"push.kafka":    {known: []string{"connection", "topic", "key", "compression"}},
	"push.rocketmq": {known: []string{"connection", "topic", "tag", "key", "delay"}},
	"push.http":     {known: []string{"connection", "get", "post", "put", "patch", "delete", "headers", "body", "timeout", "concurrent"}},
	"push.webhook":  {known: []string{"url", "connection", "path", "secret", "headers", "body", "timeout", "concurrent"}},
	"batch":         {known: []string{"records", "bytes", "wait", "by", "as", "item", "head", "between", "tail", "content_type", "gzip"}},
	"sign": {known: []string{"hmac", "rsa", "ecdsa", "ed25519", "jwt", "oauth2", "api_key", "basic", "plugin", "key", "over", "header", "query", "value", "encoding",
		"canonical", "signed_headers", "key_encoding", "key_prefix", "derive", "prefix", "headers", "params", "with", "keys", "limits"}},
	"sign.key": {known: []string{"secret", "encoding"}},
	"jwt":      {known: []string{"alg", "key", "key_encoding", "key_id", "type", "claims", "lifetime", "no_id", "header", "prefix"}},
	"oauth2":   {known: []string{"token_url", "client_id", "client_secret", "scopes", "params", "in_body", "header"}},
	"basic":    {known: []string{"user", "password"}},
	"validate": {known: []string{"ok", "retry", "reject", "each", "item_id", "record_id", "plugin", "with", "limits"}},
	"retry":    {known: []string{"first", "max", "attempts", "within", "spill"}},

	"connection":    {known: []string{"connection", "name", "project", "kafka", "rocketmq", "http"}},
	"conn.kafka":    {known: []string{"brokers", "client_id", "rack", "tls", "sasl", "registry"}},
	"sasl":          {known: saslMechanisms},
	"login":         {known: []string{"user", "password"}},
	"registry":      {known: []string{"url", "basic", "tls"}},
	"conn.rocketmq": {known: []string{"name_servers", "acl"}},
	"acl":           {known: []string{"access_key", "secret_key"}},
	"conn.http":     {known: []string{"base", "timeout", "concurrent", "requests", "breaker", "tls", "auth", "headers"}},
	"breaker":       {known: []string{"failures", "probe"}},
	"tls":           {known: []string{"ca", "cert", "key", "server_name"}},
	"auth":          {known: []string{"bearer", "basic", "oauth2", "api_key", "header", "query", "prefix"}},
	"secret":        {known: []string{"secret"}},
}

var saslMechanisms = []string{SASLPlain, SASLScramSHA256, SASLScramSHA512}

// verbs in the order in which messages list them.
var (
	verbs = []string{"filter", "map", "cleanup", "branch", "push"}
	// deliveryKeys make a stage a delivery even if push is missing.
	deliveryKeys = []string{"batch", "sign", "validate", "retry"}
)
