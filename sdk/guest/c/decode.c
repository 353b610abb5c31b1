#include "arena.h"
#include "cbor.h"
#include "codec.h"
#include "failure.h"
#include "text.h"

/* The way from the whole value down to where the reader is, for messages. It lives on the stack of the recursion,
 * whose depth is that of the tables: input cannot nest deeper. */
typedef struct sc_trail {
    const struct sc_trail *up;
    const char *name;       /* NULL: a place in a list, `index` */
    uint32_t name_len, index;
} sc_trail;

/* Messages are made in buffers, not in the arena, which a bad request may have filled. */
#define PATH_BYTES_MAX 192u
#define PROBLEM_BYTES_MAX 256u
/* An unknown key is shown up to this length. */
#define KEY_SHOWN_MAX 64u

__attribute__((format(printf, 3, 4))) static uint32_t print(char *to, uint32_t room, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    uint32_t len = sc_format_into(to, room, format, arguments);
    va_end(arguments);
    return len;
}

/* Writes the trail as `products[2].recovery.sigma`; returns its length. */
static uint32_t print_path(const sc_trail *trail, char *to) {
    if (trail == NULL) return 0;
    uint32_t len = print_path(trail->up, to);
    char *end = to + len;
    uint32_t room = PATH_BYTES_MAX - len;
    if (trail->name == NULL) return len + print(end, room, "[%u]", trail->index);
    return len + print(end, room, "%s%.*s", len > 0 ? "." : "", (int)trail->name_len, trail->name);
}

__attribute__((format(printf, 2, 3))) static bool refuse(const sc_trail *trail, const char *format, ...) {
    char path[PATH_BYTES_MAX], problem[PROBLEM_BYTES_MAX];
    va_list arguments;
    va_start(arguments, format);
    uint32_t problem_len = sc_format_into(problem, sizeof problem, format, arguments);
    va_end(arguments);
    uint32_t path_len = trail == NULL ? print(path, sizeof path, "request") : print_path(trail, path);
    sc_fail("bad_request", "%.*s: %.*s", (int)path_len, path, (int)problem_len, problem);
    return false;
}

/* What stands at the reader, in words. */
static const char *what_is(const sc_reader *in) {
    static const char *const MAJORS[] = {
        "an unsigned integer", "a negative integer", "a byte string", "text", "an array", "a map", "a tag",
    };
    if (in->at == in->end) return "the end";
    uint8_t byte = *in->at;
    if (byte >> 5 != CBOR_SIMPLE) return MAJORS[byte >> 5];
    if (byte == CBOR_FALSE || byte == CBOR_TRUE) return "a boolean";
    if (byte >= CBOR_F16 && byte <= CBOR_F64) return "a float";
    return "another simple value";
}

static bool refuse_item(const sc_reader *in, const sc_trail *trail, const char *expected, bool type_fits) {
    if (!type_fits) return refuse(trail, "expected %s, got %s", expected, what_is(in));
    return refuse(trail, "expected %s in its shortest, complete form", expected);
}

static bool in_bounds(const sc_field *field, double value, const char *unit, const sc_trail *trail) {
    if (value >= field->low && value <= field->high) return true;
    if (value != value || __builtin_fabs(value) == __builtin_inf())
        return refuse(trail, "expected a finite number, got %g", value);
    if (field->high == DBL_MAX) return refuse(trail, "expected at least %g%s, got %g", field->low, unit, value);
    return refuse(trail, "expected %g to %g%s, got %g", field->low, field->high, unit, value);
}

static bool get_head(sc_reader *in, uint8_t major, const char *expected, uint64_t *argument, const sc_trail *trail) {
    bool type_fits = in->at != in->end && *in->at >> 5 == major;
    if (type_fits && cbor_read_head(in, &major, argument)) return true;
    return refuse_item(in, trail, expected, type_fits);
}

static bool get_string(sc_reader *in, uint8_t major, sc_bytes *out, const sc_trail *trail) {
    uint64_t len;
    if (!get_head(in, major, major == CBOR_TEXT ? "text" : "a byte string", &len, trail)) return false;
    if (len > (uint32_t)(in->end - in->at)) return refuse(trail, "expected more bytes, got the end");
    *out = (sc_bytes){ in->at, (uint32_t)len };
    in->at += len;
    if (major == CBOR_TEXT && !sc_utf8_valid(out->at, out->len)) return refuse(trail, "expected UTF-8");
    return true;
}

