package store

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"rhumb/placement"
)

// maxBlob is the largest zone that goes through the store; larger ones are
// fetched from peers by digest, or transferred from a primary.
const maxBlob = 8 << 20

// putBlobs uploads the zones which the store lacks and returns the digests that
// the fleet names. A zone counts as present when its last chunk is: chunks are
// written in order.
func (s *Store) putBlobs(ctx context.Context, zones []placement.Zone, blobs map[string][]byte) ([]string, error) {
	var named []string
	for _, z := range zones {
		if z.SHA256 == "" {
			continue
		}
		named = append(named, z.SHA256)
		if b, ok := blobs[z.SHA256]; ok {
			if err := s.putBlob(ctx, z, b); err != nil {
				return nil, fmt.Errorf("zone %s: %w", z.Name, err)
			}
			continue
		}
		has, err := s.hasBlob(ctx, z.SHA256, z.Size)
		if err == nil && !has {
			err = fmt.Errorf("blob %s is neither given nor stored: %w", z.SHA256, ErrNotFound)
		}
		if err != nil {
			return nil, fmt.Errorf("zone %s: %w", z.Name, err)
		}
	}
	return named, nil
}

// hasBlob looks for the last chunk of a blob of that size.
func (s *Store) hasBlob(ctx context.Context, sha string, size int) (bool, error) {
	last := max(0, size-1) / chunkSize
	found, _, err := s.read(ctx, query{span: only(blobDir(sha) + chunkName(last)), keysOnly: true})
	return err == nil && len(found[0]) > 0, err
}

func (s *Store) putBlob(ctx context.Context, z placement.Zone, b []byte) error {
	if len(b) > maxBlob {
		return fmt.Errorf("%d bytes: the store takes at most %d", len(b), maxBlob)
	}
	if digest(b) != z.SHA256 {
		return fmt.Errorf("content does not match its digest %s", z.SHA256)
	}
	if has, err := s.hasBlob(ctx, z.SHA256, len(b)); err != nil || has {
		return err
	}
	return s.writeChunks(ctx, blobDir(z.SHA256), b, 0, nil)
}

// Blob returns a zone by its digest, verified: from the cache on disk if it is
// there, which needs no store at all, else from the store.
func (s *Store) Blob(ctx context.Context, sha string) ([]byte, error) {
	if b, ok := s.cache.get(sha); ok {
		return b, nil
	}
	b, err := s.readBlob(ctx, sha)
	if err != nil {
		return nil, fmt.Errorf("store: blob %s: %w", sha, err)
	}
	if err := s.cache.put(sha, b); err != nil {
		s.log.Warn("store: zone not cached on disk", "err", err)
	}
	return b, nil
}

func (s *Store) readBlob(ctx context.Context, sha string) ([]byte, error) {
	found, _, err := s.read(ctx, query{span: under(blobDir(sha))})
	if err != nil {
		return nil, err
	}
	if len(found[0]) == 0 {
		return nil, ErrNotFound
	}
	b := join(found[0])
	if digest(b) != sha {
		return nil, fmt.Errorf("%d bytes do not match their digest", len(b))
	}
	return b, nil
}

// cache keeps blobs on disk by digest. What it returns is verified anew every
// time, so a damaged file is only a miss. Units of one machine may share it.
type cache struct{ dir string }

func (c cache) path(sha string) string {
	return filepath.Join(c.dir, "blob-"+filepath.Base(segment(sha)))
}

func (c cache) get(sha string) ([]byte, bool) {
	if c.dir == "" {
		return nil, false
	}
	b, err := os.ReadFile(c.path(sha))
	return b, err == nil && digest(b) == sha
}

func (c cache) put(sha string, b []byte) error {
	if c.dir == "" {
		return nil
	}
	return writeWhole(c.path(sha), b)
}

// writeWhole replaces a file so that a reader, or a crash at any moment, meets
// the old content or the new and nothing between.
func writeWhole(path string, b []byte) error {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	f, err := os.CreateTemp(dir, ".tmp-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // fails after the rename, as it should
	_, err = f.Write(b)
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return err
	}
	return syncDir(dir)
}

// syncDir makes a rename durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
