// Reads memory as fast as a core can: the limit of kernels that do little else.

#include <cstdint>

// The sum of [count] numbers, which nobody needs. A thread reads two streams, 256 bytes of each at a
// time: one alone waits at every page for the processor's prefetching to start again.
extern "C" void read_all(const int64_t* data, int64_t count, int64_t* sum, int threads) {
    constexpr int64_t kStep = 32;
    const int64_t half = count / 2 / kStep;
    int64_t total = 0;
#pragma omp parallel for schedule(static) num_threads(threads) reduction(+ : total)
    for (int64_t i = 0; i < half; ++i) {
        const int64_t *first = data + i * kStep, *second = first + half * kStep;
        int64_t part = 0;
#pragma omp simd reduction(+ : part)
        for (int64_t k = 0; k < kStep; ++k) part += first[k] + second[k];
        total += part;
    }
    *sum = total;
}
