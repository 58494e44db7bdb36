package flow

import (
	"embed"
	"fmt"
)

//go:embed schema/flow-v1.json schema/connection-v1.json
var schemas embed.FS

// Schema is the published JSON Schema of a kind of document, for editors. It
// is coarser than Parse: it knows the keys and the kinds of their values.
func Schema(kind string) ([]byte, error) {
	b, err := schemas.ReadFile("schema/" + kind + "-v1.json")
	if err != nil {
		return nil, fmt.Errorf("schema of %s: there are schemas of %s and %s", kind, KindFlow, KindConnection)
	}
	return b, nil
}
