/* The pass over all agents, in C because of what Cython cannot say: vector types, and one function compiled for two instruction sets.
   Which of them the processor has is asked when the module is loaded, so a wheel runs anywhere. NEON and plain x86-64 have four lanes,
   AVX2 has eight. Included by arrival.pyx and by nothing else; arrival_schedule.pxi says what it computes. */

#ifndef ARRIVAL_PASS_H
#define ARRIVAL_PASS_H

#include <stdint.h>

#define ARRIVAL_BUCKETS 16384
#define ARRIVAL_SKIP ARRIVAL_BUCKETS
#define ARRIVAL_PILES (ARRIVAL_BUCKETS + 1)
#define ARRIVAL_CHUNK 256
#define ARRIVAL_STRIDE 32
/* Appending runs this far behind computing, so that neither waits for the other's stores. */
#define ARRIVAL_LAG 128

typedef struct {
    uint32_t cursor[ARRIVAL_PILES];   /* where the next agent goes; a multiple of ARRIVAL_CHUNK: a new chunk first */
    uint32_t chunks[ARRIVAL_PILES];
    uint64_t used[ARRIVAL_PILES / 64 + 1];
    uint32_t *entries;
    uint32_t next;
} arrival_piles;

typedef struct {
    float weight;
    float available_ms;
    float buckets_per_ms;
} arrival_call;

/* Appends to a pile whose last chunk is full. The first entry of a chunk says where the pile's chunk before it begins. */
static __attribute__((noinline, cold)) void arrival_append_chunk(arrival_piles *piles, const uint16_t *bucket, uint32_t agent) {
    uint32_t pile = *bucket, start = piles->next;
    piles->next += ARRIVAL_CHUNK;
    piles->entries[start] = piles->cursor[pile] - ARRIVAL_CHUNK;
    piles->entries[start + 1] = agent;
    piles->cursor[pile] = start + 2;
    piles->chunks[pile] += 1;
    piles->used[pile >> 6] |= (uint64_t)1 << (pile & 63);
}

/* The two paths share nothing on purpose: what the rare one needs would cost the frequent one registers. */
static inline __attribute__((always_inline)) void arrival_append(
    arrival_piles *piles, uint32_t *cursor, uint32_t *entries, const uint16_t *bucket, uint32_t agent) {
    uint64_t pile = *bucket, at = cursor[pile];
    if (__builtin_expect(at % ARRIVAL_CHUNK == 0, 0)) {
        arrival_append_chunk(piles, bucket, agent);
    } else {
        cursor[pile] = (uint32_t)at + 1;
        entries[at] = agent;
    }
}

static inline float arrival_lead(float weightless_ms, float per_weight_ms, const arrival_call *call) {
    return weightless_ms + per_weight_ms * call->weight;
}

static inline uint16_t arrival_bucket(float lead_ms, const arrival_call *call) {
    float bucket = lead_ms * call->buckets_per_ms;
    if (!(lead_ms <= call->available_ms)) return ARRIVAL_SKIP;
    return (uint16_t)(bucket < ARRIVAL_BUCKETS - 1 ? bucket : ARRIVAL_BUCKETS - 1);
}

/* arrival_lead and arrival_bucket for several agents at once, in vectors as wide as the instruction set's. */
#define ARRIVAL_LANES(LANES) \
typedef int32_t ints##LANES __attribute__((vector_size(4 * LANES), aligned(4))); \
typedef float floats##LANES __attribute__((vector_size(4 * LANES), aligned(4))); \
typedef uint16_t shorts##LANES __attribute__((vector_size(2 * LANES), aligned(2))); \
static inline __attribute__((always_inline)) void arrival_lanes##LANES( \
    const float *weightless_ms, const float *per_weight_ms, const arrival_call *call, float *lead_ms, uint16_t *bucket) { \
    floats##LANES lead = *(const floats##LANES *)weightless_ms + *(const floats##LANES *)per_weight_ms * call->weight; \
    floats##LANES scaled = lead * call->buckets_per_ms, last = (floats##LANES){0} + (float)(ARRIVAL_BUCKETS - 1); \
    ints##LANES in_time = lead <= call->available_ms, inside = scaled < last, number; \
    scaled = (floats##LANES)(((ints##LANES)scaled & inside) | ((ints##LANES)last & ~inside)); \
    number = __builtin_convertvector(scaled, ints##LANES); \
    number = (number & in_time) | (ARRIVAL_SKIP & ~in_time); \
    *(floats##LANES *)lead_ms = lead; \
    *(shorts##LANES *)bucket = __builtin_convertvector(number, shorts##LANES); \
}
ARRIVAL_LANES(4)
ARRIVAL_LANES(8)

static inline __attribute__((always_inline)) void arrival_pass(
    const int lanes, const float *weightless_ms, const float *per_weight_ms, uint32_t count, const arrival_call *call_,
    float *lead_ms, uint16_t *bucket, arrival_piles *piles) {
    arrival_call call = *call_;
    uint32_t *cursor = piles->cursor, *entries = piles->entries, at = 0, appended = 0;
    for (; at + ARRIVAL_STRIDE <= count; at += ARRIVAL_STRIDE) {
#pragma GCC unroll 16
        for (uint32_t i = at; i < at + ARRIVAL_STRIDE; i += lanes) {
            if (lanes == 8) arrival_lanes8(weightless_ms + i, per_weight_ms + i, &call, lead_ms + i, bucket + i);
            else arrival_lanes4(weightless_ms + i, per_weight_ms + i, &call, lead_ms + i, bucket + i);
        }
        if (at < ARRIVAL_LAG) continue;
#pragma GCC unroll 64
        for (uint32_t i = 0; i < ARRIVAL_STRIDE; i++) arrival_append(piles, cursor, entries, bucket + appended + i, appended + i);
        appended += ARRIVAL_STRIDE;
    }
    for (; at < count; at++) {
        lead_ms[at] = arrival_lead(weightless_ms[at], per_weight_ms[at], &call);
        bucket[at] = arrival_bucket(lead_ms[at], &call);
    }
    for (; appended < count; appended++) arrival_append(piles, cursor, entries, bucket + appended, appended);
}

static __attribute__((noinline)) void arrival_pass_plain(
    const float *weightless_ms, const float *per_weight_ms, uint32_t count, const arrival_call *call,
    float *lead_ms, uint16_t *bucket, arrival_piles *piles) {
    arrival_pass(4, weightless_ms, per_weight_ms, count, call, lead_ms, bucket, piles);
}

#ifdef __x86_64__
static __attribute__((noinline, target("avx2"))) void arrival_pass_avx2(
    const float *weightless_ms, const float *per_weight_ms, uint32_t count, const arrival_call *call,
    float *lead_ms, uint16_t *bucket, arrival_piles *piles) {
    arrival_pass(8, weightless_ms, per_weight_ms, count, call, lead_ms, bucket, piles);
}
#define ARRIVAL_HAS_AVX2 __builtin_cpu_supports("avx2")
#else
#define arrival_pass_avx2 arrival_pass_plain
#define ARRIVAL_HAS_AVX2 0
#endif

#endif
