package api

import (
	"context"
	"encoding/json"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"rhumb/placement"
)

// The topics of the stream.
const (
	TopicSnapshot = "snapshot" // the status document
	TopicSite     = "site"     // one site's row
	TopicBGP      = "bgp"      // one neighbour
	TopicEvent    = "event"    // one event
	TopicTransfer = "transfer" // the sessions of one node
	TopicState    = "state"    // everything at once, first
	TopicReset    = "reset"    // the client's last ID is too old: forget what you hold
)

// Limits of the stream.
const (
	ringSize    = 1024                   // messages kept for clients which come back
	clientQueue = 256                    // messages a client may be behind before it is dropped
	hubTick     = time.Second            // ages and events are looked at this often
	hubPause    = 100 * time.Millisecond // changes closer together become one
)

// Document is everything that a page shows at once.
type Document struct {
	Status   Status            `json:"status"`
	Sites    []Site            `json:"sites"`
	Peers    []Peer            `json:"peers"`
	Sessions []Sessions        `json:"sessions"`
	Events   []placement.Event `json:"events"`
}

// document makes it from the state of now.
func (s *Server) document() Document {
	st := s.cfg.State()
	rows := s.rows(st)
	return Document{Status: StatusOf(st, s.cfg.Identity, rows), Sites: rows,
		Peers: PeersOf(st, ""), Sessions: SessionsOf(st, "", "")}
}

// eventsSince reads the log; without a log there are no events.
func (s *Server) eventsSince(ctx context.Context, since int64, limit int) ([]placement.Event, error) {
	if s.cfg.Events == nil {
		return nil, nil
	}
	return s.cfg.Events.Events(ctx, since, limit)
}

// message is one frame of the stream.
type message struct {
	seq   int64
	topic string
	data  []byte
}

// client is one reader; its queue is closed when it is dropped.
type client struct {
	queue  chan message
	topics []string // empty: all
}

func (c *client) wants(topic string) bool {
	return len(c.topics) == 0 || topic == TopicState || topic == TopicReset || slices.Contains(c.topics, topic)
}

// hub turns states into one whole message and then differences. run owns the
// time; everything else is under mu.
type hub struct {
	document func() Document
	log      func(context.Context, int64, int) ([]placement.Event, error)
	metrics  *metrics
	wake     chan struct{}
	boot     string // tells IDs of this process from those of the one before

	mu      sync.Mutex
	seq     int64
	ring    []message // the newest ringSize, oldest first
	clients map[*client]bool
	last    map[string][]byte // topic and key → what was sent
	events  []placement.Event // the newest, for the first message
}

func newHub(document func() Document, log func(context.Context, int64, int) ([]placement.Event, error), m *metrics) *hub {
	return &hub{document: document, log: log, metrics: m, wake: make(chan struct{}, 1),
		boot:    strconv.FormatInt(time.Now().UnixMilli(), 36),
		clients: make(map[*client]bool), last: make(map[string][]byte)}
}

func (h *hub) notify() {
	select {
	case h.wake <- struct{}{}:
	default: // a wake-up is under way already
	}
}

// run publishes differences until ctx ends.
func (h *hub) run(ctx context.Context) error {
	tick := time.NewTicker(hubTick)
	defer tick.Stop()
	for {
		h.publish(ctx)
		select {
		case <-ctx.Done():
			h.closeAll()
			return nil
		case <-tick.C:
		case <-h.wake:
			select {
			case <-ctx.Done():
			case <-time.After(hubPause):
			}
		}
	}
}

// publish compares the state of now with what was sent. While nobody listens it
// costs nothing, above all no question to the store; whoever comes then gets
// the difference of the whole time.
func (h *hub) publish(ctx context.Context) {
	if h.idle() {
		return
	}
	doc, events := h.document(), h.fresh(ctx)
	h.mu.Lock()
	defer h.mu.Unlock()
	h.apply(doc)
	for _, e := range events {
		h.send(TopicEvent, encode(e))
	}
}

func (h *hub) idle() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.clients) == 0
}

// apply sends what differs in a document from what was sent.
func (h *hub) apply(doc Document) {
	h.diff(TopicSnapshot, "", settled(doc.Status), doc.Status)
	seen := make(map[string]bool)
	for _, row := range doc.Sites {
		h.keyed(seen, TopicSite, row.Name, row)
	}
	for _, row := range doc.Peers {
		h.keyed(seen, TopicBGP, row.Name, row)
	}
	for _, row := range doc.Sessions {
		h.keyed(seen, TopicTransfer, row.Site+"/"+row.Node, row)
	}
	h.gone(seen)
}

