// y = x W^T + b for weights of 4 and 8 bits in groups of 128 inputs and activations that are rounded
// to 8 bits by row and group: sums within a group are exact integers, those over groups float32 in
// order. So a row of y depends neither on the other rows nor on the number of threads, and all
// vector paths have the same bits. Twin: sharpen/compress/mixed.py; layout: compress/kernels.py.

#include <algorithm>
#include <cmath>
#include <vector>

#if defined(__AVX2__)
#include <immintrin.h>
#endif

#include "bfloat16.h"
#include "tiles.h"

namespace {

constexpr int kLanes = 16;    // outputs of a tile
constexpr int kGroup = 128;   // inputs that share a scale
constexpr int kQuads = 32;    // a group's inputs by four
constexpr int64_t kLeastWork = 1 << 20;  // multiplications from which threads share
constexpr int64_t kAhead = 4096;  // bytes; the hardware's own prefetch stops at each 4 KiB page
constexpr int kStrip = 4;         // tile registers of sums

// Outputs with weights of one width, in tiles of 16. A group of a tile is [16][16][4] bytes of two
// 4-bit codes, inputs i and i + 64 of output r at [i / 4][r][i % 4], or [32][16][4] bytes of 8-bit
// codes plus 128.
struct Part {
    const uint8_t* codes;
    const uint16_t* scales;  // [tiles][groups][16] bfloat16
    const uint8_t* zeros;    // [tiles][groups][16], or null for 128
    const int32_t* places;   // [tiles][16]: columns of y; -1 for none
    int64_t tiles, bits;
};

// Rows of x, rounded: codes [rows][groups][2][64], for tile registers [rows / 16][groups][2][16][64];
// scales and sums of codes [rows][groups].
struct Rounded {
    const int8_t* codes;
    const float* scales;
    const float* sums;
    int64_t groups;
};

// s = max(max |x|, 1e-20) / 127, codes round(x / s); s is NaN where x is not finite. stride: from one
// 64 codes to the next.
template <class T>
void round_row(const T* x, int64_t n, int64_t groups, int8_t* codes, int64_t stride, float* scales,
               float* sums) {
    for (int64_t g = 0; g < groups; ++g) {
        const int64_t count = std::min<int64_t>(kGroup, n - g * kGroup);
        float values[kGroup] = {};
        for (int64_t i = 0; i < count; ++i) values[i] = load(x[g * kGroup + i]);
        float most = 0.0f;
        int32_t highest = 0, sum = 0;
#pragma omp simd reduction(max : highest)
        for (int i = 0; i < kGroup; ++i) {
            int32_t bits;
            std::memcpy(&bits, &values[i], 4);
            highest = std::max(highest, bits & 0x7fffffff);  // magnitudes are ordered as their bits
        }
        std::memcpy(&most, &highest, 4);
        const bool finite = highest < 0x7f800000;
        const float scale = finite ? std::max(most, 1e-20f) / 127.0f : 1.0f;
        for (int half = 0; half < 2; ++half, codes += stride) {
#pragma omp simd reduction(+ : sum)
            for (int i = 0; i < kGroup / 2; ++i) {
                const float value = std::nearbyint(values[half * kGroup / 2 + i] / scale);
                const int32_t code = finite ? static_cast<int32_t>(value) : 0;
                codes[i] = static_cast<int8_t>(code);
                sum += code;
            }
        }
        scales[g] = finite ? scale : NAN;
        sums[g] = static_cast<float>(sum);
    }
}

#if defined(__AVX2__)
inline __m256 scales_of(const uint16_t* from) {
    const __m128i half = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(half), 16));
}

inline __m256 zeros_of(const uint8_t* from) {
    if (!from) return _mm256_set1_ps(128.0f);
    const __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(from));
    return _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(bytes));
}
#endif

#if defined(__AVX512F__)
inline __m512 wide_scales_of(const uint16_t* from) {
    const __m256i half = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16));
}

inline __m512 wide_zeros_of(const uint8_t* from) {
    if (!from) return _mm512_set1_ps(128.0f);
    const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
    return _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(bytes));
}

// sums + (dots - zero * x's sum) * scale * x's scale; all but the last two steps are exact.
inline __m512 added(__m512 sums, __m512i dots, __m512 zero, __m512 scale, float x_sum,
                    float x_scale) {
    const __m512 exact = _mm512_fnmadd_ps(zero, _mm512_set1_ps(x_sum), _mm512_cvtepi32_ps(dots));
    return _mm512_fmadd_ps(_mm512_mul_ps(exact, scale), _mm512_set1_ps(x_scale), sums);
}

