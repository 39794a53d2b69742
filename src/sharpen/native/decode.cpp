// What a decoding step does between its matrix products, fused: three kernels, float32 and bfloat16.
// Sums are in float32 and do not depend on the number of threads. Twin: sharpen/models/step.py.

#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

namespace {

struct bf16 {
    uint16_t bits;
};

inline float load(float x) { return x; }

inline float load(bf16 x) {
    const uint32_t wide = static_cast<uint32_t>(x.bits) << 16;
    float y;
    std::memcpy(&y, &wide, 4);
    return y;
}

inline void store(float* to, float x) { *to = x; }

// Round to nearest, ties to even; a NaN stays one.
inline void store(bf16* to, float x) {
    uint32_t bits;
    std::memcpy(&bits, &x, 4);
    const uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
    to->bits = static_cast<uint16_t>(x != x ? 0x7fc0u : rounded);
}

// e^x = 2^n e^r, |r| <= ln(2) / 2, the second factor by its series to r^7 (error below 1e-8).
// Written out so that the compiler can vectorize it; below -87 it is e^-87.
inline float exponential(float x) {
    x = x < -87.0f ? -87.0f : x;
    x = x > 88.0f ? 88.0f : x;
    const float n = std::nearbyint(x * 1.44269504f);
    float r = std::fma(n, -0.693145752f, x);
    r = std::fma(n, -1.42860677e-6f, r);
    float y = 1.0f / 5040.0f;
    y = std::fma(y, r, 1.0f / 720.0f);
    y = std::fma(y, r, 1.0f / 120.0f);
    y = std::fma(y, r, 1.0f / 24.0f);
    y = std::fma(y, r, 1.0f / 6.0f);
    y = std::fma(y, r, 0.5f);
    y = std::fma(y, r, 1.0f);
    y = std::fma(y, r, 1.0f);
    const int32_t power = (static_cast<int32_t>(n) + 127) << 23;
    float scale;
    std::memcpy(&scale, &power, 4);
    return y * scale;
}

// x / sqrt(mean(x^2) + eps) * weight, for one row of n.
template <class T, class Weight>
void rms_norm(const T* x, const Weight* weight, T* out, int64_t n, float eps) {
    float sum = 0.0f;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < n; ++i) sum += load(x[i]) * load(x[i]);
    const float scale = 1.0f / std::sqrt(sum / static_cast<float>(n) + eps);
#pragma omp simd
    for (int64_t i = 0; i < n; ++i) store(&out[i], load(x[i]) * scale * load(weight[i]));
}

template <class T>
void add_norm(T* x, const T* delta, const T* weight, T* out, int64_t rows, int64_t n, float eps,
              int threads) {
#pragma omp parallel for schedule(static) num_threads(threads) if (threads > 1 && rows * n > 1 << 15)
    for (int64_t r = 0; r < rows; ++r) {
        T* row = x + r * n;
        if (delta) {
            const T* term = delta + r * n;
#pragma omp simd
            for (int64_t i = 0; i < n; ++i) store(&row[i], load(row[i]) + load(term[i]));
        }
        rms_norm(row, weight, out + r * n, n, eps);
    }
}

template <class T>
void silu_multiply(const T* gate_up, T* out, int64_t rows, int64_t n, int threads) {
#pragma omp parallel for schedule(static) num_threads(threads) if (threads > 1 && rows * n > 1 << 14)
    for (int64_t r = 0; r < rows; ++r) {
        const T* gate = gate_up + r * 2 * n;
        const T* up = gate + n;
        T* to = out + r * n;
#pragma omp simd
        for (int64_t i = 0; i < n; ++i) {
            const float g = load(gate[i]);
            store(&to[i], g / (1.0f + exponential(-g)) * load(up[i]));
        }
    }
}

// One head: normed (when weight is given), then turned by its position's angles.
template <class T>
void normed_and_turned(const T* x, const T* weight, const float* cos, const float* sin, float* out,
                       int64_t n, float eps) {
    const int64_t half = n / 2;
#pragma omp simd
    for (int64_t i = 0; i < n; ++i) out[i] = load(x[i]);
    if (weight) rms_norm(out, weight, out, n, eps);
#pragma omp simd
    for (int64_t i = 0; i < half; ++i) {
        const float a = out[i], b = out[i + half];
        out[i] = a * cos[i] - b * sin[i];
        out[i + half] = b * cos[i] + a * sin[i];
    }
}

struct Shape {
    int64_t batch, heads, kv_heads, size, capacity, position, window, rope_stride;
};

