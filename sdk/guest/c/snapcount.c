#include "snapcount.h"

/* Bit 31 of a reply's length marks an error reply. */
#define ERROR_BIT (1u << 31)

static uint64_t pack(sc_bytes bytes, uint32_t flag) {
    return (uint64_t)(uintptr_t)bytes.at << 32 | flag | bytes.len;
}

bool sc_receive(const uint8_t *at, uint32_t len, const sc_shape *shape, void *request) {
    sc_failure_clear();
    return sc_decode(at, len, shape, request);
}

uint64_t sc_send(const sc_shape *shape, const void *reply) {
    sc_bytes bytes;
    if (sc_encode(shape, reply, &bytes)) return pack(bytes, 0);
    sc_fail("no_memory", "expected room for the reply, got to the memory ceiling");
    return sc_send_failure();
}

uint64_t sc_send_failure(void) {
    /* What the call has allocated is of no use any more, and its room may be all there is. */
    sc_reset();
    ErrorReply reply = sc_failure();
    sc_bytes bytes;
    if (!sc_encode(&ErrorReply_shape, &reply, &bytes)) __builtin_trap();
    return pack(bytes, ERROR_BIT);
}
