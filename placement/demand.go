package placement

// Demand is what the clients of a fleet ask for. Three figures of it are kept apart,
// because they are not the same thing:
//
//   - asked: queries which name servers answered, by class of the client. An answer is
//     kept by a resolver for its TTL and serves everybody behind it meanwhile, so that a
//     query stands for one filling of a cache and never for one client.
//   - expected: what the operator says of a region (Service.Demand), in requests.
//   - planned: what a Plan divides among clusters (ServicePlan.Demand), in requests.
//
// Service.PerQuery leads from the first to the third.

// ClassRate is what is asked from one class, in thousandths of a query per second: most
// classes of a large table ask less than once a second. The keys are short because
// there are thousands of them.
type ClassRate struct {
	Class uint16 `json:"c"`
	Milli int64  `json:"m"`
}

// ServiceDemand is what is asked for one service, in order of class.
type ServiceDemand struct {
	Service string      `json:"service"`
	Asked   []ClassRate `json:"asked"`
}

// DemandReport is what one node's name server is asked, smoothed. The reports of all
// nodes add up: a query reaches one of them.
type DemandReport struct {
	Node string `json:"node"`
	// ClassTable is the digest of the table which numbers the classes: those of another
	// one mean other clients.
	ClassTable string `json:"class_table"`
	// Services in order of name.
	Services []ServiceDemand `json:"services"`
}
