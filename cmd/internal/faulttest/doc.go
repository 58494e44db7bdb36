// Package faulttest runs the real programs, flowd and flowctl, as processes of
// their own and does to them what happens in production: kills without
// warning, stops, restarts, brokers and targets that hang, die and come back,
// plugins that trap. What became of each record is found by reading the output
// and the failure queue back and comparing with what was produced, never by
// trusting counters.
//
// It holds tests only, for Linux; -short leaves them out.
//
//	MILLRACE_FAULT_SEED=N   repeats the moments and places of an earlier run, which prints its seed
//	MILLRACE_FAULT_LONG=1   a dead target stays dead for a minute
//	MILLRACE_FAULT_KAFKA=N  so many faults of real Kafkas instead of 15
//	MILLRACE_FAULT_KEEP=1   keeps data folders and logs of tests that pass; those that fail always keep them
package faulttest
