package store

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"

	"rhumb/placement"
)

// chunkSize keeps a request well below etcd's limit of 1.5 MiB, which counts
// the whole request and not its value.
const chunkSize = 512 << 10

// maxDocument bounds what a document may grow to when unpacked.
const maxDocument = 256 << 20

// manifest names a document in chunks; it is written after them, and only what
// it names exists for a reader.
type manifest struct {
	Number int64  `json:"number"`
	SHA256 string `json:"sha256"` // of the packed bytes
	Chunks int    `json:"chunks"`
	Size   int    `json:"size"`
}

// Version is one configuration as it was applied.
type Version struct {
	// Number counts configurations; FleetAt takes it.
	Number int64 `json:"number"`
	// Revision is that of the store when it was applied.
	Revision int64          `json:"revision"`
	Who      string         `json:"who"`
	Note     string         `json:"note,omitempty"`
	At       placement.Time `json:"at"`
	SHA256   string         `json:"sha256"`
}

// head is the value of config/current and of each history entry.
type head struct {
	manifest
	Who   string         `json:"who"`
	Note  string         `json:"note,omitempty"`
	At    placement.Time `json:"at"`
	Sites []string       `json:"sites"` // so that a Slot is counted without the document
	Blobs []string       `json:"blobs"` // so that a sweep knows what is named
}

// planHead is the value of plan/current and of each kept plan.
type planHead struct {
	manifest
	Fleet int64          `json:"fleet"` // number of the configuration it was made from
	Made  placement.Time `json:"made"`
	By    string         `json:"by"`
}

// planDoc is a plan with the small inputs it names, so that a node which comes
// late can unfold it though the intents have moved on.
type planDoc struct {
	Plan    *placement.Plan   `json:"plan"`
	Intents placement.Intents `json:"intents"`
}

func digest(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// split cuts bytes into chunks; nothing is still one chunk, so that the
// document exists.
func split(b []byte) [][]byte {
	out := [][]byte{b[:min(len(b), chunkSize)]}
	for b = b[len(out[0]):]; len(b) > 0; b = b[min(len(b), chunkSize):] {
		out = append(out, b[:min(len(b), chunkSize)])
	}
	return out
}

// pack turns a document into bytes: JSON under a schema, compressed.
func pack[T any](v T) []byte {
	var buf bytes.Buffer
	w := gzip.NewWriter(&buf)
	// Neither can fail: the writer is memory, the nouns are plain data.
	w.Write(seal(v))
	w.Close()
	return buf.Bytes()
}

func unpack[T any](b []byte) (T, error) {
	var none T
	r, err := gzip.NewReader(bytes.NewReader(b))
	if err != nil {
		return none, err
	}
	plain, err := io.ReadAll(io.LimitReader(r, maxDocument))
	if err != nil {
		return none, err
	}
	return unseal[T](plain)
}

func newManifest(n int64, packed []byte) manifest {
	return manifest{Number: n, SHA256: digest(packed), Chunks: len(split(packed)), Size: len(packed)}
}

// writeChunks writes the chunks of a document below dir from number start on, a
// request each; conds hold for every one of them.
func (s *Store) writeChunks(ctx context.Context, dir string, packed []byte, start int, conds []cond) error {
	parts := split(packed)
	for i := start; i < len(parts); i++ {
		_, ok, err := s.write(ctx, conds, []op{put(dir+chunkName(i), parts[i])})
		if err != nil {
			return err
		}
		if !ok {
			return errRaced
		}
	}
	return nil
}

// readChunks returns the document that m names, verified.
func (s *Store) readChunks(ctx context.Context, dir string, m manifest) ([]byte, error) {
	// Chunks behind the last may be left of a longer one that was never named.
	found, _, err := s.read(ctx, query{span: span{dir + chunkName(0), dir + chunkName(m.Chunks)}})
	if err != nil {
		return nil, err
	}
	b := join(found[0])
	if len(b) == 0 && m.Size > 0 {
		return nil, fmt.Errorf("document %d: %w", m.Number, ErrNotFound)
	}
	if digest(b) != m.SHA256 {
		return nil, fmt.Errorf("document %d: %d bytes do not match their digest", m.Number, len(b))
	}
	return b, nil
}

func join(chunks []pair) []byte {
	var b []byte
	for _, p := range chunks {
		b = append(b, p.value...)
	}
	return b
}

func (s *Store) readFleet(ctx context.Context, m manifest) (*placement.Fleet, error) {
	b, err := s.readChunks(ctx, docDir(m.Number), m)
	if err != nil {
		return nil, fmt.Errorf("configuration: %w", err)
	}
	return unpack[*placement.Fleet](b)
}

func (s *Store) readPlan(ctx context.Context, m manifest) (*planDoc, error) {
	b, err := s.readChunks(ctx, planDir(m.Number), m)
	if err != nil {
		return nil, fmt.Errorf("plan: %w", err)
	}
	doc, err := unpack[*planDoc](b)
	if err == nil && (doc == nil || doc.Plan == nil) {
		err = fmt.Errorf("plan %d is empty", m.Number)
	}
	return doc, err
}
