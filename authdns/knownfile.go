package authdns

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// The networks that are known outlive their process in a file: a word, the key, the second
// of Unix at which it was written, the cells, and the SHA-256 of all that. Without it a
// restart in the middle of a flood would find nobody known, and learn nobody.
const (
	knownFile  = "known"
	knownWord  = "rhumb networks 1"
	knownHead  = len(knownWord) + len(Secret{}) + 8
	knownSize  = knownHead + 8*knownSets*knownWays + sha256.Size
	knownEvery = 5 * time.Minute
)

// encode is the table as a file has it.
func (k *known) encode(now time.Time) []byte {
	b := make([]byte, 0, knownSize)
	b = append(append(b, knownWord...), k.key[:]...)
	b = binary.LittleEndian.AppendUint64(b, uint64(now.Unix()))
	for i := range k.cells {
		b = binary.LittleEndian.AppendUint64(b, k.cells[i].Load())
	}
	sum := sha256.Sum256(b)
	return append(b, sum[:]...)
}

// decode replaces the table by that of a file; after an error it is as before. Cells have
// no more than the minute within 44 days, so a file from which everybody is forgotten is
// not taken.
func (k *known) decode(b []byte, now time.Time) error {
	if len(b) != knownSize || string(b[:len(knownWord)]) != knownWord {
		return fmt.Errorf("%d octets, not a table of networks of this version", len(b))
	}
	body := b[:len(b)-sha256.Size]
	if sum := sha256.Sum256(body); string(sum[:]) != string(b[len(body):]) {
		return errors.New("damaged")
	}
	const forget = knownForgets * int64(time.Minute/time.Second)
	at := int64(binary.LittleEndian.Uint64(body[knownHead-8:]))
	if age := now.Unix() - at; at <= 0 || age > forget || age < -forget {
		return fmt.Errorf("written at %v: all in it are forgotten", time.Unix(at, 0).UTC())
	}
	copy(k.key[:], body[len(knownWord):])
	for i := range k.cells {
		k.cells[i].Store(binary.LittleEndian.Uint64(body[knownHead+8*i:]))
	}
	return nil
}

// recallKnown reads what the process before knew. It is called before any query is.
func (s *Server) recallKnown() {
	if s.shield.overload == nil {
		return
	}
	b, err := os.ReadFile(filepath.Join(s.shield.crashes, knownFile))
	if err == nil {
		err = s.shield.overload.known.decode(b, s.now())
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		s.log.Info("the networks known before are not taken over", "err", err)
	}
}

// keepKnown writes the table every few minutes, and when the context ends.
func (s *Server) keepKnown(ctx context.Context) {
	if s.shield.overload == nil || s.shield.crashes == "" {
		return
	}
	t := time.NewTicker(knownEvery)
	defer t.Stop()
	for more := true; more; {
		select {
		case <-ctx.Done():
			more = false
		case <-t.C:
		}
		if err := s.writeKnown(); err != nil {
			s.log.Warn("the next process will not know the networks that are known here", "err", err)
		}
	}
}

// writeKnown replaces the file whole.
func (s *Server) writeKnown() error {
	return writeWhole(filepath.Join(s.shield.crashes, knownFile), s.shield.overload.known.encode(s.now()))
}
