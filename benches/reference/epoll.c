/* The reference: a bare epoll server in C, one thread, no Python.
 *
 * Speaks the same wire: handshake, ack, heartbeat, Data. One recv per readiness, one send per connection and pass, no
 * allocation per message. Requests to "echo" are answered with their own body. On demand it also pushes 100 bytes to
 * everybody (--broadcast HZ), parses the Move of wire.h in each notify and drops it (--drop), or ticks (--tick HZ) and says at SIGTERM how late its ticks were.
 *
 * It takes trusted clients only: there are no deadlines and no limits, and whatever is not understood is closed.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "../common/clock.h"
#include "../common/histogram.h"
#include "../common/wire.h"

enum {
    CONNECTIONS_MAX = 1 << 20,
    EVENTS_MAX = 512,
    PACKET_BYTES_MAX = 1 << 16,
    IN_BYTES = PACKET_BYTES_MAX    /* a packet cut by the last recv */
        + (1 << 16),               /* and what one recv brings */
    OUT_BYTES = IN_BYTES           /* a response is shorter than its request */
        + 512,                     /* but the handshake's answer is longer */
    PUSH_BODY_BYTES = 100,
};

enum state { CLOSED, OPEN, ANSWERED, READY };

/* Indexed by descriptor, in zeroed memory that costs nothing until it is touched. The two pointers are NULL but for the
 * rare connection whose last packet is incomplete, or whose socket took less than all. */
struct connection {
    enum state state;
    uint32_t tail_bytes, unsent_bytes;
    uint32_t place; /* in `ready` */
    uint8_t *tail, *unsent;
};

static struct connection connections[CONNECTIONS_MAX];
static int ready[CONNECTIONS_MAX]; /* the descriptors of all connections in state READY */
static uint32_t ready_count;
static uint8_t in[IN_BYTES], out[OUT_BYTES];
static int epoll, listener, timer;
static struct { uint64_t start, n, hz; } ticks;
static struct histogram lateness;
static volatile sig_atomic_t stopping;
static bool drops;

static const char HANDSHAKE_JSON[] =
    "{\"code\":200,\"sys\":{\"heartbeat\":15,\"dict\":{},\"serializer\":\"json\"},\"user\":{}}";

static void die(const char *what) {
    perror(what);
    exit(1);
}

static void close_connection(int fd) {
    struct connection *c = &connections[fd];
    if (c->state == READY) {
        int last = ready[--ready_count];
        ready[c->place] = last;
        connections[last].place = c->place;
    }
    free(c->tail);
    free(c->unsent);
    *c = (struct connection){0};
    close(fd);
}

/* Keeps for later what the socket did not take: a copy, since `out` is everybody's. */
static bool keep_unsent(struct connection *c, const uint8_t *bytes, size_t n) {
    uint8_t *grown = realloc(c->unsent, c->unsent_bytes + n);
    if (!grown) return false;
    memcpy(grown + c->unsent_bytes, bytes, n);
    c->unsent = grown;
    c->unsent_bytes += (uint32_t)n;
    return true;
}

static bool send_bytes(int fd, const uint8_t *bytes, size_t n) {
    struct connection *c = &connections[fd];
    ssize_t sent = c->unsent_bytes ? 0 : send(fd, bytes, n, MSG_NOSIGNAL);
    if (sent == (ssize_t)n) return true;
    if (sent < 0 && errno != EAGAIN) return false;
    return keep_unsent(c, bytes + (sent > 0 ? sent : 0), n - (size_t)(sent > 0 ? sent : 0));
}

static bool send_unsent(int fd) {
    struct connection *c = &connections[fd];
    ssize_t sent = send(fd, c->unsent, c->unsent_bytes, MSG_NOSIGNAL);
    if (sent < 0) return errno == EAGAIN;
    c->unsent_bytes -= (uint32_t)sent;
    memmove(c->unsent, c->unsent + sent, c->unsent_bytes);
    if (!c->unsent_bytes) {
        free(c->unsent);
        c->unsent = NULL;
    }
    return true;
}

struct move {
    uint32_t seq;
    float x, y;
    const uint8_t *note;
    uint32_t note_bytes;
};
static struct { uint64_t count; double x, y; } dropped; /* so that nothing is optimised away */

/* Any protobuf of a Move, whatever the order of its fields; unknown ones are refused. */
static bool parse_move(const uint8_t *at, const uint8_t *end, struct move *move) {
    while (at < end) {
        uint32_t tag;
        if (!take_varint(&at, end, &tag)) return false;
        switch (tag) {
        case 1 << 3:
            if (!take_varint(&at, end, &move->seq)) return false;
            break;
        case 2 << 3 | 5:
        case 3 << 3 | 5:
            if (end - at < 4) return false;
            memcpy(tag >> 3 == 2 ? &move->x : &move->y, at, 4);
            at += 4;
            break;
        case 4 << 3 | 2:
            if (!take_varint(&at, end, &move->note_bytes) || move->note_bytes > (size_t)(end - at)) return false;
            move->note = at;
            at += move->note_bytes;
            break;
        default:
            return false;
        }
    }
    return true;
}