/* Members are written with sc_copy, because one table serves structs of many types. */
#define STORE(into, value) sc_copy((into), &(value), sizeof(value))

static bool get_sized_string(sc_reader *in, const sc_field *field, uint8_t *into, const sc_trail *trail) {
    sc_bytes bytes;
    uint8_t major = field->kind == SC_KIND_TEXT ? CBOR_TEXT : CBOR_BYTES;
    if (!get_string(in, major, &bytes, trail)) return false;
    if (major == CBOR_BYTES) {
        if (!in_bounds(field, bytes.len, " bytes", trail)) return false;
        STORE(into, bytes);
    } else {
        if (!in_bounds(field, sc_utf8_characters(bytes.at, bytes.len), " characters", trail)) return false;
        sc_text text = { (const char *)bytes.at, bytes.len };
        STORE(into, text);
    }
    return true;
}

static bool get_float(sc_reader *in, const sc_field *field, uint8_t *into, const sc_trail *trail) {
    double value;
    bool type_fits = in->at != in->end && *in->at >= CBOR_F16 && *in->at <= CBOR_F64;
    if (!cbor_read_float(in, &value)) return refuse_item(in, trail, "a float", type_fits);
    if (!in_bounds(field, value, "", trail)) return false;
    STORE(into, value);
    return true;
}

static bool get_uint(sc_reader *in, const sc_field *field, uint8_t *into, const sc_trail *trail) {
    uint64_t value;
    if (!get_head(in, CBOR_UINT, "an unsigned integer", &value, trail)) return false;
    if (!in_bounds(field, (double)value, "", trail)) return false;
    STORE(into, value);
    return true;
}

static bool get_bool(sc_reader *in, uint8_t *into, const sc_trail *trail) {
    bool value = in->at != in->end && *in->at == CBOR_TRUE;
    if (!value && (in->at == in->end || *in->at != CBOR_FALSE)) return refuse_item(in, trail, "a boolean", false);
    in->at += 1;
    STORE(into, value);
    return true;
}

/* A word out of the field's list, or its literal. */
static bool get_word(sc_reader *in, const sc_field *field, uint8_t *into, const sc_trail *trail) {
    sc_bytes bytes;
    if (!get_string(in, CBOR_TEXT, &bytes, trail)) return false;
    sc_text text = { (const char *)bytes.at, bytes.len };
    for (uint32_t word = 0; word <= (uint32_t)field->high; word++) {
        if (!sc_text_same(text, field->words[word])) continue;
        if (field->kind == SC_KIND_WORD) STORE(into, word);
        return true;
    }
    return refuse(trail, "expected one of the words of the contract, got another");
}

static bool get_constant(sc_reader *in, uint8_t wanted, const sc_trail *trail) {
    if (in->at == in->end || *in->at != wanted) return refuse(trail, "expected the constant of the contract");
    in->at += 1;
    return true;
}

static bool get_shape(sc_reader *in, const sc_shape *shape, uint8_t *into, const sc_trail *trail);

static bool get_list(sc_reader *in, const sc_field *field, uint8_t *into, const sc_trail *trail) {
    uint64_t count;
    if (!get_head(in, CBOR_ARRAY, "an array", &count, trail)) return false;
    if (!in_bounds(field, (double)count, " items", trail)) return false;
    /* Each item takes a byte or more, so input cannot ask for more room than its own length deserves. */
    if (count > (uint32_t)(in->end - in->at)) return refuse(trail, "expected more items, got the end");
    uint64_t room = count * field->shape->size;
    sc_list list = { room > UINT32_MAX ? NULL : sc_alloc((uint32_t)room), (uint32_t)count };
    if (list.items == NULL) return refuse(trail, "expected a list that fits into the memory");
    sc_clear(list.items, (uint32_t)room);
    for (uint32_t i = 0; i < list.len; i++) {
        sc_trail place = { .up = trail, .index = i };
        if (!get_shape(in, field->shape, (uint8_t *)list.items + i * field->shape->size, &place)) return false;
    }
    STORE(into, list);
    return true;
}

