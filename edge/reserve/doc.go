// Package reserve chooses the Backup of each session by bounded load, and keeps what a
// Backup has reserved for the loss of others.
//
// All of it is pure: values in, values out, the time given. The words:
//
//	order    of the sites for one session: weighted rendezvous hashing, the same at every site
//	spread   how many of an owner's sessions each Backup has
//	door     whether a Backup that has refused may be asked again
//	loss     what may fail at once: a site, or a failure domain with all of its sites
//	ledger   what a Backup has reserved for each loss
//
//	owner:   order → spread, doors → a Backup, or none
//	Backup:  ledger → kept, or refused: the owner goes to the next of the order
//
// The order is that of Thaler and Ravishankar (Using name-based mappings to increase hit
// rates, 1998), with the weights of Schindelhauer and Schomaker (Weighted distributed hash
// tables, 2005). The bound on a site's part is that of Mirrokni, Thorup and Zadimoghaddam
// (Consistent hashing with bounded loads, 2018), with c = 1.25; it gives way where all
// others are full. The limit of a Backup does not: the sessions of its own, and those that
// the loss of any one failure domain would bring, are never more than it.
package reserve
