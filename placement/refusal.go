package placement

import "fmt"

// Refusal says why something was not done: the one shape that API, CLI and
// exit code 5 print.
type Refusal struct {
	Rule   RuleName `json:"rule"`
	Object string   `json:"object"`
	Have   string   `json:"have"`
	Limit  string   `json:"limit"`
	// Hint is the next step for a person, if there is one.
	Hint string `json:"hint,omitempty"`
}

func (r *Refusal) Error() string {
	return fmt.Sprintf("refused: rule %s, object %s, have %s, limit %s", r.Rule, r.Object, r.Have, r.Limit)
}
