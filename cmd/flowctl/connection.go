package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/millrace-io/millrace/cmd/internal/api"
	"github.com/millrace-io/millrace/cmd/internal/cli"
	"github.com/millrace-io/millrace/runtime/flow"
)

func (a *app) connectionCommand() *cobra.Command {
	return a.groupCommand("connection", "List and test connections", a.example("connection list", "connection test main", "connection test kafka://127.0.0.1:9092"),
		a.connectionList(), a.connectionTest())
}

func (a *app) connectionList() *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List connections",
		Long: "List connections: where they lead, who uses them, and whether requests get through (the\n" +
			"breaker); -o wide adds what is used just now: requests under way and a second, against what\n" +
			"is allowed.",
		Example: a.example("connection list", "connection list -o wide"),
		Args:    a.args(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			node, err := a.node()
			if err != nil {
				return err
			}
			connections, err := node.Connections(cmd.Context())
			if err != nil {
				return err
			}
			if len(connections) == 0 && a.format.Human() {
				fmt.Fprintf(a.stderr, "no connections. Make one: `%s apply -f connection.yaml`\n", a.program)
				return nil
			}
			view := cli.View[*api.Connection]{
				Name: func(c *api.Connection) string { return c.Name },
				Columns: []cli.Column[*api.Connection]{
					{Title: "NAME", Cell: func(c *api.Connection) string { return c.Name }},
					{Title: "KIND", Cell: func(c *api.Connection) string { return c.Kind }},
					{Title: "TARGET", Cell: func(c *api.Connection) string { return c.Target }},
					{Title: "AGE", Cell: func(c *api.Connection) string { return cli.Age(a.now(), c.Updated) }},
					{Title: "USED BY", Cell: func(c *api.Connection) string { return usedBy(c.UsedBy, a.format == cli.Wide) }},
				},
			}
			for i, title := range usageTitles {
				view.Columns = append(view.Columns, cli.Column[*api.Connection]{Title: title, Wide: title != "BREAKER", Cell: func(c *api.Connection) string { return usageCells(c.Usage, a.now())[i] }})
			}
			return view.List(a.stdout, a.format, connections)
		},
	}
}

func (a *app) connectionTest() *cobra.Command {
	return &cobra.Command{
		Use: "test NAME|ADDRESS", Short: "Let the node reach for the other side of a connection",
		Long: "Let the node reach for the other side of a connection: one that was applied, by its NAME,\n" +
			"or an ADDRESS: kafka://host:port, rocketmq://host:port (a name server), http://host or\n" +
			"https://host. Of a Kafka connection with a registry both are asked. The exit code is 4 if\n" +
			"it cannot be reached.",
		Example: a.example("connection test main", "connection test kafka://127.0.0.1:9092", "connection test https://partner.example"),
		Args:    a.args(1, 1, "NAME or ADDRESS"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if _, ok := flow.Anonymous(args[0]); !ok && strings.Contains(args[0], "://") {
				return cli.Usage("write kafka://HOST:PORT, rocketmq://HOST:PORT, http://HOST or https://HOST, without a path", "%q is not the address of a connection", args[0])
			}
			node, err := a.node()
			if err != nil {
				return err
			}
			t, err := node.TestConnection(cmd.Context(), args[0])
			if err != nil {
				e := cli.AsError(err)
				if e.Code == api.CodeNotFound {
					e.Next = fmt.Sprintf("list the connections with `%s connection list`, or give an address as kafka://host:port", a.program)
					var names []string
					connections, _ := node.Connections(cmd.Context())
					for _, c := range connections {
						names = append(names, c.Name)
					}
					if near := cli.Nearest(args[0], names); near != "" {
						e.Next = fmt.Sprintf("did you mean %s? Otherwise %s", near, e.Next)
					}
				}
				return e
			}
			if t.OK || !a.format.Human() {
				view := cli.View[*api.ConnectionTest]{
					Name: func(t *api.ConnectionTest) string { return t.Name },
					Columns: []cli.Column[*api.ConnectionTest]{
						{Title: "NAME", Cell: func(t *api.ConnectionTest) string { return t.Name }},
						{Title: "RESULT", Cell: func(*api.ConnectionTest) string { return "ok" }},
						{Title: "TIME", Cell: func(t *api.ConnectionTest) string { return fmt.Sprintf("%d ms", t.Millis) }},
						{Title: "DETAIL", Cell: func(t *api.ConnectionTest) string { return t.Detail }},
					},
				}
				if err := view.One(a.stdout, a.format, t); err != nil {
					return err
				}
			}
			if t.OK {
				return nil
			}
			next := t.Next
			if next == "" {
				next = fmt.Sprintf("when that is done: `%s connection test %s`", a.program, t.Name)
			}
			return &cli.Error{Exit: cli.ExitFindings, Code: cli.CodeConnection, Detail: fmt.Sprintf("connection %s: %s", t.Name, t.Detail), Next: next}
		},
	}
}
