"""What a ring of observations teaches: the twin of `_slopes` and `_fit` in arrival_agent_reference.py. Included by arrival.pyx."""

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
    ordered[0] = ring.processing_ms[0]
    for i in range(1, count):
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
    cdef double[SAMPLES] wholes
    cdef double[SAMPLES] works
    cdef int i, rank = <int>ceil(quantile * count) - 1
    cdef double work
    fit_slopes(ring, count, estimate)
    for i in range(count):
        work = (1.0 + <double>estimate.per_weight * ring.weight[i]) * (1.0 + <double>estimate.per_item * ring.queue[i])
        work = ring.processing_ms[i] / work
        insert_sorted(wholes, i, ring.delay_ms[i] + work)
        insert_sorted(works, i, work)
    estimate.one_way_ms = <float>(wholes[rank] - works[rank])
    estimate.work_ms = <float>works[rank]
