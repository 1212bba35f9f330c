package edge

import (
	"context"
	"time"

	"rhumb/edge/feed"
	"rhumb/edge/frame"
	"rhumb/edge/token"
)

// Events are the event streams of a service, and its WebSockets. They come from the
// origin as they are, but for their ids: clients are given tokens, by which any
// site goes on.
type Events struct {
	Path string // what begins so is a stream; ends with a slash. Empty: there are none
	// Strict refuses to go on with a session when too few sites answer that know
	// its epoch. Else it goes on, since whoever knows of a later one would have said so.
	Strict bool
}

// newFeeds makes what serves the event streams of a service.
func (a *Agent) newFeeds(svc *service) (*feed.Server, error) {
	c := feed.Config{Service: svc.Name, ID: svc.id, Origin: svc.Origin, Path: svc.Events.Path, Strict: svc.Events.Strict, Write: svc.limits.Write,
		Keepers: a.keepers, Metrics: a.m.feeds, Log: a.log.With("service", svc.Name),
		Leaving: func() bool { return svc.Mode == ModeAct && a.pushing() }}
	if a.cfg.Met != nil {
		c.Met = func(ok bool) { a.cfg.Met(svc.Name, ok) }
	}
	return feed.New(c)
}

// pushing tells whether this site drains, and its deadline is over.
func (a *Agent) pushing() bool {
	d := a.drain.Load()
	return d != nil && time.Now().After(d.deadline)
}

// SetTokens replaces the secrets of resumption tokens: the first seals, all open.
// Without any, event streams are refused.
func (a *Agent) SetTokens(secrets []token.Secret) error { return a.keepers.SetSecrets(secrets) }

// tokens takes what another site says of epochs. It runs on the link's reader.
func (a *Agent) tokens(l *link, f frame.Frame) {
	answer, err := a.keepers.Handle(l.peer, f.Payload)
	if err != nil {
		a.log.Warn("epochs", "peer", l.peer, "err", err)
		l.close()
		return
	}
	if answer != nil {
		_ = l.send(frame.Frame{Type: frame.Tokens, Payload: answer}) // a dead link has told who asked
	}
}

// tokenLinks carry the words of keepers in frames.
type tokenLinks struct{ links *links }

// Ask sends over a link that is there, or made.
func (t tokenLinks) Ask(ctx context.Context, site string, message []byte) (gone <-chan struct{}, err error) {
	l, err := t.links.to(ctx, site)
	if err == nil {
		err = ctx.Err()
	}
	if err == nil {
		err = l.send(frame.Frame{Type: frame.Tokens, Payload: message})
	}
	if err != nil {
		return nil, err
	}
	return l.done, nil
}

// Tell sends over a link that is there.
func (t tokenLinks) Tell(site string, message []byte) {
	if l := t.links.have(site); l != nil {
		_ = l.send(frame.Frame{Type: frame.Tokens, Payload: message}) // a dead one is none
	}
}
