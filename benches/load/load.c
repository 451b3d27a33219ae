/* The load generator: one thread, epoll, N connections.
 *
 *   load echo     D requests in flight on each connection, always (closed loop); --rate R: R a second, evenly (open loop)
 *   load notify   D notifies in each write, R writes' worth a second, evenly, round robin; counts what it has sent
 *   load receive  counts the pushes of a broadcast
 *   load connect  connect, handshake, ack, first heartbeat, close; over and over, with N of them at once
 *   load idle     opens N connections, says so, and holds them until its input ends
 *
 * With --spin it polls instead of sleeping: a sleeping load generator would bill its wake-ups to the server's sends, which
 * on one machine are dear, and more of them the slower the server is; clients on other machines cost it nothing.
 *
 * With --typed the body is the Move of wire.h, and an answer may be its Moved, too.
 * Answers are checked byte for byte, and timed, unless --bare. After --warmup seconds it counts for --seconds, and measures the
 * CPU time of the process --pid over the same window. The result is one line of JSON. A single connection with a depth of 1 is ping-pong.
 */
#define _GNU_SOURCE
#include <getopt.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <unistd.h>

#include "../common/clock.h"
#include "../common/histogram.h"
#include "connection.h"

enum {
    OPENING_MAX = 64, /* at once, far below the listener's backlog */
    EVENTS_MAX = 512,
    BODY_BYTES_MAX = 4096,
    ID_FIRST = 128, /* ids take two bytes, as those of a client that has been there for a while */
    DEPTH_MAX = 1024,
    ROUTE_BYTES_MAX = 255,
};

enum mode { ECHO, NOTIFY, RECEIVE, CONNECT, IDLE };
static const char *const MODES[] = {"echo", "notify", "receive", "connect", "idle", NULL};

static struct {
    enum mode mode;
    pid_t pid;
    size_t connections, depth, body_bytes;
    double warmup, seconds, rate;
    bool spin, bare, typed;
    const char *route;
} options = {.route = "echo", .connections = 100, .depth = 1, .body_bytes = 64, .warmup = 0.3, .seconds = 1};

static struct connection *connections;
static size_t opening, ready;
static uint64_t opened, messages, skipped;
static struct histogram latency;

/* A request waits in slot s of its connection with id ID_FIRST + s: encoded once, sent again and again. */
static uint8_t body[BODY_BYTES_MAX];
static uint8_t *requests;    /* depth x request_bytes */
static size_t request_bytes;
static uint64_t *sent_ns;    /* connections x depth; 0: nothing in flight */

static void prepare_requests(void) {
    uint8_t message[BODY_BYTES_MAX + 16 + ROUTE_BYTES_MAX];
    for (size_t i = 0; i < options.body_bytes; i++) body[i] = (uint8_t)(i * 7 + 1);
    if (options.typed) memcpy(body, MOVE, options.body_bytes = MOVE_BYTES);
    requests = malloc(options.depth * (BODY_BYTES_MAX + 32 + ROUTE_BYTES_MAX));
    sent_ns = calloc(options.connections * options.depth, sizeof *sent_ns);
    if (!requests || !sent_ns) die("out of memory");
    uint8_t *to = requests;
    for (uint32_t slot = 0; slot < options.depth; slot++) {
        message[0] = options.mode == NOTIFY ? FLAG_NOTIFY : FLAG_REQUEST;
        uint8_t *end = message + 1;
        if (options.mode == ECHO) end = put_varint(end, ID_FIRST + slot);
        *end++ = (uint8_t)strlen(options.route);
        end = put_bytes(end, options.route, strlen(options.route));
        end = put_bytes(end, body, options.body_bytes);
        to = put_packet(to, DATA, message, (size_t)(end - message));
    }
    request_bytes = (size_t)(to - requests) / options.depth;
}

static void request(struct connection *c, size_t slot, uint64_t at) {
    sent_ns[(size_t)(c - connections) * options.depth + slot] = at;
    out_bytes(requests + slot * request_bytes, request_bytes);
}

void on_ready(struct connection *c) {
    opening--;
    if (options.mode == CONNECT) {
        messages++;
        connection_close(c);
    } else {
        ready++;
    }
}

