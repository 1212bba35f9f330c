package dnssec

import (
	"errors"
	"fmt"
	"slices"
	"time"
)

// A roll is nothing but times in key files: it goes on without us, stands in the files
// for everybody to read, and acts alike on every node, however late each of them
// started. What cannot be known ahead, when the parent has a new DS, stands between two
// calls of an operator.

// Roll says how long each step of a change of keys waits.
type Roll struct {
	// Spread is how long it takes until every node has new key files, and one hour more:
	// times are looked at once in an hour, and what falls into it counts from its start.
	Spread time.Duration
	// ZoneTTL is the longest TTL in the zone, and ParentTTL that of its DS records.
	ZoneTTL, ParentTTL time.Duration
}

// ErrWaiting says that the parent must have a new key's DS before a roll goes on.
var ErrWaiting = errors.New("a new key waits for its DS at the parent")

// ZSK pre-publishes a new zone-signing key (RFC 6781 section 4.1.1.1): it signs when no
// cache holds the DNSKEY RRset without it, and the old one stays until none holds a
// signature by it. It returns all keys with their times.
func (r Roll) ZSK(keys []*Key, now time.Time) ([]*Key, error) {
	old, err := inUse(keys, now, false)
	if err != nil {
		return nil, err
	}
	from := now.Add(r.Spread + TTL*time.Second)
	next, err := Generate(old.Zone(), old.Public.Algorithm, false, Times{Created: now, Publish: now, Activate: from})
	if err != nil {
		return nil, err
	}
	t := dated(old.Times)
	t.Inactive, t.Delete = from, from.Add(r.ZoneTTL+r.Spread)
	return append(swap(keys, old, old.With(t)), next), nil
}

// KSK begins a roll of the key that the parent knows, by double DS (RFC 6781 section
// 4.1.2): the parent is asked, by CDS, to know a new key besides the old one. Nothing
// else changes until Switch.
func (r Roll) KSK(keys []*Key, now time.Time) ([]*Key, error) {
	old, err := inUse(keys, now, true)
	if err != nil {
		return nil, err
	}
	next, err := Generate(old.Zone(), old.Public.Algorithm, true, Times{Created: now, SyncPublish: now})
	if err != nil {
		return nil, err
	}
	return append(slices.Clone(keys), next), nil
}

// Waiting returns the key whose DS the parent is to publish before it is used, or nil.
func Waiting(keys []*Key) *Key {
	for _, k := range keys {
		if k.SEP() && k.Times.Publish.IsZero() && !k.Times.SyncPublish.IsZero() && k.Times.SyncDelete.IsZero() {
			return k
		}
	}
	return nil
}

// Switch ends a roll that KSK began, once the parent has the DS of both keys: when no
// cache holds the parent's old answer, the new key takes the place of the old one,
// whose DS may go when no cache holds it in the DNSKEY RRset. A key that signs the data
// too is replaced as a ZSK is besides: the new one signs when every cache holds it, and
// the old one stays until none holds a signature by it.
func (r Roll) Switch(keys []*Key, now time.Time) ([]*Key, error) {
	next := Waiting(keys)
	if next == nil {
		return nil, errors.New("dnssec: no key waits for its DS")
	}
	old, err := inUse(without(keys, next), now, true)
	if err != nil {
		return nil, err
	}
	at := now.Add(r.Spread + r.ParentTTL)
	t, u := next.Times, dated(old.Times)
	t.Publish, t.Activate, u.Inactive, u.Delete = at, at, at, at
	if signsData(keys, at) {
		t.Activate = at.Add(r.Spread + TTL*time.Second)
		u.Inactive, u.Delete = t.Activate, t.Activate.Add(r.ZoneTTL+r.Spread)
	}
	u.SyncDelete = u.Delete.Add(r.Spread + TTL*time.Second)
	if u.SyncPublish.IsZero() {
		u.SyncPublish = u.Activate
	}
	return swap(swap(keys, old, old.With(u)), next, next.With(t)), nil
}

// signsData tells whether the key that the parent knows signs all else as well: no other
// kind is there to do it.
func signsData(keys []*Key, at time.Time) bool {
	return !slices.ContainsFunc(keys, func(k *Key) bool { return !k.SEP() && k.Times.Active(at) })
}

// inUse returns the one key of a role that signs now and is not about to leave.
func inUse(keys []*Key, now time.Time, sep bool) (*Key, error) {
	var out *Key
	for _, k := range keys {
		switch {
		case k.SEP() != sep:
		case k.Times.Active(now) && k.Times.Inactive.IsZero() && out != nil:
			return nil, fmt.Errorf("dnssec: keys %s and %s both sign: say with dnssec-settime which one leaves", out.Name(), k.Name())
		case k.Times.Active(now) && k.Times.Inactive.IsZero():
			out = k
		case !sep && reached(k.Times.Publish, now) && k.Times.Inactive.IsZero():
			return nil, fmt.Errorf("dnssec: key %s is on its way in: wait until it signs, at %s", k.Name(), k.Times.Activate.Format(time.RFC3339))
		case sep && Waiting([]*Key{k}) != nil:
			return nil, fmt.Errorf("dnssec: key %s: %w", k.Name(), ErrWaiting)
		case sep && k.Times.Publish.After(now):
			return nil, fmt.Errorf("dnssec: key %s is on its way in: wait until it signs, at %s", k.Name(), k.Times.Activate.Format(time.RFC3339))
		}
	}
	if out == nil {
		return nil, errors.New("dnssec: no key of this kind signs the zone now, or the one that does is about to leave")
	}
	return out, nil
}

// dated gives a key without times those that say the same, since the first one that a
// roll sets would make all others mean never.
func dated(t Times) Times {
	if t == (Times{}) {
		epoch := time.Unix(0, 0).UTC()
		t.Publish, t.Activate = epoch, epoch
	}
	return t
}

// without and swap leave the caller's slice as it is.
func without(keys []*Key, k *Key) []*Key {
	return slices.DeleteFunc(slices.Clone(keys), func(o *Key) bool { return o == k })
}

func swap(keys []*Key, old, new *Key) []*Key { return append(without(keys, old), new) }
