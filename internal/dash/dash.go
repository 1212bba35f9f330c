// Package dash embeds the pages drawn from it.
package dash

import "net/http"

// Handler serves the pages; there is none yet.
func Handler() http.Handler { return http.NotFoundHandler() }
