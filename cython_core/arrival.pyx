# cython: boundscheck=False, wraparound=False, initializedcheck=False, cdivision=True
# distutils: extra_compile_args = -ffp-contract=off
"""When to send to each agent so that all are ready at T. The rules and their reasons stand in arrival_reference.py.

By concept: what an agent learns is in arrival_fit.pxi, the bytes of a snapshot in arrival_snapshot.pxi, the schedule in
arrival_schedule.pxi and its pass in arrival_pass.h. They are included here, so all is one module and one C file. Contraction is off because
a fused multiply-add rounds once where the reference rounds twice.
"""

from array import array
from struct import Struct
from zlib import crc32

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.math cimport INFINITY, ceil, isfinite
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy, memset

cdef extern from "arrival_pass.h":
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
    OBSERVED_MAX = 2 * SAMPLES - 1
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
    uint8_t observed   # up to SAMPLES, how full the ring is; from there on SAMPLES and the place that is next in it
    uint8_t assigned

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


include "arrival_fit.pxi"
include "arrival_snapshot.pxi"


cdef uint32_t nth_smallest(uint32_t *keys, uint32_t count, uint32_t rank) noexcept nogil:
    """Byte by byte from the highest, keeps the keys that have the byte of the one wanted: linear in `count`, whatever their order."""
    cdef uint32_t[256] counts
    cdef uint32_t at, byte, kept
    cdef int shift = 32
    while shift > 0:
        shift -= 8
        memset(counts, 0, sizeof(counts))
        for at in range(count):
            counts[(keys[at] >> shift) & 255] += 1
        byte = 0
        while rank >= counts[byte]:
            rank -= counts[byte]
            byte += 1
        kept = 0
        for at in range(count):
            if (keys[at] >> shift) & 255 == byte:
                keys[kept] = keys[at]
                kept += 1
        count = kept
    return keys[0]


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

    cdef int check_selection(self, const uint32_t[::1] selection) except -1:
        cdef Py_ssize_t count = 0 if selection is None else selection.shape[0], at
        for at in range(1, count):
            if selection[at] <= selection[at - 1]:
                raise ValueError(f"a selection must be in strictly ascending order; {selection[at]} follows {selection[at - 1]}")
        if count > 0:
            self.check(selection[count - 1])
        return 0

    cdef void put(self, uint32_t agent, float rtt_ms, uint16_t queue, float drift, float reliability, uint8_t agent_class,
                  double heartbeat_ms, uint8_t state) noexcept nogil:
        cdef Agent *known = self.agents + agent
        known[0] = Agent(rtt_ms, drift, queue, agent_class, state, known.observed, known.assigned)
        self.drift[agent] = drift
        self.reliability[agent] = reliability
        self.heartbeat_ms[agent] = heartbeat_ms
        self.prepare(agent)

    cdef Estimate estimate_of(self, uint32_t agent, int estimator) noexcept nogil:
        cdef const Agent *known = self.agents + agent
        if estimator == 1 and (known.assigned or known.observed >= SAMPLES_MIN):
            return self.learned[agent]
        return Estimate(0.5 * known.rtt_ms, BASE_MS[known.agent_class], BASE_PER_WEIGHT, BASE_PER_ITEM)

    cdef void prepare(self, uint32_t agent) noexcept nogil:
        """Brings the columns that the passes read up to date. An infinite lead marks an agent that is never sent to."""
        cdef const Agent *known = self.agents + agent
        cdef Estimate estimate
        cdef double processing_ms
        cdef float weightless_ms
        cdef int kind
        for kind in range(2):
            estimate = self.estimate_of(agent, kind)
            processing_ms = estimate.work_ms * (1.0 + <double>estimate.per_item * known.queue)
            weightless_ms = <float>((estimate.one_way_ms + BUFFER_MS * known.drift) + processing_ms)
            self.prepared[kind].per_weight_ms[agent] = <float>(processing_ms * estimate.per_weight)
            # In one store: a pass in another thread must not see a finite lead of an agent that is never sent to.
            self.prepared[kind].weightless_ms[agent] = INFINITY if known.state >= FIRST_STATE_NEVER_SENT_TO else weightless_ms

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
        known.observed = <uint8_t>(known.observed + 1 if known.observed < OBSERVED_MAX else SAMPLES)
        self.learn(row)

    cdef void learn(self, uint32_t agent) noexcept nogil:
        """Brings what is estimated up to date with the ring; an assigned estimate stays."""
        cdef int count = ring_count(self.agents + agent)
        if count >= SAMPLES_MIN and not self.agents[agent].assigned:
            fit(self.rings + agent, count, self.quantile, self.learned + agent)
        self.prepare(agent)

    def assign(self, agent, double one_way_ms, double work_ms, double per_weight, double per_item):
        cdef uint32_t row
        self.check(agent)
        _within(one_way_ms, 0, MS_MAX_, "one_way_ms")
        _within(work_ms, 0, MS_MAX_, "work_ms")
        _within(per_weight, 0, SLOPE_MAX, "per_weight")
        _within(per_item, 0, SLOPE_MAX, "per_item")
        row = agent
        self.learned[row] = Estimate(<float>one_way_ms, <float>work_ms, <float>per_weight, <float>per_item)
        self.agents[row].assigned = 1
        self.prepare(row)

    def forget(self, agent):
        self.check(agent)
        self.agents[<uint32_t>agent].observed = 0
        self.agents[<uint32_t>agent].assigned = 0
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

    def quantile_lead_ms(self, double share, double weight=0.0, const uint32_t[::1] selection=None, int estimator=LEARNED):
        cdef uint32_t at, agent, count, schedulable = 0
        cdef uint32_t *keys
        cdef const Prepared *columns
        cdef Call call
        cdef float lead_ms
        if not 0 < share <= 1:
            raise ValueError(f"share must be above 0 and at most 1, not {share}")
        _within(weight, 0, WEIGHT_MAX_, "weight")
        _within(estimator, 0, 1, "estimator")
        self.check_selection(selection)
        columns = &self.prepared[estimator]
        call.weight = <float>weight
        count = self.size if selection is None else <uint32_t>selection.shape[0]
        keys = <uint32_t *>malloc((<size_t>count + 1) * sizeof(uint32_t))
        if keys == NULL:
            raise MemoryError
        for at in range(count):
            agent = at if selection is None else selection[at]
            lead_ms = lead_of(columns.weightless_ms[agent], columns.per_weight_ms[agent], &call)
            if lead_ms < INFINITY:
                # Leads are never negative, so they are in the order of their bits; the cleared bit is the sign of a zero.
                keys[schedulable] = bits_of(lead_ms) & 0x7FFFFFFF
                schedulable += 1
        lead_ms = 0.0
        if schedulable > 0:
            lead_ms = float_of(nth_smallest(keys, schedulable, <uint32_t>ceil(share * schedulable) - 1))
        free(keys)
        return lead_ms

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
        return ring_count(self.agents + <uint32_t>agent)

    def snapshot(self):
        cdef Py_ssize_t room = HEADER_BYTES + CHECKSUM_BYTES
        cdef uint32_t agent
        cdef uint8_t *to
        cdef bytes data
        for agent in range(self.size):
            room += row_bytes(self.agents + agent)
        data = PyBytes_FromStringAndSize(NULL, room)
        to = <uint8_t *>PyBytes_AS_STRING(data)
        memcpy(to, PyBytes_AS_STRING(HEADER.pack(SNAPSHOT_MAGIC, SNAPSHOT_VERSION, self.size, self.quantile)), HEADER_BYTES)
        to += HEADER_BYTES
        for agent in range(self.size):
            to = write_row(to, self.agents + agent, self.reliability[agent], self.heartbeat_ms[agent], self.learned + agent,
                           self.rings + agent)
        put32(to, crc32(memoryview(data)[:-CHECKSUM_BYTES]))
        return data

    def restore(self, bytes data not None):
        cdef const uint8_t *at
        cdef const uint8_t *end
        cdef SnapshotRow row
        cdef uint32_t agent
        check_snapshot(data, self.size, self.quantile)
        end = <const uint8_t *>PyBytes_AS_STRING(data) + PyBytes_GET_SIZE(data) - CHECKSUM_BYTES
        at = <const uint8_t *>PyBytes_AS_STRING(data) + HEADER_BYTES
        for agent in range(self.size):
            at = read_row(at, end, &row)
            if at == NULL:
                raise ValueError(f"the row of agent {agent} in the snapshot is cut short or has a value out of range; nothing was restored")
        if at != end:
            raise ValueError(f"{end - at} bytes follow the last agent of the snapshot; nothing was restored")
        # From here on nothing can fail.
        at = <const uint8_t *>PyBytes_AS_STRING(data) + HEADER_BYTES
        for agent in range(self.size):
            at = read_row(at, end, &row)
            self.take(agent, &row)

    cdef void take(self, uint32_t agent, const SnapshotRow *row) noexcept nogil:
        cdef const Agent *known = &row.agent
        self.agents[agent] = known[0]
        self.drift[agent] = known.drift
        self.reliability[agent] = row.reliability
        self.heartbeat_ms[agent] = row.heartbeat_ms
        # What nobody wrote to takes no memory, so an absent estimate or ring is not copied.
        if known.assigned:
            self.learned[agent] = row.assigned
        if known.observed > 0:
            self.rings[agent] = row.ring
        self.learn(agent)


include "arrival_schedule.pxi"
