package config

import (
	"path"

	"rhumb/placement"
)

// uploadsFile says what a content service takes from its clients.
type uploadsFile struct {
	Dir   string `yaml:"dir"`
	MaxMB int    `yaml:"max_mb"`
}

// maxUploadMB bounds one object: sequence numbers wrap at 4 GB, and a Backup has a copy.
const maxUploadMB = 1 << 20

// checkUploads checks where uploads go, and that what L2 promises can be kept: the
// Backup of a session needs to be allowed to go on with it.
func (d *document) checkUploads(at []string, e *edgeFile) {
	u := append(at[:len(at):len(at)], "uploads")
	switch {
	case e.Uploads == (uploadsFile{}) && e.Freshness == placement.FreshL2:
		d.fail(append(at, "freshness"), "L2 is for uploads: name their directory, or want L1")
	case e.Uploads == (uploadsFile{}):
	case e.Kind != placement.Content:
		d.fail(u, "is for content: other servers take uploads by themselves")
	case !path.IsAbs(e.Uploads.Dir) || path.Clean(e.Uploads.Dir) != e.Uploads.Dir:
		d.fail(append(u, "dir"), "%q: want an absolute path", e.Uploads.Dir)
	case e.Uploads.MaxMB < 0 || e.Uploads.MaxMB > maxUploadMB:
		d.fail(append(u, "max_mb"), "%d: want 1 to %d, or 0 for 1024", e.Uploads.MaxMB, maxUploadMB)
	case e.TLS != (edgeTLSFile{}) && e.Export != placement.ExportGroup && (e.Export != placement.ExportSite || e.Freshness == placement.FreshL2):
		d.fail(u, "over TLS uploads need export_secrets: group (below L2, site will do): %q leaves the records to others", e.Export)
	case e.Freshness == placement.FreshL2 && e.Revival != placement.ReviveAct:
		d.fail(append(at, "freshness"), "L2 needs revival: act: nobody would go on with what is kept")
	}
}
