package kafka

import (
	"flag"
	"testing"

	"github.com/millrace-io/millrace/runtime/connector/connectortest/brokers"
)

var rewrite = flag.Bool("rewrite", false, "rewrite the golden files")

func TestMain(m *testing.M) { brokers.Main(m) }
