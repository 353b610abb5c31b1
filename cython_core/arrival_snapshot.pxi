"""The bytes of a snapshot: the twin of arrival_snapshot_reference.py, which says how they are laid out. Included by arrival.pyx."""

cdef enum:
    ROW_BYTES = 26
    ESTIMATE_BYTES = 16
    OBSERVATION_BYTES = 14
    HEADER_BYTES = 20
    CHECKSUM_BYTES = 4

cdef object HEADER = Struct("<4sIId")
cdef bytes SNAPSHOT_MAGIC = b"SCAT"
cdef int SNAPSHOT_VERSION = 1

# One row, decoded. What the estimate and the rest of the ring hold is undefined where the row has none.
cdef struct SnapshotRow:
    Agent agent
    float reliability
    double heartbeat_ms
    Estimate assigned
    Ring ring

cdef union Single:
    float number
    uint32_t bits

cdef union Double:
    double number
    uint64_t bits


cdef inline uint32_t bits_of(float number) noexcept nogil:
    cdef Single single
    single.number = number
    return single.bits


cdef inline float float_of(uint32_t bits) noexcept nogil:
    cdef Single single
    single.bits = bits
    return single.number


# Byte by byte, so that the bytes are the same on every machine; the C compiler makes one load or store of them where it can.
cdef inline uint8_t *put16(uint8_t *to, uint32_t bits) noexcept nogil:
    to[0], to[1] = <uint8_t>bits, <uint8_t>(bits >> 8)
    return to + 2


cdef inline uint8_t *put32(uint8_t *to, uint32_t bits) noexcept nogil:
    return put16(put16(to, bits), bits >> 16)


cdef inline uint8_t *put_float(uint8_t *to, float number) noexcept nogil:
    return put32(to, bits_of(number))


cdef inline uint8_t *put_double(uint8_t *to, double number) noexcept nogil:
    cdef Double double_
    double_.number = number
    return put32(put32(to, <uint32_t>double_.bits), <uint32_t>(double_.bits >> 32))


cdef inline uint32_t get16(const uint8_t *at) noexcept nogil:
    return at[0] | <uint32_t>at[1] << 8


cdef inline uint32_t get32(const uint8_t *at) noexcept nogil:
    return get16(at) | get16(at + 2) << 16


cdef inline float get_float(const uint8_t *at) noexcept nogil:
    return float_of(get32(at))


cdef inline double get_double(const uint8_t *at) noexcept nogil:
    cdef Double double_
    double_.bits = get32(at) | <uint64_t>get32(at + 4) << 32
    return double_.number


cdef inline int ring_count(const Agent *known) noexcept nogil:
    return known.observed if known.observed < SAMPLES else SAMPLES


cdef inline Py_ssize_t row_bytes(const Agent *known) noexcept nogil:
    return ROW_BYTES + (ESTIMATE_BYTES if known.assigned else 0) + OBSERVATION_BYTES * ring_count(known)


cdef uint8_t *write_row(uint8_t *to, const Agent *known, float reliability, double heartbeat_ms, const Estimate *learned,
                        const Ring *ring) noexcept nogil:
    """Writes `row_bytes` bytes and returns where the next row goes."""
    cdef int slot
    to = put16(put_float(to, known.rtt_ms), known.queue)
    to = put_float(put_float(to, known.drift), reliability)
    to[0] = known.agent_class
    to = put_double(to + 1, heartbeat_ms)
    to[0], to[1], to[2] = known.state, known.observed, known.assigned
    to += 3
    if known.assigned:
        to = put_float(put_float(to, learned.one_way_ms), learned.work_ms)
        to = put_float(put_float(to, learned.per_weight), learned.per_item)
    for slot in range(ring_count(known)):
        to = put_float(put_float(to, ring.delay_ms[slot]), ring.processing_ms[slot])
        to = put16(put_float(to, ring.weight[slot]), ring.queue[slot])
    return to


