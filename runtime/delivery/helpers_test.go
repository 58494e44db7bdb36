package delivery

import (
	"testing"

	"github.com/millrace-io/millrace/runtime/expr"
)

func program(t testing.TB, src string) *expr.Program {
	t.Helper()
	p, err := expr.Compile(src, expr.Scope{Roots: expr.RecordRoots})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func template(t testing.TB, src string) *expr.Template {
	t.Helper()
	p, err := expr.CompileTemplate(src, expr.Scope{Roots: expr.RecordRoots})
	if err != nil {
		t.Fatal(err)
	}
	return p
}
