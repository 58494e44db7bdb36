// Package exampletest runs the examples that need a node as their READMEs say,
// with the programs themselves. It has tests only.
package exampletest
