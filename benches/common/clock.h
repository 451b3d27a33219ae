/* Time, and what a process has burnt of it. */
#pragma once
#include <stdint.h>
#include <sys/types.h>
#include <time.h>

static inline uint64_t clock_ns(clockid_t clock) {
    struct timespec t;
    if (clock_gettime(clock, &t)) return 0;
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static inline uint64_t now_ns(void) { return clock_ns(CLOCK_MONOTONIC); }

/* CPU time of all threads of a process, dead ones too. Unlike /proc/<pid>/schedstat it counts a thread that is running
 * right now up to this instant, so a window may begin and end in the middle of a time slice. */
static inline uint64_t cpu_ns(pid_t pid) {
    clockid_t clock;
    if (!pid || clock_getcpuclockid(pid, &clock)) return 0;
    return clock_ns(clock);
}
