#define _GNU_SOURCE
#include "connection.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "../common/clock.h"

enum { RECV_BYTES = 1 << 16, TAIL_BYTES_MAX = 1 << 16, OUT_BYTES = 1 << 18 };

struct target target;
uint64_t pass_ns;

static uint8_t in[TAIL_BYTES_MAX + RECV_BYTES], out[OUT_BYTES];
static size_t out_used;

static const uint8_t MASK[4] = {0x37, 0xfa, 0x21, 0x3d};
static const char HANDSHAKE_JSON[] = "{\"sys\":{\"type\":\"bench\",\"version\":\"1.0.0\"},\"user\":{}}";
static const char UPGRADE[] = "GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                              "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
static const char UPGRADE_ACCEPT[] = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="; /* of that key: RFC 6455, section 1.3 */

void die(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    fprintf(stderr, "load: ");
    vfprintf(stderr, format, arguments);
    fprintf(stderr, "\n");
    exit(1);
}

uint8_t *put_packet(uint8_t *to, enum packet_type type, const void *body, size_t n) {
    uint8_t *packet = to;
    size_t size = HEADER_BYTES + n;
    if (target.websocket) {
        if (size > UINT16_MAX) die("a packet of %zu bytes: a frame here holds 65535", size);
        *packet++ = 0x82; /* final, binary */
        if (size < 126) {
            *packet++ = (uint8_t)(0x80 | size);
        } else {
            *packet++ = 0x80 | 126;
            *packet++ = (uint8_t)(size >> 8);
            *packet++ = (uint8_t)size;
        }
        packet = put_bytes(packet, MASK, 4);
    }
    uint8_t *end = put_bytes(put_header(packet, type, (uint32_t)n), body, n);
    if (target.websocket)
        for (size_t i = 0; i < size; i++) packet[i] ^= MASK[i & 3];
    return end;
}

void out_bytes(const uint8_t *bytes, size_t n) {
    if (out_used + n > OUT_BYTES) die("more than %d bytes to send in one pass: lower the depth", OUT_BYTES);
    memcpy(out + out_used, bytes, n);
    out_used += n;
}

/* What is in flight is bounded by the depth and far below a socket's buffer: a short send is a mistake. */
void out_flush(struct connection *c) {
    if (!out_used) return;
    ssize_t sent = send(c->fd, out, out_used, MSG_NOSIGNAL);
    if (sent != (ssize_t)out_used) die("sent %zd of %zu bytes: %s", sent, out_used, strerror(errno));
    out_used = 0;
}

static void out_packet(enum packet_type type, const void *body, size_t n) {
    uint8_t packet[256];
    out_bytes(packet, (size_t)(put_packet(packet, type, body, n) - packet));
}

void connection_open(struct connection *c, uint64_t number) {
    int one = 1;
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (c->fd < 0) die("socket: %s", strerror(errno));
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    struct sockaddr_in address = {.sin_family = AF_INET};
    if (target.spread) {
        setsockopt(c->fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof one);
        address.sin_addr.s_addr = htonl(INADDR_LOOPBACK + 1 + (uint32_t)(number % 100));
        if (bind(c->fd, (struct sockaddr *)&address, sizeof address)) die("bind: %s", strerror(errno));
    }
    address.sin_port = htons(target.port);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (connect(c->fd, (struct sockaddr *)&address, sizeof address) && errno != EINPROGRESS)
        die("connect: %s", strerror(errno));
    c->state = CONNECTING;
    struct epoll_event e = {.events = EPOLLIN | EPOLLOUT, .data.ptr = c};
    if (epoll_ctl(target.epoll, EPOLL_CTL_ADD, c->fd, &e)) die("epoll_ctl: %s", strerror(errno));
}

void connection_close(struct connection *c) {
    close(c->fd);
    free(c->tail);
    *c = (struct connection){0};
}

static void connected(struct connection *c) {
    int error = 0;
    socklen_t size = sizeof error;
    getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &error, &size);
    if (error) die("connect: %s", strerror(error));
    struct epoll_event e = {.events = EPOLLIN, .data.ptr = c};
    epoll_ctl(target.epoll, EPOLL_CTL_MOD, c->fd, &e);
    if (target.websocket) {
        c->state = UPGRADING;
        out_bytes((const uint8_t *)UPGRADE, sizeof UPGRADE - 1);
    } else {
        c->state = SHAKING;
        out_packet(HANDSHAKE, HANDSHAKE_JSON, sizeof HANDSHAKE_JSON - 1);
    }
}

