#include "text.h"

typedef struct {
    char *at;
    uint32_t len, room;
    bool cut;
} sc_line;

static void put_char(sc_line *line, char c) {
    if (line->len < line->room) line->at[line->len++] = c;
    else line->cut = true;
}

static void put_text(sc_line *line, const char *at, uint32_t len) {
    for (uint32_t i = 0; i < len; i++) {
        bool control = (uint8_t)at[i] < 0x20 || at[i] == 0x7f;
        put_char(line, control ? '?' : at[i]);
    }
}

static void put_unsigned(sc_line *line, uint64_t value) {
    char digits[20];
    uint32_t from = sizeof digits;
    do digits[--from] = (char)('0' + value % 10);
    while ((value /= 10) > 0);
    put_text(line, digits + from, sizeof digits - from);
}

/* ---- %g ---- */

#define DIGITS_DEFAULT 6
#define DIGITS_MAX 15

/* Scales a positive finite number into [1, 10) and returns the power of ten that was taken out. */
static int decimal_exponent(double *value) {
    static const double POWERS[] = { 1e256, 1e128, 1e64, 1e32, 1e16, 1e8, 1e4, 1e2, 1e1 };
    int exponent = 0;
    for (int i = 0, power = 256; power > 0; i++, power /= 2) {
        if (*value >= POWERS[i]) {
            *value /= POWERS[i];
            exponent += power;
        } else if (*value * POWERS[i] < 10) {
            *value *= POWERS[i];
            exponent -= power;
        }
    }
    return exponent;
}

static void put_scientific(sc_line *line, const char *digits, int count, int exponent) {
    put_char(line, digits[0]);
    if (count > 1) put_char(line, '.');
    put_text(line, digits + 1, (uint32_t)count - 1);
    put_char(line, 'e');
    put_char(line, exponent < 0 ? '-' : '+');
    unsigned size = (unsigned)(exponent < 0 ? -exponent : exponent);
    if (size < 10) put_char(line, '0');
    put_unsigned(line, size);
}

static void put_positional(sc_line *line, const char *digits, int count, int exponent) {
    if (exponent < 0) put_text(line, "0.", 2);
    for (int i = -1; i > exponent; i--) put_char(line, '0');
    for (int i = 0; i < count || i <= exponent; i++) {
        if (i > 0 && i == exponent + 1) put_char(line, '.');
        put_char(line, i < count ? digits[i] : '0');
    }
}

/* `precision` significant digits of a positive finite number without trailing zeros, as %g writes them
 * (C11 §7.21.6.1). */
static void put_positive(sc_line *line, double value, int precision) {
    int exponent = decimal_exponent(&value);
    double ceiling = 1;
    for (int i = 0; i < precision; i++) ceiling *= 10;
    uint64_t whole = (uint64_t)__builtin_rint(value * ceiling / 10);
    if (whole >= (uint64_t)ceiling) {
        whole /= 10;
        exponent += 1;
    }
    char digits[DIGITS_MAX];
    for (int i = precision; i > 0; whole /= 10) digits[--i] = (char)('0' + whole % 10);
    int count = precision;
    while (count > 1 && digits[count - 1] == '0') count -= 1;
    if (exponent < -4 || exponent >= precision) put_scientific(line, digits, count, exponent);
    else put_positional(line, digits, count, exponent);
}

static void put_number(sc_line *line, double value, int precision) {
    if (value < 0) put_char(line, '-');
    value = __builtin_fabs(value);
    if (value != value) put_text(line, "nan", 3);
    else if (value == 0) put_char(line, '0');
    else if (value == __builtin_inf()) put_text(line, "inf", 3);
    else put_positive(line, value, precision < 1 ? 1 : precision > DIGITS_MAX ? DIGITS_MAX : precision);
}

/* ---- The format ---- */

/* Writes the conversion that stands behind a '%' and returns its last character. */
static const char *put_conversion(sc_line *line, const char *format, va_list *arguments) {
    int precision = DIGITS_DEFAULT;
    bool bounded = false;
    if (*format == '.') {
        bounded = *++format == '*';
        if (bounded) precision = va_arg(*arguments, int), format++;
        else for (precision = 0; *format >= '0' && *format <= '9'; format++) precision = precision * 10 + (*format - '0');
    }
    switch (*format) {
    case 's': {
        const char *string = va_arg(*arguments, const char *);
        put_text(line, string, bounded ? (uint32_t)precision : sc_text_of(string).len);
        break;
    }
    case 'g': put_number(line, va_arg(*arguments, double), precision); break;
    case 'u': put_unsigned(line, va_arg(*arguments, unsigned)); break;
    case 'l':
        put_unsigned(line, va_arg(*arguments, unsigned long long));
        format += 2;
        break;
    case '%': put_char(line, '%'); break;
    default: __builtin_trap(); /* A conversion that is not in text.h: a mistake in the skill. */
    }
    return format;
}

/* Drops the character that a full buffer cut in two: its continuation bytes (10xxxxxx), then its first byte. */
static void drop_part(sc_line *line) {
    while (line->len > 0 && ((uint8_t)line->at[line->len - 1] & 0xc0) == 0x80) line->len -= 1;
    if (line->len > 0 && (uint8_t)line->at[line->len - 1] >= 0xc0) line->len -= 1;
}

uint32_t sc_format_into(char *at, uint32_t room, const char *format, va_list arguments) {
    sc_line line = { .at = at, .room = room };
    va_list rest;
    va_copy(rest, arguments);
    for (; *format != 0; format++) {
        if (*format == '%') format = put_conversion(&line, format + 1, &rest);
        else put_char(&line, *format);
    }
    va_end(rest);
    if (line.cut) drop_part(&line);
    return line.len;
}

sc_text sc_format(const char *format, ...) {
    char buffer[SC_FORMAT_BYTES_MAX];
    va_list arguments;
    va_start(arguments, format);
    uint32_t len = sc_format_into(buffer, sizeof buffer, format, arguments);
    va_end(arguments);
    char *kept = SC_NEW(char, len);
    sc_copy(kept, buffer, len);
    return (sc_text){ kept, len };
}

sc_text sc_text_of(const char *string) {
    uint32_t len = 0;
    while (string[len] != 0) len++;
    return (sc_text){ string, len };
}

void *sc_push(void *list, uint32_t size) {
    sc_list header;
    sc_copy(&header, list, sizeof header);
    uint32_t len = header.len;
    /* Room doubles, so it is used up exactly when the length is a power of two (or nothing). */
    if ((len & (len - 1)) == 0) {
        uint8_t *wider = sc_new(len == 0 ? 1 : 2 * len, size);
        if (len > 0) sc_copy(wider, header.items, len * size);
        header.items = wider;
    }
    header.len = len + 1;
    sc_copy(list, &header, sizeof header);
    return (uint8_t *)header.items + len * size;
}
