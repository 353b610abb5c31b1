# cython: boundscheck=False, wraparound=False, initializedcheck=False, cdivision=True
# distutils: extra_compile_args = -ffp-contract=off
"""When to send to each agent so that all are ready at T. The rules and their reasons stand in arrival_reference.py.

One pass reads eight bytes an agent, writes its lead time and bucket, and appends it to its bucket's pile: a list of chunks of
fixed size. A second pass copies the piles out in send order. There is no histogram, so a wide range of leads costs nothing, and of
the three scattered stores of a counting sort, which bound it, one is saved (docs/decisions/0006). Contraction is off because a fused
multiply-add rounds once where the reference rounds twice.
"""

from array import array
from libc.math cimport INFINITY, ceil, isfinite
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy

# In C because of what Cython cannot say: vector types, and one function compiled for two instruction sets. Which of them the processor
# has is asked when the module is loaded, so a wheel runs anywhere. NEON and plain x86-64 have four lanes, AVX2 has eight.
cdef extern from *:
    """
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
    """
    enum:
        BUCKETS "ARRIVAL_BUCKETS"
        PILES "ARRIVAL_PILES"
        CHUNK "ARRIVAL_CHUNK"
        SKIP_BUCKET "ARRIVAL_SKIP"

    ctypedef struct Piles "arrival_piles":
        uint32_t *cursor
        uint32_t *chunks
        uint64_t *used
        uint32_t *entries
        uint32_t next

    ctypedef struct Call "arrival_call":
        float weight
        float available_ms
        float buckets_per_ms

    void append_to "arrival_append"(Piles *piles, uint32_t *cursor, uint32_t *entries, const uint16_t *bucket, uint32_t agent) noexcept nogil
    float lead_of "arrival_lead"(float weightless_ms, float per_weight_ms, const Call *call) noexcept nogil
    uint16_t bucket_of "arrival_bucket"(float lead_ms, const Call *call) noexcept nogil
    void pass_plain "arrival_pass_plain"(const float *weightless_ms, const float *per_weight_ms, uint32_t count, const Call *call,
                                         float *lead_ms, uint16_t *bucket, Piles *piles) noexcept nogil
    void pass_avx2 "arrival_pass_avx2"(const float *weightless_ms, const float *per_weight_ms, uint32_t count, const Call *call,
                                       float *lead_ms, uint16_t *bucket, Piles *piles) noexcept nogil
    bint HAS_AVX2 "ARRIVAL_HAS_AVX2"

    int leading_zeros "__builtin_clzll"(uint64_t word) noexcept nogil

ctypedef void (*table_pass_t)(const float *, const float *, uint32_t, const Call *, float *, uint16_t *, Piles *) noexcept nogil
cdef table_pass_t table_pass = pass_avx2 if HAS_AVX2 else pass_plain


def use_plain(bint plain):
    """For tests and benchmarks: the pass that a processor without AVX2 gets, or again the one that this processor has."""
    global table_pass
    table_pass = pass_plain if plain or not HAS_AVX2 else pass_avx2


cdef enum:
    CLASSES = 6
    STATES = 4
    FIRST_STATE_NEVER_SENT_TO = 2
    SAMPLES = 32
    SAMPLES_MIN = 8
    AGENTS = 1 << 24

cdef double BASE_PER_WEIGHT = 0.5, BASE_PER_ITEM = 0.1, SLOPE_MAX = 10.0, BUFFER_MS = 50.0
cdef double PRIOR_WEIGHT = 1.0, PRIOR_ITEM = 9.0, OUTLIER = 3.0
cdef double MS_MAX_ = 1e8, WEIGHT_MAX_ = 16.0, RECENT_MS = 10_000.0
cdef double[CLASSES] BASE_MS
BASE_MS[0], BASE_MS[1], BASE_MS[2], BASE_MS[3], BASE_MS[4], BASE_MS[5] = 10, 50, 200, 100, 150, 60_000

EDGE, SERVERLESS, PERSISTENT, GPU, LOCAL, HUMAN = range(6)
ACTIVE, DEGRADED, OFFLINE, QUARANTINED = range(4)
BASE, LEARNED = range(2)
BUCKETS_MAX, SKIP, AGENTS_MAX, OBSERVATIONS, OBSERVATIONS_MIN = BUCKETS, SKIP_BUCKET, AGENTS, SAMPLES, SAMPLES_MIN


cdef struct Prepared:
    float *weightless_ms
    float *per_weight_ms