// Softmax attention of one query over positions first .. last of one key head.
template <class T>
void attend(const float* q, const T* keys, const T* values, int64_t first, int64_t last, int64_t n,
            float* scores, float* sums, T* out) {
    const float scale = 1.0f / std::sqrt(static_cast<float>(n));
    float highest = -INFINITY;
    for (int64_t s = first; s <= last; ++s) {
        const T* k = keys + s * n;
        float dot = 0.0f;
#pragma omp simd reduction(+ : dot)
        for (int64_t i = 0; i < n; ++i) dot += q[i] * load(k[i]);
        scores[s - first] = dot * scale;
        highest = dot * scale > highest ? dot * scale : highest;
    }
    const int64_t count = last - first + 1;
    float total = 0.0f;
#pragma omp simd reduction(+ : total)
    for (int64_t s = 0; s < count; ++s) {
        scores[s] = exponential(scores[s] - highest);
        total += scores[s];
    }
    for (int64_t i = 0; i < n; ++i) sums[i] = 0.0f;
    for (int64_t s = 0; s < count; ++s) {
        const T* v = values + (first + s) * n;
        const float p = scores[s];
#pragma omp simd
        for (int64_t i = 0; i < n; ++i) sums[i] += p * load(v[i]);
    }
    const float inverse = 1.0f / total;
#pragma omp simd
    for (int64_t i = 0; i < n; ++i) store(&out[i], sums[i] * inverse);
}

template <class T>
void attend_step(const T* qkv, const float* cos, const float* sin, const T* q_norm, const T* k_norm,
                 float eps, T* keys, T* values, const int64_t* starts, T* out, const Shape& s,
                 int threads) {
    const int64_t row_size = (s.heads + 2 * s.kv_heads) * s.size;
    const int64_t group = s.heads / s.kv_heads;
    std::vector<float> turned(s.size);
    for (int64_t task = 0; task < s.batch * s.kv_heads; ++task) {  // this token's key and value
        const int64_t b = task / s.kv_heads, h = task % s.kv_heads;
        const T* k = qkv + b * row_size + (s.heads + h) * s.size;
        const int64_t at = (task * s.capacity + s.position) * s.size;
        normed_and_turned(k, k_norm, cos + b * s.rope_stride, sin + b * s.rope_stride,
                          turned.data(), s.size, eps);
        for (int64_t i = 0; i < s.size; ++i) store(&keys[at + i], turned[i]);
        std::memcpy(&values[at], k + s.kv_heads * s.size, s.size * sizeof(T));
    }
    const bool many = s.batch * s.heads * s.size * (s.position + 1) > 1 << 17;
#pragma omp parallel num_threads(threads) if (threads > 1 && many)
    {
        std::vector<float> buffer(2 * s.size + s.position + 1);
        float *q = buffer.data(), *sums = q + s.size, *scores = sums + s.size;
#pragma omp for schedule(static)
        for (int64_t task = 0; task < s.batch * s.heads; ++task) {
            const int64_t b = task / s.heads, h = task % s.heads;
            int64_t first = starts ? starts[b] : 0;
            if (s.window > 0 && s.position + 1 - s.window > first)
                first = s.position + 1 - s.window;
            if (first > s.position) first = s.position;
            const int64_t head = (b * s.kv_heads + h / group) * s.capacity * s.size;
            normed_and_turned(qkv + b * row_size + h * s.size, q_norm, cos + b * s.rope_stride,
                              sin + b * s.rope_stride, q, s.size, eps);
            attend(q, keys + head, values + head, first, s.position, s.size, scores, sums,
                   out + task * s.size);
        }
    }
}

}  // namespace

#define SHARPEN_DECODE(NAME, T)                                                                   \
    extern "C" void add_norm_##NAME(T* x, const T* delta, const T* weight, T* out, int64_t rows,  \
                                    int64_t n, float eps, int threads) {                          \
        add_norm(x, delta, weight, out, rows, n, eps, threads);                                   \
    }                                                                                             \
    extern "C" void silu_multiply_##NAME(const T* gate_up, T* out, int64_t rows, int64_t n,       \
                                         int threads) {                                           \
        silu_multiply(gate_up, out, rows, n, threads);                                            \
    }                                                                                             \
    extern "C" void attend_step_##NAME(const T* qkv, const float* cos, const float* sin,          \
                                       const T* q_norm, const T* k_norm, float eps, T* keys,      \
                                       T* values, const int64_t* starts, T* out,                  \
                                       const Shape* shape, int threads) {                         \
        attend_step(qkv, cos, sin, q_norm, k_norm, eps, keys, values, starts, out, *shape,        \
                    threads);                                                                     \
    }

SHARPEN_DECODE(f32, float)
SHARPEN_DECODE(bf16, bf16)