inline __m512i four(const int8_t* from) {
    int32_t bytes;
    std::memcpy(&bytes, from, 4);
    return _mm512_set1_epi32(bytes);
}

// 16 outputs of R rows by vpdpbusd: [R][16] sums.
template <int Bits, int R>
__attribute__((target("avx512vnni"))) void dots_vnni(const Part& part, int64_t tile,
                                                     const Rounded& x, int64_t first, float* out) {
    constexpr int kChains = R == 1 ? 4 : R < 8 ? 2 : 1;  // sums that do not wait for each other
    constexpr int kBytes = kGroup * kLanes * Bits / 8;
    const int64_t width = x.groups * kGroup;
    __m512 sums[R];
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) sums[r] = _mm512_setzero_ps();
    for (int64_t g = 0; g < x.groups; ++g) {
        const int64_t at = tile * x.groups + g;
        const uint8_t* codes = part.codes + at * kBytes;
        const int8_t* row = x.codes + first * width + g * kGroup;
        __m512i dots[kChains][R];
#pragma GCC unroll 4
        for (int c = 0; c < kChains; ++c)
#pragma GCC unroll 8
            for (int r = 0; r < R; ++r) dots[c][r] = _mm512_setzero_si512();
#pragma GCC unroll 4
        for (int q = 0; q < kBytes / 64; ++q) {
            _mm_prefetch(reinterpret_cast<const char*>(codes + q * 64 + kAhead), _MM_HINT_T0);
            const __m512i both = _mm512_loadu_si512(codes + q * 64);
            if constexpr (Bits == 4) {
                const __m512i mask = _mm512_set1_epi8(15);
                const __m512i low = _mm512_and_si512(both, mask);
                const __m512i high = _mm512_and_si512(_mm512_srli_epi16(both, 4), mask);
                constexpr int kLow = 0, kHigh = kChains > 1;
                const int odd = kChains == 4 ? 2 * (q & 1) : 0;
#pragma GCC unroll 8
                for (int r = 0; r < R; ++r) {
                    __m512i& one = dots[odd + kLow][r];
                    one = _mm512_dpbusd_epi32(one, low, four(row + r * width + 4 * q));
                }
#pragma GCC unroll 8
                for (int r = 0; r < R; ++r) {
                    __m512i& one = dots[odd + kHigh][r];
                    one = _mm512_dpbusd_epi32(one, high, four(row + r * width + 64 + 4 * q));
                }
            } else {
#pragma GCC unroll 8
                for (int r = 0; r < R; ++r) {
                    __m512i& one = dots[q & (kChains - 1)][r];
                    one = _mm512_dpbusd_epi32(one, both, four(row + r * width + 4 * q));
                }
            }
        }
        const __m512 scale = wide_scales_of(part.scales + at * kLanes);
        const __m512 zero = wide_zeros_of(part.zeros ? part.zeros + at * kLanes : nullptr);
#pragma GCC unroll 8
        for (int r = 0; r < R; ++r) {
            __m512i all = dots[0][r];
#pragma GCC unroll 4
            for (int c = 1; c < kChains; ++c) all = _mm512_add_epi32(all, dots[c][r]);
            const int64_t of = (first + r) * x.groups + g;
            sums[r] = added(sums[r], all, zero, scale, x.sums[of], x.scales[of]);
        }
    }
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) _mm512_storeu_ps(out + r * kLanes, sums[r]);
}
#endif

#if defined(SHARPEN_TILES)
// A group of 4-bit codes as bytes.
inline void unpack(const uint8_t* codes, uint8_t* to) {
    const __m512i mask = _mm512_set1_epi8(15);
    for (int q = 0; q < kQuads / 2; ++q, codes += 64, to += 64) {
        _mm_prefetch(reinterpret_cast<const char*>(codes + kAhead), _MM_HINT_T0);
        const __m512i both = _mm512_loadu_si512(codes);
        _mm512_store_si512(to, _mm512_and_si512(both, mask));
        _mm512_store_si512(to + kQuads * 32, _mm512_and_si512(_mm512_srli_epi16(both, 4), mask));
    }
}

