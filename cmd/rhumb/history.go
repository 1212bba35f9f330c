package main

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	"rhumb/internal/api"
	"rhumb/placement"
	"rhumb/placement/store"
)

// Versions lists what was applied. The newest is in force: whatever is put into the
// store becomes its history in the same change.
func (o ops) Versions(ctx context.Context) ([]api.ConfigVersion, error) {
	all, err := o.u.store.History(ctx)
	if err != nil {
		return nil, storeError(err)
	}
	out := make([]api.ConfigVersion, 0, len(all))
	for i, v := range all {
		out = append(out, api.ConfigVersion{Revision: v.Revision, Who: v.Who, At: v.At, Note: v.Note, SHA256: v.SHA256, Current: i == 0})
	}
	return out, nil
}

// FleetAt finds a kept configuration by the revision that its apply told.
func (o ops) FleetAt(ctx context.Context, revision int64) (*placement.Fleet, error) {
	number := int64(0)
	if revision != 0 {
		all, err := o.u.store.History(ctx)
		if err != nil {
			return nil, storeError(err)
		}
		i := slices.IndexFunc(all, func(v store.Version) bool { return v.Revision == revision })
		if i < 0 {
			return nil, fmt.Errorf("%w: no kept configuration was applied as this revision; see rhumb config history", api.ErrNotFound)
		}
		number = all[i].Number
	}
	f, err := o.u.store.FleetAt(ctx, number)
	return f, storeError(err)
}

// Compare lists what differs between two configurations.
func (ops) Compare(from, to *placement.Fleet) []api.Change { return fleetChanges(from, to) }

// fleetChanges lists what differs between two fleets, by kind and name.
func fleetChanges(old, next *placement.Fleet) []api.Change {
	out := make([]api.Change, 0)
	out = append(out, changed("site", old.Sites, next.Sites, func(s placement.Site) string { return s.Name })...)
	out = append(out, changed("check", old.Checks, next.Checks, func(c placement.Check) string { return c.Name })...)
	out = append(out, changed("policy", old.Policies, next.Policies, func(p placement.Policy) string { return p.Name })...)
	out = append(out, changed("service", old.Services, next.Services, func(s placement.Service) string { return s.Name })...)
	out = append(out, changed("prefix", old.Prefixes, next.Prefixes, func(p placement.Prefix) string { return p.Prefix.String() })...)
	out = append(out, changed("zone", old.Zones, next.Zones, func(z placement.Zone) string { return z.Name })...)
	out = append(out, changed("override", old.Overrides, next.Overrides, placement.Override.Name)...)
	if old.Mode != next.Mode || old.ECS != next.ECS || old.Safety != next.Safety || !maps.Equal(old.Roles, next.Roles) || !slices.Equal(old.Revoked, next.Revoked) {
		rest := func(f *placement.Fleet) any {
			return struct {
				Mode    placement.Mode            `json:"mode"`
				Roles   map[string]placement.Mode `json:"roles"`
				ECS     placement.ECS             `json:"ecs"`
				Safety  placement.Safety          `json:"safety"`
				Revoked []string                  `json:"revoked,omitempty"`
			}{f.Mode, f.Roles, f.ECS, f.Safety, f.Revoked}
		}
		out = append(out, api.Change{Kind: "fleet", Object: "fleet", Verb: "changed", Text: fieldChanges(rest(old), rest(next))})
	}
	return out
}

// changed compares two lists by name: the new list's order first, then what is gone
// by name.
func changed[T any](kind string, old, next []T, name func(T) string) []api.Change {
	var out []api.Change
	before := make(map[string]T, len(old))
	for _, o := range old {
		before[name(o)] = o
	}
	for _, n := range next {
		o, known := before[name(n)]
		delete(before, name(n))
		switch {
		case !known:
			out = append(out, api.Change{Kind: kind, Object: name(n), Verb: "added"})
		case !reflect.DeepEqual(o, n):
			out = append(out, api.Change{Kind: kind, Object: name(n), Verb: "changed", Text: fieldChanges(o, n)})
		}
	}
	for _, gone := range sortedKeys(before) {
		out = append(out, api.Change{Kind: kind, Object: gone, Verb: "removed"})
	}
	return out
}

// shownFields is how many fields of one object a change names.
const shownFields = 8

// fieldChanges says which fields of an object differ, as its JSON names them.
func fieldChanges(old, next any) string {
	var out []string
	compareFields("", document(old), document(next), &out)
	if n := len(out); n > shownFields {
		out = append(out[:shownFields], fmt.Sprintf("and %d more", n-shownFields))
	}
	return strings.Join(out, ", ")
}

// document is a value as JSON shows it; what cannot be shown is nil.
func document(v any) (out any) {
	b, err := json.Marshal(v)
	if err != nil || json.Unmarshal(b, &out) != nil {
		return nil
	}
	return out
}

// compareFields walks down two documents. Lists of named objects are compared by
// name, since their order is that of the names.
func compareFields(at string, old, next any, out *[]string) {
	if reflect.DeepEqual(old, next) {
		return
	}
	a, b := parts(old), parts(next)
	if a == nil || b == nil {
		*out = append(*out, strings.TrimSpace(at+" "+scalar(old)+" to "+scalar(next)))
		return
	}
	keys := slices.Sorted(maps.Keys(a))
	for k := range b {
		if _, both := a[k]; !both {
			keys = append(keys, k)
		}
	}
	slices.Sort(keys)
	for _, k := range keys {
		compareFields(strings.TrimPrefix(at+"."+k, "."), a[k], b[k], out)
	}
}

// parts are the parts of an object, or of a list of named objects; nil for
// anything else.
func parts(v any) map[string]any {
	switch v := v.(type) {
	case map[string]any:
		return v
	case []any:
		out := make(map[string]any, len(v))
		for _, item := range v {
			object, _ := item.(map[string]any)
			name, ok := object["name"].(string)
			if !ok {
				return nil
			}
			out[name] = item
		}
		return out
	}
	return nil
}

// longestScalar bounds what is shown of one side.
const longestScalar = 48

func scalar(v any) string {
	if v == nil {
		return "nothing"
	}
	text, ok := v.(string)
	if !ok {
		b, err := json.Marshal(v)
		if err != nil {
			return "?"
		}
		text = string(b)
	}
	if r := []rune(text); len(r) > longestScalar {
		text = string(r[:longestScalar]) + "…"
	}
	return text
}
