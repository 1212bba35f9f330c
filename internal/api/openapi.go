package api

import (
	"encoding/json"
	"net/http"
	"reflect"
	"regexp"
	"strings"

	"github.com/danielgtaylor/huma/v2"
)

// openapi serves the document of version 1, OpenAPI 3.1, made from the route
// table and the types themselves.
func (s *Server) openapi(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(s.describe()) // the client has gone: nobody to tell
}

func (s *Server) describe() *huma.OpenAPI {
	reg := huma.NewMapRegistry("#/components/schemas/", schemaName)
	doc := &huma.OpenAPI{
		OpenAPI:    "3.1.0",
		Info:       &huma.Info{Title: "Rhumb", Version: "v1", Description: "State, events and operations of a DNS and anycast director. Errors are application/problem+json (RFC 9457)."},
		Components: &huma.Components{Schemas: reg},
		Paths:      map[string]*huma.PathItem{},
	}
	for _, e := range s.endpoints() {
		path := prefix + e.path
		if doc.Paths[path] == nil {
			doc.Paths[path] = &huma.PathItem{}
		}
		op := operation(reg, e)
		switch e.method {
		case http.MethodGet:
			doc.Paths[path].Get = op
		case http.MethodPost:
			doc.Paths[path].Post = op
		case http.MethodPut:
			doc.Paths[path].Put = op
		}
	}
	return doc
}

func operation(reg huma.Registry, e endpoint) *huma.Operation {
	op := &huma.Operation{Summary: e.summary, OperationID: operationID(e), Responses: map[string]*huma.Response{
		"200":     {Description: "done", Content: content("application/json", reg, e.out)},
		"default": {Description: "a problem", Content: content("application/problem+json", reg, Problem{})},
	}}
	if e.in != nil {
		op.RequestBody = &huma.RequestBody{Required: true, Content: content("application/json", reg, e.in)}
	}
	for _, m := range regexp.MustCompile(`\{(\w+)\}`).FindAllStringSubmatch(e.path, -1) {
		op.Parameters = append(op.Parameters, &huma.Param{Name: m[1], In: "path", Required: true, Schema: &huma.Schema{Type: huma.TypeString}})
	}
	return op
}

func operationID(e endpoint) string {
	return strings.ToLower(e.method) + strings.NewReplacer("/", "-", "{", "", "}", "").Replace(e.path)
}

func content(kind string, reg huma.Registry, v any) map[string]*huma.MediaType {
	if v == nil {
		return nil
	}
	return map[string]*huma.MediaType{kind: {Schema: reg.Schema(reflect.TypeOf(v), true, "")}}
}

// schemaName keeps names apart which this package and the nouns share: placement.Site
// becomes PlacementSite, List[api.Site] becomes SiteList.
func schemaName(t reflect.Type, hint string) string {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	name := t.Name()
	if inner, ok := strings.CutPrefix(name, "List["); ok {
		inner = strings.TrimSuffix(inner, "]")
		return inner[strings.LastIndex(inner, ".")+1:] + "List"
	}
	if name == "" {
		return huma.DefaultSchemaNamer(t, hint)
	}
	if strings.HasSuffix(t.PkgPath(), "/placement") {
		return "Placement" + name
	}
	return name
}
