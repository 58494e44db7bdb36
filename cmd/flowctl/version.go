package main

import (
	"fmt"
	"io"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"

	"github.com/millrace-io/millrace/cmd/internal/cli"
	"github.com/millrace-io/millrace/cmd/internal/flowd"
	"github.com/millrace-io/millrace/plugins/sandbox"
)

// versionInfo is what `version` tells.
type versionInfo struct {
	Program  string `json:"program"`
	Version  string `json:"version"`
	Revision string `json:"revision,omitempty"`
	Go       string `json:"go"`
	Platform string `json:"platform"`
	ABI      int    `json:"abi"`
}

func (a *app) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Print the version of flowctl", Example: a.example("version", "version -o json"),
		Args: a.args(0, 0),
		RunE: func(*cobra.Command, []string) error {
			v := versionInfo{Program: "flowctl", Version: flowd.Version, Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH, ABI: sandbox.ABIVersion}
			if info, ok := debug.ReadBuildInfo(); ok {
				for _, s := range info.Settings {
					if s.Key == "vcs.revision" {
						v.Revision = s.Value
					}
				}
			}
			return cli.View[versionInfo]{
				Name: func(v versionInfo) string { return v.Version },
				Detail: func(w io.Writer, f cli.Format, v versionInfo) error {
					fmt.Fprintf(w, "millrace flowctl %s\n", v.Version)
					if f != cli.Wide {
						return nil
					}
					return cli.Pairs(w, [][2]string{{"Revision", v.Revision}, {"Go", v.Go}, {"Platform", v.Platform}, {"Plugin ABI", fmt.Sprintf("stage/%d", v.ABI)}})
				},
			}.One(a.stdout, a.format, v)
		},
	}
}
