module github.com/millrace-io/millrace/examples/jt808

go 1.24

require github.com/millrace-io/millrace/pdk/go v0.0.0

replace github.com/millrace-io/millrace/pdk/go => ../../pdk/go