void on_response(struct connection *c, uint32_t id, const uint8_t *answer, size_t n) {
    if (options.bare) {
        messages++;
        request(c, id - ID_FIRST, 0);
        return;
    }
    size_t slot = id - ID_FIRST, index = (size_t)(c - connections) * options.depth + slot;
    if (slot >= options.depth || !sent_ns[index]) die("an answer to request %u, which nobody asked", id);
    bool is_moved = options.typed && n == MOVED_BYTES;
    if ((n != options.body_bytes && !is_moved) || memcmp(answer, body, n)) die("a wrong answer: %zu bytes", n);
    histogram_add(&latency, pass_ns - sent_ns[index]);
    messages++;
    sent_ns[index] = 0;
    if (!options.rate) request(c, slot, pass_ns);
}

void on_push(struct connection *c) {
    (void)c;
    messages++;
}

static void open_more(void) {
    for (size_t i = 0; opening < OPENING_MAX && i < options.connections; i++) {
        size_t index = options.mode == CONNECT ? i : ready + opening;
        if (index >= options.connections) return;
        if (connections[index].state != UNUSED) continue;
        connection_open(&connections[index], opened++);
        opening++;
    }
}

static void pass(int timeout_ms) {
    static struct epoll_event events[EVENTS_MAX];
    int n = epoll_wait(target.epoll, events, EVENTS_MAX, timeout_ms);
    for (int i = 0; i < n; i++) connection_serve(events[i].data.ptr);
}

/* Sends what is due by now, round robin. Latency counts from when it was due, whenever it really left. */
static void send_due(uint64_t start, uint64_t *n) {
    uint64_t now = now_ns();
    for (;; ++*n) {
        uint64_t due = start + (uint64_t)((double)*n * 1e9 / options.rate);
        if (due > now) return;
        struct connection *c = &connections[*n % options.connections];
        size_t slot = *n / options.connections % options.depth;
        if (sent_ns[*n % options.connections * options.depth + slot]) {
            skipped++;
            continue;
        }
        request(c, slot, due);
        out_flush(c);
    }
}

/* Writes what is due by now: a write is due when the last of its messages is. */
static void notify_due(uint64_t start, uint64_t *n) {
    uint64_t now = now_ns();
    for (; start + (uint64_t)((double)(*n + 1) * (double)options.depth * 1e9 / options.rate) <= now; ++*n) {
        out_bytes(requests, request_bytes * options.depth);
        out_flush(&connections[*n % options.connections]);
        messages += options.depth;
    }
}

static void run_for(double seconds) {
    static uint64_t paced_from, paced;
    uint64_t now = now_ns(), end = now + (uint64_t)(seconds * 1e9);
    if (!paced_from) paced_from = now;
    for (; now < end; now = now_ns()) {
        if (options.mode == NOTIFY) notify_due(paced_from, &paced);
        else if (options.rate) send_due(paced_from, &paced);
        if (options.mode == CONNECT) open_more();
        pass(options.spin || options.rate ? 0 : (int)((end - now) / 1000000 + 1));
    }
}

static void open_all(void) {
    while (ready < options.connections) {
        open_more();
        pass(1000);
    }
}

static void fill_all(void) {
    pass_ns = now_ns();
    for (size_t i = 0; i < options.connections; i++) {
        for (size_t slot = 0; slot < options.depth; slot++) request(&connections[i], slot, pass_ns);
        out_flush(&connections[i]);
    }
}

static void hold(void) {
    printf("{\"ready\":%zu}\n", ready);
    fflush(stdout);
    struct pollfd input[2] = {{.fd = STDIN_FILENO, .events = POLLIN}, {.fd = target.epoll, .events = POLLIN}};
    while (poll(input, 2, -1) >= 0 && !input[0].revents) pass(0);
}