// settled is a status without what changes each second by itself, so that time
// alone is no news; every ten seconds it is told all the same.
func settled(s Status) Status {
	s.Now = s.Now.Truncate(10 * time.Second)
	s.Store.Heartbeat, s.Store.Age = time.Time{}, 0
	return s
}

// fresh reads the events since the last one. An unread log is tried again.
func (h *hub) fresh(ctx context.Context) []placement.Event {
	h.mu.Lock()
	last := int64(0)
	if n := len(h.events); n > 0 {
		last = h.events[n-1].ID
	}
	h.mu.Unlock()
	events, err := h.log(ctx, last, 50)
	if err != nil || len(events) == 0 {
		return nil
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.events = append(h.events, events...)
	h.events = slices.Clone(h.events[max(0, len(h.events)-50):])
	return events
}

func (h *hub) keyed(seen map[string]bool, topic, key string, row any) {
	seen[topic+"\x00"+key] = true
	h.diff(topic, key, row, row)
}

// diff sends doc when what identifies it has changed.
func (h *hub) diff(topic, key string, identity, doc any) {
	id, k := encode(identity), topic+"\x00"+key
	if before, ok := h.last[k]; ok && string(before) == string(id) {
		return
	}
	h.last[k] = id
	h.send(topic, encode(doc))
}

// gone tells of rows which are no more.
func (h *hub) gone(seen map[string]bool) {
	var lost []string
	for k := range h.last {
		if topic, _, _ := strings.Cut(k, "\x00"); topic != TopicSnapshot && !seen[k] {
			lost = append(lost, k)
		}
	}
	slices.Sort(lost)
	for _, k := range lost {
		topic, key, _ := strings.Cut(k, "\x00")
		delete(h.last, k)
		h.send(topic, encode(map[string]any{"key": key, "gone": true}))
	}
}

func encode(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic("api: a view cannot be encoded: " + err.Error())
	}
	return b
}

// send keeps a message for those who come back, and queues it for those who are
// here. Whoever is too slow is dropped: it comes back and resumes.
func (h *hub) send(topic string, data []byte) {
	h.seq++
	m := message{seq: h.seq, topic: topic, data: data}
	h.ring = append(h.ring, m)
	if len(h.ring) > 2*ringSize {
		h.ring = slices.Clone(h.ring[len(h.ring)-ringSize:])
	}
	for c := range h.clients {
		if !c.wants(topic) {
			continue
		}
		select {
		case c.queue <- m:
		default:
			h.metrics.dropped.Inc()
			h.remove(c)
		}
	}
}

// join adds a reader, and returns what it must be sent before its queue.
func (h *hub) join(topics []string, lastID string) (*client, []message) {
	h.mu.Lock()
	defer h.mu.Unlock()
	// Made under the lock, so that no difference falls between it and the queue.
	doc := h.document()
	if len(h.clients) == 0 {
		h.apply(doc) // for those who come back with an older ID
		h.notify()   // the events of the silence
	}
	c := &client{queue: make(chan message, clientQueue), topics: topics}
	h.clients[c] = true
	h.metrics.clients.Inc()
	if missed, ok := h.since(lastID); ok {
		return c, slices.DeleteFunc(missed, func(m message) bool { return !c.wants(m.topic) })
	}
	doc.Events = append([]placement.Event{}, h.events...)
	first := []message{{seq: h.seq, topic: TopicState, data: encode(doc)}}
	if lastID != "" {
		first = append([]message{{seq: h.seq, topic: TopicReset, data: []byte("{}")}}, first...)
	}
	return c, first
}

// since returns the messages after an ID, if all of them are still here.
func (h *hub) since(lastID string) ([]message, bool) {
	boot, text, ok := strings.Cut(lastID, "-")
	seq, err := strconv.ParseInt(text, 10, 64)
	if !ok || err != nil || boot != h.boot || seq > h.seq {
		return nil, false
	}
	if seq == h.seq {
		return nil, true
	}
	if len(h.ring) == 0 || h.ring[0].seq > seq+1 {
		return nil, false
	}
	return slices.Clone(h.ring[seq+1-h.ring[0].seq:]), true
}

func (h *hub) id(m message) string { return h.boot + "-" + strconv.FormatInt(m.seq, 10) }

// leave removes a reader; a dropped one is gone already.
func (h *hub) leave(c *client) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.remove(c)
}

func (h *hub) remove(c *client) {
	if h.clients[c] {
		delete(h.clients, c)
		close(c.queue)
		h.metrics.clients.Dec()
	}
}

func (h *hub) closeAll() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for c := range h.clients {
		h.remove(c)
	}
}
