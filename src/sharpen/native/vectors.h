// Vectors of float32 of the width that the machine has, with the same bits at every width.

#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#if defined(__AVX2__)
#include <immintrin.h>
#endif

namespace {

constexpr int64_t kAhead = 512;  // elements; the hardware's own prefetch stops at each 4 KiB page
constexpr int64_t kChunk = 1 << 16;  // elements that a thread takes at a time

#if defined(__AVX512F__)
constexpr int64_t kLanes = 16;
#elif defined(__AVX2__)
constexpr int64_t kLanes = 8;
#else
constexpr int64_t kLanes = 4;
#endif

typedef float Floats __attribute__((vector_size(4 * kLanes)));
typedef int32_t Ints __attribute__((vector_size(4 * kLanes)));
typedef uint8_t Bytes __attribute__((vector_size(kLanes)));

inline Ints bits(Floats x) { return reinterpret_cast<Ints>(x); }
inline Floats floats(Ints x) { return reinterpret_cast<Floats>(x); }

// The first n lanes, the others 0.
template <class Vector, class Item>
inline Vector load(const Item* from, int64_t n) {
    Vector x = {};
    if (n == kLanes)
        std::memcpy(&x, from, sizeof x);
    else
        std::memcpy(&x, from, n * sizeof(Item));
    return x;
}

template <class Vector, class Item>
inline void store(Item* to, const Vector& x, int64_t n) {
    if (n == kLanes)
        std::memcpy(to, &x, sizeof x);
    else
        std::memcpy(to, &x, n * sizeof(Item));
}

// body(start, lanes) over n elements.
template <class Body>
inline void for_lanes(int64_t n, const Body& body) {
    int64_t i = 0;
    for (; i + kLanes <= n; i += kLanes) body(i, kLanes);
    if (i < n) body(i, n - i);
}

#if defined(__AVX512F__)
inline Floats broadcast(float x) { return _mm512_set1_ps(x); }
inline Floats fused(Floats a, Floats b, Floats c) { return _mm512_fmadd_ps(a, b, c); }
inline Floats about(Floats a, Floats b, Floats c) { return fused(a, b, c); }
inline Floats root(Floats x) { return _mm512_sqrt_ps(x); }
inline Floats least(Floats a, Floats b) { return _mm512_min_ps(a, b); }
inline Ints least(Ints a, Ints b) { return Ints(_mm512_min_epi32(__m512i(a), __m512i(b))); }
inline Ints most(Ints a, Ints b) { return Ints(_mm512_max_epi32(__m512i(a), __m512i(b))); }
inline Ints absolute(Ints x) { return Ints(_mm512_abs_epi32(__m512i(x))); }
inline Ints widened(Bytes x) { return Ints(_mm512_cvtepu8_epi32(__m128i(x))); }
inline Bytes narrowed(Ints x) { return Bytes(_mm512_cvtepi32_epi8(__m512i(x))); }
#elif defined(__AVX2__)
inline Floats broadcast(float x) { return _mm256_set1_ps(x); }
inline Floats fused(Floats a, Floats b, Floats c) { return _mm256_fmadd_ps(a, b, c); }
inline Floats about(Floats a, Floats b, Floats c) { return fused(a, b, c); }
inline Floats root(Floats x) { return _mm256_sqrt_ps(x); }
inline Floats least(Floats a, Floats b) { return _mm256_min_ps(a, b); }
inline Ints least(Ints a, Ints b) { return Ints(_mm256_min_epi32(__m256i(a), __m256i(b))); }
inline Ints most(Ints a, Ints b) { return Ints(_mm256_max_epi32(__m256i(a), __m256i(b))); }
inline Ints absolute(Ints x) { return Ints(_mm256_abs_epi32(__m256i(x))); }
inline Ints widened(Bytes x) { return Ints(_mm256_cvtepu8_epi32(_mm_cvtsi64_si128(int64_t(x)))); }
inline Bytes narrowed(Ints x) {
    const __m128i low = _mm256_castsi256_si128(__m256i(x));
    const __m128i words = _mm_packus_epi32(low, _mm256_extracti128_si256(__m256i(x), 1));
    return Bytes(_mm_cvtsi128_si64(_mm_packus_epi16(words, words)));
}
#else
inline Floats broadcast(float x) { return Floats{x, x, x, x}; }
inline Floats fused(Floats a, Floats b, Floats c) {
    for (int64_t k = 0; k < kLanes; ++k) c[k] = std::fma(a[k], b[k], c[k]);
    return c;
}
inline Floats about(Floats a, Floats b, Floats c) { return a * b + c; }
inline Floats root(Floats x) {
    for (int64_t k = 0; k < kLanes; ++k) x[k] = std::sqrt(x[k]);
    return x;
}
inline Floats least(Floats a, Floats b) { return a < b ? a : b; }
inline Ints least(Ints a, Ints b) { return a < b ? a : b; }
inline Ints most(Ints a, Ints b) { return a > b ? a : b; }
inline Ints absolute(Ints x) { return x < 0 ? -x : x; }
inline Ints widened(Bytes x) { return __builtin_convertvector(x, Ints); }
inline Bytes narrowed(Ints x) { return __builtin_convertvector(x, Bytes); }
#endif

// Bits of the magnitude, which are ordered as magnitudes are.
inline Ints magnitude(Floats x) { return bits(x) & 0x7fffffff; }

inline Ints is_finite(Floats x) { return magnitude(x) < 0x7f800000; }  // -1 or 0

inline int64_t total(Ints x) {
    int64_t sum = 0;
    for (int64_t k = 0; k < kLanes; ++k) sum += x[k];
    return sum;
}

// A sum in sixteen parts, whatever the width.
class Sum {
   public:
    // x: of the elements from i, the lanes past the end 0.
    void add(int64_t i, Floats x) { part_[i / kLanes % kParts] += x; }
    float value() const {
        float x[16];
        std::memcpy(x, part_, sizeof x);
        for (int half = 8; half > 0; half /= 2)
            for (int k = 0; k < half; ++k) x[k] += x[k + half];
        return x[0];
    }

   private:
    static constexpr int64_t kParts = 16 / kLanes;
    Floats part_[kParts] = {};
};

}  // namespace