// 16 outputs of 16 to 64 rows of x by tile registers. With the first rows 4-bit codes are unpacked to
// the buffer. While a group is multiplied the next one is unpacked, and the sums of the one before
// are taken up.
template <int Bits, int Strip>
__attribute__((target("amx-tile,amx-int8"))) void dots_tiles(const Part& part, int64_t tile,
                                                             const Rounded& x, int64_t first,
                                                             uint8_t* buffer, float* out) {
    const bool fresh = first == 0;
    const uint8_t* stored = part.codes + tile * x.groups * kGroup * kLanes * Bits / 8;
    const uint8_t* codes = Bits == 4 ? buffer : stored;
    if (Bits == 4 && fresh) unpack(stored, buffer);
    constexpr int64_t kBytes = kTileRows * kGroup;  // of a group of 16 rows of x
    const int8_t* rows = x.codes + first / kTileRows * x.groups * kBytes;
    const int64_t next = x.groups * kBytes;
    const float *x_sums = x.sums + first * x.groups, *x_scales = x.scales + first * x.groups;
    alignas(64) int32_t dots[2][Strip][kTileRows * kLanes];
    std::memset(out, 0, Strip * kTileRows * kLanes * sizeof(float));
    for (int64_t g = 0; g <= x.groups; ++g) {
        if (g < x.groups) {
            if (Bits == 4 && fresh && g + 1 < x.groups)
                unpack(stored + (g + 1) * 1024, buffer + (g + 1) * 2048);
            for (int i = 0; Bits == 8 && fresh && i < kQuads; ++i)
                _mm_prefetch(reinterpret_cast<const char*>(codes + kAhead + i * 64), _MM_HINT_T0);
            _tile_loadd(6, codes, 64);
            _tile_loadd(7, codes + 1024, 64);
            codes += 2048;
#define SHARPEN_SUM(N)                                   \
    if constexpr (Strip > N) {                           \
        _tile_zero(N);                                   \
        _tile_loadd(4, rows + N * next, 64);             \
        _tile_dpbsud(N, 4, 6);                           \
        _tile_loadd(5, rows + N * next + kBytes / 2, 64); \
        _tile_dpbsud(N, 5, 7);                           \
        _tile_stored(N, dots[g & 1][N], 64);             \
    }
            SHARPEN_SUM(0)
            SHARPEN_SUM(1)
            SHARPEN_SUM(2)
            SHARPEN_SUM(3)
#undef SHARPEN_SUM
            rows += kBytes;
        }
        if (g == 0) continue;
        const int64_t at = tile * x.groups + g - 1;
        const __m512 scale = wide_scales_of(part.scales + at * kLanes);
        const __m512 zero = wide_zeros_of(part.zeros ? part.zeros + at * kLanes : nullptr);
        const int32_t* done = &dots[(g - 1) & 1][0][0];
#pragma GCC unroll 4
        for (int r = 0; r < Strip * kTileRows; ++r) {
            const __m512i all = _mm512_load_si512(done + r * kLanes);
            const int64_t of = r * x.groups + g - 1;
            float* to = out + r * kLanes;
            _mm512_store_ps(to, added(_mm512_load_ps(to), all, zero, scale, x_sums[of], x_scales[of]));
        }
    }
}
#endif

