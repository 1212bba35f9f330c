package token

import (
	"encoding/binary"
	"errors"
	"time"
)

// Kind says what a message is.
type Kind uint8

// The kinds.
const (
	Ask     Kind = 1 + iota // a question
	Answer                  // a vote
	Release                 // the claim came to nothing
)

// Message is one word between the site that opened a token and a keeper. The
// link vouches for who speaks.
type Message struct {
	Kind     Kind
	ID       uint64 // of the question, and of its answer
	Vote     Vote   // of an Answer
	Question        // of an Ask or a Release
}

var errMessage = errors.New("token: malformed message")

const (
	answerSize   = 1 + 8 + 1
	questionSize = 1 + 8 + 16 + 8 + 8 + 16 + 4 + 8
)

// Encode writes the message.
func (m Message) Encode() []byte {
	be := binary.BigEndian
	b := be.AppendUint64([]byte{byte(m.Kind)}, m.ID)
	if m.Kind == Answer {
		return append(b, byte(m.Vote))
	}
	b = append(b, m.Session[:]...)
	b = be.AppendUint64(b, m.From)
	b = be.AppendUint64(b, m.Epoch)
	b = append(b, m.Client[:]...)
	b = be.AppendUint32(b, uint32(m.Began.Unix()))
	return be.AppendUint64(b, m.Nonce)
}

// Decode reads one message, strictly: what it accepts Encode writes again.
func Decode(b []byte) (m Message, err error) {
	be := binary.BigEndian
	switch {
	case len(b) == answerSize && Kind(b[0]) == Answer && Vote(b[9]) <= Stale:
		return Message{Kind: Answer, ID: be.Uint64(b[1:]), Vote: Vote(b[9])}, nil
	case len(b) != questionSize || Kind(b[0]) != Ask && Kind(b[0]) != Release:
		return m, errMessage
	}
	m.Kind, m.ID = Kind(b[0]), be.Uint64(b[1:])
	b = b[9:]
	b = b[copy(m.Session[:], b):]
	m.From, m.Epoch = be.Uint64(b), be.Uint64(b[8:])
	b = b[16:]
	b = b[copy(m.Client[:], b):]
	m.Began, m.Nonce = time.Unix(int64(be.Uint32(b)), 0).UTC(), be.Uint64(b[4:])
	if m.From == 0 || m.Epoch < m.From {
		return Message{}, errMessage
	}
	return m, nil
}
