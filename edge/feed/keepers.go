package feed

import (
	"cmp"
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"rhumb/edge/token"
)

// Times of a question to keepers.
const (
	askLimit    = time.Second // then those who have not answered do not count
	forgetEvery = time.Minute
)

// Links carry messages to the keepers at other sites.
type Links interface {
	// Ask sends a message to a site by a link to it, which is made if there is none. gone
	// is closed when that link has ended.
	Ask(ctx context.Context, site string, message []byte) (gone <-chan struct{}, err error)
	// Tell sends a message to a site if there is a link to it, behind what was sent before.
	Tell(site string, message []byte)
}

// KeepersConfig is what NewKeepers needs.
type KeepersConfig struct {
	Site    string // this one
	Links   Links
	Secrets []token.Secret // see SetSecrets
	Since   time.Time      // from when on this site remembers epochs: the start of its process
	Room    int            // sessions whose epoch is remembered
	// Patience is how long a question waits for answers; 0: one second.
	Patience time.Duration
}

// Keepers asks which epoch of a session is the newest, and answers other sites.
// Safe for concurrent use.
type Keepers struct {
	site   string
	links  Links
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
	site string
	vote chan<- token.Vote // has room
}

// NewKeepers begins with a group of this site alone. An error says what is wrong with
// the secrets.
func NewKeepers(c KeepersConfig) (*Keepers, error) {
	k := &Keepers{site: c.Site, links: c.Links, ledger: token.NewLedger(c.Since, c.Room),
		patience: cmp.Or(c.Patience, askLimit), waiting: map[uint64]waiting{}}
	k.sites.Store(&[]string{c.Site})
	return k, k.SetSecrets(c.Secrets)
}

// SetSecrets replaces the secrets of tokens: the first seals, all open. Without any,
// streams are refused. After an error those before stay.
func (k *Keepers) SetSecrets(secrets []token.Secret) error {
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

// SetSites says which other sites may be keepers. A session whose keepers are others from
// now on may have been claimed at those before.
func (k *Keepers) SetSites(others []string) {
	sites := append([]string{k.site}, others...)
	slices.Sort(sites)
	if old := *k.sites.Swap(&sites); !slices.Equal(old, sites) && len(old) > 1 {
		k.ledger.Doubt(time.Now())
	}
}

// Run forgets what no token can be good for any more, until its context ends. It returns
// nil.
func (k *Keepers) Run(ctx context.Context) error {
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
func (k *Keepers) ask(ctx context.Context, q token.Question) token.Verdict {
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
func (k *Keepers) question(ctx context.Context, site string, q token.Question) token.Vote {
	vote := make(chan token.Vote, 1)
	k.mu.Lock()
	k.last++
	id := k.last
	k.waiting[id] = waiting{site, vote}
	k.mu.Unlock()
	defer func() {
		k.mu.Lock()
		delete(k.waiting, id)
		k.mu.Unlock()
	}()
	gone, err := k.links.Ask(ctx, site, token.Message{Kind: token.Ask, ID: id, Question: q}.Encode())
	if err != nil {
		return token.Abstained // that a site is away is told elsewhere
	}
	select {
	case v := <-vote:
		return v
	case <-gone:
	case <-ctx.Done():
	}
	return token.Abstained
}

// release takes a claim back that came to nothing, where it arrived. The links keep
// the order, so it comes after the claim.
func (k *Keepers) release(q token.Question) {
	for _, name := range token.Keepers(q.Session, *k.sites.Load()) {
		if name == k.site {
			k.ledger.Release(q)
		} else {
			k.links.Tell(name, token.Message{Kind: token.Release, Question: q}.Encode()) // without a link the client has to begin anew
		}
	}
}

// Handle takes the word of another site, and returns the answer to it, if there is one. An
// error says that it is malformed; the link that it came by is to be closed. Words of one
// site come in the order in which they were sent.
func (k *Keepers) Handle(site string, message []byte) (answer []byte, err error) {
	m, err := token.Decode(message)
	if err != nil {
		return nil, err
	}
	switch m.Kind {
	case token.Ask:
		m.Kind, m.Vote = token.Answer, k.ledger.Vote(m.Question, time.Now())
		return m.Encode(), nil
	case token.Release:
		k.ledger.Release(m.Question)
	case token.Answer:
		k.mu.Lock()
		w, ok := k.waiting[m.ID]
		delete(k.waiting, m.ID)
		k.mu.Unlock()
		if ok && w.site == site {
			w.vote <- m.Vote
		}
	}
	return nil, nil
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
