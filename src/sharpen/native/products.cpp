// y = x W^T + b for 1 to 8 rows of x in float32 or bfloat16: each weight is read once, at memory
// speed. Sums in float32. Twin: torch.nn.functional.linear (sharpen/models/products.py).

#include <vector>

#include "bfloat16.h"

namespace {

constexpr int64_t kWidth = 16;
constexpr int64_t kAhead = 2048;  // bytes; the hardware's own prefetch stops at each 4 KiB page

typedef float Vector __attribute__((vector_size(4 * kWidth)));
typedef uint32_t Bits __attribute__((vector_size(4 * kWidth)));
typedef uint16_t Halves __attribute__((vector_size(2 * kWidth)));

inline Vector load(const float* from) {
    Vector v;
    std::memcpy(&v, from, sizeof v);
    return v;
}

inline Vector load(const bf16* from) {
    Halves half;
    std::memcpy(&half, from, sizeof half);
    return reinterpret_cast<Vector>(__builtin_convertvector(half, Bits) << 16);
}

inline float sum(const Vector& v) {
    float part[kWidth];
    std::memcpy(part, &v, sizeof part);
    for (int64_t half = kWidth / 2; half > 0; half /= 2)
        for (int64_t i = 0; i < half; ++i) part[i] += part[i + half];
    return part[0];
}

// One output of each of R rows.
template <int R, class T>
inline void dot(const T* weight, float bias, const float* x, T* y, int64_t in, int64_t out) {
    Vector sums[R] = {};
    const int64_t whole = in - in % kWidth;
    for (int64_t i = 0; i < whole; i += kWidth) {
        __builtin_prefetch(reinterpret_cast<const char*>(weight + i) + kAhead, 0, 3);
        const Vector w = load(weight + i);
        for (int r = 0; r < R; ++r) sums[r] += w * load(x + r * in + i);
    }
    for (int r = 0; r < R; ++r) {
        float total = sum(sums[r]);
        for (int64_t i = whole; i < in; ++i) total += load(weight[i]) * x[r * in + i];
        store(y + r * out, total + bias);
    }
}

template <int R, class T>
void linear(const T* weight, const T* bias, const float* x, T* y, int64_t in, int64_t out,
            int threads) {
#pragma omp parallel for schedule(static) num_threads(threads) if (threads > 1 && in * out > 1 << 15)
    for (int64_t o = 0; o < out; ++o)
        dot<R>(weight + o * in, bias ? load(bias[o]) : 0.0f, x, y + o, in, out);
}

template <class T>
void linear(const T* weight, const T* bias, const float* x, T* y, int64_t rows, int64_t in,
            int64_t out, int threads) {
    switch (rows) {
        case 1: return linear<1>(weight, bias, x, y, in, out, threads);
        case 2: return linear<2>(weight, bias, x, y, in, out, threads);
        case 3: return linear<3>(weight, bias, x, y, in, out, threads);
        case 4: return linear<4>(weight, bias, x, y, in, out, threads);
        case 5: return linear<5>(weight, bias, x, y, in, out, threads);
        case 6: return linear<6>(weight, bias, x, y, in, out, threads);
        case 7: return linear<7>(weight, bias, x, y, in, out, threads);
        default: return linear<8>(weight, bias, x, y, in, out, threads);
    }
}

}  // namespace

// weight [out, in], bias [out] or null, x [rows, in], y [rows, out]; 1 <= rows <= 8.
extern "C" void linear_f32(const float* weight, const float* bias, const float* x, float* y,
                           int64_t rows, int64_t in, int64_t out, int threads) {
    linear(weight, bias, x, y, rows, in, out, threads);
}

extern "C" void linear_bf16(const bf16* weight, const bf16* bias, const bf16* x, bf16* y,
                            int64_t rows, int64_t in, int64_t out, int threads) {
    std::vector<float> wide(rows * in);
    for (int64_t i = 0; i < rows * in; ++i) wide[i] = load(x[i]);
    linear(weight, bias, wide.data(), y, rows, in, out, threads);
}
