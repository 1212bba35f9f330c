package placement

// Hearing is what a site hears of another at this moment, straight from its detector: not
// damped as a Vote is, and so only for what can be taken back a second later, such as
// the path of a packet.
type Hearing struct {
	Site  string `json:"site"`
	State State  `json:"state"` // unknown, up, path or down
	// By are the sites that say they heard it lately, Silent those that said so once and
	// no longer do. Who is in neither has no word on it.
	By     []string `json:"by,omitempty"`
	Silent []string `json:"silent,omitempty"`
	// Suspected is since when the site may be lost; zero: nothing speaks for that, or it was
	// heard without a gap for some seconds. It comes before any verdict and is none.
	Suspected Time `json:"suspected,omitzero"`
}
