#include "cbor.h"

/* Additional information that announces an argument of 1, 2, 4 or 8 bytes, RFC 8949 §3. */
enum { ONE_BYTE = 24, EIGHT_BYTES = 27 };

static uint8_t *write_big_endian(uint8_t *at, uint64_t value, unsigned bytes) {
    for (unsigned shift = bytes * 8; shift > 0; shift -= 8) *at++ = (uint8_t)(value >> (shift - 8));
    return at;
}

static uint32_t read_big_endian_4(const uint8_t *at) {
    uint32_t value;
    __builtin_memcpy(&value, at, sizeof value);
    return __builtin_bswap32(value);
}

static uint64_t read_big_endian(const uint8_t *at, unsigned bytes) {
    if (bytes == 1) return *at;
    if (bytes == 2) return (uint64_t)at[0] << 8 | at[1];
    if (bytes == 4) return read_big_endian_4(at);
    return (uint64_t)read_big_endian_4(at) << 32 | read_big_endian_4(at + 4);
}

bool cbor_read_head(sc_reader *in, uint8_t *major, uint64_t *argument) {
    if (in->at == in->end) return false;
    uint8_t info = *in->at & 31;
    *major = *in->at >> 5;
    if (info < ONE_BYTE) {
        *argument = info;
        in->at += 1;
        return true;
    }
    if (info > EIGHT_BYTES) return false;
    unsigned bytes = 1u << (info - ONE_BYTE);
    if ((uint32_t)(in->end - in->at) <= bytes) return false;
    *argument = read_big_endian(in->at + 1, bytes);
    /* The shortest form is one that the next shorter argument could not have held. */
    if (bytes == 1 ? *argument < ONE_BYTE : *argument >> (bytes * 4) == 0) return false;
    in->at += 1 + bytes;
    return true;
}

uint8_t *cbor_write_head(uint8_t *at, uint8_t major, uint64_t argument) {
    if (argument < ONE_BYTE) {
        *at++ = (uint8_t)(major << 5 | argument);
        return at;
    }
    unsigned power = argument > UINT32_MAX ? 3 : argument > UINT16_MAX ? 2 : argument > UINT8_MAX ? 1 : 0;
    *at++ = (uint8_t)(major << 5 | (ONE_BYTE + power));
    return write_big_endian(at, argument, 1u << power);
}

/* ---- Floats (IEEE 754-2019 §3.4: binary16, binary32, binary64) ---- */

#define HALF_NAN 0x7e00u
#define HALF_INFINITY 0x7c00u
enum {
    SINGLE_BIAS = 127,
    SINGLE_FRACTION_BITS = 23,
    HALF_BIAS = 15,
    HALF_FRACTION_BITS = 10,
    DOUBLE_BIAS = 1023,
    DOUBLE_FRACTION_BITS = 52,
    /* Fraction bits that a half has no room for. */
    DROPPED_BITS = SINGLE_FRACTION_BITS - HALF_FRACTION_BITS,
};

static uint32_t single_bits(float value) {
    uint32_t bits;
    __builtin_memcpy(&bits, &value, sizeof bits);
    return bits;
}

/* The bits of the half that has exactly this value, or -1. Not for NaN. */
static int32_t half_bits(float value) {
    uint32_t bits = single_bits(value);
    int32_t sign = (int32_t)(bits >> 16 & 0x8000);
    int32_t exponent = (int32_t)(bits >> SINGLE_FRACTION_BITS & 255) - SINGLE_BIAS;
    uint32_t fraction = bits & ((1u << SINGLE_FRACTION_BITS) - 1);
    if (bits << 1 == 0) return sign;
    if (exponent == SINGLE_BIAS + 1) return sign | (int32_t)HALF_INFINITY;
    if (exponent > HALF_BIAS) return -1;
    /* Below the least normal half, each halving costs one more bit of the fraction. */
    int32_t least = 1 - HALF_BIAS;
    uint32_t below = exponent < least ? (uint32_t)(least - exponent) : 0;
    if (below > HALF_FRACTION_BITS) return -1;
    uint32_t whole = fraction | 1u << SINGLE_FRACTION_BITS;
    uint32_t dropped = DROPPED_BITS + below;
    if ((whole & ((1u << dropped) - 1)) != 0) return -1;
    if (below > 0) return sign | (int32_t)(whole >> dropped);
    return sign | (exponent + HALF_BIAS) << HALF_FRACTION_BITS | (int32_t)(fraction >> DROPPED_BITS);
}

static double half_value(uint32_t bits) {
    double sign = bits & 0x8000 ? -1 : 1;
    uint32_t exponent = bits >> HALF_FRACTION_BITS & 31;
    double fraction = (double)(bits & ((1u << HALF_FRACTION_BITS) - 1));
    if (exponent == 31) return fraction == 0 ? sign * __builtin_inf() : __builtin_nan("");
    if (exponent == 0) return sign * fraction * 0x1p-24;
    double scale;
    uint64_t scale_bits = (uint64_t)(exponent + DOUBLE_BIAS - HALF_BIAS) << DOUBLE_FRACTION_BITS;
    __builtin_memcpy(&scale, &scale_bits, sizeof scale);
    return sign * scale * (1 + fraction * 0x1p-10);
}

/* The value of a float of `bytes` bytes. */
static double float_value(uint64_t bits, unsigned bytes) {
    if (bytes == 2) return half_value((uint32_t)bits);
    if (bytes == 8) {
        double value;
        __builtin_memcpy(&value, &bits, sizeof value);
        return value;
    }
    uint32_t low = (uint32_t)bits;
    float value;
    __builtin_memcpy(&value, &low, sizeof value);
    return value;
}

bool cbor_read_float(sc_reader *in, double *value) {
    if (in->at == in->end || *in->at < CBOR_F16 || *in->at > CBOR_F64) return false;
    unsigned bytes = 2u << (*in->at - CBOR_F16);
    if ((uint32_t)(in->end - in->at) <= bytes) return false;
    uint64_t bits = read_big_endian(in->at + 1, bytes);
    *value = float_value(bits, bytes);
    if (*value != *value && (bytes != 2 || bits != HALF_NAN)) return false;
    if (bytes == 8 && (double)(float)*value == *value) return false;
    if (bytes == 4 && half_bits((float)*value) >= 0) return false;
    in->at += 1 + bytes;
    return true;
}

uint8_t *cbor_write_float(uint8_t *at, double value) {
    float single = (float)value;
    int32_t half = value != value ? (int32_t)HALF_NAN : (double)single == value ? half_bits(single) : -1;
    if (half >= 0) {
        *at++ = CBOR_F16;
        return write_big_endian(at, (uint64_t)half, 2);
    }
    if ((double)single == value) {
        *at++ = CBOR_F32;
        return write_big_endian(at, single_bits(single), 4);
    }
    uint64_t bits;
    __builtin_memcpy(&bits, &value, sizeof bits);
    *at++ = CBOR_F64;
    return write_big_endian(at, bits, 8);
}
