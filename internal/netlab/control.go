package netlab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// The control socket carries JSON messages, one to a packet, on a unix socket of
// kind SOCK_SEQPACKET: from the client one Request, with descriptors beside it,
// then any number of signals; from the server any number of data messages, then
// one with the status, which ends the call. A unix socket is found by its file
// and so reaches across network and user namespaces.
const (
	maxMessage = 192 << 10
	maxFiles   = 8
)

// Request is what a client asks of a running lab. Handlers read what their verb
// needs.
type Request struct {
	Verb string            `json:"verb"`
	Node string            `json:"node,omitempty"`
	Argv []string          `json:"argv,omitempty"`
	Env  []string          `json:"env,omitempty"`
	Dir  string            `json:"dir,omitempty"`
	Args map[string]string `json:"args,omitempty"` // options of the verb

	// Files are passed as descriptors; the server closes its copies when the
	// call ends.
	Files []*os.File `json:"-"`
}

// message is everything that is said after the Request.
type message struct {
	Signal int             `json:"signal,omitempty"` // from the client
	Data   json.RawMessage `json:"data,omitempty"`   // from the server
	Done   bool            `json:"done,omitempty"`
	Code   int             `json:"code,omitempty"`
	Error  string          `json:"error,omitempty"`
}

// Call is one Request being served. Signals delivers what the client forwards
// and is closed when it left; then the handler's context ends as well.
type Call struct {
	Request
	Signals <-chan unix.Signal

	conn *net.UnixConn
}

// Reply sends a value to the client ahead of the status.
func (c *Call) Reply(v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("netlab: reply to %s: %w", c.Verb, err)
	}
	return send(c.conn, message{Data: data}, nil)
}

// Handler serves one verb. Its code becomes the client's exit status.
type Handler func(ctx context.Context, c *Call) (code int, err error)

// Control serves the control socket.
type Control struct {
	listener *net.UnixListener
	handlers map[string]Handler
	log      *slog.Logger
}

// ListenControl opens the control socket at path, readable by this user alone.
// A file left by a lab that was killed is replaced; a living lab is an error.
// The handlers are by verb and fixed from here on.
func ListenControl(path string, handlers map[string]Handler, log *slog.Logger) (*Control, error) {
	if c, err := net.Dial("unixpacket", path); err == nil {
		c.Close()
		return nil, fmt.Errorf("netlab: listen on %s: another lab is running", path)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("netlab: listen on %s: %w", path, err)
	}
	l, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: path, Net: "unixpacket"})
	if err != nil {
		return nil, fmt.Errorf("netlab: listen on %s: %w", path, err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		l.Close()
		return nil, fmt.Errorf("netlab: listen on %s: %w", path, err)
	}
	return &Control{listener: l, handlers: handlers, log: log}, nil
}

// Run serves until ctx ends, then waits for the calls under way, whose contexts
// end with it.
func (c *Control) Run(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { c.listener.Close() })
	defer stop()
	var calls sync.WaitGroup
	defer calls.Wait()
	for {
		conn, err := c.listener.AcceptUnix()
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return fmt.Errorf("netlab: accept on control socket: %w", err)
		}
		calls.Go(func() {
			defer conn.Close()
			c.serve(ctx, conn)
		})
	}
}