cdef bint row_is_in_range(const SnapshotRow *row) noexcept nogil:
    cdef const Agent *known = &row.agent
    return (0 <= known.rtt_ms <= MS_MAX_ and 0 <= known.drift <= 1 and 0 <= row.reliability <= 1 and known.agent_class < CLASSES
            and (isfinite(row.heartbeat_ms) or row.heartbeat_ms == -INFINITY) and known.state < STATES
            and known.observed <= OBSERVED_MAX and known.assigned <= 1)


cdef bint estimate_is_in_range(const Estimate *estimate) noexcept nogil:
    return (0 <= estimate.one_way_ms <= MS_MAX_ and 0 <= estimate.work_ms <= MS_MAX_
            and 0 <= estimate.per_weight <= SLOPE_MAX and 0 <= estimate.per_item <= SLOPE_MAX)


cdef const uint8_t *read_row(const uint8_t *at, const uint8_t *end, SnapshotRow *row) noexcept nogil:
    """Decodes one row and returns where the next one begins; NULL where it is cut short or has a value out of range."""
    cdef Agent *known = &row.agent
    cdef Ring *ring = &row.ring
    cdef int slot
    if end - at < ROW_BYTES:
        return NULL
    known[0] = Agent(get_float(at), get_float(at + 6), <uint16_t>get16(at + 4), at[14], at[23], at[24], at[25])
    row.reliability = get_float(at + 10)
    row.heartbeat_ms = get_double(at + 15)
    if not row_is_in_range(row) or end - at < row_bytes(known):
        return NULL
    at += ROW_BYTES
    if known.assigned:
        row.assigned = Estimate(get_float(at), get_float(at + 4), get_float(at + 8), get_float(at + 12))
        if not estimate_is_in_range(&row.assigned):
            return NULL
        at += ESTIMATE_BYTES
    for slot in range(ring_count(known)):
        ring.delay_ms[slot], ring.processing_ms[slot] = get_float(at), get_float(at + 4)
        ring.weight[slot], ring.queue[slot] = get_float(at + 8), <uint16_t>get16(at + 12)
        if not (0 <= ring.delay_ms[slot] <= MS_MAX_ and 0 <= ring.processing_ms[slot] <= MS_MAX_ and 0 <= ring.weight[slot] <= WEIGHT_MAX_):
            return NULL
        at += OBSERVATION_BYTES
    return at


cdef int check_snapshot(bytes data, uint32_t size, double quantile) except -1:
    """Refuses what is no whole snapshot of a table of `size` agents and `quantile`; says nothing about its rows."""
    if len(data) < HEADER_BYTES + CHECKSUM_BYTES:
        raise ValueError(f"a snapshot has at least {HEADER_BYTES + CHECKSUM_BYTES} bytes, not {len(data)}; nothing was restored")
    magic, version, size_there, quantile_there = HEADER.unpack_from(data)
    if magic != SNAPSHOT_MAGIC:
        raise ValueError(f"a snapshot begins with {SNAPSHOT_MAGIC!r}, not {magic!r}; nothing was restored")
    if version != SNAPSHOT_VERSION:
        raise ValueError(f"the snapshot has format {version}, and only format {SNAPSHOT_VERSION} is read; nothing was restored")
    checksum = crc32(memoryview(data)[:-CHECKSUM_BYTES])
    expected = get32(<const uint8_t *>PyBytes_AS_STRING(data) + PyBytes_GET_SIZE(data) - CHECKSUM_BYTES)
    if checksum != expected:
        raise ValueError(f"the snapshot is damaged or cut short: its checksum is {checksum:08x}, not {expected:08x}; nothing was restored")
    if size_there != size:
        raise ValueError(f"the snapshot is of {size_there} agents, the table has {size}; nothing was restored")
    if quantile_there != quantile:
        raise ValueError(f"the snapshot is of quantile {quantile_there}, the table has {quantile}; nothing was restored")
    return 0
