package node

import (
	"errors"
	"fmt"
)

var (
	// ErrNotLeader: this node cannot take proposals now. Nothing was proposed;
	// try again, on the leader.
	ErrNotLeader = errors.New("this node is not the leader")
	// ErrClosed: the node is closed or closing.
	ErrClosed = errors.New("node is closed")
	// ErrAmbiguous: the command was proposed and its outcome is not known. It
	// may be applied later or never; commands can be proposed again.
	ErrAmbiguous = errors.New("outcome of the command is unknown")
)

// LockedError reports that another process uses the data folder.
type LockedError struct {
	Path string
	// PID of the other process; 0 if it is not known.
	PID int
}

func (e *LockedError) Error() string {
	if e.PID == 0 {
		return fmt.Sprintf("open data folder %s: locked by another process", e.Path)
	}
	return fmt.Sprintf("open data folder %s: locked by pid %d", e.Path, e.PID)
}

// FormatError reports a data folder in a format that this program does not
// have.
type FormatError struct {
	Path   string
	Format int
}

func (e *FormatError) Error() string {
	return fmt.Sprintf("open data folder %s: it has format %d, this program knows format %d; start the flowd that wrote it, or give another folder with --data", e.Path, e.Format, formatVersion)
}

// StuckError reports that proposals made no progress for a long time: the disk
// hangs or is full.
type StuckError struct{ For string }

func (e *StuckError) Error() string {
	return fmt.Sprintf("no command was applied for %s with commands waiting; the disk of the data folder hangs or is full", e.For)
}
