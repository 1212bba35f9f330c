package node

import (
	"context"

	"rhumb/placement"
)

// delivery is one state on its way to who acts upon it.
type delivery struct {
	snapshot *placement.Snapshot
	state    State
}

// mailbox holds the newest delivery only: who is slow skips what is outdated,
// and keeps nobody waiting.
type mailbox chan delivery

func newMailbox() mailbox { return make(mailbox, 1) }

// post replaces what lies there. Only the loop posts.
func (m mailbox) post(d delivery) {
	select {
	case <-m:
	default:
	}
	m <- d
}

// deliver hands over what comes, until ctx ends.
func (m mailbox) deliver(ctx context.Context, to func(delivery)) {
	for {
		select {
		case <-ctx.Done():
			return
		case d := <-m:
			to(d)
		}
	}
}
