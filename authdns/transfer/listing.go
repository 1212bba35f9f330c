package transfer

// Listing is how a catalog lists a zone. Two zones of one name with different listings
// are two zones: what is kept of the one is not the other's.
type Listing struct {
	Catalog string // canonical; "" for a zone that is configured by itself
	// ID is the label that it stands under.
	ID string
	// From is the catalog which handed the zone over; "" for none.
	From string
}

// same tells whether two listings mean the same zone; who handed it over is past.
func (l Listing) same(o Listing) bool { return l.Catalog == o.Catalog && l.ID == o.ID }

// becomes tells whether a zone that was listed so is the one that is wanted as next.
// Another label makes it another zone (RFC 9432 section 5.4), and so does another
// catalog to which its own has not handed it over (section 4.4.1). Whoever configures a
// zone by himself, or no longer does, means the zone that he has.
func (l Listing) becomes(next Listing) bool {
	if l.Catalog == "" || next.Catalog == "" {
		return true
	}
	return l.ID == next.ID && (l.Catalog == next.Catalog || l.Catalog == next.From)
}
