package sandbox

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/windows"
)

// reserve takes address space of n bytes without memory behind it.
func reserve(n int) ([]byte, error) {
	p, err := windows.VirtualAlloc(0, uintptr(n), windows.MEM_RESERVE, windows.PAGE_READWRITE)
	if err != nil {
		return nil, fmt.Errorf("reserve %d bytes of guest memory: %w", n, err)
	}
	return unsafe.Slice((*byte)(*(*unsafe.Pointer)(unsafe.Pointer(&p))), n), nil
}

// commit puts zeroed memory behind b.
func commit(b []byte) bool {
	if len(b) == 0 {
		return true
	}
	_, err := windows.VirtualAlloc(uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)), windows.MEM_COMMIT, windows.PAGE_READWRITE)
	return err == nil
}

// release gives back what reserve took.
func release(b []byte) {
	if err := windows.VirtualFree(uintptr(unsafe.Pointer(&b[0])), 0, windows.MEM_RELEASE); err != nil {
		panic(fmt.Sprintf("sandbox: free guest memory: %v", err))
	}
}
