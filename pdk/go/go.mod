module github.com/millrace-io/millrace/pdk/go

go 1.24
