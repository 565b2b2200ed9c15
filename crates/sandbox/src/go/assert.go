// Package assert has what the tests of HumanEval-X use of github.com/stretchr/testify/assert, which no program can fetch.
package assert

import (
	"bytes"
	"reflect"
	"testing"
)

// Assertions reports to one test.
type Assertions struct {
	t *testing.T
}

// New returns assertions that report to t.
func New(t *testing.T) *Assertions {
	return &Assertions{t}
}

// Equal fails the test unless both values are deeply equal, types included. A nil slice of bytes equals an empty one only if
// both are nil. The message says what the test compares.
func (a *Assertions) Equal(expected, actual interface{}, message ...interface{}) bool {
	a.t.Helper()
	equal := reflect.DeepEqual(expected, actual)
	if one, ok := expected.([]byte); ok {
		if other, ok := actual.([]byte); ok {
			equal = (one == nil) == (other == nil) && bytes.Equal(one, other)
		}
	}
	if !equal {
		a.t.Errorf("expected %#v, found %#v %v", expected, actual, message)
	}
	return equal
}
