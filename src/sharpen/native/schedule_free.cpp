// Schedule-Free AdamW's step on float32 weights, in one pass. Twin:
// sharpen/optim/schedule_free.py; sums have its rounding, so fused multiply-adds are written out and
// the file is compiled without contraction of others.

#include <cmath>
#include <cstdint>

namespace {

constexpr int64_t kChunk = 1 << 16;  // elements that a thread takes at a time

struct Numbers {
    float scale;   // of the gradient
    float b2, a2;  // decay rate of the second moment, and 1 - it
    float corrected, eps, decay;  // 1 over the second moment's correction
    float share;  // of z in the new average
    float toward;  // factor of d in the step of y
    float rate;
};

}  // namespace

// w holds y. Elements whose gradient is not finite stay, where `skip`; they are counted in `bad`.
extern "C" void schedule_free_step(float* w, const float* g, float* z, float* v, int64_t n,
                                   const float* numbers, int skip, int64_t* bad, int threads) {
    const Numbers c = *reinterpret_cast<const Numbers*>(numbers);
    int64_t found = 0;
#pragma omp parallel for num_threads(threads) reduction(+ : found) if (threads > 1 && n > kChunk)
    for (int64_t start = 0; start < n; start += kChunk) {
        const int64_t end = start + kChunk < n ? start + kChunk : n;
        int32_t here = 0;
#pragma omp simd reduction(+ : here)
        for (int64_t i = start; i < end; ++i) {
            const float x = g[i] * c.scale, y = w[i], average = z[i], old = v[i];
            const bool whole = std::fabs(x) <= 3.4028235e38f;
            const float second = __builtin_fmaf(c.a2 * x, x, c.b2 * old);
            const float lower = std::sqrt(second * c.corrected) + c.eps;
            const float d = __builtin_fmaf(y, c.decay, x / lower);
            const float step = __builtin_fmaf(d, c.toward, (y - average) * c.share);
            const bool moves = whole || !skip;
            here += !whole;
            w[i] = moves ? y - step : y;
            z[i] = moves ? __builtin_fmaf(d, -c.rate, average) : average;
            v[i] = moves ? second : old;
        }
        found += here;
    }
    *bad += found;
}
