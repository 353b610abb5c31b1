/* How a C struct stands for a CBOR item. Each shape of the contract is described once, in a table; one generic
 * decoder and one generic encoder do the rest.
 *
 *   C member                    CBOR
 *   bool                        true, false
 *   uint64_t                    unsigned integer
 *   double                      float
 *   sc_text, sc_bytes           text, byte string
 *   an enum, stored as uint32_t text, one of a list of words
 *   a struct with a shape       map, or array of fixed length
 *   SC_LIST(T)                  array of any length
 *
 * Entries of a map stand in the bytewise order of their encoded keys (RFC 8949 §4.2.1), which for keys this short
 * means: shorter keys first, then alphabetical. The encoder relies on that order and the decoder requires it. */

#ifndef SC_SHAPE_H
#define SC_SHAPE_H

#include <float.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* UTF-8 text. It is not terminated by a zero. */
typedef struct {
    const char *at;
    uint32_t len;
} sc_text;

typedef struct {
    const uint8_t *at;
    uint32_t len;
} sc_bytes;

/* A list of items. The generic code reads and writes every list as an `sc_list`. */
#define SC_LIST(T) struct { T *items; uint32_t len; }
typedef SC_LIST(void) sc_list;
typedef SC_LIST(sc_text) sc_texts;

typedef enum {
    SC_KIND_BOOL,
    SC_KIND_UINT,
    SC_KIND_FLOAT,
    SC_KIND_TEXT,
    SC_KIND_BYTES,
    SC_KIND_WORD,       /* text out of a list; the member is a uint32_t index into it */
    SC_KIND_LITERAL,    /* always the first of `words`; has no member */
    SC_KIND_TRUE,       /* always true; has no member */
    SC_KIND_FALSE,      /* always false; has no member */
    SC_KIND_NESTED,     /* one item of `shape` */
    SC_KIND_LIST,       /* many items of `shape` */
} sc_kind;

typedef struct sc_shape sc_shape;

/* One entry of a map or one place of a tuple. */
typedef struct {
    const char *name;
    uint8_t name_len;
    uint8_t kind;           /* sc_kind */
    uint16_t offset;        /* of the member in its struct */
    uint16_t has_offset;    /* of the bool that says whether an optional member is there; SC_REQUIRED for none */
    const sc_shape *shape;  /* of SC_KIND_NESTED and of the items of SC_KIND_LIST */
    const sc_text *words;   /* of SC_KIND_WORD and SC_KIND_LITERAL */
    double low, high;       /* inclusive: of the value, of a text's length in characters, of bytes, or of the count of items or words */
} sc_field;

#define SC_REQUIRED UINT16_MAX

typedef enum {
    SC_FORM_MAP,
    SC_FORM_TUPLE,      /* an array whose places are the fields, in order */
    SC_FORM_BARE,       /* the one field itself, as for a list of texts */
    SC_FORM_CHOICE,     /* one of several nested shapes; a uint32_t at offset 0 picks it. Only encoded */
} sc_form;

struct sc_shape {
    const sc_field *fields;
    uint16_t size;          /* sizeof the struct */
    uint8_t form;           /* sc_form */
    uint8_t count;          /* of fields */
};

/* ---- How the tables are written. `T` is the struct, `m` the member, which has the name of the key. ---- */

#define SC_MEMBER(T, m) (((T *)0)->m)

#define SC_KIND_OF(T, m) _Generic(SC_MEMBER(T, m), \
    bool: SC_KIND_BOOL, uint64_t: SC_KIND_UINT, double: SC_KIND_FLOAT, sc_text: SC_KIND_TEXT, sc_bytes: SC_KIND_BYTES)

#define SC_NAMED(m) .name = #m, .name_len = sizeof #m - 1
#define SC_AT(T, m) SC_NAMED(m), .offset = offsetof(T, m), .has_offset = SC_REQUIRED

/* A plain member between two bounds: of its value, of a text's length in characters, or of bytes. */
#define SC_WITHIN(T, m, low_, high_) { SC_AT(T, m), .kind = SC_KIND_OF(T, m), .low = (low_), .high = (high_) }
/* A plain member of any value; floats are finite. */
#define SC_ANY(T, m) SC_WITHIN(T, m, -DBL_MAX, DBL_MAX)
/* A float that is not negative. */
#define SC_NOT_NEGATIVE(T, m) SC_WITHIN(T, m, 0, DBL_MAX)
/* A plain member that may be absent; `has_m` says whether it is there. */
#define SC_MAYBE(T, m) { SC_NAMED(m), .kind = SC_KIND_OF(T, m), .offset = offsetof(T, m), \
    .has_offset = offsetof(T, has_##m), .low = -DBL_MAX, .high = DBL_MAX }
/* The same between two bounds. */
#define SC_MAYBE_WITHIN(T, m, low_, high_) { SC_NAMED(m), .kind = SC_KIND_OF(T, m), .offset = offsetof(T, m), \
    .has_offset = offsetof(T, has_##m), .low = (low_), .high = (high_) }
#define SC_WORDS(T, m, list) { SC_AT(T, m), .kind = SC_KIND_WORD, .words = (list), \
    .high = sizeof(list) / sizeof *(list) - 1 }
#define SC_NESTED(T, m, S) { SC_AT(T, m), .kind = SC_KIND_NESTED, .shape = &S##_shape }
#define SC_NESTED_MAYBE(T, m, S) { SC_NAMED(m), .kind = SC_KIND_NESTED, .shape = &S##_shape, \
    .offset = offsetof(T, m), .has_offset = offsetof(T, has_##m) }
#define SC_ITEMS(T, m, S, low_, high_) { SC_AT(T, m), .kind = SC_KIND_LIST, .shape = &S##_shape, \
    .low = (low_), .high = (high_) }
#define SC_LITERAL(key, word) { SC_NAMED(key), .has_offset = SC_REQUIRED, .kind = SC_KIND_LITERAL, .words = &(word) }
#define SC_ALWAYS(key, kind_) { SC_NAMED(key), .has_offset = SC_REQUIRED, .kind = SC_KIND_##kind_ }

/* Defines `T_shape` from a table of fields. */
#define SC_SHAPE(T, form_, table) const sc_shape T##_shape = { \
    .fields = (table), .size = sizeof(T), .form = SC_FORM_##form_, .count = sizeof(table) / sizeof *(table) }
/* Defines `T_shape` of an empty map. */
#define SC_SHAPE_EMPTY(T) const sc_shape T##_shape = { .size = sizeof(T), .form = SC_FORM_MAP }

/* No bound from above. */
#define SC_UNBOUNDED DBL_MAX

#endif
