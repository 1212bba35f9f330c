package fdstore

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// Patience is how long a store waits for an agent. It bounds what a client waits for a
// process that does not come back.
const Patience = 2 * time.Second

// sendLimit is how long the store waits for an agent that takes nothing.
const sendLimit = time.Second

// store is the process that holds descriptors.
type store struct {
	listener int
	agent    int // the agent's connection, -1: none
	kept     map[Flow]int
	buf      [largest]byte
	oob      []byte
}

// Serve is the store: it holds what an agent gives it by connections to a listening socket,
// which it owns, and returns when no agent is connected for patience, or one said so. Then
// all it holds is closed.
func Serve(listener int, patience time.Duration) error {
	s := &store{listener: listener, agent: -1, kept: map[Flow]int{}, oob: make([]byte, unix.CmsgSpace(most*4))}
	defer s.close()
	alone := time.Now()
	for {
		wait := -1
		if s.agent < 0 {
			left := patience - time.Since(alone)
			if left <= 0 {
				return nil
			}
			wait = int(left.Milliseconds()) + 1
		}
		fds := []unix.PollFd{{Fd: int32(s.listener), Events: unix.POLLIN}, {Fd: int32(s.agent), Events: unix.POLLIN}}
		if _, err := unix.Poll(fds, wait); err != nil && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("fdstore: poll: %w", err)
		}
		// What the agent has said comes before another one is heard.
		if fds[1].Revents != 0 {
			more, end := s.hear()
			if end {
				return nil
			}
			if !more {
				s.part()
				alone = time.Now()
			}
			continue
		}
		if fds[0].Revents != 0 {
			if err := s.welcome(); err != nil {
				return err
			}
			alone = time.Now()
		}
	}
}

// welcome takes an agent in the place of the last, and gives it what is kept.
func (s *store) welcome() error {
	fd, _, err := unix.Accept4(s.listener, unix.SOCK_CLOEXEC)
	if errors.Is(err, unix.ECONNABORTED) || errors.Is(err, unix.EINTR) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("fdstore: accept: %w", err)
	}
	s.part()
	s.agent = fd
	if !trusted(fd) || s.give() != nil {
		s.part()
	}
	return nil
}

// trusted reports whether an agent is of this user, or of root: who has a descriptor speaks
// in the server's name.
func trusted(fd int) bool {
	cred, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
	return err == nil && (int(cred.Uid) == unix.Geteuid() || cred.Uid == 0)
}

// give tells the agent what is kept.
func (s *store) give() error {
	limit := unix.NsecToTimeval(sendLimit.Nanoseconds())
	if err := unix.SetsockoptTimeval(s.agent, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &limit); err != nil {
		return err
	}
	var flows []Flow
	for f := range s.kept {
		flows = append(flows, f)
	}
	for part := range slices.Chunk(flows, most) {
		fds := make([]int, len(part))
		for i, f := range part {
			fds[i] = s.kept[f]
		}
		if err := unix.Sendmsg(s.agent, appendMessage(nil, kindKeep, part), unix.UnixRights(fds...), nil, 0); err != nil {
			return err
		}
	}
	return unix.Sendmsg(s.agent, []byte{kindDone}, nil, nil, 0)
}

// hear takes one message of the agent. more is false when its connection is over.
func (s *store) hear() (more, end bool) {
	n, oobn, flags, _, err := unix.Recvmsg(s.agent, s.buf[:], s.oob, unix.MSG_CMSG_CLOEXEC)
	if errors.Is(err, unix.EINTR) {
		return true, false
	}
	if err != nil || n == 0 {
		return false, false
	}
	fds := rights(s.oob[:oobn])
	kind, flows, err := parseMessage(s.buf[:n])
	if err != nil || kind == kindKeep && len(fds) != len(flows) || kind != kindKeep && len(fds) > 0 || flags&(unix.MSG_TRUNC|unix.MSG_CTRUNC) != 0 {
		closeAll(fds)
		return false, false
	}
	switch kind {
	case kindKeep:
		for i, f := range flows {
			s.drop(f)
			s.kept[f] = fds[i]
		}
	case kindDrop:
		for _, f := range flows {
			s.drop(f)
		}
	case kindEnd:
		return false, true
	}
	return true, false
}

func (s *store) drop(f Flow) {
	if fd, ok := s.kept[f]; ok {
		_ = unix.Close(fd)
		delete(s.kept, f)
	}
}

func (s *store) part() {
	if s.agent >= 0 {
		_ = unix.Close(s.agent)
	}
	s.agent = -1
}

func (s *store) close() {
	s.part()
	_ = unix.Close(s.listener)
	for f := range s.kept {
		s.drop(f)
	}
}

// rights are the descriptors that came with a message.
func rights(oob []byte) (fds []int) {
	all, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil
	}
	for i := range all {
		if got, err := unix.ParseUnixRights(&all[i]); err == nil {
			fds = append(fds, got...)
		}
	}
	return fds
}

func closeAll(fds []int) {
	for _, fd := range fds {
		_ = unix.Close(fd)
	}
}
