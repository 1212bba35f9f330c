package seal

import "fmt"

// Alert is the description of an alert (RFC 8446 section 6). It is an error:
// of the peer if it came from there, else what to tell the peer.
type Alert uint8

// The alerts which this layer sends or tells apart.
const (
	CloseNotify       Alert = 0
	UnexpectedMessage Alert = 10
	BadRecordMAC      Alert = 20
	RecordOverflow    Alert = 22
	DecodeError       Alert = 50
	userCanceled      Alert = 90
)

// Levels of RFC 8446 section 6; only closure alerts are warnings.
const (
	levelWarning = 1
	levelFatal   = 2
)

// alertRecord is the length of an alert's record.
const alertRecord = Overhead + 2

func (a Alert) text() []byte {
	if a == CloseNotify {
		return []byte{levelWarning, byte(a)}
	}
	return []byte{levelFatal, byte(a)}
}

func (a Alert) Error() string {
	switch a {
	case CloseNotify:
		return "TLS alert close_notify"
	case UnexpectedMessage:
		return "TLS alert unexpected_message"
	case BadRecordMAC:
		return "TLS alert bad_record_mac"
	case RecordOverflow:
		return "TLS alert record_overflow"
	case DecodeError:
		return "TLS alert decode_error"
	}
	return fmt.Sprintf("TLS alert %d", uint8(a))
}

// Heard wraps an alert that the peer sent: it is not answered by another.
type Heard struct{ Alert }

func (h Heard) Error() string { return "peer: " + h.Alert.Error() }

// Unwrap returns the alert itself.
func (h Heard) Unwrap() error { return h.Alert }
