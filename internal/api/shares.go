package api

import "rhumb/placement"

// shares says which part of the demand the snapshot's answers send to each
// site. Classes without a known demand count one query, so that a fleet without
// measured demand shows the share of its client classes.
func shares(s *placement.Snapshot) map[string]float64 {
	out := make(map[string]float64)
	if s == nil {
		return out
	}
	total := 0.0
	for i := range s.Maps {
		if m := &s.Maps[i]; !m.Service.IsNameServer() {
			total += addShares(m, demandOf(s.Plan, m.Service.Name), out)
		}
	}
	for site := range out {
		out[site] /= total
	}
	return out
}

func addShares(m *placement.ServiceMap, demand map[uint16]int64, out map[string]float64) float64 {
	total := 0.0
	for class, row := range m.Rows {
		weight := 1.0
		if demand != nil {
			weight = float64(demand[uint16(class)])
		}
		last := uint16(0)
		for _, sh := range row.Shares {
			part := weight * float64(sh.Upto-last) / 1000
			out[m.Clusters[row.Candidates[sh.Candidate].Cluster].Site] += part
			total += part
			last = sh.Upto
		}
	}
	return total
}

// demandOf returns the planned demand of a service by class, nil without any.
func demandOf(p *placement.Plan, service string) map[uint16]int64 {
	if p == nil {
		return nil
	}
	for i := range p.Services {
		if sp := &p.Services[i]; sp.Service == service && len(sp.Demand) > 0 {
			out := make(map[uint16]int64, len(sp.Demand))
			for _, d := range sp.Demand {
				out[d.Class] = d.QPS
			}
			return out
		}
	}
	return nil
}
