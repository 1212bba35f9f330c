package store

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"rhumb/placement"
)

// root is the data model's major version; another one lives beside it.
const root = "/rhumb/v1/"

// The keys. A key only orders and finds; the value always names its object in full.
const (
	keySchema    = root + "meta/schema"
	keyHeartbeat = root + "meta/heartbeat"
	// keyIntents is written with every intent, so that one key's revision is
	// the revision of the newest of them all.
	keyIntents = root + "meta/intents"
	keyLeader  = root + "meta/leader"
	keySweep   = root + "meta/sweep"
	keyConfig  = root + "config/current"
	dirDocs    = root + "config/doc/"
	dirHistory = root + "config/history/"
	keyPlan    = root + "plan/current"
	dirPlans   = root + "plan/"
	// dirPlanHistory sorts behind the numbered plans, whose chunks are large.
	dirPlanHistory = root + "plan/history/"
	dirBlobs       = root + "blob/"
	dirAnnounce    = root + "announce/"
	dirVotes       = root + "vote/"
	dirLoads       = root + "load/"
	dirDemand      = root + "demand/"
	dirNodes       = root + "node/"
	dirSlots       = root + "slot/"
	dirEvents      = root + "event/"
	dirDrains      = root + "drain/"
	dirForces      = root + "force/"
	dirDials       = root + "dial/"
	dirPins        = root + "pin/"
	dirRetired     = root + "retire/"
	keyFreeze      = root + "freeze"
	dirLooks       = root + "look/"
	dirLooked      = root + "looked/"
)

// segment makes a name fit for one segment of a key, where "/" separates.
func segment(s string) string { return strings.ReplaceAll(s, "/", "_") }

func voteKey(id placement.ClusterID, vantage string) string {
	return dirVotes + segment(id.Site) + "/" + segment(id.Name) + "/" + segment(vantage)
}

func loadKey(id placement.ClusterID, node string) string {
	return dirLoads + segment(id.Site) + "/" + segment(id.Name) + "/" + segment(node)
}

func nodeKey(node, unit string) string { return dirNodes + segment(node) + "/" + segment(unit) }

func demandKey(node string) string { return dirDemand + segment(node) }

func lookKey(id string) string { return dirLooks + segment(id) }

func lookedKey(id, node string) string { return dirLooked + segment(id) + "/" + segment(node) }

func announceDir(p netip.Prefix) string { return dirAnnounce + segment(p.String()) + "/" }

func announceKey(p netip.Prefix, node string) string { return announceDir(p) + segment(node) }

func slotDir(p netip.Prefix) string { return dirSlots + segment(p.String()) + "/" }

func slotKey(p netip.Prefix, n int) string { return slotDir(p) + strconv.Itoa(n) }

func forceKey(id placement.ClusterID) string {
	if id.IsSite() {
		return dirForces + segment(id.Site)
	}
	return dirForces + segment(id.Site) + "/" + segment(id.Name)
}

// Numbers inside keys have a fixed width, so that keys sort as numbers do.
func docDir(n int64) string      { return fmt.Sprintf("%s%010d/", dirDocs, n) }
func historyKey(n int64) string  { return fmt.Sprintf("%s%010d", dirHistory, n) }
func planHeadKey(n int64) string { return fmt.Sprintf("%s%010d", dirPlanHistory, n) }
func planDir(rev int64) string   { return fmt.Sprintf("%s%010d/", dirPlans, rev) }
func blobDir(sha string) string  { return dirBlobs + segment(sha) + "/" }
func eventKey(id int64) string   { return fmt.Sprintf("%s%020d", dirEvents, id) }
func chunkName(chunk int) string { return fmt.Sprintf("%04d", chunk) }

// numberIn returns the number which follows dir in a key: of a document's
// chunk, of a history entry, of an event.
func numberIn(key, dir string) (int64, bool) {
	rest, ok := strings.CutPrefix(key, dir)
	if !ok {
		return 0, false
	}
	digits, _, _ := strings.Cut(rest, "/")
	n, err := strconv.ParseInt(digits, 10, 64)
	return n, err == nil && n >= 0
}

// schema is the version of the values. Fields may be added within it; a value
// of a newer one is not understood, and not guessed at.
const schema = 1

// ErrSchema says that the store was written by a newer, incompatible release.
var ErrSchema = errors.New("written under a newer schema")

// sealed is the shape of every small value.
type sealed[T any] struct {
	Schema int `json:"schema"`
	Value  T   `json:"value"`
}

// seal encodes a value; the nouns hold nothing that JSON cannot, so it cannot fail.
func seal[T any](v T) []byte {
	b, err := json.Marshal(sealed[T]{schema, v})
	if err != nil {
		panic("store: a noun that JSON cannot hold: " + err.Error())
	}
	return b
}

// unseal decodes a value, whole or not at all.
func unseal[T any](b []byte) (T, error) {
	var none T
	var s sealed[T]
	err := json.Unmarshal(b, &s)
	if err == nil && s.Schema == schema {
		return s.Value, nil
	}
	var head struct { // a newer value may look like none of ours
		Schema int `json:"schema"`
	}
	if err := json.Unmarshal(b, &head); err != nil {
		return none, err
	}
	if head.Schema > schema {
		return none, fmt.Errorf("%w: %d, this release knows %d", ErrSchema, head.Schema, schema)
	}
	if head.Schema < 1 {
		return none, errors.New("value without a schema")
	}
	return none, err
}
