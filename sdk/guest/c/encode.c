#include "arena.h"
#include "cbor.h"
#include "codec.h"

/* Grows in place: nothing else is allocated while a value is being encoded. */
typedef struct {
    uint8_t *from, *at, *end;
    bool full;
} sc_writer;

static bool has_room(sc_writer *out, uint32_t len) {
    if (len <= (uint32_t)(out->end - out->at)) return true;
    uint32_t used = (uint32_t)(out->at - out->from);
    if (len > UINT32_MAX - used || sc_reserve(used + len) == NULL) {
        out->full = true;
        return false;
    }
    out->end = out->from + sc_reserved();
    return true;
}

static void put_head(sc_writer *out, uint8_t major, uint64_t argument) {
    if (has_room(out, CBOR_HEAD_BYTES_MAX)) out->at = cbor_write_head(out->at, major, argument);
}

static void put_byte(sc_writer *out, uint8_t byte) {
    if (has_room(out, 1)) *out->at++ = byte;
}

static void put_string(sc_writer *out, uint8_t major, const void *at, uint32_t len) {
    put_head(out, major, len);
    if (len == 0 || !has_room(out, len)) return;
    sc_copy(out->at, at, len);
    out->at += len;
}

static void put_text(sc_writer *out, sc_text text) {
    put_string(out, CBOR_TEXT, text.at, text.len);
}

static void put_float(sc_writer *out, double value) {
    if (has_room(out, CBOR_HEAD_BYTES_MAX)) out->at = cbor_write_float(out->at, value);
}

static void put_shape(sc_writer *out, const sc_shape *shape, const uint8_t *from);

static void put_list(sc_writer *out, const sc_shape *shape, const sc_list *list) {
    put_head(out, CBOR_ARRAY, list->len);
    const uint8_t *items = list->items;
    for (uint32_t i = 0; i < list->len && !out->full; i++) put_shape(out, shape, items + i * shape->size);
}

/* Members are read with sc_copy, because one table serves structs of many types. */
#define READ(T, name) T name; sc_copy(&name, from, sizeof name)

static void put_plain(sc_writer *out, const sc_field *field, const uint8_t *from) {
    if (field->kind == SC_KIND_FLOAT) {
        READ(double, value);
        put_float(out, value);
    } else if (field->kind == SC_KIND_UINT) {
        READ(uint64_t, value);
        put_head(out, CBOR_UINT, value);
    } else if (field->kind == SC_KIND_TEXT) {
        READ(sc_text, text);
        put_text(out, text);
    } else if (field->kind == SC_KIND_BYTES) {
        READ(sc_bytes, bytes);
        put_string(out, CBOR_BYTES, bytes.at, bytes.len);
    } else if (field->kind == SC_KIND_WORD) {
        READ(uint32_t, word);
        put_text(out, field->words[word <= (uint32_t)field->high ? word : 0]);
    } else {
        READ(bool, value);
        put_byte(out, value ? CBOR_TRUE : CBOR_FALSE);
    }
}

static void put_field(sc_writer *out, const sc_field *field, const uint8_t *from) {
    from += field->offset;
    switch (field->kind) {
    case SC_KIND_NESTED: put_shape(out, field->shape, from); break;
    case SC_KIND_LIST: {
        READ(sc_list, list);
        put_list(out, field->shape, &list);
        break;
    }
    case SC_KIND_LITERAL: put_text(out, field->words[0]); break;
    case SC_KIND_TRUE: put_byte(out, CBOR_TRUE); break;
    case SC_KIND_FALSE: put_byte(out, CBOR_FALSE); break;
    default: put_plain(out, field, from);
    }
}

static bool is_there(const sc_field *field, const uint8_t *from) {
    return field->has_offset == SC_REQUIRED || from[field->has_offset] != 0;
}

static void put_map(sc_writer *out, const sc_shape *shape, const uint8_t *from) {
    uint32_t count = 0;
    for (uint32_t i = 0; i < shape->count; i++) count += is_there(&shape->fields[i], from);
    put_head(out, CBOR_MAP, count);
    for (uint32_t i = 0; i < shape->count; i++) {
        const sc_field *field = &shape->fields[i];
        if (!is_there(field, from)) continue;
        put_string(out, CBOR_TEXT, field->name, field->name_len);
        put_field(out, field, from);
    }
}

static void put_shape(sc_writer *out, const sc_shape *shape, const uint8_t *from) {
    if (shape->form == SC_FORM_MAP) {
        put_map(out, shape, from);
    } else if (shape->form == SC_FORM_CHOICE) {
        READ(uint32_t, which);
        put_field(out, &shape->fields[which < shape->count ? which : 0], from);
    } else {
        if (shape->form == SC_FORM_TUPLE) put_head(out, CBOR_ARRAY, shape->count);
        for (uint32_t i = 0; i < shape->count; i++) put_field(out, &shape->fields[i], from);
    }
}

bool sc_encode(const sc_shape *shape, const void *from, sc_bytes *bytes) {
    uint8_t *at = sc_reserve(CBOR_HEAD_BYTES_MAX);
    if (at == NULL) return false;
    sc_writer out = { .from = at, .at = at, .end = at + sc_reserved() };
    put_shape(&out, shape, from);
    if (out.full) return false;
    *bytes = (sc_bytes){ out.from, (uint32_t)(out.at - out.from) };
    sc_commit(bytes->len);
    return true;
}