static bool drop(const uint8_t *at, const uint8_t *end) {
    struct move move = {0};
    if (end - at < 5 || memcmp(at, "\4echo", 5) || !parse_move(at + 5, end, &move)) return false;
    dropped.count++;
    dropped.x += move.x;
    dropped.y += move.y;
    return true;
}

/* Writes the answer to one Data body at `*to`. */
static bool answer(const uint8_t *at, const uint8_t *end, uint8_t **to) {
    uint32_t id;
    if (drops && at < end && *at == FLAG_NOTIFY) return drop(at + 1, end);
    if (at == end || *at++ != FLAG_REQUEST || !take_varint(&at, end, &id)) return false;
    if (end - at < 5 || memcmp(at, "\4echo", 5)) return false;
    at += 5;
    uint8_t *header = *to, *body = header + HEADER_BYTES;
    *body = FLAG_RESPONSE;
    uint8_t *stop = put_bytes(put_varint(body + 1, id), at, (size_t)(end - at));
    put_header(header, DATA, (uint32_t)(stop - body));
    *to = stop;
    return true;
}

static bool take_packet(int fd, const uint8_t *packet, uint32_t body_bytes, uint8_t **to) {
    struct connection *c = &connections[fd];
    const uint8_t *body = packet + HEADER_BYTES;
    switch (packet[0]) {
    case DATA:
        return c->state == READY && answer(body, body + body_bytes, to);
    case HEARTBEAT:
        return c->state == READY;
    case HANDSHAKE:
        if (c->state != OPEN) return false;
        c->state = ANSWERED;
        *to = put_header(*to, HANDSHAKE, sizeof HANDSHAKE_JSON - 1);
        *to = put_bytes(*to, HANDSHAKE_JSON, sizeof HANDSHAKE_JSON - 1);
        return true;
    case HANDSHAKE_ACK:
        if (c->state != ANSWERED) return false;
        c->state = READY;
        c->place = ready_count;
        ready[ready_count++] = fd;
        *to = put_bytes(*to, HEARTBEAT_PACKET, HEADER_BYTES);
        return true;
    default:
        return false;
    }
}

/* One readiness: one recv, every whole packet in it, one send. */
static bool serve(int fd) {
    struct connection *c = &connections[fd];
    if (c->tail_bytes) memcpy(in, c->tail, c->tail_bytes);
    ssize_t got = recv(fd, in + c->tail_bytes, IN_BYTES - c->tail_bytes, 0);
    if (got <= 0) return got < 0 && errno == EAGAIN;

    const uint8_t *at = in, *end = in + c->tail_bytes + got;
    uint8_t *to = out;
    while (end - at >= HEADER_BYTES) {
        uint32_t body_bytes = body_bytes_of(at);
        if (body_bytes > PACKET_BYTES_MAX - HEADER_BYTES) return false;
        if (end - at < (ptrdiff_t)(HEADER_BYTES + body_bytes)) break;
        if (!take_packet(fd, at, body_bytes, &to)) return false;
        at += HEADER_BYTES + body_bytes;
    }
    size_t rest = (size_t)(end - at);
    if (rest) {
        uint8_t *tail = realloc(c->tail, rest);
        if (!tail) return false;
        c->tail = memcpy(tail, at, rest);
    } else if (c->tail) {
        free(c->tail);
        c->tail = NULL;
    }
    c->tail_bytes = (uint32_t)rest;
    return to == out || send_bytes(fd, out, (size_t)(to - out));
}

static void accept_all(void) {
    for (;;) {
        int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0) return;
        int one = 1;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        connections[fd].state = OPEN;
        struct epoll_event e = {.events = EPOLLIN, .data.fd = fd};
        if (epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &e)) close_connection(fd);
    }
}

/* EPOLLOUT is asked for only while something is unsent. Until it is gone, nothing is read from that connection. */
static void serve_connection(int fd, uint32_t events) {
    struct connection *c = &connections[fd];
    bool was_blocked = c->unsent_bytes;
    bool alive = was_blocked ? send_unsent(fd) : serve(fd);
    if (!alive || (events & EPOLLERR)) {
        close_connection(fd);
    } else if (was_blocked != !!c->unsent_bytes) {
        struct epoll_event e = {.events = c->unsent_bytes ? EPOLLOUT : EPOLLIN, .data.fd = fd};
        epoll_ctl(epoll, EPOLL_CTL_MOD, fd, &e);
    }
}

