#include "arena.h"

#define PAGE_BYTES 65536u
#define ALIGNMENT 8u

/* The linker puts this symbol behind the stack and the data. It is 16-byte aligned. */
extern uint8_t __heap_base;

static uint8_t *top = &__heap_base;
/* End of the memory that the arena knows of. It starts empty, so the first allocation asks how much there is. */
static uint8_t *limit = &__heap_base;

static bool grow(uint32_t len) {
    /* 64 bits, because a full memory ends at 2^32. */
    uint64_t end = (uint64_t)__builtin_wasm_memory_size(0) * PAGE_BYTES;
    uint64_t wanted = (uint64_t)(uintptr_t)top + len;
    if (wanted > UINT32_MAX - PAGE_BYTES) return false;
    if (wanted > end) {
        uint32_t pages = (uint32_t)((wanted - end + PAGE_BYTES - 1) / PAGE_BYTES);
        if (__builtin_wasm_memory_grow(0, pages) == SIZE_MAX) return false;
        end += (uint64_t)pages * PAGE_BYTES;
    }
    limit = (uint8_t *)(uintptr_t)(end > UINT32_MAX ? UINT32_MAX - PAGE_BYTES + 1 : end);
    return true;
}

uint8_t *sc_reserve(uint32_t len) {
    if (len > (uint32_t)(limit - top) && !grow(len)) return NULL;
    return top;
}

uint32_t sc_reserved(void) {
    return (uint32_t)(limit - top);
}

void sc_commit(uint32_t len) {
    top += len;
}

__attribute__((export_name("sc_alloc"))) void *sc_alloc(uint32_t len) {
    /* Both ends are aligned, or become so here: `limit` is the end of a page. */
    top = (uint8_t *)(((uintptr_t)top + ALIGNMENT - 1) & ~(uintptr_t)(ALIGNMENT - 1));
    uint8_t *at = sc_reserve(len);
    if (at != NULL) top += len;
    return at;
}

__attribute__((export_name("sc_reset"))) void sc_reset(void) {
    top = &__heap_base;
}

void *sc_new(uint32_t count, uint32_t size) {
    uint64_t len = (uint64_t)count * size;
    void *at = len > UINT32_MAX ? NULL : sc_alloc((uint32_t)len);
    if (at == NULL) __builtin_trap();
    sc_clear(at, (uint32_t)len);
    return at;
}

bool sc_same(const void *a, const void *b, uint32_t len) {
    const uint8_t *left = a, *right = b;
    for (; len >= sizeof(uint32_t); len -= sizeof(uint32_t)) {
        uint32_t one, other;
        sc_copy(&one, left, sizeof one);
        sc_copy(&other, right, sizeof other);
        if (one != other) return false;
        left += sizeof one;
        right += sizeof other;
    }
    for (; len > 0; len--)
        if (*left++ != *right++) return false;
    return true;
}
