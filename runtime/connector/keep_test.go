package connector

import (
	"errors"
	"testing"
)

func TestKeepGood(t *testing.T) {
	var value string
	var err error
	var warned []error
	get := KeepGood(func() (string, error) { return value, err }, func(err error) { warned = append(warned, err) })
	broken := errors.New("half of a file")
	for i, step := range []struct {
		value string
		err   error
		want  string
		fails bool
		warns int
	}{
		{"", broken, "", true, 0}, // nothing good yet: the error shows
		{"one", nil, "one", false, 0},
		{"two", nil, "two", false, 0}, // read anew each time
		{"", broken, "two", false, 1},
		{"", broken, "two", false, 1}, // warned once
		{"three", nil, "three", false, 1},
		{"", broken, "three", false, 2}, // and again after a good read
	} {
		value, err = step.value, step.err
		got, gotErr := get()
		if got != step.want || (gotErr != nil) != step.fails || len(warned) != step.warns {
			t.Errorf("step %d: got %q, %v and %d warnings, want %q and %d", i, got, gotErr, len(warned), step.want, step.warns)
		}
	}
	err = nil
	quiet := KeepGood(func() (int, error) { return 1, err }, nil)
	_, _ = quiet()
	err = broken
	if v, e := quiet(); v != 1 || e != nil {
		t.Errorf("without a function to warn: %d, %v", v, e)
	}
}