/* Encoded once; a connection that has not taken the last push misses this one. */
static void broadcast(void) {
    static uint8_t push[HEADER_BYTES + 6 + PUSH_BODY_BYTES];
    if (!push[0]) {
        uint8_t *body = put_header(push, DATA, sizeof push - HEADER_BYTES);
        memset(put_bytes(body, "\6\4push", 6), 'x', PUSH_BODY_BYTES);
    }
    for (uint32_t i = ready_count; i-- > 0;) {
        int fd = ready[i];
        if (connections[fd].unsent_bytes) continue;
        if (!send_bytes(fd, push, sizeof push)) {
            close_connection(fd);
        } else if (connections[fd].unsent_bytes) {
            struct epoll_event e = {.events = EPOLLOUT, .data.fd = fd};
            epoll_ctl(epoll, EPOLL_CTL_MOD, fd, &e);
        }
    }
}

static uint64_t tick_deadline(void) { return ticks.start + ticks.n * 1000000000u / ticks.hz; }

static void arm_tick(void) {
    uint64_t at = tick_deadline();
    struct itimerspec when = {.it_value = {(time_t)(at / 1000000000u), (long)(at % 1000000000u)}};
    if (timerfd_settime(timer, TFD_TIMER_ABSTIME, &when, NULL)) die("timerfd_settime");
}

static void tick(bool broadcasts) {
    uint64_t late = now_ns() - tick_deadline(); /* before the read: a handler would start here */
    uint64_t expirations;
    if (read(timer, &expirations, sizeof expirations) != sizeof expirations) return;
    if (ticks.n > ticks.hz / 4) histogram_add(&lateness, late); /* the first ones pay for cold caches */
    if (broadcasts) broadcast();
    ticks.n++;
    arm_tick();
}

static void listen_anywhere(void) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (listener < 0 || bind(listener, (struct sockaddr *)&address, size) || listen(listener, 4096)) die("listen");
    if (getsockname(listener, (struct sockaddr *)&address, &size)) die("getsockname");
    struct epoll_event e = {.events = EPOLLIN, .data.fd = listener};
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &e)) die("epoll_ctl");
    printf("PORT %u\n", ntohs(address.sin_port));
    fflush(stdout);
}

static void start_ticks(uint64_t hz) {
    ticks.hz = hz;
    ticks.start = now_ns();
    ticks.n = 1;
    timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    struct epoll_event e = {.events = EPOLLIN, .data.fd = timer};
    if (timer < 0 || epoll_ctl(epoll, EPOLL_CTL_ADD, timer, &e)) die("timerfd");
    arm_tick();
}

static void stop(int signal) {
    (void)signal;
    stopping = 1;
}

int main(int argc, char **argv) {
    bool broadcasts = argc == 3 && !strcmp(argv[1], "--broadcast");
    bool tick_only = argc == 3 && !strcmp(argv[1], "--tick");
    drops = argc == 2 && !strcmp(argv[1], "--drop");
    if (argc != 1 && !broadcasts && !tick_only && !drops) {
        fprintf(stderr, "usage: %s [--broadcast HZ | --tick HZ | --drop]\n", argv[0]);
        return 2;
    }
    sigaction(SIGTERM, &(struct sigaction){.sa_handler = stop}, NULL);
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max = files.rlim_max < CONNECTIONS_MAX ? files.rlim_max : CONNECTIONS_MAX;
    setrlimit(RLIMIT_NOFILE, &files);
    epoll = epoll_create1(EPOLL_CLOEXEC);
    if (epoll < 0) die("epoll_create1");
    listen_anywhere();
    if (argc == 3) start_ticks(strtoull(argv[2], NULL, 10));

    static struct epoll_event events[EVENTS_MAX];
    while (!stopping) {
        int n = epoll_wait(epoll, events, EVENTS_MAX, -1);
        for (int i = 0; i < n; i++) {
            int fd = events[i].data.fd;
            if (fd == timer && ticks.hz)
                tick(broadcasts);
            else if (fd == listener)
                accept_all();
            else if (connections[fd].state != CLOSED)
                serve_connection(fd, events[i].events);
        }
    }
    if (drops) fprintf(stderr, "dropped %lu, sums %g %g\n", (unsigned long)dropped.count, dropped.x, dropped.y);
    printf("{\"ticks\":%lu,\"lateness_p50_ns\":%lu,\"lateness_p99_ns\":%lu}\n", (unsigned long)lateness.total,
           (unsigned long)histogram_percentile(&lateness, 0.50), (unsigned long)histogram_percentile(&lateness, 0.99));
    return 0;
}
