package decide

import (
	"slices"

	"rhumb/placement"
)

// Score is how far a forecast was off, site by site.
type Score struct {
	Sites []SiteScore `json:"sites"`
	// Error is the demand that was expected at the wrong site, as a part of all.
	Error float64 `json:"error"`
}

// SiteScore compares one site, in queries per second.
type SiteScore struct {
	Site     string `json:"site"`
	Forecast int64  `json:"forecast"`
	Actual   int64  `json:"actual"`
}

// ScoreForecast compares what was forecast with what the sites then carried.
func ScoreForecast(f Forecast, actual []placement.Load) Score {
	bySite := make(map[string]*SiteScore)
	at := func(site string) *SiteScore {
		if bySite[site] == nil {
			bySite[site] = &SiteScore{Site: site}
		}
		return bySite[site]
	}
	for _, c := range f.Clusters {
		at(c.Cluster.Site).Forecast += c.After
	}
	for _, l := range actual {
		at(l.Cluster.Site).Actual += l.QPS
	}
	var out Score
	var wrong, total int64
	for _, site := range sortedKeys(bySite) {
		s := bySite[site]
		out.Sites = append(out.Sites, *s)
		wrong += max(s.Forecast-s.Actual, s.Actual-s.Forecast)
		total += s.Forecast + s.Actual
	}
	if total > 0 {
		out.Error = float64(wrong) / float64(total)
	}
	return out
}

// sites lists the sites of some clusters, each once.
func sitesOf(ids []placement.ClusterID) []string {
	var out []string
	for _, id := range ids {
		if !slices.Contains(out, id.Site) {
			out = append(out, id.Site)
		}
	}
	return out
}
