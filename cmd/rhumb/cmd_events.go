package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"rhumb/internal/api"
	"rhumb/placement"
)

// eventFlags are what `events` filters by.
type eventFlags struct {
	follow bool
	since  string
	site   string
	kinds  []string
	limit  int
}

func (a *app) eventsCommand() *cobra.Command {
	var f eventFlags
	cmd := &cobra.Command{
		Use: "events", Short: "What happened, oldest first; -f goes on", Args: args(cobra.NoArgs),
		Example: "  rhumb events --since 1h --kind health,bgp\n  rhumb events -f --site ams1",
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.connect()
			if err != nil {
				return err
			}
			var list api.List[placement.Event]
			raw, err := c.get(cmd.Context(), "/events?"+f.query(), &list)
			if err != nil {
				return err
			}
			if f.follow {
				return a.followEvents(cmd.Context(), c, &f, list.Items)
			}
			return a.show(result{raw: raw, names: eventNames(list.Items), text: func(w io.Writer, s style) {
				for _, e := range list.Items {
					writeEvent(w, s, &e)
				}
				if len(list.Items) == 0 {
					fmt.Fprintln(w, "no events")
				}
			}})
		},
	}
	fl := cmd.Flags()
	fl.BoolVarP(&f.follow, "follow", "f", false, "go on with what happens")
	fl.StringVar(&f.since, "since", "", "from then on: 1h, an RFC 3339 time, or an event's ID")
	fl.StringVar(&f.site, "site", "", "of this site only")
	fl.StringSliceVar(&f.kinds, "kind", nil, "of these kinds: health, bgp, drain, config, session, snapshot")
	fl.IntVar(&f.limit, "limit", 100, "the newest so many")
	return cmd
}

func (f *eventFlags) query() string {
	q := url.Values{"limit": {fmt.Sprint(f.limit)}}
	for k, v := range map[string]string{"since": f.since, "site": f.site, "kind": strings.Join(f.kinds, ",")} {
		if v != "" {
			q.Set(k, v)
		}
	}
	return q.Encode()
}

func (f *eventFlags) keep(e *placement.Event) bool {
	return (f.site == "" || e.Site == f.site) && (len(f.kinds) == 0 || slices.Contains(f.kinds, e.Kind))
}

func eventNames(list []placement.Event) []string {
	out := make([]string, 0, len(list))
	for _, e := range list {
		out = append(out, fmt.Sprint(e.ID))
	}
	return out
}

func writeEvent(w io.Writer, s style, e *placement.Event) {
	color := map[string]string{"health": yellow, "bgp": blue, "drain": blue, "config": green}[e.Kind]
	who := ""
	if e.Who != "" {
		who = "  (" + e.Who + ")"
	}
	fmt.Fprintf(w, "%s  %-9s %-6s %s%s\n", e.At.UTC().Format("2006-01-02 15:04:05Z"), s.paint(color, fmt.Sprintf("%-8s", e.Kind)), e.Site, oneLine(e.Text), oneLine(who))
}

// follower prints events once each, whichever way they come.
type follower struct {
	app   *app
	style style
	want  *eventFlags
	last  int64 // ID of the newest one printed
}

func (f *follower) print(e *placement.Event) error {
	if e.ID <= f.last || !f.want.keep(e) {
		return nil
	}
	f.last = e.ID
	if o := f.app.global.output; o == "json" || o == "ndjson" {
		return json.NewEncoder(f.app.out).Encode(e)
	}
	writeEvent(f.app.out, f.style, e)
	return nil
}

// message takes a frame of the stream: an event, or the whole state, whose
// events are news only after a break.
func (f *follower) message(topic string, data []byte) error {
	var doc api.Document
	switch topic {
	case api.TopicEvent:
		doc.Events = make([]placement.Event, 1)
		if err := json.Unmarshal(data, &doc.Events[0]); err != nil {
			return err
		}
	case api.TopicState:
		if err := json.Unmarshal(data, &doc); err != nil {
			return err
		}
	}
	for i := range doc.Events {
		if err := f.print(&doc.Events[i]); err != nil {
			return err
		}
	}
	return nil
}

// followEvents prints what was, then what comes, and comes back after a break.
func (a *app) followEvents(ctx context.Context, c *client, want *eventFlags, before []placement.Event) error {
	f := &follower{app: a, style: a.style(), want: want}
	for i := range before {
		if err := f.print(&before[i]); err != nil {
			return err
		}
	}
	for lastID := ""; ; {
		err := c.stream(ctx, api.TopicEvent, &lastID, f.message)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil && codeOf(err) != exitUnreachable && !errors.Is(err, io.ErrUnexpectedEOF) {
			return err
		}
		a.say("reconnecting to %s", c.where)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(time.Second):
		}
	}
}

// stream reads server-sent events until the connection ends; lastID goes on
// from where the last one ended.
func (c *client) stream(ctx context.Context, topics string, lastID *string, each func(topic string, data []byte) error) error {
	res, err := c.send(ctx, http.MethodGet, "/stream?topics="+topics, nil, "Last-Event-ID", *lastID)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if res.StatusCode >= 400 {
		raw, _ := io.ReadAll(res.Body) // what cannot be read is told as a bare status
		return problem(res.StatusCode, raw)
	}
	topic := ""
	in := bufio.NewScanner(res.Body)
	in.Buffer(nil, 16<<20)
	for in.Scan() {
		field, value, _ := strings.Cut(in.Text(), ": ")
		switch field {
		case "event":
			topic = value
		case "id":
			*lastID = value
		case "data":
			if err := each(topic, []byte(value)); err != nil {
				return err
			}
		}
	}
	return in.Err()
}
