package browser

import (
	"bytes"
	"encoding/binary"
	"slices"
)

// ticks is the time scale of the film, a second.
const ticks = 90_000

func u16(v int) []byte { return binary.BigEndian.AppendUint16(nil, uint16(v)) }
func u32(v int) []byte { return binary.BigEndian.AppendUint32(nil, uint32(v)) }
func u64(v int) []byte { return binary.BigEndian.AppendUint64(nil, uint64(v)) }

// box is an object of a file (ISO 14496-12 section 4.2).
func box(kind string, parts ...[]byte) []byte {
	body := slices.Concat(parts...)
	return slices.Concat(u32(8+len(body)), []byte(kind), body)
}

// full is a box with a version and flags.
func full(kind string, version byte, flags int, parts ...[]byte) []byte {
	return box(kind, append([][]byte{u32(int(version)<<24 | flags)}, parts...)...)
}

// zeros are fields which mean nothing here.
func zeros(n int) []byte { return make([]byte, n) }

// unity is the matrix that turns nothing.
func unity() []byte {
	return slices.Concat(u32(0x10000), zeros(12), u32(0x10000), zeros(12), u32(0x40000000))
}

func fileType() []byte {
	return box("ftyp", []byte("isom"), u32(0x200), []byte("isom"), []byte("iso5"), []byte("avc1"))
}

// movie says what the only track holds; where that stands say the fragments.
func (f Film) movie() []byte {
	return box("moov",
		full("mvhd", 0, 0, zeros(8), u32(1000), u32(0), u32(0x10000), u16(0x100), zeros(10), unity(), zeros(24), u32(2)),
		box("trak",
			full("tkhd", 0, 3, zeros(8), u32(1), zeros(8), zeros(12), u16(0), u16(0), unity(), u32(f.Width<<16), u32(f.Height<<16)),
			box("mdia",
				full("mdhd", 0, 0, zeros(8), u32(ticks), u32(0), u16(0x55c4), u16(0)), // language: undetermined
				full("hdlr", 0, 0, zeros(4), []byte("vide"), zeros(12), []byte("film\x00")),
				box("minf",
					full("vmhd", 0, 1, zeros(8)),
					box("dinf", full("dref", 0, 0, u32(1), full("url ", 0, 1))),
					f.samples()))),
		box("mvex", full("trex", 0, 0, u32(1), u32(1), zeros(12))))
}

// samples describes their coding; the tables are empty, as in every fragmented file.
func (f Film) samples() []byte {
	sps, pps := f.sequence(), parameters()
	config := box("avcC", []byte{1}, sps[1:4], []byte{0xff, 0xe1}, u16(len(sps)), sps, []byte{1}, u16(len(pps)), pps)
	entry := box("avc1", zeros(6), u16(1), zeros(16), u16(f.Width), u16(f.Height), u32(0x480000), u32(0x480000), zeros(4), u16(1), zeros(32),
		u16(24), u16(0xffff), config)
	return box("stbl", full("stsd", 0, 0, u32(1), entry), full("stts", 0, 0, u32(0)), full("stsc", 0, 0, u32(0)),
		full("stsz", 0, 0, u32(0), u32(0)), full("stco", 0, 0, u32(0)))
}

// fragment is a second of the film. Its pictures have all the same length and time.
func (f Film) fragment(n int, pictures [][]byte) []byte {
	const baseIsMoof, hasDuration, hasSize, hasFlags, hasOffset = 0x20000, 0x8, 0x10, 0x20, 0x1
	head := func(offset int) []byte {
		return box("moof",
			full("mfhd", 0, 0, u32(n+1)),
			box("traf",
				full("tfhd", 0, baseIsMoof|hasDuration|hasSize|hasFlags, u32(1), u32(ticks/f.Rate), u32(len(pictures[0])), u32(0x02000000)), // each depends on none
				full("tfdt", 1, 0, u64(n*ticks)),
				full("trun", 0, hasOffset, u32(len(pictures)), u32(offset))))
	}
	moof := head(0)
	moof = head(len(moof) + 8) // the first picture stands behind the head of mdat
	return append(moof, box("mdat", bytes.Join(pictures, nil))...)
}