cdef struct Agent:
    float rtt_ms
    float drift
    uint16_t queue
    uint8_t agent_class
    uint8_t state
    uint32_t observed

cdef struct Estimate:
    float one_way_ms
    float work_ms
    float per_weight
    float per_item

cdef struct Ring:
    float[SAMPLES] delay_ms
    float[SAMPLES] processing_ms
    float[SAMPLES] weight
    uint16_t[SAMPLES] queue


cdef int _within(double value, double low, double high, str name) except -1:
    if not low <= value <= high:
        raise ValueError(f"{name} must be from {low:g} to {high:g}, not {value}")
    return 0


cdef void insert_sorted(double *values, int count, double value) noexcept nogil:
    cdef int at = count
    while at > 0 and values[at - 1] > value:
        values[at] = values[at - 1]
        at -= 1
    values[at] = value


cdef float relative_slope(double slope, double mean, double at) noexcept nogil:
    cdef double relative
    if mean <= 0.0 or slope <= 0.0:
        return 0.0
    relative = slope / mean
    if relative * at >= 1.0:
        return <float>SLOPE_MAX
    relative = relative / (1.0 - relative * at)
    return <float>(relative if relative < SLOPE_MAX else SLOPE_MAX)


cdef void fit_slopes(const Ring *ring, int count, Estimate *estimate) noexcept nogil:
    cdef double[SAMPLES] ordered
    cdef double limit, y, w, q, work, by_weight, by_item, determinant
    cdef double mean_y = 0.0, mean_w = 0.0, mean_q = 0.0, ww = PRIOR_WEIGHT, qq = PRIOR_ITEM, wq = 0.0, wy, qy
    cdef int i
    for i in range(count):
        insert_sorted(ordered, i, ring.processing_ms[i])
    limit = OUTLIER * ordered[count // 2]
    for i in range(count):
        y = ring.processing_ms[i]
        mean_y += y if y < limit else limit
        mean_w += ring.weight[i]
        mean_q += ring.queue[i]
    mean_y /= count
    mean_w /= count
    mean_q /= count
    work = mean_y / ((1.0 + BASE_PER_WEIGHT * mean_w) * (1.0 + BASE_PER_ITEM * mean_q))
    wy = PRIOR_WEIGHT * (BASE_PER_WEIGHT * work * (1.0 + BASE_PER_ITEM * mean_q))
    qy = PRIOR_ITEM * (BASE_PER_ITEM * work * (1.0 + BASE_PER_WEIGHT * mean_w))
    for i in range(count):
        y = ring.processing_ms[i]
        y = (y if y < limit else limit) - mean_y
        w = ring.weight[i] - mean_w
        q = ring.queue[i] - mean_q
        ww += w * w
        qq += q * q
        wq += w * q
        wy += w * y
        qy += q * y
    determinant = ww * qq - wq * wq
    by_weight = (wy * qq - qy * wq) / determinant
    by_item = (qy * ww - wy * wq) / determinant
    estimate.per_weight = relative_slope(by_weight, mean_y, mean_w)
    estimate.per_item = relative_slope(by_item, mean_y, mean_q)


cdef void fit(const Ring *ring, int count, double quantile, Estimate *estimate) noexcept nogil:
    cdef double[SAMPLES] delays
    cdef double[SAMPLES] works
    cdef int i, rank = <int>ceil(quantile * count) - 1
    cdef double factor
    fit_slopes(ring, count, estimate)
    for i in range(count):
        factor = (1.0 + <double>estimate.per_weight * ring.weight[i]) * (1.0 + <double>estimate.per_item * ring.queue[i])
        insert_sorted(delays, i, ring.delay_ms[i])
        insert_sorted(works, i, ring.processing_ms[i] / factor)
    estimate.one_way_ms = <float>delays[rank]
    estimate.work_ms = <float>works[rank]


cdef class Table:
    """The agents, in columns; see arrival_reference.Table."""

    cdef readonly uint32_t size
    cdef readonly double quantile
    cdef Prepared[2] prepared
    cdef Agent *agents
    cdef float *drift
    cdef float *reliability
    cdef double *heartbeat_ms
    cdef Estimate *learned
    cdef Ring *rings

    def __cinit__(self, size, double quantile=0.95):
        cdef uint32_t agent
        cdef int kind
        if not 0 <= size <= AGENTS_MAX:
            raise ValueError(f"size must be from 0 to {AGENTS_MAX}, not {size}")
        _within(quantile, 0.5, 1.0, "quantile")
        self.size = size
        self.quantile = quantile
        for kind in range(2):
            self.prepared[kind].weightless_ms = <float *>self.column(sizeof(float))
            self.prepared[kind].per_weight_ms = <float *>self.column(sizeof(float))
        self.agents = <Agent *>self.column(sizeof(Agent))
        self.drift = <float *>self.column(sizeof(float))
        self.reliability = <float *>self.column(sizeof(float))
        self.heartbeat_ms = <double *>self.column(sizeof(double))
        self.learned = <Estimate *>self.column(sizeof(Estimate))
        self.rings = <Ring *>self.column(sizeof(Ring))
        for agent in range(self.size):
            self.put(agent, 0.0, 0, 0.0, 0.0, 0, -INFINITY, 2)

    def __dealloc__(self):
        cdef int kind
        for kind in range(2):
            free(self.prepared[kind].weightless_ms)
            free(self.prepared[kind].per_weight_ms)
        free(self.agents)
        free(self.drift)
        free(self.reliability)
        free(self.heartbeat_ms)
        free(self.learned)
        free(self.rings)

    def __len__(self):
        return self.size

    # calloc, because pages that nobody wrote to cost no memory: most of a large table's rings.
    cdef void *column(self, size_t width) except NULL:
        cdef void *memory = calloc(self.size + 1, width)
        if memory == NULL:
            raise MemoryError
        return memory

    cdef int check(self, object agent) except -1:
        if not 0 <= agent < self.size:
            raise IndexError(f"the table has {self.size} agents, numbered from 0; there is no agent {agent}")
        return 0

    cdef void put(self, uint32_t agent, float rtt_ms, uint16_t queue, float drift, float reliability, uint8_t agent_class,
                  double heartbeat_ms, uint8_t state) noexcept nogil:
        self.agents[agent] = Agent(rtt_ms, drift, queue, agent_class, state, self.agents[agent].observed)
        self.drift[agent] = drift
        self.reliability[agent] = reliability
        self.heartbeat_ms[agent] = heartbeat_ms
        self.prepare(agent)

    cdef Estimate estimate_of(self, uint32_t agent, int estimator) noexcept nogil:
        cdef const Agent *known = self.agents + agent
        if estimator == 1 and known.observed >= SAMPLES_MIN:
            return self.learned[agent]
        return Estimate(0.5 * known.rtt_ms, BASE_MS[known.agent_class], BASE_PER_WEIGHT, BASE_PER_ITEM)

    cdef void prepare(self, uint32_t agent) noexcept nogil:
        """Brings the columns that the passes read up to date. An infinite lead marks an agent that is never sent to."""
        cdef const Agent *known = self.agents + agent
        cdef Estimate estimate
        cdef double processing_ms
        cdef int kind
        for kind in range(2):
            estimate = self.estimate_of(agent, kind)
            processing_ms = estimate.work_ms * (1.0 + <double>estimate.per_item * known.queue)
            self.prepared[kind].per_weight_ms[agent] = <float>(processing_ms * estimate.per_weight)
            self.prepared[kind].weightless_ms[agent] = <float>((estimate.one_way_ms + BUFFER_MS * known.drift) + processing_ms)
            if known.state >= FIRST_STATE_NEVER_SENT_TO:
                self.prepared[kind].weightless_ms[agent] = INFINITY

    def update(self, agent, double rtt_ms, int queue, double drift, double reliability, int agent_class, double heartbeat_ms, int state):
        self.check(agent)
        _within(rtt_ms, 0, MS_MAX_, "rtt_ms")
        _within(queue, 0, 65535, "queue")
        _within(drift, 0, 1, "drift")
        _within(reliability, 0, 1, "reliability")
        _within(agent_class, 0, CLASSES - 1, "agent_class")
        _within(state, 0, STATES - 1, "state")
        if not isfinite(heartbeat_ms):
            raise ValueError(f"heartbeat_ms must be finite, not {heartbeat_ms}")
        self.put(agent, <float>rtt_ms, <uint16_t>queue, <float>drift, <float>reliability, <uint8_t>agent_class, heartbeat_ms, <uint8_t>state)

    def load(self, first, const float[::1] rtt_ms not None, const uint16_t[::1] queue not None, const float[::1] drift not None,
             const float[::1] reliability not None, const uint8_t[::1] agent_class not None,
             const double[::1] heartbeat_ms not None, const uint8_t[::1] state not None):
        cdef Py_ssize_t count = rtt_ms.shape[0], at, bad = -1
        cdef uint32_t start
        for rows in (queue.shape[0], drift.shape[0], reliability.shape[0], agent_class.shape[0], heartbeat_ms.shape[0], state.shape[0]):
            if rows != count:
                raise ValueError(f"all columns must have {count} rows, as the first one has; one has {rows}")
        if not 0 <= first <= self.size or count > self.size - first:
            raise IndexError(f"{count} rows from {first} do not fit a table of {self.size} agents")
        start = first
        for at in range(count):
            if not (0 <= rtt_ms[at] <= MS_MAX_ and 0 <= drift[at] <= 1 and 0 <= reliability[at] <= 1 and agent_class[at] < CLASSES
                    and isfinite(heartbeat_ms[at]) and state[at] < STATES):
                raise ValueError(f"row {at} of the columns has a value out of range; nothing was loaded")
        for at in range(count):
            self.put(<uint32_t>(start + at), rtt_ms[at], queue[at], drift[at], reliability[at], agent_class[at], heartbeat_ms[at], state[at])

    def set_state(self, agent, int state):
        self.check(agent)
        _within(state, 0, STATES - 1, "state")
        self.agents[<uint32_t>agent].state = <uint8_t>state
        self.prepare(agent)

    def set_queue(self, agent, int queue):
        self.check(agent)
        _within(queue, 0, 65535, "queue")
        self.agents[<uint32_t>agent].queue = <uint16_t>queue
        self.prepare(agent)

    def observe(self, agent, double delay_ms, double processing_ms, double weight, int queue):
        cdef Ring *ring
        cdef Agent *known
        cdef uint32_t row, slot
        self.check(agent)
        _within(delay_ms, 0, MS_MAX_, "delay_ms")
        _within(processing_ms, 0, MS_MAX_, "processing_ms")
        _within(weight, 0, WEIGHT_MAX_, "weight")
        _within(queue, 0, 65535, "queue")
        row = agent
        ring = self.rings + row
        known = self.agents + row
        slot = known.observed % SAMPLES
        ring.delay_ms[slot] = <float>delay_ms
        ring.processing_ms[slot] = <float>processing_ms
        ring.weight[slot] = <float>weight
        ring.queue[slot] = <uint16_t>queue
        # A full ring is told from a filling one by a count of at least SAMPLES; beyond that only the place in the ring matters.
        known.observed = known.observed + 1 if known.observed < 2 * SAMPLES - 1 else SAMPLES
        if known.observed >= SAMPLES_MIN:
            fit(ring, <int>min(known.observed, <uint32_t>SAMPLES), self.quantile, self.learned + row)
        self.prepare(row)

    def forget(self, agent):
        self.check(agent)
        self.agents[<uint32_t>agent].observed = 0
        self.prepare(agent)

    def lead_ms(self, agent, double weight=0.0, int estimator=LEARNED):
        cdef Prepared *columns
        cdef Call call
        self.check(agent)
        _within(weight, 0, WEIGHT_MAX_, "weight")
        _within(estimator, 0, 1, "estimator")
        columns = &self.prepared[estimator]
        call.weight = <float>weight
        return lead_of(columns.weightless_ms[<uint32_t>agent], columns.per_weight_ms[<uint32_t>agent], &call)

    def estimate(self, agent, int estimator=LEARNED):
        cdef Estimate found
        self.check(agent)
        _within(estimator, 0, 1, "estimator")
        found = self.estimate_of(agent, estimator)
        return found.one_way_ms, found.work_ms, found.per_weight, found.per_item

    def row(self, agent):
        cdef const Agent *known
        self.check(agent)
        known = self.agents + <uint32_t>agent
        return (known.rtt_ms, known.queue, known.drift, self.reliability[<uint32_t>agent], known.agent_class,
                self.heartbeat_ms[<uint32_t>agent], known.state)

    def observations(self, agent):
        self.check(agent)
        return min(self.agents[<uint32_t>agent].observed, <uint32_t>SAMPLES)


cdef void selection_pass(const Prepared *columns, const uint32_t *selection, uint32_t count, const Call *call, float *lead,
                         uint16_t *bucket, Piles *piles) noexcept nogil:
    cdef uint32_t at, agent
    for at in range(count):
        agent = selection[at]
        lead[at] = lead_of(columns.weightless_ms[agent], columns.per_weight_ms[agent], call)
        bucket[at] = bucket_of(lead[at], call)
        append_to(piles, piles.cursor, piles.entries, bucket + at, agent)


cdef uint32_t copy_out(Piles *piles, uint32_t pile, uint32_t *order) noexcept nogil:
    """Copies a pile to `order`, from its last chunk back to its first, empties it, and says how many there were."""
    cdef uint32_t last = piles.cursor[pile] - 1, start = last - last % CHUNK, left = piles.chunks[pile] - 1
    cdef uint32_t count = left * (CHUNK - 1) + last % CHUNK
    memcpy(order + left * (CHUNK - 1), piles.entries + start + 1, (last - start) * sizeof(uint32_t))
    while left > 0:
        left -= 1
        start = piles.entries[start]
        memcpy(order + left * (CHUNK - 1), piles.entries + start + 1, (CHUNK - 1) * sizeof(uint32_t))
    piles.cursor[pile] = 0
    piles.chunks[pile] = 0
    return count


cdef double longest_lead(const float *lead, const uint16_t *bucket, uint32_t count) noexcept nogil:
    cdef float longest = 0.0
    cdef uint32_t at
    for at in range(count):
        if bucket[at] == BUCKETS - 1 and lead[at] > longest:
            longest = lead[at]
    return longest


cdef class Schedule:
    """The buffers of one schedule, used again by the next `compute`; see arrival_reference.Schedule."""

    cdef readonly uint32_t size
    cdef readonly uint32_t selected
    cdef readonly uint32_t scheduled
    cdef readonly uint32_t groups
    cdef readonly double available_ms
    cdef Piles *piles
    cdef bint busy
    cdef object _lead, _bucket, _order, _starts, _offsets, _confidence
    cdef float[::1] lead_view, confidence_view
    cdef uint16_t[::1] bucket_view
    cdef uint32_t[::1] order_view, offsets_view
    cdef double[::1] starts_view

    def __cinit__(self, size):
        cdef size_t chunks
        if not 0 <= size <= AGENTS_MAX:
            raise ValueError(f"size must be from 0 to {AGENTS_MAX}, not {size}")
        self.size = size
        # One element more than asked for: an empty buffer has no address.
        self.lead_view = self._lead = array("f", bytes(4 * (size + 1)))
        self.bucket_view = self._bucket = array("H", bytes(2 * (size + 1)))
        self.order_view = self._order = array("I", bytes(4 * (size + 1)))
        self.confidence_view = self._confidence = array("f", bytes(4 * (size + 1)))
        self.starts_view = self._starts = array("d", bytes(8 * (min(size, BUCKETS_MAX) + 1)))
        self.offsets_view = self._offsets = array("I", bytes(4 * (min(size, BUCKETS_MAX) + 1)))
        self.piles = <Piles *>calloc(1, sizeof(Piles))
        if self.piles == NULL:
            raise MemoryError
        # Every pile may end in a chunk that is not full. What is never written to takes no memory.
        chunks = self.size // (CHUNK - 1) + min(<size_t>self.size, <size_t>PILES) + 1
        self.piles.entries = <uint32_t *>malloc(chunks * CHUNK * sizeof(uint32_t))
        if self.piles.entries == NULL:
            raise MemoryError

    def __dealloc__(self):
        if self.piles != NULL:
            free(self.piles.entries)
            free(self.piles)

    cdef uint32_t select(self, Table table, const uint32_t[::1] selection) except? 0xFFFFFFFF:
        cdef Py_ssize_t count = table.size if selection is None else selection.shape[0], at
        if count > self.size:
            raise ValueError(f"this schedule has room for {self.size} agents, not {count}")
        if selection is None or count == 0:
            return count
        for at in range(1, count):
            if selection[at] <= selection[at - 1]:
                raise ValueError(f"a selection must be in strictly ascending order; {selection[at]} follows {selection[at - 1]}")
        if selection[count - 1] >= table.size:
            raise IndexError(f"the table has {table.size} agents, numbered from 0; there is no agent {selection[count - 1]}")
        return count

    def compute(self, Table table not None, double at_ms, double now_ms, double weight=0.0, const uint32_t[::1] selection=None,
                int estimator=LEARNED, double bucket_ms=10.0):
        cdef Call call
        cdef const Prepared *columns
        cdef const uint32_t *chosen = NULL
        cdef uint32_t count
        cdef double ahead_ms = at_ms - now_ms
        if not -MS_MAX_ <= ahead_ms <= MS_MAX_:
            raise ValueError(f"at_ms must be within {MS_MAX_:g} ms of now_ms, not {ahead_ms} ms away")
        _within(weight, 0, WEIGHT_MAX_, "weight")
        _within(estimator, 0, 1, "estimator")
        _within(bucket_ms, 0.1, 60_000, "bucket_ms")
        if self.busy:
            raise RuntimeError("another thread is computing this schedule; each thread needs its own")
        count = self.select(table, selection)
        if selection is not None and count > 0:
            chosen = &selection[0]
        columns = &table.prepared[estimator]
        call = Call(<float>weight, <float>ahead_ms, <float>(1.0 / bucket_ms))
        self.busy = True
        with nogil:
            if selection is None:
                table_pass(columns.weightless_ms, columns.per_weight_ms, count, &call, &self.lead_view[0], &self.bucket_view[0], self.piles)
            else:
                selection_pass(columns, chosen, count, &call, &self.lead_view[0], &self.bucket_view[0], self.piles)
            self.arrange(count, at_ms, now_ms, bucket_ms)
        self.available_ms = call.available_ms
        self.selected = count
        self.busy = False
        return self.scheduled

    cdef void arrange(self, uint32_t count, double at_ms, double now_ms, double bucket_ms) noexcept nogil:
        """Copies the piles out, the longest leads first and the skipped last, and leaves them empty for the next call."""
        cdef Piles *piles = self.piles
        cdef uint32_t filled = 0, groups = 0, bucket
        cdef int word = BUCKETS // 64
        cdef uint64_t bits
        cdef double before_ms, start_ms
        while word > 0:
            word -= 1
            bits = piles.used[word]
            piles.used[word] = 0
            while bits:
                bucket = word * 64 + 63 - leading_zeros(bits)
                bits ^= <uint64_t>1 << (bucket & 63)
                before_ms = (bucket + 1) * bucket_ms
                if bucket == BUCKETS - 1:
                    before_ms = longest_lead(&self.lead_view[0], &self.bucket_view[0], count)
                start_ms = at_ms - before_ms
                self.starts_view[groups] = start_ms if start_ms > now_ms else now_ms
                self.offsets_view[groups] = filled
                groups += 1
                filled += copy_out(piles, bucket, &self.order_view[0] + filled)
        self.offsets_view[groups] = filled
        self.groups = groups
        self.scheduled = filled
        if piles.cursor[SKIP_BUCKET]:
            copy_out(piles, SKIP_BUCKET, &self.order_view[0] + filled)
            piles.used[BUCKETS // 64] = 0
        piles.next = 0

    def assess(self, Table table not None, double now_ms, const uint32_t[::1] selection=None):
        cdef uint32_t count, at, agent
        cdef float *out
        cdef float sum_
        cdef bint whole = selection is None
        if not isfinite(now_ms):
            raise ValueError(f"now_ms must be finite, not {now_ms}")
        count = self.select(table, selection)
        out = &self.confidence_view[0]
        with nogil:
            if whole:
                confidence_pass(table.reliability, table.drift, table.heartbeat_ms, count, now_ms, out)
            else:
                for at in range(count):
                    agent = selection[at]
                    confidence_pass(table.reliability + agent, table.drift + agent, table.heartbeat_ms + agent, 1, now_ms, out + at)
        return memoryview(self._confidence)[:count].toreadonly()

    @property
    def lead_ms(self):
        return memoryview(self._lead)[:self.selected].toreadonly()

    @property
    def bucket(self):
        return memoryview(self._bucket)[:self.selected].toreadonly()

    @property
    def order(self):
        return memoryview(self._order)[:self.scheduled].toreadonly()

    @property
    def skipped(self):
        return memoryview(self._order)[self.scheduled:self.selected].toreadonly()

    @property
    def starts_ms(self):
        return memoryview(self._starts)[:self.groups].toreadonly()

    @property
    def offsets(self):
        return memoryview(self._offsets)[:self.groups + 1].toreadonly()


cdef void confidence_pass(const float *reliability, const float *drift, const double *heartbeat_ms, uint32_t count, double now_ms,
                          float *out) noexcept nogil:
    cdef uint32_t at
    cdef float value
    for at in range(count):
        value = (<float>0.5 * reliability[at] - <float>0.3 * drift[at]) + (<float>0.2 if now_ms - heartbeat_ms[at] <= RECENT_MS else <float>0.0)
        value = value if value > 0.0 else <float>0.0
        out[at] = value if value < 1.0 else <float>1.0
