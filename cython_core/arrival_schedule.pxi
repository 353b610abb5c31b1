"""The schedule of one payload, and the confidence in those it goes to: the twin of arrival_reference.Schedule. Included by arrival.pyx.

The first pass reads eight bytes an agent, writes its lead time and bucket, and appends it to its bucket's pile: a list of chunks of
fixed size. A second pass copies the piles out in send order. There is no histogram, so a wide range of leads costs nothing, and of
the three scattered stores of a counting sort, which bound it, one is saved (docs/decisions/0006).
"""

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


cdef void confidence_pass(const float *reliability, const float *drift, const double *heartbeat_ms, uint32_t count, double now_ms,
                          float *out) noexcept nogil:
    cdef uint32_t at
    cdef float value
    for at in range(count):
        value = (<float>0.5 * reliability[at] - <float>0.3 * drift[at]) + (<float>0.2 if now_ms - heartbeat_ms[at] <= RECENT_MS else <float>0.0)
        value = value if value > 0.0 else <float>0.0
        out[at] = value if value < 1.0 else <float>1.0


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
        cdef Py_ssize_t count = table.size if selection is None else selection.shape[0]
        if count > self.size:
            raise ValueError(f"this schedule has room for {self.size} agents, not {count}")
        table.check_selection(selection)
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