static bool get_field(sc_reader *in, const sc_field *field, uint8_t *into, const sc_trail *trail) {
    into += field->offset;
    switch ((sc_kind)field->kind) {
    case SC_KIND_BOOL: return get_bool(in, into, trail);
    case SC_KIND_UINT: return get_uint(in, field, into, trail);
    case SC_KIND_FLOAT: return get_float(in, field, into, trail);
    case SC_KIND_TEXT:
    case SC_KIND_BYTES: return get_sized_string(in, field, into, trail);
    case SC_KIND_WORD:
    case SC_KIND_LITERAL: return get_word(in, field, into, trail);
    case SC_KIND_TRUE: return get_constant(in, CBOR_TRUE, trail);
    case SC_KIND_FALSE: return get_constant(in, CBOR_FALSE, trail);
    case SC_KIND_NESTED: return get_shape(in, field->shape, into, trail);
    case SC_KIND_LIST: return get_list(in, field, into, trail);
    }
    __builtin_unreachable();
}

/* Reads the key of `field` if it stands here. Keys are short, so their head is one byte and compares with the rest. */
static bool take_key(sc_reader *in, const sc_field *field) {
    if ((uint32_t)(in->end - in->at) <= field->name_len) return false;
    if (*in->at != (CBOR_TEXT << 5 | field->name_len)) return false;
    if (!sc_same(in->at + 1, field->name, field->name_len)) return false;
    in->at += 1 + field->name_len;
    return true;
}

/* Another key stands here than `wanted`, the one that must come next (NULL: none). */
static bool refuse_key(sc_reader *in, const sc_shape *shape, const sc_field *wanted, const sc_trail *trail) {
    sc_bytes key;
    if (!get_string(in, CBOR_TEXT, &key, trail)) return false;
    sc_text name = { (const char *)key.at, key.len };
    bool known = false;
    for (uint32_t i = 0; i < shape->count; i++)
        known |= sc_text_same(name, (sc_text){ shape->fields[i].name, shape->fields[i].name_len });
    if (known && wanted != NULL) return refuse(trail, "the key \"%s\" is missing or out of order", wanted->name);
    const char *problem = known ? "is there twice or out of order" : "is not known";
    uint32_t shown = name.len < KEY_SHOWN_MAX ? name.len : KEY_SHOWN_MAX;
    while (shown < name.len && shown > 0 && ((uint8_t)name.at[shown] & 0xc0) == 0x80) shown--;
    return refuse(trail, "the key \"%.*s\" %s", (int)shown, name.at, problem);
}

static bool get_map(sc_reader *in, const sc_shape *shape, uint8_t *into, const sc_trail *trail) {
    uint64_t left;
    if (!get_head(in, CBOR_MAP, "a map", &left, trail)) return false;
    for (uint32_t i = 0; i < shape->count; i++) {
        const sc_field *field = &shape->fields[i];
        bool optional = field->has_offset != SC_REQUIRED;
        if (left > 0 && take_key(in, field)) {
            sc_trail key = { .up = trail, .name = field->name, .name_len = field->name_len };
            if (!get_field(in, field, into, &key)) return false;
            if (optional) into[field->has_offset] = true;
            left -= 1;
        } else if (!optional) {
            if (left > 0) return refuse_key(in, shape, field, trail);
            return refuse(trail, "the key \"%s\" is missing", field->name);
        }
    }
    return left == 0 || refuse_key(in, shape, NULL, trail);
}

static bool get_tuple(sc_reader *in, const sc_shape *shape, uint8_t *into, const sc_trail *trail) {
    uint64_t count;
    if (!get_head(in, CBOR_ARRAY, "an array", &count, trail)) return false;
    if (count != shape->count) return refuse(trail, "expected %u items, got %llu", shape->count, count);
    for (uint32_t i = 0; i < shape->count; i++) {
        sc_trail place = { .up = trail, .index = i };
        if (!get_field(in, &shape->fields[i], into, &place)) return false;
    }
    return true;
}

static bool get_shape(sc_reader *in, const sc_shape *shape, uint8_t *into, const sc_trail *trail) {
    switch ((sc_form)shape->form) {
    case SC_FORM_MAP: return get_map(in, shape, into, trail);
    case SC_FORM_TUPLE: return get_tuple(in, shape, into, trail);
    case SC_FORM_BARE: return get_field(in, shape->fields, into, trail);
    case SC_FORM_CHOICE: break; /* Skills only ever send choices. */
    }
    __builtin_trap();
}

bool sc_decode(const uint8_t *at, uint32_t len, const sc_shape *shape, void *into) {
    sc_reader in = { at, at + len };
    sc_clear(into, shape->size);
    if (!get_shape(&in, shape, into, NULL)) return false;
    return in.at == in.end || refuse(NULL, "expected the end, got more bytes");
}
