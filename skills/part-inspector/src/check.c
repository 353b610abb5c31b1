#include "check.h"

#include "size.h"

#define CODE "bad_inspection"

static sc_status check_limits(const Characteristic *c) {
    if (!c->has_lower_mm && !c->has_upper_mm)
        return sc_fail(CODE, "expected lower_mm, upper_mm or both for %.*s, got neither", SC_TEXT_ARGS(c->name));
    if (c->has_lower_mm && c->has_upper_mm && !is_above(c->upper_mm, c->lower_mm))
        return sc_fail(CODE, "expected an upper_mm above lower_mm for %.*s, got %g and %g mm", SC_TEXT_ARGS(c->name),
            c->upper_mm, c->lower_mm);
    if (c->mates.len > 0 && !(c->has_lower_mm && c->has_upper_mm))
        return sc_fail(CODE, "expected both limits for %.*s, which has mates, got one", SC_TEXT_ARGS(c->name));
    return SC_OK;
}

static sc_status check_mates(const Characteristic *c) {
    for (uint32_t i = 0; i < c->mates.len; i++) {
        const Mate *mate = &c->mates.items[i];
        if (mate->lower_mm > mate->upper_mm)
            return sc_fail(CODE, "expected a lower_mm of at most upper_mm for mates[%u] of %.*s, got %g and %g mm", i,
                SC_TEXT_ARGS(c->name), mate->lower_mm, mate->upper_mm);
        if (mate->clearance_min_mm > mate->clearance_max_mm)
            return sc_fail(CODE, "expected a clearance_min_mm of at most clearance_max_mm for mates[%u] of %.*s, got %g and %g mm",
                i, SC_TEXT_ARGS(c->name), mate->clearance_min_mm, mate->clearance_max_mm);
        for (uint32_t j = 0; j < i; j++)
            if (c->mates.items[j].generation == mate->generation)
                return sc_fail(CODE, "expected each generation once for %.*s, got %llu twice", SC_TEXT_ARGS(c->name),
                    mate->generation);
    }
    return SC_OK;
}

sc_status check(const InspectPartRequest *request) {
    for (uint32_t i = 0; i < request->characteristics.len; i++) {
        const Characteristic *c = &request->characteristics.items[i];
        for (uint32_t j = 0; j < i; j++)
            if (sc_text_same(request->characteristics.items[j].name, c->name))
                return sc_fail(CODE, "expected each characteristic once, got %.*s twice", SC_TEXT_ARGS(c->name));
        if (c->measured_mm.len > request->parts)
            return sc_fail(CODE, "expected at most %llu measured parts of %.*s, as many as the lot has, got %u", request->parts,
                SC_TEXT_ARGS(c->name), c->measured_mm.len);
        if (check_limits(c) != SC_OK || check_mates(c) != SC_OK) return SC_FAILED;
    }
    return SC_OK;
}
