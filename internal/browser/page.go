package browser

import (
	"embed"
	"encoding/json"
	"fmt"
	"strings"
	"time"
)

// pages are what the server under test serves: film.html plays film.mp4 beside it,
// again.html fetches a file again and again.
//
//go:embed page
var pages embed.FS

// Page is one of the pages by its name.
func Page(name string) ([]byte, error) { return pages.ReadFile("page/" + name) }

// Moment is a time as pages tell it: milliseconds since 1970.
type Moment struct{ time.Time }

// UnmarshalJSON reads the number.
func (m *Moment) UnmarshalJSON(b []byte) error {
	var ms float64
	if err := json.Unmarshal(b, &ms); err != nil {
		return err
	}
	m.Time = time.UnixMicro(int64(ms * 1000))
	return nil
}

// Entry is a line of a page's log.
type Entry struct {
	At     Moment `json:"at"`
	What   string `json:"what"`
	Detail string `json:"detail"`
}

// Log is a page's log, in order of time.
type Log []Entry

// String has a line for each entry.
func (l Log) String() string {
	var b strings.Builder
	for _, e := range l {
		fmt.Fprintf(&b, "%s %s %s\n", e.At.Format("15:04:05.000"), e.What, e.Detail)
	}
	return b.String()
}

// Of are the entries of one kind.
func (l Log) Of(what string) (out Log) {
	for _, e := range l {
		if e.What == what {
			out = append(out, e)
		}
	}
	return out
}

// Span is a time that something took, in a page: At is when it began or ended, as is
// told where it stands.
type Span struct {
	At Moment  `json:"at"`
	MS float64 `json:"lasted"`
}

// Lasted is how long it took.
func (s Span) Lasted() time.Duration { return time.Duration(s.MS * float64(time.Millisecond)) }

// Played is what film.html says.
type Played struct {
	Log Log `json:"log"`
	// Rebuffers are the times in which the video wanted to play and had nothing, from
	// their beginning; Waiting is how long the one lasts that is under way.
	Rebuffers []Span  `json:"rebuffers"`
	Waiting   float64 `json:"waiting"` // milliseconds
	// Slowest is the longest wait for octets which were asked for, Gap the longest
	// time between two pictures shown; both by their end.
	Slowest  Span    `json:"slowest"`
	Gap      Span    `json:"gap"`
	Octets   int64   `json:"octets"`
	Sum      string  `json:"sum"` // of all octets, see Film.Sum
	Pictures int     `json:"pictures"`
	Time     float64 `json:"time"`  // seconds played
	Ahead    float64 `json:"ahead"` // seconds held in advance
	Ended    bool    `json:"ended"`
}

// Played reads film.html; with forget, Rebuffers, Slowest and Gap begin anew.
func (b *Browser) Played(forget bool) (p Played, err error) {
	return p, b.Eval(fmt.Sprintf("film.state(%v)", forget), &p)
}

// Longest is the longest rebuffer, that under way too; zero if there was none.
func (p Played) Longest() time.Duration {
	out := Span{MS: p.Waiting}.Lasted()
	for _, r := range p.Rebuffers {
		out = max(out, r.Lasted())
	}
	return out
}

// Stall is for how long, at most, the film stood still since nothing came: a busy
// machine rebuffers by itself, but then nobody waits for octets.
func (p Played) Stall() time.Duration { return min(p.Longest(), p.Slowest.Lasted()) }

func (p Played) String() string {
	return fmt.Sprintf("%.1f s played, %d rebuffers, the longest %d ms; longest wait for octets %d ms, between pictures %d ms", p.Time,
		len(p.Rebuffers), p.Longest().Milliseconds(), p.Slowest.Lasted().Milliseconds(), p.Gap.Lasted().Milliseconds())
}

// Fetched is what again.html says.
type Fetched struct {
	Log     Log            `json:"log"` // errors alone
	Done    int            `json:"done"`
	Octets  int64          `json:"octets"`
	Sites   map[string]int `json:"sites"` // requests by who served them
	Slowest Span           `json:"slowest"`
	Lanes   int            `json:"lanes"` // still fetching
}

// Fetched reads again.html.
func (b *Browser) Fetched() (f Fetched, err error) { return f, b.Eval("again", &f) }
