#include "codec.h"

/* How many bytes follow this first byte of a character that is not ASCII, or -1: it cannot be one. 0xc0, 0xc1 and all from 0xf5 never occur. */
static int followers(uint8_t first) {
    if (first < 0xc2 || first > 0xf4) return -1;
    return first < 0xe0 ? 1 : first < 0xf0 ? 2 : 3;
}

/* The second byte has a narrower range after four first bytes: no overlong forms, no surrogates, none above U+10FFFF. */
static bool second_fits(uint8_t first, uint8_t second) {
    uint8_t low = first == 0xe0 ? 0xa0 : first == 0xf0 ? 0x90 : 0x80;
    uint8_t high = first == 0xed ? 0x9f : first == 0xf4 ? 0x8f : 0xbf;
    return second >= low && second <= high;
}

uint32_t sc_utf8_characters(const uint8_t *at, uint32_t len) {
    uint32_t characters = 0;
    for (uint32_t i = 0; i < len; i++) characters += (at[i] & 0xc0) != 0x80;
    return characters;
}

bool sc_utf8_valid(const uint8_t *at, uint32_t len) {
    for (uint32_t i = 0; i < len;) {
        if (at[i] < 0x80) {
            i++;
            continue;
        }
        int count = followers(at[i]);
        if (count < 0 || (uint32_t)count >= len - i) return false;
        if (!second_fits(at[i], at[i + 1])) return false;
        for (int k = 2; k <= count; k++)
            if ((at[i + (uint32_t)k] & 0xc0) != 0x80) return false;
        i += (uint32_t)count + 1;
    }
    return true;
}