static void take_data(struct connection *c, const uint8_t *at, const uint8_t *end) {
    uint32_t id;
    if (c->state != READY || at == end) die("Data in state %d, %td bytes", c->state, end - at);
    switch (*at++) {
    case FLAG_RESPONSE:
        if (!take_varint(&at, end, &id)) die("a response without an id");
        on_response(c, id, at, (size_t)(end - at));
        return;
    case FLAG_PUSH:
        on_push(c);
        return;
    default:
        die("a message with flag 0x%02x", at[-1]);
    }
}

static void take_packet(struct connection *c, const uint8_t *packet, size_t body_bytes) {
    const uint8_t *body = packet + HEADER_BYTES;
    switch (packet[0]) {
    case DATA:
        take_data(c, body, body + body_bytes);
        return;
    case HEARTBEAT:
        if (c->state == ACKED) {
            c->state = READY;
            on_ready(c);
        } else if (c->state == READY && target.answer_heartbeats) {
            out_packet(HEARTBEAT, NULL, 0);
        }
        return;
    case HANDSHAKE:
        if (c->state != SHAKING || !memmem(body, body_bytes, "\"code\":200", 10)) die("the handshake was refused");
        c->state = ACKED;
        out_packet(HANDSHAKE_ACK, NULL, 0);
        if (target.late_heartbeat) {
            c->state = READY;
            on_ready(c);
        }
        return;
    default:
        die("packet of type %d: %.*s", packet[0], (int)body_bytes, body);
    }
}

/* Each take_* says where it stopped: at the end, or before the first thing that is incomplete. */
static const uint8_t *take_packets(struct connection *c, const uint8_t *at, const uint8_t *end) {
    while (end - at >= HEADER_BYTES && c->state != UNUSED) {
        size_t size = HEADER_BYTES + body_bytes_of(at);
        if ((size_t)(end - at) < size) return at;
        take_packet(c, at, size - HEADER_BYTES);
        at += size;
    }
    return at;
}

static const uint8_t *take_frames(struct connection *c, const uint8_t *at, const uint8_t *end) {
    while (end - at >= 2 && c->state != UNUSED) {
        size_t header = at[1] == 126 ? 4 : 2, size = at[1];
        if ((size_t)(end - at) < header) return at;
        if (header == 4) size = (size_t)at[2] << 8 | at[3];
        if (at[0] != 0x82 || at[1] > 126) die("a frame that begins with %02x %02x", at[0], at[1]);
        if ((size_t)(end - at) < header + size) return at;
        if (take_packets(c, at + header, at + header + size) != at + header + size && c->state != UNUSED)
            die("a frame that ends in the middle of a packet");
        at += header + size;
    }
    return at;
}

static const uint8_t *take_upgrade(struct connection *c, const uint8_t *at, const uint8_t *end) {
    const uint8_t *stop = memmem(at, (size_t)(end - at), "\r\n\r\n", 4);
    if (!stop) return at;
    if (!memmem(at, (size_t)(stop - at), " 101 ", 5) || !memmem(at, (size_t)(stop - at), UPGRADE_ACCEPT, 28))
        die("the upgrade was refused: %.*s", (int)(stop - at), at);
    c->state = SHAKING;
    out_packet(HANDSHAKE, HANDSHAKE_JSON, sizeof HANDSHAKE_JSON - 1);
    return stop + 4;
}

void connection_serve(struct connection *c) {
    if (c->state == CONNECTING) {
        connected(c);
        out_flush(c);
        return;
    }
    memcpy(in, c->tail ? c->tail : in, c->tail_bytes);
    ssize_t got = recv(c->fd, in + c->tail_bytes, RECV_BYTES, 0);
    if (got < 0 && errno == EAGAIN) return;
    if (got <= 0) die("the server closed a connection in state %d: %s", c->state, got ? strerror(errno) : "end of stream");
    pass_ns = now_ns();
    const uint8_t *at = in, *end = in + c->tail_bytes + got;
    if (c->state == UPGRADING) at = take_upgrade(c, at, end);
    if (c->state != UPGRADING) at = target.websocket ? take_frames(c, at, end) : take_packets(c, at, end);
    if (c->state == UNUSED) { /* closed from inside */
        out_used = 0;
        return;
    }
    if (end - at > TAIL_BYTES_MAX) die("a packet of more than %d bytes", TAIL_BYTES_MAX);
    c->tail_bytes = (uint32_t)(end - at);
    if (c->tail_bytes && !c->tail && !(c->tail = malloc(TAIL_BYTES_MAX))) die("out of memory");
    memcpy(c->tail ? c->tail : in, at, c->tail_bytes);
    out_flush(c);
}
