/* Structs to deterministic CBOR and back, by the tables of shape.h. */

#ifndef SC_CODEC_H
#define SC_CODEC_H

#include "shape.h"

/* Decodes strictly. Refused: an unknown, missing, repeated or misplaced key; another type than the field's; values,
 * lengths and counts outside their bounds; floats that are not finite; heads and floats that are not in their shortest
 * form; text that is not UTF-8; bytes behind the value. A refusal is kept as the error `bad_request`, whose message
 * names the key. Text and bytes in the struct point into `at`. */
bool sc_decode(const uint8_t *at, uint32_t len, const sc_shape *shape, void *into);

/* Encodes into the arena. False: no room. */
bool sc_encode(const sc_shape *shape, const void *from, sc_bytes *out);

/* True when the bytes are UTF-8 (RFC 3629 §4). */
bool sc_utf8_valid(const uint8_t *at, uint32_t len);
/* How many characters UTF-8 has. */
uint32_t sc_utf8_characters(const uint8_t *at, uint32_t len);

#endif
