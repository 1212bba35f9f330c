package tcprepair

import "golang.org/x/sys/unix"

// SetMark gives a connection its mark (SO_MARK) before its first segment.
func (r *Restored) SetMark(mark int) error {
	return r.fd.setInt(unix.SOL_SOCKET, unix.SO_MARK, uint32(mark), "SO_MARK")
}
