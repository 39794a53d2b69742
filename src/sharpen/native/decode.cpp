// What a decoding step does between its matrix products, fused: four kernels, float32 and bfloat16.
// Sums are in float32 and do not depend on the number of threads. Twin: sharpen/models/step.py.

#include <algorithm>
#include <cmath>
#include <vector>

#include "bfloat16.h"

namespace {

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

// Keys and values lie in blocks [blocks, kv_heads, block, size]; a place is block * length + offset.
struct Shape {
    int64_t rows, heads, kv_heads, size, block, table_width, window, rope_stride;
};

// Normed and turned queries, in float32; keys, normed and turned, and values go to their places.
template <class T>
void turn_rows(const T* qkv, const float* cos, const float* sin, const T* q_norm, const T* k_norm,
               float eps, float* queries, T* keys, T* values, const int64_t* places,
               const Shape& s, int threads) {
    const int64_t row_size = (s.heads + 2 * s.kv_heads) * s.size;
#pragma omp parallel num_threads(threads) if (threads > 1 && s.rows * row_size > 1 << 14)
    {
        std::vector<float> turned(s.size);
#pragma omp for schedule(static)
        for (int64_t r = 0; r < s.rows; ++r) {
            const T* row = qkv + r * row_size;
            const float *c = cos + r * s.rope_stride, *d = sin + r * s.rope_stride;
            for (int64_t h = 0; h < s.heads; ++h)
                normed_and_turned(row + h * s.size, q_norm, c, d,
                                  queries + (r * s.heads + h) * s.size, s.size, eps);
            for (int64_t h = 0; h < s.kv_heads; ++h) {
                const T* k = row + (s.heads + h) * s.size;
                const int64_t block = places[r] / s.block, offset = places[r] % s.block;
                const int64_t at = ((block * s.kv_heads + h) * s.block + offset) * s.size;
                normed_and_turned(k, k_norm, c, d, turned.data(), s.size, eps);
                for (int64_t i = 0; i < s.size; ++i) store(&keys[at + i], turned[i]);
                std::memcpy(&values[at], k + s.kv_heads * s.size, s.size * sizeof(T));
            }
        }
    }
}

// Positions of one part of a context. Fixed, so that sums depend neither on threads nor neighbours.
constexpr int64_t PART = 256;

// Softmax attention of the queries that share a key head over positions begin .. end - 1: for each
// its highest score, its sum of weights, and its weighted sum of values.
template <class T>
void attend_part(const float* q, const T* keys, const T* values, const int32_t* table,
                 const Shape& s, int64_t kv_head, int64_t begin, int64_t end, float* scores,
                 float* result) {
    const int64_t n = s.size, group = s.heads / s.kv_heads, width = 2 + n;
    const float scale = 1.0f / std::sqrt(static_cast<float>(n));
    for (int64_t position = begin; position < end;) {
        const int64_t offset = position % s.block;
        const int64_t stop = std::min(end, position + s.block - offset);
        const T* k = keys + ((table[position / s.block] * s.kv_heads + kv_head) * s.block + offset) * n;
        for (; position < stop; ++position, k += n) {
            for (int64_t g = 0; g < group; ++g) {
                float dot = 0.0f;
#pragma omp simd reduction(+ : dot)
                for (int64_t i = 0; i < n; ++i) dot += q[g * n + i] * load(k[i]);
                scores[g * PART + position - begin] = dot * scale;
            }
        }
    }
    for (int64_t g = 0; g < group; ++g) {
        float *row = scores + g * PART, highest = -INFINITY, total = 0.0f;
        for (int64_t i = 0; i < end - begin; ++i) highest = row[i] > highest ? row[i] : highest;
#pragma omp simd reduction(+ : total)
        for (int64_t i = 0; i < end - begin; ++i) {
            row[i] = exponential(row[i] - highest);
            total += row[i];
        }
        result[g * width] = highest;
        result[g * width + 1] = total;
        for (int64_t i = 0; i < n; ++i) result[g * width + 2 + i] = 0.0f;
    }
    for (int64_t position = begin; position < end;) {
        const int64_t offset = position % s.block;
        const int64_t stop = std::min(end, position + s.block - offset);
        const T* v = values + ((table[position / s.block] * s.kv_heads + kv_head) * s.block + offset) * n;
        for (; position < stop; ++position, v += n) {
            for (int64_t g = 0; g < group; ++g) {
                const float p = scores[g * PART + position - begin];
                float* sums = result + g * width + 2;
#pragma omp simd
                for (int64_t i = 0; i < n; ++i) sums[i] += p * load(v[i]);
            }
        }
    }
}

// Each row attends to positions first .. its own of its sequence.
template <class T>
void attend_rows(const float* queries, const T* keys, const T* values, const int32_t* tables,
                 const int32_t* sequences, const int32_t* positions, const int32_t* firsts, T* out,
                 const Shape& s, int threads) {
    const int64_t group = s.heads / s.kv_heads, width = 2 + s.size;
    std::vector<int64_t> begins(s.rows), counts(s.rows + 1, 0);  // parts of each row, summed up
    int64_t work = 0;
    for (int64_t r = 0; r < s.rows; ++r) {
        int64_t first = firsts ? firsts[r] : 0;
        if (s.window > 0) first = std::max<int64_t>(first, positions[r] + 1 - s.window);
        begins[r] = std::min<int64_t>(first, positions[r]);
        const int64_t length = positions[r] + 1 - begins[r];
        counts[r + 1] = counts[r] + (length + PART - 1) / PART;
        work += length * s.heads * s.size;
    }
    std::vector<float> results(counts[s.rows] * s.heads * width);
#pragma omp parallel num_threads(threads) if (threads > 1 && work > 1 << 17)
    {
        std::vector<float> scores(group * PART);
        int64_t r = 0;
#pragma omp for schedule(static)
        for (int64_t task = 0; task < counts[s.rows] * s.kv_heads; ++task) {
            const int64_t part = task / s.kv_heads, h = task % s.kv_heads;
            while (part >= counts[r + 1]) ++r;
            const int64_t begin = begins[r] + (part - counts[r]) * PART;
            const int64_t end = std::min<int64_t>(begin + PART, positions[r] + 1);
            attend_part(queries + (r * s.heads + h * group) * s.size, keys, values,
                        tables + sequences[r] * s.table_width, s, h, begin, end, scores.data(),
                        results.data() + (part * s.heads + h * group) * width);
        }
#pragma omp for schedule(static)
        for (int64_t task = 0; task < s.rows * s.heads; ++task) {
            const int64_t row = task / s.heads, h = task % s.heads;
            float* part = results.data() + (counts[row] * s.heads + h) * width;
            const int64_t stride = s.heads * width, parts = counts[row + 1] - counts[row];
            float highest = part[0], total = part[1];
            float* sums = part + 2;
            for (int64_t i = 1; i < parts; ++i) {
                const float* other = part + i * stride;
                const float most = std::max(highest, other[0]);
                const float mine = exponential(highest - most), theirs = exponential(other[0] - most);
                total = total * mine + other[1] * theirs;
#pragma omp simd
                for (int64_t k = 0; k < s.size; ++k) sums[k] = sums[k] * mine + other[2 + k] * theirs;
                highest = most;
            }
            const float inverse = 1.0f / total;
            T* to = out + task * s.size;
#pragma omp simd
            for (int64_t k = 0; k < s.size; ++k) store(&to[k], sums[k] * inverse);
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
    extern "C" void turn_rows_##NAME(const T* qkv, const float* cos, const float* sin,             \
                                     const T* q_norm, const T* k_norm, float eps, float* queries, \
                                     T* keys, T* values, const int64_t* places,                   \
                                     const Shape* shape, int threads) {                           \
        turn_rows(qkv, cos, sin, q_norm, k_norm, eps, queries, keys, values, places, *shape,      \
                  threads);                                                                       \
    }                                                                                             \
    extern "C" void attend_rows_##NAME(const float* queries, const T* keys, const T* values,      \
                                       const int32_t* tables, const int32_t* sequences,           \
                                       const int32_t* positions, const int32_t* firsts, T* out,   \
                                       const Shape* shape, int threads) {                         \
        attend_rows(queries, keys, values, tables, sequences, positions, firsts, out, *shape,     \
                    threads);                                                                     \
    }

SHARPEN_DECODE(f32, float)
SHARPEN_DECODE(bf16, bf16)
