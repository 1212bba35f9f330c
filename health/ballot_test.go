package health

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"rhumb/placement"
)

func someBallot() ballot {
	return newBallot(Config{Node: "ams1-a", Site: "ams1", Domain: "isp-a", Incarnation: 7})
}

// TestCast: only what matters is news; Since is kept while the state is.
func TestCast(t *testing.T) {
	b, web := someBallot(), placement.ClusterID{Site: "ams1", Name: "web"}
	at := func(s int) time.Time { return time.Unix(int64(s), 0) }
	for i, c := range []struct {
		v     placement.Vote
		news  bool
		since int
	}{
		{placement.Vote{State: placement.Up}, true, 1},
		{placement.Vote{State: placement.Up}, false, 1},
		{placement.Vote{State: placement.Down, Cause: "refused"}, true, 3},
		{placement.Vote{State: placement.Down, Cause: "timeout"}, true, 3},
		{placement.Vote{State: placement.Down, Cause: "timeout", Hold: true}, true, 3},
		{placement.Vote{State: placement.Down, Cause: "timeout", Hold: true}, false, 3},
		{placement.Vote{State: placement.Up}, true, 7},
	} {
		c.v.Object = web
		before := b.seq
		v, news := b.cast(c.v, at(i+1))
		if news != c.news || !v.Since.Equal(at(c.since)) || (b.seq > before) != news {
			t.Errorf("step %d: news %v, since %v, seq %d after %d", i, news, v.Since.Unix(), b.seq, before)
		}
		if v.Vantage != "ams1-a" || v.Site != "ams1" || v.Domain != "isp-a" || v.Incarnation != 7 {
			t.Errorf("step %d: %+v", i, v)
		}
	}
}

// TestEndIsNewer: what takes a vote back replaces it wherever it was heard, and a
// vote cast later replaces that.
func TestEndIsNewer(t *testing.T) {
	b, web := someBallot(), placement.ClusterID{Site: "ams1", Name: "web"}
	first, _ := b.cast(placement.Vote{Object: web, State: placement.Down}, time.Unix(1, 0))
	last := b.end(web)
	again, news := b.cast(placement.Vote{Object: web, State: placement.Down}, time.Unix(2, 0))
	if !last.Newer(&first) || !last.Hold || last.State != placement.Unknown || !news || !again.Newer(&last) || again.Hold {
		t.Errorf("first %+v\nlast  %+v\nagain %+v", first, last, again)
	}
}

// TestHearOrder: in whatever order and however often the votes of a vantage come,
// the newest stands in the end; nothing older was ever taken for its word.
func TestHearOrder(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 5))
	var said []placement.Vote
	for inc := range uint32(3) {
		for seq := range uint64(6) {
			said = append(said, placement.Vote{Object: placement.SiteID("ams1"), Vantage: "nyc1-a", Site: "nyc1", Incarnation: inc + 1, Seq: seq})
		}
	}
	newest := said[len(said)-1]
	for range 200 {
		b := someBallot()
		var stands *placement.Vote
		for range 60 {
			v := said[r.IntN(len(said))]
			want := stands == nil || !stands.Newer(&v)
			if got := b.hear(v); got != want {
				t.Fatalf("%+v after %+v: %v", v, stands, got)
			} else if got {
				stands = &v
			}
		}
		b.hear(newest)
		if have := b.heard[heardKey{"nyc1-a", newest.Object}]; have != newest {
			t.Fatalf("have %+v", have)
		}
	}
	b := someBallot()
	if b.hear(placement.Vote{Vantage: "ams1-a", Site: "nyc1"}) {
		t.Error("somebody else votes in our name")
	}
}

