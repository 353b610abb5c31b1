/* The host's functions (`snapcount:host/1`, docs/abi.md). An import that a skill never calls is not in its module, so a
 * skill needs only the capabilities that it uses. */

#ifndef SC_HOST_H
#define SC_HOST_H

#include "failure.h"

typedef enum { SC_DEBUG, SC_INFO, SC_WARNING, SC_ERROR } sc_level;

/* Writes one line to the host's log (capability `log`). */
void sc_log(sc_level level, sc_text line);

/* Unix time in milliseconds (capability `clock`). */
int64_t sc_now_ms(void);

/* Fills `len` bytes with random bytes (capability `random`). */
void sc_random(void *at, uint32_t len);

/* The value stored under `key`, in the arena (capability `state`). False: there is none. */
bool sc_state_get(sc_text key, sc_bytes *value);
/* Stores a value; an empty one deletes the key. False: the quota is full. */
bool sc_state_set(sc_text key, sc_bytes value);

/* Whether the node's operators have switched a feature flag on (capability `flags`). `name` is lower_snake_case, at most
 * 64 bytes; a flag that nobody named, or that cannot be asked for, is off. */
bool sc_flag(const char *name);

/* Asks the driver behind `capability` and decodes its reply. An error reply, such as "unsafe_command", becomes
 * the kept failure: return the status to pass it on, or look at it with sc_failure(). */
sc_status sc_call_shaped(const char *capability, const sc_shape *ask, const void *request, const sc_shape *answer,
    void *reply);
/* SC_CALL("motion", MotionMove, &move, MotionReply, &reply) */
#define SC_CALL(capability, Request, request, Reply, reply) \
    sc_call_shaped((capability), &Request##_shape, (const Request *)(request), &Reply##_shape, (Reply *)(reply))

#endif
