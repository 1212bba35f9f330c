module rhumb/internal/tools

go 1.26.0

require rhumb v0.0.0

require (
	github.com/oschwald/geoip2-golang/v2 v2.5.0 // indirect
	github.com/oschwald/maxminddb-golang/v2 v2.9.0 // indirect
	golang.org/x/sys v0.49.0 // indirect
)

replace rhumb => ../..
