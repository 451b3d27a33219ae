/* The wire, as far as the benches need it: packets, requests, responses and pushes. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum { HEADER_BYTES = 4 };
enum packet_type { HANDSHAKE = 1, HANDSHAKE_ACK, HEARTBEAT, DATA, KICK };
enum { FLAG_REQUEST = 0x00, FLAG_NOTIFY = 0x02, FLAG_RESPONSE = 0x04, FLAG_PUSH = 0x06 };

/* A typed request, Move {1: u32 seq = 150, 2: f32 x = 1.5, 3: f32 y = -2.25, 4: str note = "hello"} in protobuf, and its
 * answer, Moved {1: u32 seq, 2: f32 x, 3: f32 y} of the same values. */
static const uint8_t MOVE[] = "\x08\x96\x01\x15\0\0\xc0\x3f\x1d\0\0\x10\xc0\x22\x05hello";
enum { MOVE_BYTES = sizeof MOVE - 1, MOVED_BYTES = 13 };

static const uint8_t ACK_PACKET[HEADER_BYTES] = {HANDSHAKE_ACK, 0, 0, 0};
static const uint8_t HEARTBEAT_PACKET[HEADER_BYTES] = {HEARTBEAT, 0, 0, 0};

static inline uint8_t *put_header(uint8_t *out, enum packet_type type, uint32_t body_bytes) {
    out[0] = (uint8_t)type;
    out[1] = (uint8_t)(body_bytes >> 16);
    out[2] = (uint8_t)(body_bytes >> 8);
    out[3] = (uint8_t)body_bytes;
    return out + HEADER_BYTES;
}

static inline uint32_t body_bytes_of(const uint8_t *header) {
    return (uint32_t)header[1] << 16 | (uint32_t)header[2] << 8 | header[3];
}

static inline uint8_t *put_bytes(uint8_t *out, const void *bytes, size_t n) {
    if (n) memcpy(out, bytes, n); /* NULL is no source, even of nothing */
    return out + n;
}

static inline uint8_t *put_varint(uint8_t *out, uint32_t value) {
    while (value >= 0x80) {
        *out++ = (uint8_t)(value | 0x80);
        value >>= 7;
    }
    *out++ = (uint8_t)value;
    return out;
}

/* Moves `*at` behind the number; false if it runs over `end` or over 32 bits. */
static inline bool take_varint(const uint8_t **at, const uint8_t *end, uint32_t *value) {
    uint64_t sum = 0;
    for (unsigned shift = 0; shift < 35 && *at < end; shift += 7) {
        uint8_t byte = *(*at)++;
        sum |= (uint64_t)(byte & 0x7f) << shift;
        if (byte < 0x80) {
            *value = (uint32_t)sum;
            return sum <= UINT32_MAX;
        }
    }
    return false;
}
