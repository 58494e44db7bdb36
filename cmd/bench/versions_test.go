package main

import (
	"os"
	"strings"
	"testing"
)

// notOfTheNode are modules that the node does not run with (the last two are the
// tests' RocketMQ client's): they may be newer
// here, because a contestant asks for it.
var notOfTheNode = map[string]bool{"github.com/fatih/color": true, "github.com/sirupsen/logrus": true, "gopkg.in/natefinch/lumberjack.v2": true}

// The node that is measured has the versions of the node that is shipped.
func TestVersionsAreThoseOfTheProduct(t *testing.T) {
	ours, product := versions(t, "go.mod"), versions(t, "../../go.mod")
	same := 0
	for path, v := range product {
		switch here, ok := ours[path]; {
		case !ok, notOfTheNode[path]:
		case here != v:
			t.Errorf("%s is %s here and %s in the product", path, here, v)
		default:
			same++
		}
	}
	if same < 40 {
		t.Errorf("%d modules of both: is ../../go.mod the product's?", same)
	}
}

// versions reads the lines PATH VERSION of a go.mod.
func versions(t *testing.T, file string) map[string]string {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]string{}
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(strings.TrimPrefix(line, "require ")); len(f) >= 2 && strings.Contains(f[0], ".") && strings.HasPrefix(f[1], "v") {
			all[f[0]] = f[1]
		}
	}
	return all
}