// TestSilence: the votes of a site end when it was not heard for long enough, and
// count again when it says the same once more.
func TestSilence(t *testing.T) {
	b := someBallot()
	vote := placement.Vote{Object: placement.SiteID("ams1"), Vantage: "nyc1-a", Site: "nyc1", Seq: 3}
	other := placement.Vote{Object: placement.SiteID("ams1"), Vantage: "tyo1-a", Site: "tyo1", Seq: 1}
	b.spoke[2], b.spoke[3] = time.Unix(100, 0), time.Unix(105, 0)
	b.nodes[vote.Vantage], b.nodes[other.Vantage] = 2, 3
	b.hear(vote)
	b.hear(other)
	if got := b.silence(time.Unix(100, 0)); len(got) != 0 {
		t.Errorf("%v fell silent at once", got)
	}
	got := b.silence(time.Unix(101, 0))
	if len(got) != 1 || got[0].vantage != "nyc1-a" || len(b.heard) != 1 {
		t.Errorf("%v fell silent, %d are left", got, len(b.heard))
	}
	if !b.hear(vote) {
		t.Error("the same vote does not count after the silence")
	}
	b.spoke = nil
	if got := b.silence(time.Unix(101, 0)); !slices.IsSortedFunc(got, heardKey.compare) || len(got) != 2 {
		t.Errorf("%v", got)
	}
}

// TestPackVotesKeepsAll: whatever the causes, every vote comes through, whole but
// for a cause that is cut or left out.
func TestPackVotesKeepsAll(t *testing.T) {
	for _, cause := range []string{"", "refused", strings.Repeat("é", 200), strings.Repeat("<", 300), strings.Repeat("\x01", 200), "\xff\xfe"} {
		var in []placement.Vote
		for i := range 7 {
			in = append(in, placement.Vote{Object: placement.ClusterID{Site: "ams1", Name: fmt.Sprintf("web%d", i)}, Vantage: "nyc1-a", Site: "nyc1",
				Domain: "isp-b", State: placement.Down, Fault: placement.LocalFault, Cause: cause, Since: time.Unix(1000, 5).UTC(), Incarnation: 1 << 31, Seq: 1 << 40})
		}
		var out []placement.Vote
		for _, body := range packVotes(in, 1136) {
			if len(body) > 1136 {
				t.Errorf("body of %d bytes", len(body))
			}
			votes, err := unpackVotes(body)
			if err != nil {
				t.Fatal(err)
			}
			out = append(out, votes...)
		}
		if len(out) != len(in) {
			t.Fatalf("cause %.10q: %d of %d votes came through", cause, len(out), len(in))
		}
		for i := range out {
			if !strings.HasPrefix(cause, out[i].Cause) && !strings.Contains(out[i].Cause, "\ufffd") {
				t.Errorf("cause %q came out as %q", cause, out[i].Cause)
			}
			if out[i].Cause = in[i].Cause; out[i] != in[i] {
				t.Errorf("%+v came out as %+v", in[i], out[i])
			}
		}
	}
}

// TestAccused: another site's first word that this one is down, or a cluster of it, has this
// site look at itself now; neither a repetition nor one of others, of a vantage that doubts
// itself, or overtaken does.
func TestAccused(t *testing.T) {
	a := New(Config{Node: "ams1-a", Site: "ams1", Log: quiet()})
	own, other := placement.SiteID("ams1"), placement.SiteID("fra1")
	vote := func(seq uint64, object placement.ClusterID, s placement.State, hold bool) placement.Vote {
		return placement.Vote{Vantage: "nyc1-a", Site: "nyc1", Object: object, State: s, Hold: hold, Incarnation: 1, Seq: seq}
	}
	for i, c := range []struct {
		v    placement.Vote
		want bool
	}{
		{vote(1, own, placement.Up, false), false},
		{vote(3, own, placement.Down, false), true},
		{vote(3, own, placement.Down, false), false},
		{vote(2, own, placement.Down, false), false},
		{vote(4, own, placement.Down, true), false},
		{vote(5, own, placement.Down, false), true},
		{vote(6, own, placement.Path, false), false},
		{vote(7, other, placement.Down, false), false},
		{vote(8, placement.ClusterID{Site: "ams1", Name: "web"}, placement.Down, false), true},
		{placement.Vote{Vantage: "tyo1-a", Site: "tyo1", Object: own, State: placement.Down, Incarnation: 1, Seq: 1}, false}, // not nyc1's to say
	} {
		for _, body := range packVotes([]placement.Vote{c.v}, 1000) {
			if got := a.hearVotes(1, "nyc1", body); got != c.want {
				t.Errorf("step %d: accused %v by %+v, want %v", i, got, c.v, c.want)
			}
		}
	}
}
