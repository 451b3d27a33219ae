/* Counts of durations in log-linear buckets: 256 to an octave, so a percentile is off by at most 0.4 %. */
#pragma once
#include <stdint.h>
#include <string.h>

enum { HISTOGRAM_SHIFT = 8, HISTOGRAM_BUCKETS = (64 - HISTOGRAM_SHIFT + 1) << HISTOGRAM_SHIFT };

struct histogram {
    uint64_t total;
    uint32_t counts[HISTOGRAM_BUCKETS];
};

static inline void histogram_clear(struct histogram *h) { memset(h, 0, sizeof *h); }

static inline void histogram_add(struct histogram *h, uint64_t ns) {
    unsigned octave = 63 - (unsigned)__builtin_clzll(ns | (1u << HISTOGRAM_SHIFT)) - HISTOGRAM_SHIFT;
    h->counts[(octave << HISTOGRAM_SHIFT) + (ns >> octave)]++;
    h->total++;
}

/* The smallest value that at least `share` of all values do not exceed; 0 when there are none. */
static inline uint64_t histogram_percentile(const struct histogram *h, double share) {
    uint64_t wanted = (uint64_t)(share * (double)h->total), seen = 0;
    for (unsigned i = 0; i < HISTOGRAM_BUCKETS; i++) {
        seen += h->counts[i];
        if (seen > wanted) {
            unsigned octave = i >> HISTOGRAM_SHIFT;
            octave = octave ? octave - 1 : 0;
            return (uint64_t)(i - (octave << HISTOGRAM_SHIFT)) << octave;
        }
    }
    return 0;
}
