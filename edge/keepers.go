package edge

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"rhumb/edge/frame"
	"rhumb/edge/token"
)

// Times of a question to keepers.
const (
	askLimit    = time.Second // then those who have not answered do not count
	forgetEvery = time.Minute
)

// keepers asks which epoch of a session is the newest, and answers other sites.
// Safe for concurrent use.
type keepers struct {
	site   string
	links  *links
	log    *slog.Logger
	ledger *token.Ledger
	keys   atomic.Pointer[token.Keys] // nil: no tokens are sealed or opened
	sites  atomic.Pointer[[]string]   // of the group, this one too, sorted

	patience time.Duration // of a question

	mu      sync.Mutex
	waiting map[uint64]waiting
	last    uint64 // question's number
}

// waiting is a question that was sent and not answered.
type waiting struct {
	peer string
	vote chan<- token.Vote // has room
}

func newKeepers(cfg Config, ls *links, room int, log *slog.Logger) (*keepers, error) {
	k := &keepers{site: cfg.Site, links: ls, log: log, ledger: token.NewLedger(time.Now(), room),
		patience: askLimit, waiting: map[uint64]waiting{}}
	k.sites.Store(&[]string{cfg.Site})
	return k, k.setSecrets(cfg.Tokens)
}

// SetTokens replaces the secrets of resumption tokens: the first seals, all open.
// Without any, event streams are refused.
func (a *Agent) SetTokens(secrets []token.Secret) error { return a.keepers.setSecrets(secrets) }

func (k *keepers) setSecrets(secrets []token.Secret) error {
	if len(secrets) == 0 {
		k.keys.Store(nil)
		return nil
	}
	keys, err := token.NewKeys(secrets)
	if err == nil {
		k.keys.Store(keys)
	}
	return err
}

// setPeers says who may be a keeper. A session whose keepers are others from now
// on may have been claimed at those before.
func (k *keepers) setPeers(peers []Peer) {
	sites := []string{k.site}
	for _, p := range peers {
		sites = append(sites, p.Name)
	}
	slices.Sort(sites)
	if old := *k.sites.Swap(&sites); !slices.Equal(old, sites) && len(old) > 1 {
		k.ledger.Doubt(time.Now())
	}
}

// Run forgets what no token can be good for any more.
func (k *keepers) Run(ctx context.Context) error {
	tick := time.NewTicker(forgetEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case now := <-tick.C:
			k.ledger.Forget(now)
		}
	}
}

// ask asks the keepers of a session, all at once, and returns as soon as the
// answer cannot change: after one site-to-site round trip, and after askLimit at
// the latest. The goroutines which it leaves behind end then, too.
func (k *keepers) ask(ctx context.Context, q token.Question) token.Verdict {
	// Of its own time: when a majority is there, the others are still to be told.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), k.patience)
	names := token.Keepers(q.Session, *k.sites.Load())
	answers := make(chan token.Vote, len(names))
	var asking sync.WaitGroup
	for _, name := range names {
		if name == k.site {
			answers <- k.ledger.Vote(q, time.Now())
			continue
		}
		asking.Go(func() { answers <- k.question(ctx, name, q) })
	}
	go func() {
		asking.Wait()
		cancel()
	}()
	var votes []token.Vote
	verdict := token.Open
	for range names {
		votes = append(votes, <-answers)
		if verdict = token.Count(votes, len(names)); verdict != token.Open {
			break
		}
	}
	if verdict == token.Over {
		cancel() // who was not asked yet need not be
	}
	return verdict
}

// question asks one keeper. Who does not answer in time abstains.
func (k *keepers) question(ctx context.Context, peer string, q token.Question) token.Vote {
	l, err := k.links.to(ctx, peer)
	if err != nil || ctx.Err() != nil {
		return token.Abstained // that a site is away is told elsewhere
	}
	vote := make(chan token.Vote, 1)
	k.mu.Lock()
	k.last++
	id := k.last
	k.waiting[id] = waiting{peer, vote}
	k.mu.Unlock()
	defer func() {
		k.mu.Lock()
		delete(k.waiting, id)
		k.mu.Unlock()
	}()
	if err := l.send(tokenFrame(token.Message{Kind: token.Ask, ID: id, Question: q})); err != nil {
		return token.Abstained
	}
	select {
	case v := <-vote:
		return v
	case <-l.done:
	case <-ctx.Done():
	}
	return token.Abstained
}

// release takes a claim back that came to nothing, where it arrived. The links keep
// the order, so it comes after the claim.
func (k *keepers) release(q token.Question) {
	for _, name := range token.Keepers(q.Session, *k.sites.Load()) {
		if name == k.site {
			k.ledger.Release(q)
		} else if l := k.links.have(name); l != nil {
			_ = l.send(tokenFrame(token.Message{Kind: token.Release, Question: q})) // a dead link: the client has to begin anew
		}
	}
}

func tokenFrame(m token.Message) frame.Frame {
	return frame.Frame{Type: frame.Tokens, Payload: m.Encode()}
}

// handle takes the word of another site. It runs on the link's reader.
func (k *keepers) handle(l *link, f frame.Frame) {
	m, err := token.Decode(f.Payload)
	if err != nil {
		k.log.Warn("epochs", "peer", l.peer, "err", err)
		l.close()
		return
	}
	switch m.Kind {
	case token.Ask:
		m.Kind, m.Vote = token.Answer, k.ledger.Vote(m.Question, time.Now())
		_ = l.send(tokenFrame(m)) // a dead link has told who asked
	case token.Release:
		k.ledger.Release(m.Question)
	case token.Answer:
		k.mu.Lock()
		w, ok := k.waiting[m.ID]
		delete(k.waiting, m.ID)
		k.mu.Unlock()
		if ok && w.peer == l.peer {
			w.vote <- m.Vote
		}
	}
}

// errOver: another connection of the session has a later epoch.
var errOver = errors.New("session goes on at a later epoch")

// claimOf asks for the next epoch of what a token says. try counts the client's
// attempts with this token.
func claimOf(c token.Claims, try uint64) token.Question {
	return token.Question{Session: c.Session, From: c.Epoch, Epoch: c.Epoch + try, Client: c.Client, Began: c.Began, Nonce: rand.Uint64()}
}

// touchOf tells the keepers that a session goes on here.
func touchOf(c token.Claims) token.Question {
	return token.Question{Session: c.Session, From: c.Epoch, Epoch: c.Epoch, Began: c.Began}
}
