package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"rhumb/internal/api"
)

// waitNode waits until a node that drains has no session of our own server left. An
// interrupt detaches, as from the drain of a site.
func (a *app) waitNode(ctx context.Context, c *client, name string, patience time.Duration) error {
	tick := time.NewTicker(drainPoll)
	defer tick.Stop()
	var limit <-chan time.Time
	if patience > 0 {
		limit = time.After(patience)
	}
	begun, told := time.Now(), -1
	for {
		left, err := sessionsAt(ctx, c, name)
		switch {
		case ctx.Err() != nil:
		case err != nil:
			if code := codeOf(err); code != exitUnreachable && code != exitTimeout { // it may be restarting
				return err
			}
		case left == 0 && time.Since(begun) > drainPoll: // the report is a second old at most
			a.say("%s has no sessions left", name)
			return nil
		case left != told:
			told = left
			a.say("%s: %d sessions left", name, left)
		}
		select {
		case <-ctx.Done():
			a.say("detached; the drain of %s goes on. To reverse it: rhumb undrain %s", name, name)
			return &exitError{code: exitInterrupted, err: errors.New("interrupted"), quiet: true}
		case <-limit:
			left := fmt.Sprintf("%d sessions", told)
			if told < 0 {
				left = fmt.Sprintf("told nothing of its sessions (%v)", err)
			}
			return withCode(exitTimeout, fmt.Errorf("%s has %s after %s; the drain goes on. To reverse it: rhumb undrain %s", name, left, patience, name))
		case <-tick.C:
		}
	}
}

// sessionsAt counts the sessions of our own server at a node, and those on the move.
func sessionsAt(ctx context.Context, c *client, name string) (int, error) {
	site, node, _ := strings.Cut(name, "/")
	var list api.List[api.Sessions]
	if _, err := c.get(ctx, "/sessions?site="+url.QueryEscape(site), &list); err != nil {
		return 0, err
	}
	for _, s := range list.Items {
		if s.Node == node {
			return s.Own + s.Moving, nil
		}
	}
	return 0, fmt.Errorf("%s reports no sessions: is its role edge up?", name)
}