static void measure(void) {
    run_for(options.warmup);
    messages = skipped = 0;
    histogram_clear(&latency);
    uint64_t server_cpu = cpu_ns(options.pid), own_cpu = cpu_ns(getpid()), start = now_ns();
    run_for(options.seconds);
    uint64_t end = now_ns();
    server_cpu = cpu_ns(options.pid) - server_cpu;
    own_cpu = cpu_ns(getpid()) - own_cpu;
    printf("{\"mode\":\"%s\",\"loop\":\"%s\",\"transport\":\"%s\",\"connections\":%zu,\"depth\":%zu,\"body_bytes\":%zu,"
           "\"messages\":%lu,\"skipped\":%lu,\"elapsed_ns\":%lu,\"p50_ns\":%lu,\"p99_ns\":%lu,"
           "\"server_cpu_ns\":%lu,\"load_cpu_ns\":%lu}\n",
           MODES[options.mode], options.rate ? "open" : "closed", target.websocket ? "websocket" : "tcp",
           options.connections, options.depth, options.body_bytes, messages, skipped, end - start,
           histogram_percentile(&latency, 0.50), histogram_percentile(&latency, 0.99), server_cpu, own_cpu);
}

static _Noreturn void usage(void) {
    fprintf(stderr, "usage: load echo|notify|receive|connect|idle --port PORT [--pid PID] [--connections N] [--depth D]\n"
                    "       [--body BYTES] [--warmup S] [--seconds S] [--rate PER_SECOND] [--route ROUTE] [--late-heartbeat] [--spin] [--bare] [--websocket] [--typed]\n");
    exit(2);
}

static void parse(int argc, char **argv) {
    static const struct option known[] = {
        {"port", 1, NULL, 'p'},   {"pid", 1, NULL, 'P'},     {"connections", 1, NULL, 'c'}, {"depth", 1, NULL, 'd'},
        {"body", 1, NULL, 'b'},   {"warmup", 1, NULL, 'w'},  {"seconds", 1, NULL, 's'},     {"rate", 1, NULL, 'r'},
        {"websocket", 0, NULL, 'W'}, {"spin", 0, NULL, 'S'}, {"bare", 0, NULL, 'B'},  {"typed", 0, NULL, 'T'},
        {"route", 1, NULL, 'R'}, {"late-heartbeat", 0, NULL, 'L'}, {0}};
    for (int option; (option = getopt_long(argc, argv, "", known, NULL)) >= 0;) {
        switch (option) {
        case 'p': target.port = (uint16_t)atoi(optarg); break;
        case 'P': options.pid = atoi(optarg); break;
        case 'c': options.connections = strtoul(optarg, NULL, 10); break;
        case 'd': options.depth = strtoul(optarg, NULL, 10); break;
        case 'b': options.body_bytes = strtoul(optarg, NULL, 10); break;
        case 'w': options.warmup = atof(optarg); break;
        case 's': options.seconds = atof(optarg); break;
        case 'r': options.rate = atof(optarg); break;
        case 'R': options.route = optarg; break;
        case 'L': target.late_heartbeat = true; break;
        case 'S': options.spin = true; break;
        case 'B': options.bare = true; break;
        case 'T': options.typed = true; break;
        case 'W': target.websocket = true; break;
        default: usage();
        }
    }
    if (optind != argc - 1 || !target.port || !options.connections) usage();
    while (MODES[options.mode] && strcmp(MODES[options.mode], argv[optind])) options.mode++;
    if (!MODES[options.mode] || !options.depth || options.depth > DEPTH_MAX || options.body_bytes > BODY_BYTES_MAX || strlen(options.route) > ROUTE_BYTES_MAX) usage();
}

int main(int argc, char **argv) {
    parse(argc, argv);
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    target.epoll = epoll_create1(EPOLL_CLOEXEC);
    target.spread = options.mode == CONNECT;
    target.answer_heartbeats = options.mode == IDLE || options.mode == RECEIVE;
    connections = calloc(options.connections, sizeof *connections);
    if (!connections) die("out of memory");

    if (options.mode != CONNECT) open_all();
    if (options.mode == IDLE) {
        hold();
        return 0;
    }
    if (options.mode == NOTIFY && !options.rate) usage();
    if (options.mode == ECHO || options.mode == NOTIFY) prepare_requests();
    if (options.mode == ECHO && !options.rate) fill_all();
    measure();
    return 0;
}
