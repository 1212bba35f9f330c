package tap

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"time"
)

// Frame Streams, as libfstrm speaks it: a frame of length 0 announces a control frame.
// Both sides first agree on the type of the content, and at the end say that all of it
// was read.
const (
	controlAccept = 1
	controlStart  = 2
	controlStop   = 3
	controlReady  = 4
	controlFinish = 5

	fieldContentType = 1
	contentType      = "protobuf:dnstap.Dnstap"
	maxControl       = 512 // octets of a control frame
)

// How long a collector may take to greet, and to take what is written to it.
const (
	greetTimeout = 5 * time.Second
	writeTimeout = 5 * time.Second
)

// control is a control frame, with the content type where that is said.
func control(kind uint32, content bool) []byte {
	body := binary.BigEndian.AppendUint32(nil, kind)
	if content {
		body = binary.BigEndian.AppendUint32(body, fieldContentType)
		body = binary.BigEndian.AppendUint32(body, uint32(len(contentType)))
		body = append(body, contentType...)
	}
	b := binary.BigEndian.AppendUint32(make([]byte, 4, 8+len(body)), uint32(len(body)))
	return append(b, body...)
}

// readControl reads a control frame of a kind. Where it lists types of content, ours
// must be among them.
func readControl(r io.Reader, want uint32) error {
	var head [8]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return err
	}
	size := binary.BigEndian.Uint32(head[4:])
	if binary.BigEndian.Uint32(head[:]) != 0 || size < 4 || size > maxControl {
		return fmt.Errorf("a frame that is no control frame: %x", head)
	}
	body := make([]byte, size)
	if _, err := io.ReadFull(r, body); err != nil {
		return err
	}
	if kind := binary.BigEndian.Uint32(body); kind != want {
		return fmt.Errorf("a control frame of type %d, want %d", kind, want)
	}
	return checkContent(body[4:])
}

var errContent = errors.New("it does not take dnstap")

func checkContent(fields []byte) error {
	named := false
	for len(fields) > 0 {
		if len(fields) < 8 {
			return errors.New("a control frame is cut off")
		}
		kind, size := binary.BigEndian.Uint32(fields), uint64(binary.BigEndian.Uint32(fields[4:]))
		if size > uint64(len(fields)-8) {
			return errors.New("a control frame is cut off")
		}
		if kind == fieldContentType {
			if string(fields[8:8+size]) == contentType {
				return nil
			}
			named = true
		}
		fields = fields[8+size:]
	}
	if named {
		return errContent
	}
	return nil
}

// greet agrees with a collector on what is sent.
func greet(c net.Conn) error {
	if err := c.SetDeadline(time.Now().Add(greetTimeout)); err != nil {
		return err
	}
	if _, err := c.Write(control(controlReady, true)); err != nil {
		return err
	}
	if err := readControl(c, controlAccept); err != nil {
		return err
	}
	if _, err := c.Write(control(controlStart, true)); err != nil {
		return err
	}
	return c.SetDeadline(time.Time{})
}

// part says that this was all, and waits until the collector has it.
func part(c net.Conn) error {
	if err := c.SetDeadline(time.Now().Add(writeTimeout)); err != nil {
		return err
	}
	if _, err := c.Write(control(controlStop, false)); err != nil {
		return err
	}
	return readControl(c, controlFinish)
}
