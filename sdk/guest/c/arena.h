/* The memory of one call: a bump pointer between the module's data and the end of linear memory. Allocation is an
 * addition and freeing everything is an assignment. */

#ifndef SC_ARENA_H
#define SC_ARENA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* `len` bytes, 8-byte aligned and not cleared, or NULL when the memory ceiling is reached. Exported: the host calls
 * it for the room that a request needs. */
void *sc_alloc(uint32_t len);

/* Frees everything. Exported: the host calls it after it has read a reply. */
void sc_reset(void);

/* Cleared room for `count` items of `size` bytes. Traps when the memory ceiling is reached, so that a skill needs no
 * checks: the host ends the call with a typed error. */
void *sc_new(uint32_t count, uint32_t size);
#define SC_NEW(T, count) ((T *)sc_new((count), sizeof(T)))

/* Room at the top of the arena, not yet taken: `len` bytes or more, or NULL. */
uint8_t *sc_reserve(uint32_t len);
/* How much room the last sc_reserve left. */
uint32_t sc_reserved(void);
/* Takes the first `len` bytes of it. */
void sc_commit(uint32_t len);

#define sc_copy(to, from, len) __builtin_memcpy((to), (from), (len))
#define sc_clear(at, len) __builtin_memset((at), 0, (len))
bool sc_same(const void *a, const void *b, uint32_t len);

#endif
