package netlab

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Capture writes the frames of one interface to a file that tcpdump and
// Wireshark read, until it is closed.
type Capture struct {
	file *os.File
	fd   int // packet socket
	bell int // eventfd, rung to end
	done chan error
}

// snapLength bounds what is kept of a frame: segments which the kernel has not
// cut yet are far longer than any on a real wire, and their heads tell the story.
const snapLength = 2048

// Capture begins to write what passes the host's interface to path, in both
// directions and with the time at which it was seen. Checksums of what the host
// sends may look wrong: the kernel leaves them to a device that a veth is not.
func (h *Host) Capture(iface, path string) (*Capture, error) {
	link, err := h.nl.LinkByName(iface)
	if err != nil {
		return nil, fmt.Errorf("netlab: capture on %s of %s: %w", iface, h.Name, err)
	}
	c := &Capture{fd: -1, bell: -1, done: make(chan error, 1)}
	err = h.Do(func() (err error) {
		c.fd, err = packetSocket(link.Attrs().Index, false)
		return err
	})
	if err == nil {
		c.bell, err = unix.Eventfd(0, unix.EFD_CLOEXEC)
	}
	if err == nil {
		c.file, err = os.Create(path)
	}
	if err != nil {
		c.closeFiles()
		return nil, fmt.Errorf("netlab: capture on %s of %s: %w", iface, h.Name, err)
	}
	go func() { c.done <- c.run() }()
	return c, nil
}

// Close ends the capture after what has been seen so far is written.
func (c *Capture) Close() error {
	if _, err := unix.Write(c.bell, binary.NativeEndian.AppendUint64(nil, 1)); err != nil {
		return fmt.Errorf("netlab: end capture: %w", err)
	}
	err := errors.Join(<-c.done, c.closeFiles())
	if err != nil {
		return fmt.Errorf("netlab: capture: %w", err)
	}
	return nil
}

// closeFiles lets go of whatever was opened, also after a failed start.
func (c *Capture) closeFiles() error {
	for _, fd := range []int{c.fd, c.bell} {
		if fd >= 0 {
			unix.Close(fd)
		}
	}
	if c.file != nil {
		return c.file.Close()
	}
	return nil
}

// run writes frames until the bell rings, then those still waiting, so that what
// happened before Close is in the file.
func (c *Capture) run() error {
	out := bufio.NewWriter(c.file)
	if err := writePcapHeader(out); err != nil {
		return err
	}
	buf := make([]byte, largeFrame)
	poll := []unix.PollFd{{Fd: int32(c.fd), Events: unix.POLLIN}, {Fd: int32(c.bell), Events: unix.POLLIN}}
	for {
		if _, err := unix.Poll(poll, -1); err != nil && err != unix.EINTR {
			return fmt.Errorf("wait for frames: %w", err)
		}
		if err := c.drain(out, buf); err != nil {
			return err
		}
		if poll[1].Revents != 0 {
			return out.Flush()
		}
	}
}

// drain writes the frames which wait on the socket.
func (c *Capture) drain(out io.Writer, buf []byte) error {
	for {
		n, err := unix.Read(c.fd, buf)
		if err != nil || n <= vnetHeader {
			return nil // nothing more for now; a link that is down may come back
		}
		if err := writePcapFrame(out, time.Now(), buf[vnetHeader:n]); err != nil {
			return err
		}
	}
}

// writePcapHeader begins a file of the classic format, with nanoseconds, version
// 2.4 and Ethernet frames.
func writePcapHeader(w io.Writer) error {
	const nanosecondMagic, ethernet = 0xa1b23c4d, 1
	b := binary.LittleEndian.AppendUint32(nil, nanosecondMagic)
	b = binary.LittleEndian.AppendUint16(b, 2)
	b = binary.LittleEndian.AppendUint16(b, 4)
	b = append(b, make([]byte, 8)...) // zone and accuracy, zero by convention
	b = binary.LittleEndian.AppendUint32(b, snapLength)
	b = binary.LittleEndian.AppendUint32(b, ethernet)
	_, err := w.Write(b)
	return err
}

// writePcapFrame appends one record: time, kept and true length, the frame's head.
func writePcapFrame(w io.Writer, at time.Time, frame []byte) error {
	kept := frame[:min(len(frame), snapLength)]
	b := binary.LittleEndian.AppendUint32(nil, uint32(at.Unix()))
	b = binary.LittleEndian.AppendUint32(b, uint32(at.Nanosecond()))
	b = binary.LittleEndian.AppendUint32(b, uint32(len(kept)))
	b = binary.LittleEndian.AppendUint32(b, uint32(len(frame)))
	if _, err := w.Write(b); err != nil {
		return err
	}
	_, err := w.Write(kept)
	return err
}
