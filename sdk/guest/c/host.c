#include "arena.h"
#include "codec.h"
#include "host.h"
#include "text.h"

#define HOST(name) __attribute__((import_module("snapcount:host/1"), import_name(#name)))

HOST(log) void sc_host_log(uint32_t level, const void *at, uint32_t len);
HOST(now_ms) int64_t sc_host_now_ms(void);
HOST(random) void sc_host_random(void *at, uint32_t len);
HOST(state_get) int32_t sc_host_state_get(const void *key, uint32_t key_len, void *out, uint32_t out_cap);
HOST(state_set) int32_t sc_host_state_set(const void *key, uint32_t key_len, const void *value, uint32_t value_len);
HOST(call) uint32_t sc_host_call(const void *capability, uint32_t capability_len, const void *request,
    uint32_t request_len, void *out, uint32_t out_cap);

/* Room for a stored value at the first attempt; a longer one costs a second host call. */
#define STATE_FIRST_BYTES 512u
/* docs/abi.md: the room must be at least this, and no reply of a driver is longer. */
#define CALL_REPLY_BYTES_MAX 4096u
#define ERROR_BIT (1u << 31)

void sc_log(sc_level level, sc_text line) {
    sc_host_log(level, line.at, line.len);
}

int64_t sc_now_ms(void) {
    return sc_host_now_ms();
}

void sc_random(void *at, uint32_t len) {
    sc_host_random(at, len);
}

bool sc_state_get(sc_text key, sc_bytes *value) {
    uint32_t room = STATE_FIRST_BYTES;
    for (;;) {
        uint8_t *out = SC_NEW(uint8_t, room);
        int32_t len = sc_host_state_get(key.at, key.len, out, room);
        if (len < 0) return false;
        *value = (sc_bytes){ out, (uint32_t)len };
        if ((uint32_t)len <= room) return true;
        room = (uint32_t)len;
    }
}

bool sc_state_set(sc_text key, sc_bytes value) {
    return sc_host_state_set(key.at, key.len, value.at, value.len) == 0;
}

/* One host call. `out` gets what came back, `refused` whether it is an error reply. False: no room for the request. */
static bool ask_host(const char *capability, const sc_shape *ask, const void *request, sc_bytes *out, bool *refused) {
    sc_bytes asked;
    if (!sc_encode(ask, request, &asked)) return false;
    uint8_t *room = SC_NEW(uint8_t, CALL_REPLY_BYTES_MAX);
    uint32_t result = sc_host_call(capability, sc_text_of(capability).len, asked.at, asked.len, room, CALL_REPLY_BYTES_MAX);
    *refused = (result & ERROR_BIT) != 0;
    *out = (sc_bytes){ room, result & ~ERROR_BIT };
    return true;
}

bool sc_flag(const char *name) {
    const FlagRequest request = { sc_text_of(name) };
    sc_bytes out;
    bool refused;
    FlagReply reply;
    if (!ask_host("flags", &FlagRequest_shape, &request, &out, &refused) || refused) return false;
    return sc_decode(out.at, out.len, &FlagReply_shape, &reply) && reply.on;
}

sc_status sc_call_shaped(const char *capability, const sc_shape *ask, const void *request, const sc_shape *answer,
    void *reply) {
    sc_bytes out;
    bool refused;
    if (!ask_host(capability, ask, request, &out, &refused))
        return sc_fail("no_memory", "expected room for the request to %s", capability);
    if (!refused && sc_decode(out.at, out.len, answer, reply)) return SC_OK;
    ErrorReply refusal;
    if (!refused || !sc_decode(out.at, out.len, &ErrorReply_shape, &refusal))
        return sc_fail("bad_reply", "expected a reply of %s in the shape of the contract, got something else", capability);
    sc_failure_adopt(&refusal);
    return SC_FAILED;
}
