package handsock

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// maxGroups is NGROUPS_MAX of Linux, cut to what a server has.
const maxGroups = 1024

// peerGroups reads SO_PEERGROUPS, for which x/sys has no call.
func peerGroups(fd int) ([]uint32, error) {
	var groups [maxGroups]uint32
	size := uint32(unsafe.Sizeof(groups))
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, unix.SO_PEERGROUPS,
		uintptr(unsafe.Pointer(&groups[0])), uintptr(unsafe.Pointer(&size)), 0)
	if errno != 0 {
		return nil, errno
	}
	return append([]uint32(nil), groups[:size/4]...), nil
}
