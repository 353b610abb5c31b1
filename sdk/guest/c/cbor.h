/* The heads and floats of deterministic CBOR (RFC 8949 §3 and §4.2.1). */

#ifndef SC_CBOR_H
#define SC_CBOR_H

#include <stdbool.h>
#include <stdint.h>

/* Major types, RFC 8949 §3.1. */
enum { CBOR_UINT, CBOR_NINT, CBOR_BYTES, CBOR_TEXT, CBOR_ARRAY, CBOR_MAP, CBOR_TAG, CBOR_SIMPLE };

/* Initial bytes of major type 7, RFC 8949 §3.3. */
enum { CBOR_FALSE = 0xf4, CBOR_TRUE = 0xf5, CBOR_F16 = 0xf9, CBOR_F32 = 0xfa, CBOR_F64 = 0xfb };

/* The longest head, and the longest float: an initial byte and 8 more. */
#define CBOR_HEAD_BYTES_MAX 9u

typedef struct {
    const uint8_t *at, *end;
} sc_reader;

/* Reads a head of any major type but 7. False: it ends too early, is not in its shortest form, or has no definite
 * length. Nothing was read then. */
bool cbor_read_head(sc_reader *in, uint8_t *major, uint64_t *argument);
/* Reads a float. False: it ends too early, is no float, or a shorter float would have kept the value. */
bool cbor_read_float(sc_reader *in, double *value);

/* Each writes at most CBOR_HEAD_BYTES_MAX bytes and returns the place behind them. */
uint8_t *cbor_write_head(uint8_t *at, uint8_t major, uint64_t argument);
uint8_t *cbor_write_float(uint8_t *at, double value);

#endif
