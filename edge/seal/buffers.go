package seal

import "sync"

// bufferLen holds four full records: a write of that size costs the kernel
// little more per byte than a larger one, and slow clients by the ten thousand
// hold one buffer each.
const bufferLen = 4 * recordLen

// Buffers are where Streams seal. A connection at rest has none. They hold
// ciphertext only: the text is sealed where it stands. Safe for concurrent use;
// the zero value is ready.
type Buffers struct{ pool sync.Pool }

func (p *Buffers) get() *[bufferLen]byte {
	if b, ok := p.pool.Get().(*[bufferLen]byte); ok {
		return b
	}
	return new([bufferLen]byte)
}

func (p *Buffers) put(b *[bufferLen]byte) {
	if b != nil {
		p.pool.Put(b)
	}
}
