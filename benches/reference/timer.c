/* A bare timerfd loop: how late a program is that does nothing but wait for points in time.
 *
 *   timer RATE SECONDS    RATE points a second, evenly; prints {"p50_ns":..,"p99_ns":..}
 */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "../common/clock.h"
#include "../common/histogram.h"

int main(int argc, char **argv) {
    static struct histogram lateness;
    if (argc != 3) return 2;
    double rate = atof(argv[1]), seconds = atof(argv[2]);
    int timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC);
    uint64_t start = now_ns(), points = (uint64_t)(rate * seconds), expired;
    for (uint64_t n = 1; n <= points; n++) {
        uint64_t due = start + (uint64_t)((double)n * 1e9 / rate), now = now_ns();
        if (due > now) {
            struct itimerspec at = {.it_value = {.tv_sec = (time_t)(due / 1000000000), .tv_nsec = (long)(due % 1000000000)}};
            if (timerfd_settime(timer, TFD_TIMER_ABSTIME, &at, NULL) || read(timer, &expired, sizeof expired) < 0) return 1;
            now = now_ns();
        }
        histogram_add(&lateness, now - due);
    }
    printf("{\"p50_ns\":%lu,\"p99_ns\":%lu}\n", histogram_percentile(&lateness, 0.5), histogram_percentile(&lateness, 0.99));
    return 0;
}
