/* The C guest library: what a Snapcount skill written in C includes.
 *
 * A skill is a function for each hook, from a typed request to a typed reply:
 *
 *     #include "snapcount.h"
 *
 *     SC_HOOK(bid, BidRequest, BidReply)
 *
 *     static sc_status bid(const BidRequest *request, BidReply *reply) {
 *         if (request->margin < 0) return sc_fail("bad_margin", "margin is %g; it must not be negative", request->margin);
 *         reply->id = request->bounty.id;
 *         ...
 *         return SC_OK;
 *     }
 *
 * The request is decoded strictly before the function runs; a bad one is answered with the error `bad_request`. The
 * reply comes cleared. Memory from SC_NEW, sc_format and SC_PUSH lives until the host has read the reply. */

#ifndef SNAPCOUNT_H
#define SNAPCOUNT_H

#include "arena.h"
#include "codec.h"
#include "contract.h"
#include "failure.h"
#include "host.h"
#include "math.h"
#include "text.h"

/* Exports the function `hook` as the hook of the same name. Stands before the function. */
#define SC_HOOK(hook, Request, Reply)                                                                      \
    static sc_status hook(const Request *request, Reply *reply);                                           \
    __attribute__((export_name("hook_" #hook))) uint64_t hook_##hook(const uint8_t *at, uint32_t len);     \
    uint64_t hook_##hook(const uint8_t *at, uint32_t len) {                                                \
        Request request;                                                                                   \
        Reply reply;                                                                                       \
        sc_clear(&reply, sizeof reply);                                                                    \
        bool good = sc_receive(at, len, &Request##_shape, &request) && hook(&request, &reply) == SC_OK;    \
        return good ? sc_send(&Reply##_shape, &reply) : sc_send_failure();                                 \
    }

/* What SC_HOOK is made of. */
bool sc_receive(const uint8_t *at, uint32_t len, const sc_shape *shape, void *request);
/* Both return `ptr << 32 | len`, as docs/abi.md wants a reply. */
uint64_t sc_send(const sc_shape *shape, const void *reply);
uint64_t sc_send_failure(void);

#endif
