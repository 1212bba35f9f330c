// Package upload receives objects: it stages what comes of them in files, and gives a
// whole one its name, once.
//
// The words:
//
//   - A File is an upload on its way, in the staging directory of its service. Octets
//     enter it in order; what is there already may come again.
//   - To publish is to rename a whole File to its object's name, in one step: who reads
//     the name finds the object before or the new one, never a part. An upload has an
//     ID, and publishing one ID again answers what the first time answered.
//   - A Message is what two sites tell each other of an upload: its owner, who has the
//     client, and its Backup.
//   - A Lease is the owner's right to act on its own, a Promise the Backup's other half.
//
// What was written survives the process that wrote it, which is what the crash of a
// site needs of the other one. Against the loss of power a File is synchronized to
// disk once, before it is published.
package upload
