/* Sentences: formatted text for replies and messages. */

#ifndef SC_TEXT_H
#define SC_TEXT_H

#include <stdarg.h>

#include "arena.h"
#include "shape.h"

/* The longest text that sc_format makes; more is cut. */
#define SC_FORMAT_BYTES_MAX 1024u

/* Text of a string that ends with a zero. */
sc_text sc_text_of(const char *string);

/* Inline, because a struct passed to a function costs a copy in memory. */
static inline bool sc_text_same(sc_text a, sc_text b) {
    return a.len == b.len && sc_same(a.at, b.at, a.len);
}

/* Text in the arena, from the subset of printf that a sentence needs: %s, %.*s, %u, %llu, %g, %.Ng (N from 1 to 15,
 * default 6) and %%. Numbers are rounded to the last shown digit from a scaled double, so an exact tie may go either
 * way, but always the same way. Control characters in strings become '?', so that a message stays one line. */
sc_text sc_format(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* The two arguments that %.*s takes. */
#define SC_TEXT_ARGS(text) (int)(text).len, (text).at

/* The same into a buffer; returns the length. Cuts at a whole character. */
uint32_t sc_format_into(char *at, uint32_t room, const char *format, va_list arguments);

/* Cleared room for one more item at the end of a list of items of `size` bytes. The list must start empty. */
void *sc_push(void *list, uint32_t size);
/* A new item at the end of an SC_LIST, as a pointer to it. */
#define SC_PUSH(list) ((__typeof__((list)->items))sc_push((list), sizeof *(list)->items))

#endif