// serve runs one call. The handler's context ends with the server's, or when the
// client's connection does; descriptors are closed after the handler returned, so
// a handler must not let a program outlive it with them.
func (c *Control) serve(ctx context.Context, conn *net.UnixConn) {
	var req Request
	files, err := receive(conn, &req)
	req.Files = files
	defer closeAll(files)
	if err != nil {
		return // nobody to tell: another lab only looked whether we are alive
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	signals := make(chan unix.Signal, 8)
	go func() {
		defer cancel()
		defer close(signals)
		forwardSignals(ctx, conn, signals)
	}()
	end := message{Done: true}
	end.Code, err = c.call(ctx, &Call{Request: req, Signals: signals, conn: conn})
	if err != nil {
		end.Error = err.Error()
	}
	if err := send(conn, end, nil); err != nil {
		c.log.Debug("client of control socket left", "verb", req.Verb, "err", err)
	}
}

// call finds the verb's handler; an unknown verb has the code of a usage error.
func (c *Control) call(ctx context.Context, call *Call) (int, error) {
	h := c.handlers[call.Verb]
	if h == nil {
		return 2, fmt.Errorf("netlab: no verb %q", call.Verb)
	}
	return h(ctx, call)
}

// forwardSignals reads what the client says until it leaves or the call is over.
func forwardSignals(ctx context.Context, conn *net.UnixConn, signals chan<- unix.Signal) {
	for {
		var m message
		if files, err := receive(conn, &m); err != nil {
			closeAll(files)
			return
		}
		select {
		case signals <- unix.Signal(m.Signal):
		case <-ctx.Done():
			return
		}
	}
}

// Ask sends a Request to the lab at path and waits for its end. Data messages go
// to onData (nil: dropped), signals from the channel are forwarded. When ctx
// ends the connection does, and with it the call at the server.
func Ask(ctx context.Context, path string, req Request, onData func(json.RawMessage) error, signals <-chan os.Signal) (code int, err error) {
	raw, err := net.Dial("unixpacket", path)
	if err != nil {
		return -1, fmt.Errorf("netlab: no lab is running at %s: %w", path, err)
	}
	conn := raw.(*net.UnixConn)
	defer conn.Close()
	if err := send(conn, req, req.Files); err != nil {
		return -1, err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	go sendSignals(ctx, conn, signals)
	return await(conn, onData)
}

// sendSignals forwards until the call is over. A signal that cannot be sent is of
// no use: the connection is gone and Ask returns with that.
func sendSignals(ctx context.Context, conn *net.UnixConn, signals <-chan os.Signal) {
	for {
		select {
		case s := <-signals:
			if n, ok := s.(unix.Signal); ok && send(conn, message{Signal: int(n)}, nil) != nil {
				return
			}
		case <-ctx.Done():
			return
		}
	}
}

// await reads messages until the one that ends the call.
func await(conn *net.UnixConn, onData func(json.RawMessage) error) (int, error) {
	for {
		var m message
		files, err := receive(conn, &m)
		closeAll(files)
		switch {
		case err != nil:
			return -1, fmt.Errorf("netlab: the lab went away: %w", err)
		case m.Done && m.Error != "":
			return m.Code, errors.New(m.Error)
		case m.Done:
			return m.Code, nil
		case onData != nil:
			if err := onData(m.Data); err != nil {
				return -1, err
			}
		}
	}
}

// send writes one message with descriptors beside it. A message is a packet, so
// it arrives whole or not at all, and writers need no lock.
func send(conn *net.UnixConn, v any, files []*os.File) error {
	data, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("netlab: control message: %w", err)
	}
	if len(data) > maxMessage || len(files) > maxFiles {
		return fmt.Errorf("netlab: control message of %d bytes and %d files is too large", len(data), len(files))
	}
	var rights []byte
	if len(files) > 0 {
		fds := make([]int, len(files))
		for i, f := range files {
			fds[i] = int(f.Fd())
		}
		rights = unix.UnixRights(fds...)
	}
	if _, _, err := conn.WriteMsgUnix(data, rights, nil); err != nil {
		return fmt.Errorf("netlab: send control message: %w", err)
	}
	return nil
}

// receive reads one message into v. The files belong to the caller even with an
// error.
func receive(conn *net.UnixConn, v any) ([]*os.File, error) {
	data := make([]byte, maxMessage)
	rights := make([]byte, unix.CmsgSpace(4*maxFiles))
	n, oob, flags, _, err := conn.ReadMsgUnix(data, rights)
	if err != nil {
		return nil, err
	}
	files, err := openRights(rights[:oob])
	switch {
	case err != nil:
		return files, err
	case n == 0:
		return files, net.ErrClosed
	case flags&(unix.MSG_TRUNC|unix.MSG_CTRUNC) != 0:
		return files, errors.New("netlab: control message cut off")
	}
	return files, json.Unmarshal(data[:n], v)
}

// openRights turns passed descriptors into files, closed on exec: they are to reach
// the one program they are meant for and no other that starts meanwhile.
func openRights(oob []byte) (files []*os.File, err error) {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, fmt.Errorf("netlab: passed files: %w", err)
	}
	for _, m := range messages {
		fds, err := unix.ParseUnixRights(&m)
		if err != nil {
			return files, fmt.Errorf("netlab: passed files: %w", err)
		}
		for _, fd := range fds {
			unix.CloseOnExec(fd)
			files = append(files, os.NewFile(uintptr(fd), "passed"))
		}
	}
	return files, nil
}

// closeAll closes files whose errors concern nobody: they are copies.
func closeAll(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}