#if defined(__AVX2__)
// 16 outputs of one row by pairs in 16 bits: 4-bit codes times x stay below 2^15 for eight pairs;
// 8-bit codes are taken as magnitudes, with their signs given to x.
template <int Bits>
void dots_avx2(const Part& part, int64_t tile, const Rounded& x, int64_t row, float* out) {
    constexpr int kBytes = kGroup * kLanes * Bits / 8;
    const __m256i ones = _mm256_set1_epi16(1);
    __m256 sums[2] = {_mm256_setzero_ps(), _mm256_setzero_ps()};
    for (int64_t g = 0; g < x.groups; ++g) {
        const int64_t at = tile * x.groups + g;
        const uint8_t* codes = part.codes + at * kBytes;
        const int8_t* of = x.codes + (row * x.groups + g) * kGroup;
        for (int half = 0; half < 2; ++half) {
            __m256i dots = _mm256_setzero_si256();
            if constexpr (Bits == 4) {
                const __m256i mask = _mm256_set1_epi8(15);
                for (int begin = 0; begin < kQuads / 2; begin += 4) {
                    __m256i pairs = _mm256_setzero_si256();
                    for (int q = begin; q < begin + 4; ++q) {
                        int32_t first, second;
                        std::memcpy(&first, of + 4 * q, 4);
                        std::memcpy(&second, of + 64 + 4 * q, 4);
                        const __m256i both = _mm256_loadu_si256(
                            reinterpret_cast<const __m256i*>(codes + q * 64 + half * 32));
                        const __m256i low = _mm256_and_si256(both, mask);
                        const __m256i high = _mm256_and_si256(_mm256_srli_epi16(both, 4), mask);
                        pairs = _mm256_add_epi16(
                            pairs, _mm256_maddubs_epi16(low, _mm256_set1_epi32(first)));
                        pairs = _mm256_add_epi16(
                            pairs, _mm256_maddubs_epi16(high, _mm256_set1_epi32(second)));
                    }
                    dots = _mm256_add_epi32(dots, _mm256_madd_epi16(pairs, ones));
                }
            } else {
                for (int q = 0; q < kQuads; ++q) {
                    int32_t bytes;
                    std::memcpy(&bytes, of + 4 * q, 4);
                    const __m256i raised = _mm256_loadu_si256(
                        reinterpret_cast<const __m256i*>(codes + q * 64 + half * 32));
                    const __m256i code = _mm256_xor_si256(raised, _mm256_set1_epi8(-128));
                    const __m256i turned = _mm256_sign_epi8(_mm256_set1_epi32(bytes), code);
                    const __m256i pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(code), turned);
                    dots = _mm256_add_epi32(dots, _mm256_madd_epi16(pairs, ones));
                }
            }
            __m256 exact = _mm256_cvtepi32_ps(dots);
            if constexpr (Bits == 4)
                exact = _mm256_fnmadd_ps(zeros_of(part.zeros + at * kLanes + half * 8),
                                         _mm256_set1_ps(x.sums[row * x.groups + g]), exact);
            const __m256 scale = scales_of(part.scales + at * kLanes + half * 8);
            sums[half] = _mm256_fmadd_ps(_mm256_mul_ps(exact, scale),
                                         _mm256_set1_ps(x.scales[row * x.groups + g]), sums[half]);
        }
    }
    _mm256_storeu_ps(out, sums[0]);
    _mm256_storeu_ps(out + 8, sums[1]);
}
#else
template <int Bits>
void dots_plain(const Part& part, int64_t tile, const Rounded& x, int64_t row, float* out) {
    constexpr int kBytes = kGroup * kLanes * Bits / 8;
    for (int r = 0; r < kLanes; ++r) out[r] = 0.0f;
    for (int64_t g = 0; g < x.groups; ++g) {
        const int64_t at = tile * x.groups + g;
        const uint8_t* codes = part.codes + at * kBytes;
        const int8_t* of = x.codes + (row * x.groups + g) * kGroup;
        int32_t dots[kLanes] = {};
        for (int q = 0; q < kBytes / 64; ++q)
            for (int r = 0; r < kLanes; ++r)
                for (int i = 0; i < 4; ++i) {
                    const int32_t code = codes[(q * kLanes + r) * 4 + i];
                    if constexpr (Bits == 4)
                        dots[r] += (code & 15) * of[4 * q + i] + (code >> 4) * of[64 + 4 * q + i];
                    else
                        dots[r] += (code - 128) * of[4 * q + i];
                }
        const float x_scale = x.scales[row * x.groups + g], x_sum = x.sums[row * x.groups + g];
        for (int r = 0; r < kLanes; ++r) {
            const float zero = Bits == 4 ? part.zeros[at * kLanes + r] : 0.0f;
            const float scale = load(bf16{part.scales[at * kLanes + r]});
            out[r] += (static_cast<float>(dots[r]) - zero * x_sum) * scale * x_scale;
        }
    }
}
#endif

// How dots are taken: pairs of 16 bits or plain code, AVX512-VNNI, or tile registers for many rows.
enum Way : int { kPlain = 0, kVnni = 1, kTiles = 2 };

constexpr int64_t kLeastForTiles = 9;  // rows; fewer are at memory speed without

template <class T>
void put(const float* sums, const int32_t* places, const float* bias, T* y, int64_t rows, int64_t n) {
    for (int64_t r = 0; r < rows; ++r, sums += kLanes, y += n)
        for (int k = 0; k < kLanes; ++k)
            if (places[k] >= 0) store(&y[places[k]], bias ? sums[k] + bias[places[k]] : sums[k]);
}

