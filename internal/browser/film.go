package browser

import (
	"bytes"
	"fmt"
	"hash/fnv"
	"io"
)

// Film is a video of constant bit rate: every picture is an H.264 one of macroblocks
// that are not compressed at all (I_PCM, H.264 section 7.3.5), every second a fragment
// of MP4 (ISO 14496-12) of the same length. No encoder is needed, and no two runs differ.
type Film struct {
	Width, Height int // pixels; multiples of 16
	Rate          int // pictures a second
	Seconds       int
}

// NewFilm runs at 11.6 Mbit/s: the half megabyte which a browser may hold unread of a
// response is a third of a second then.
func NewFilm(seconds int) Film { return Film{Width: 240, Height: 160, Rate: 25, Seconds: seconds} }

// Codec names what decodes it, for a SourceBuffer: constrained baseline, level 3.
func (f Film) Codec() string { return `video/mp4; codecs="avc1.42C01E"` }

// Head is the initialization segment, which precedes the first second.
func (f Film) Head() []byte { return append(fileType(), f.movie()...) }

// Second is one fragment, by its number from 0.
func (f Film) Second(n int) []byte {
	var pictures [][]byte
	for i := range f.Rate {
		pictures = append(pictures, f.picture(n*f.Rate+i))
	}
	return f.fragment(n, pictures)
}

// WriteTo writes the whole film.
func (f Film) WriteTo(w io.Writer) (int64, error) {
	all := int64(0)
	for n := -1; n < f.Seconds; n++ {
		part := f.Head()
		if n >= 0 {
			part = f.Second(n)
		}
		k, err := w.Write(part)
		if all += int64(k); err != nil {
			return all, err
		}
	}
	return all, nil
}

// Layout tells the video page where what begins, as the query of its address.
func (f Film) Layout() string {
	return fmt.Sprintf("?head=%d&second=%d&seconds=%d", len(f.Head()), len(f.Second(0)), f.Seconds)
}

// Sum is that of the film's first octets as the video page computes it while it plays
// (FNV-1a).
func (f Film) Sum(octets int64) (string, error) {
	h := fnv.New32a()
	pr, pw := io.Pipe()
	go func() {
		_, err := f.WriteTo(pw)
		pw.CloseWithError(err)
	}()
	defer pr.Close()
	if _, err := io.CopyN(h, pr, octets); err != nil {
		return "", err
	}
	return fmt.Sprintf("%08x", h.Sum32()), nil
}

// bits writes a raw byte sequence payload (H.264 section 7.2).
type bits struct {
	b   []byte
	has int // bits in the last octet; 0: it is full
}

// u writes the lowest n bits of v.
func (w *bits) u(n int, v uint) {
	for i := n - 1; i >= 0; i-- {
		if w.has == 0 {
			w.b = append(w.b, 0)
		}
		w.b[len(w.b)-1] |= byte(v>>i&1) << (7 - w.has)
		w.has = (w.has + 1) % 8
	}
}

// ue writes Exp-Golomb codes (H.264 section 9.1). A signed zero is written the same way.
func (w *bits) ue(values ...uint) {
	for _, v := range values {
		n := 0
		for (v+1)>>(n+1) != 0 {
			n++
		}
		w.u(n, 0)
		w.u(n+1, v+1)
	}
}

// end writes the stop bit and what fills the octet.
func (w *bits) end() []byte {
	w.u(1, 1)
	w.has = 0
	return w.b
}

// sequence is the sequence parameter set (H.264 section 7.3.2.1.1).
func (f Film) sequence() []byte {
	w := &bits{b: []byte{0x67, 66, 0xc0, 30}}
	w.ue(0, 0, 2, 1) // id, frame numbers of 4 bits, pictures in order, one reference
	w.u(1, 0)
	w.ue(uint(f.Width/16-1), uint(f.Height/16-1))
	w.u(1, 1) // frames only
	w.u(3, 0) // no inference, no cropping, no usability information
	return w.end()
}

// parameters is the picture parameter set (H.264 section 7.3.2.2).
func parameters() []byte {
	w := &bits{b: []byte{0x68}}
	w.ue(0, 0)
	w.u(2, 0) // variable-length codes
	w.ue(0, 0, 0)
	w.u(3, 0)
	w.ue(0, 0, 0)
	w.u(3, 0b100) // the slice says how it is deblocked
	return w.end()
}

// picture is a coded picture of its own, an IDR slice, behind its length.
func (f Film) picture(n int) []byte {
	w := &bits{b: []byte{0x65}}
	w.ue(0, 7, 0) // from the first macroblock; all slices are I
	w.u(4, 0)
	w.ue(uint(n % 2)) // two in a row have different ids
	w.u(2, 0)
	w.ue(0, 1) // quantizer; no deblocking
	for y := 0; y < f.Height; y += 16 {
		for x := 0; x < f.Width; x += 16 {
			w.ue(25) // I_PCM
			w.has = 0
			w.b = f.block(w.b, n, x, y)
		}
	}
	out := w.end()
	return append(u32(len(out)), out...)
}

// block is a macroblock: luma, then both kinds of chroma. No sample is below 16, so
// that nothing looks like a start code, and every picture has the same length.
func (f Film) block(b []byte, n, x, y int) []byte {
	for dy := range 16 {
		for dx := range 16 {
			b = append(b, f.luma(n, x+dx, y+dy))
		}
	}
	b = append(b, bytes.Repeat([]byte{byte(96 + 64*x/f.Width)}, 64)...)
	return append(b, bytes.Repeat([]byte{byte(96 + 64*y/f.Height)}, 64)...)
}

// luma draws a bar that wanders, once across a picture in four seconds, and at the
// bottom the picture's number in 16 binary squares, the highest to the left.
func (f Film) luma(n, x, y int) byte {
	if y >= f.Height-16 {
		if n>>(15-min(15, 16*x/f.Width))&1 == 1 {
			return 235
		}
		return 16
	}
	if bar := n * f.Width / (4 * f.Rate) % f.Width; x >= bar && x < bar+12 {
		return 235
	}
	return byte(40 + 120*(x+y)/(f.Width+f.Height))
}
