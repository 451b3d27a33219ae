/* One client connection: connect, WebSocket upgrade if wanted, handshake, ack; then packets both ways. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "../common/wire.h"

enum state { UNUSED, CONNECTING, UPGRADING, SHAKING, ACKED, READY };

struct connection {
    int fd;
    enum state state;
    uint32_t tail_bytes; /* of a packet cut by the last recv */
    uint8_t *tail;
};

struct target {
    int epoll;
    uint16_t port;
    bool websocket;
    bool spread;            /* over source addresses 127.0.0.x, so that closed ones' ports do not run out */
    bool late_heartbeat;    /* the first one comes an interval after the handshake: nobody waits for it */
    bool answer_heartbeats; /* at once, for long silences */
};

extern struct target target;

/* What whoever runs the connections does about them. `out_*` may be called from inside; what they add leaves in one
 * send when the pass ends. */
void on_ready(struct connection *c);
void on_response(struct connection *c, uint32_t id, const uint8_t *body, size_t n);
void on_push(struct connection *c);

void connection_open(struct connection *c, uint64_t number);
void connection_close(struct connection *c);

/* One readiness: one recv, every whole packet in it, one send. */
void connection_serve(struct connection *c);

/* Encodes a packet as it goes over this transport (for a WebSocket: in a masked frame of its own). */
uint8_t *put_packet(uint8_t *to, enum packet_type type, const void *body, size_t n);

void out_bytes(const uint8_t *bytes, size_t n);
void out_flush(struct connection *c);

/* When the bytes that are being served had arrived: read once a pass. */
extern uint64_t pass_ns;

_Noreturn void die(const char *format, ...) __attribute__((format(printf, 1, 2)));
