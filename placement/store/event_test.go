package store

import (
	"fmt"
	"testing"
	"time"

	"rhumb/placement"
)

func TestEvents(t *testing.T) {
	eachGround(t, func(t *testing.T, open func() *Store) {
		s := open()
		at := time.Unix(1000, 0)
		for i := range 5 {
			e := placement.Event{At: at.Add(time.Duration(i/2) * time.Second), Kind: "drain", Text: fmt.Sprint(i)}
			if err := s.AddEvent(ctxFor(t), e); err != nil {
				t.Fatal(err)
			}
		}
		all, err := s.Events(ctxFor(t), 0, 0)
		if err != nil || len(all) != 5 {
			t.Fatalf("%d events, %v", len(all), err)
		}
		for i, e := range all {
			if e.Text != fmt.Sprint(i) || i > 0 && e.ID <= all[i-1].ID {
				t.Errorf("event %d is %q with ID %d", i, e.Text, e.ID)
			}
		}
		if last, err := s.Events(ctxFor(t), all[1].ID, 2); err != nil || len(last) != 2 || last[1].Text != "4" {
			t.Errorf("the newest two after the second: %+v, %v", last, err)
		}
	})
}

func TestEventsAreBounded(t *testing.T) {
	s := memoryStore(t, NewMemory())
	for i := range int64(keptEvents + 10) {
		mustWrite(t, s.kv, nil, put(eventKey(i+1), seal(placement.Event{ID: i + 1})))
	}
	if err := s.sweepEvents(ctxFor(t)); err != nil {
		t.Fatal(err)
	}
	all, err := s.Events(ctxFor(t), 0, 0)
	if err != nil || len(all) != keptEvents || all[0].ID != 11 {
		t.Errorf("%d events, first %d, %v", len(all), all[0].ID, err)
	}
}
