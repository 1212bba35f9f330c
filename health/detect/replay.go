package detect

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
	"time"
)

// Replay runs a detector over a trace, by the trace's clock. Rows come in order of
// arrival:
//
//	target,via,recv_ms,seq   a beat: seq is its send slot, via 0 the direct path
//	sync,,MS,                the time is MS, and all beats up to it have been given
//	end,,MS,                 run the clock out to MS and end
//	format,,2,               first of all: there are goodbyes in it
//	leave,target,recv_ms,ms  a goodbye, with the time within which it means to be back
//
// Out come `target,t_ms,state` for each change (every target begins as up), and
// `sync,MS` as the answer to a sync, behind all changes up to MS. The state left is
// printed for traces of format 2 alone, so that readers of the first know all that there
// are. It returns at the end row, or where the input ends. Nothing printed is ever revised.
//
// Memory grows with targets and paths, not with the length of the trace.
func Replay(in io.Reader, out io.Writer, cfg Config) error {
	r := replay{d: New(cfg), out: bufio.NewWriterSize(out, 1<<16), shown: make(map[uint32]State)}
	err := r.run(bufio.NewReaderSize(in, 1<<16))
	return errors.Join(err, r.out.Flush())
}

// maxAge bounds slot x interval, so that delays never overflow.
const maxAge = time.Duration(math.MaxInt64 / 4)

// replay is a Detector between two streams.
type replay struct {
	d     *Detector
	out   *bufio.Writer
	shown map[uint32]State // last printed, by target
	now   time.Duration
	lines int
	// format of the trace, 1 unless it says so.
	format time.Duration
	line   []byte // room for one line of output
}

func (r *replay) run(in *bufio.Reader) error {
	for n := 1; ; n++ {
		if in.Buffered() == 0 { // whoever writes may wait for what we know
			if err := r.out.Flush(); err != nil {
				return fmt.Errorf("detect: replay: %w", err)
			}
		}
		line, err := in.ReadSlice('\n')
		if errors.Is(err, io.EOF) && len(line) == 0 {
			r.finish(r.now)
			return nil
		}
		if err != nil && !errors.Is(err, io.EOF) {
			return fmt.Errorf("detect: replay: line %d: %w", n, err)
		}
		done, err := r.take(trimEnd(line))
		if err != nil {
			return fmt.Errorf("detect: replay: line %d: %w", n, err)
		}
		if done {
			return nil
		}
	}
}

func trimEnd(line []byte) []byte {
	for _, c := range []byte{'\n', '\r'} {
		if k := len(line) - 1; k >= 0 && line[k] == c {
			line = line[:k]
		}
	}
	return line
}

// take takes one line; done when it was the last.
func (r *replay) take(line []byte) (done bool, err error) {
	w, err := parseRow(line)
	if err != nil {
		return false, err
	}
	if r.lines++; w.kind == rowFormat {
		return false, r.setFormat(w.at / time.Millisecond)
	}
	if w.at < r.now {
		return false, fmt.Errorf("the time falls from %d to %d ms", r.now.Milliseconds(), w.at.Milliseconds())
	}
	r.now = w.at
	switch w.kind {
	case rowEnd:
		r.finish(w.at)
		return true, nil
	case rowSync:
		r.finish(w.at)
		r.line = append(r.line[:0], "sync,"...)
		r.line = append(strconv.AppendInt(r.line, w.at.Milliseconds(), 10), '\n')
		if _, err := r.out.Write(r.line); err != nil {
			return false, err
		}
		return false, r.out.Flush()
	}
	if limit := uint64(maxAge / r.d.cfg.Interval); w.kind == rowBeat && w.slot > limit {
		return false, fmt.Errorf("seq %d: above %d", w.slot, limit)
	}
	if w.kind == rowLeave {
		return false, r.leave(w)
	}
	if r.d.subjects[w.target] == nil {
		r.d.Add(w.target)
	}
	r.d.Hear(w.target, w.via, w.slot, w.at)
	r.print()
	return false, nil
}

// setFormat takes the row which says what is to come.
func (r *replay) setFormat(n time.Duration) error {
	if r.lines > 1 || n < 1 || n > traceFormat {
		return fmt.Errorf("format %d in row %d: want 1 to %d, in the first row", n, r.lines, traceFormat)
	}
	r.format = n
	return nil
}

// leave takes a goodbye; of one that was never heard there is nothing to hold.
func (r *replay) leave(w row) error {
	if r.format < traceFormat {
		return fmt.Errorf("a goodbye in a trace which does not begin with format,,%d,", traceFormat)
	}
	r.d.Leave(w.target, r.d.Slot(w.target), time.Duration(w.slot)*time.Millisecond, w.at)
	r.print()
	return nil
}

// finish judges everything up to a time.
func (r *replay) finish(at time.Duration) {
	r.d.Due(at)
	r.print()
}

// print writes the changes; that a target is up at first is none.
func (r *replay) print() {
	for _, c := range r.d.Changes() {
		was := r.shown[c.Subject]
		if was == c.State || was == Unknown && c.State == Up {
			continue
		}
		r.shown[c.Subject] = c.State
		r.line = strconv.AppendUint(r.line[:0], uint64(c.Subject), 10)
		r.line = append(r.line, ',')
		r.line = strconv.AppendInt(r.line, c.At.Milliseconds(), 10)
		r.line = append(append(append(r.line, ','), c.State.String()...), '\n')
		r.out.Write(r.line) // a bufio.Writer keeps its error for Flush
	}
}