// All rows of 16 outputs. buffer: of the thread, for unpacked codes.
template <int Bits, class T>
void tile_of(const Part& part, int64_t tile, const Rounded& x, const float* bias, T* y, int64_t rows,
             int64_t n, int way, uint8_t* buffer) {
    alignas(64) float sums[kStrip * kTileRows * kLanes];
    const int32_t* places = part.places + tile * kLanes;
    int64_t r = 0;
#if defined(SHARPEN_TILES)
    if (way == kTiles) {
        while (r < rows) {
            const int64_t left = (rows - r + kTileRows - 1) / kTileRows;
            if (left >= 4)
                dots_tiles<Bits, 4>(part, tile, x, r, buffer, sums);
            else if (left >= 2)
                dots_tiles<Bits, 2>(part, tile, x, r, buffer, sums);
            else
                dots_tiles<Bits, 1>(part, tile, x, r, buffer, sums);
            const int64_t taken = kTileRows * (left >= 4 ? 4 : left >= 2 ? 2 : 1);
            put(sums, places, bias, y + r * n, std::min(taken, rows - r), n);
            r += taken;
        }
        return;
    }
#endif
#if defined(__AVX512F__)
    while (way != kPlain && r < rows) {
        const int64_t left = rows - r, taken = left >= 8 ? 8 : left >= 4 ? 4 : left >= 2 ? 2 : 1;
        if (taken == 8)
            dots_vnni<Bits, 8>(part, tile, x, r, sums);
        else if (taken == 4)
            dots_vnni<Bits, 4>(part, tile, x, r, sums);
        else if (taken == 2)
            dots_vnni<Bits, 2>(part, tile, x, r, sums);
        else
            dots_vnni<Bits, 1>(part, tile, x, r, sums);
        put(sums, places, bias, y + r * n, taken, n);
        r += taken;
    }
#endif
    (void)way, (void)buffer;
    for (; r < rows; ++r) {
#if defined(__AVX2__)
        dots_avx2<Bits>(part, tile, x, r, sums);
#else
        dots_plain<Bits>(part, tile, x, r, sums);
#endif
        put(sums, places, bias, y + r * n, 1, n);
    }
}

template <class T>
void product(const Part* parts, int64_t count, const float* bias, const T* x, T* y, int64_t rows,
             int64_t in, int64_t out, int way, int threads) {
    const int64_t groups = (in + kGroup - 1) / kGroup, width = groups * kGroup;
    if (way == kTiles && rows < kLeastForTiles) way = kVnni;
    const int64_t padded = way == kTiles ? (rows + kTileRows - 1) / kTileRows * kTileRows : rows;
    std::vector<int8_t> codes(padded * width);
    std::vector<float> numbers(2 * padded * groups);
    const Rounded rounded{codes.data(), numbers.data(), numbers.data() + padded * groups, groups};
    float *scales = numbers.data(), *sums = scales + padded * groups;
    int64_t tiles = 0;
    for (int64_t p = 0; p < count; ++p) tiles += parts[p].tiles;
    const int64_t chunk = std::max<int64_t>(1, tiles / (8 * threads));
#pragma omp parallel num_threads(threads) if (threads > 1 && std::min<int64_t>(rows, 4) * in * out > kLeastWork)
    {
        const int64_t bytes = way == kTiles ? width * kLanes : 0;
        std::vector<uint8_t> space(bytes + 64);
        uint8_t* buffer = space.data() + (-reinterpret_cast<uintptr_t>(space.data()) & 63);
#pragma omp for schedule(static)
        for (int64_t r = 0; r < rows; ++r) {
            const int64_t row = r % kTileRows, half = kGroup / 2;
            int8_t* to = way == kTiles ? codes.data() + (r - row) * width + row * half
                                       : codes.data() + r * width;
            round_row(x + r * in, in, groups, to, way == kTiles ? kTileRows * half : half,
                      scales + r * groups, sums + r * groups);
        }
        const Tiles registers(way == kTiles);
#pragma omp for schedule(dynamic, chunk)
        for (int64_t t = 0; t < tiles; ++t) {
            const bool first = t < parts[0].tiles;
            const Part& part = parts[first ? 0 : 1];
            const int64_t tile = first ? t : t - parts[0].tiles;
            if (part.bits == 4)
                tile_of<4>(part, tile, rounded, bias, y, rows, out, way, buffer);
            else
                tile_of<8>(part, tile, rounded, bias, y, rows, out, way, buffer);
        }
    }
}

}  // namespace

// One or two parts; bias [out] or null, x [rows, in], y [rows, out].
extern "C" void product_f32(const Part* parts, int64_t count, const float* bias, const float* x,
                            float* y, int64_t rows, int64_t in, int64_t out, int way, int threads) {
    product(parts, count, bias, x, y, rows, in, out, way, threads);
}

extern "C" void product_bf16(const Part* parts, int64_t count, const float* bias, const bf16* x,
                             bf16* y, int64_t rows, int64_t in, int64_t out, int way, int threads) {
    product(parts, count, bias, x, y, rows, in, out, way, threads);
}
