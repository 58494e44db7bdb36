package rocketmq

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode"
)

// errTooLarge says that a request exceeds what any broker takes.
var errTooLarge = errors.New("too large")

// answerError is an answer that is not a success.
type answerError struct {
	code   int
	remark string // as it came
}

// maxRemark bounds what messages quote of a remark, in bytes.
const maxRemark = 300

// Error quotes the remark in one line: brokers send traces of their stacks.
func (e *answerError) Error() string {
	s := strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return ' '
	}, e.remark[:min(len(e.remark), 2*maxRemark)])
	s = strings.Join(strings.Fields(s), " ")
	if len(s) > maxRemark {
		s = strings.ToValidUTF8(s[:maxRemark], "") + "..."
	}
	return fmt.Sprintf("answer %d: %s", e.code, s)
}

// hasCode reports whether err is an answer with one of the codes.
func hasCode(err error, codes ...int) bool {
	a, ok := errors.AsType[*answerError](err)
	return ok && slices.Contains(codes, a.code)
}

// joined are several errors whose text is one line.
type joined []error

func (j joined) Error() string {
	texts := make([]string, len(j))
	for i, err := range j {
		texts[i] = err.Error()
	}
	return strings.Join(texts, "; ")
}

func (j joined) Unwrap() []error { return j }

// oneLine joins errors; nil if there are none.
func oneLine(errs []error) error {
	if len(errs) == 0 {
		return nil
	}
	return joined(errs)
}
