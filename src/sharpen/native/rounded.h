// Activations rounded to 8 bits by row and group of 128, each with its scale: what weights of integers
// are multiplied by. Twin: quantize_activations in sharpen/compress/mixed.py.

#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>

#if defined(__AVX512F__)
#include <immintrin.h>
#endif

namespace {

constexpr int kGroup = 128;  // inputs that share a scale
constexpr int kQuads = 32;   // a group's inputs by four

// Rows of x, rounded: codes [rows][groups][2][64], for tile registers [rows / 16][groups][2][16][64];
// scales and sums of codes [rows][groups].
struct Rounded {
    const int8_t* codes;
    const float* scales;
    const float* sums;
    int64_t rows, groups;
    int64_t stored;  // inputs that weights have codes for: 128 a group, or 64 in the last

    int quads(int64_t group) const {
        return static_cast<int>(std::min<int64_t>(kQuads, stored / 4 - group * kQuads));
    }
};

// A number's share of 127 steps.
inline float step_of(int32_t highest) {
    float most;
    std::memcpy(&most, &highest, 4);
    return std::max(most, 1e-20f) / 127.0f;
}

// x's codes round(x / s), s = max(max |x|, 1e-20) / 127, 64 each at low and at high; their scale s,
// NaN where x is not finite, and their sum. With Leave, what rounding leaves of x takes its place.
template <bool Leave>
inline void round_group(float* x, int8_t* low, int8_t* high, float* scale, float* sum) {
    constexpr int kHalf = kGroup / 2;
#if defined(__AVX512F__)
    constexpr int kVectors = kGroup / 16;
    __m512 part[kVectors];
    __m512i most = _mm512_setzero_si512(), total = most;
#pragma GCC unroll 8
    for (int i = 0; i < kVectors; ++i) {
        part[i] = _mm512_loadu_ps(x + 16 * i);
        // Magnitudes are ordered as their bits.
        most = _mm512_max_epi32(most, _mm512_castps_si512(_mm512_abs_ps(part[i])));
    }
    const int32_t highest = _mm512_reduce_max_epi32(most);
    const bool finite = highest < 0x7f800000;
    const float step = finite ? step_of(highest) : 1.0f;
    const __mmask16 kept = finite ? 0xffff : 0;
#pragma GCC unroll 8
    for (int i = 0; i < kVectors; ++i) {
        const __m512 by = _mm512_set1_ps(step), share = _mm512_div_ps(part[i], by);
        const __m512i code = _mm512_maskz_cvtps_epi32(kept, share);
        total = _mm512_add_epi32(total, code);
        int8_t* to = (i < kVectors / 2 ? low : high) + 16 * i % kHalf;
        _mm_storeu_si128(reinterpret_cast<__m128i*>(to), _mm512_cvtepi32_epi8(code));
        if (Leave)
            _mm512_storeu_ps(x + 16 * i, _mm512_fnmadd_ps(_mm512_cvtepi32_ps(code), by, part[i]));
    }
    *sum = static_cast<float>(_mm512_reduce_add_epi32(total));
#else
    int32_t highest = 0, total = 0;
#pragma omp simd reduction(max : highest)
    for (int i = 0; i < kGroup; ++i) {
        int32_t bits;
        std::memcpy(&bits, &x[i], 4);
        highest = std::max(highest, bits & 0x7fffffff);  // magnitudes are ordered as their bits
    }
    const bool finite = highest < 0x7f800000;
    const float step = finite ? step_of(highest) : 1.0f;
    for (int half = 0; half < kGroup; half += kHalf) {
        int8_t* codes = half ? high : low;
#pragma omp simd reduction(+ : total)
        for (int i = 0; i < kHalf; ++i) {
            const float value = finite ? std::nearbyint(x[half + i] / step) : 0.0f;
            const int32_t code = static_cast<int32_t>(value);
            codes[i] = static_cast<int8_t>(code);
            total += code;
            if (Leave) x[half + i] -= value * step;
        }
    }
    *sum = static_cast<float>(total);
#endif
    *scale = finite ? step : NAN;
}

}  // namespace
