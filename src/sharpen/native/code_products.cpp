// y = x W^T + b for weights of 4 and 8 bits, W = q s + o by groups of inputs, and x in bfloat16. Codes
// become bfloat16 numbers, exactly, on their way into the product; sums within a group and over
// groups are float32, in one order for any number of rows and threads. Twin: QuantizedLinear in
// sharpen/compress/linear.py; layout: compress/kernels.py.

#include <algorithm>
#include <vector>

#if defined(__AVX512F__)
#include <immintrin.h>
#endif

#include "bfloat16.h"
#include "tiles.h"

namespace {

// Tiles of 16 outputs and steps of 32 inputs. A step of a tile holds codes of pair p of inputs of
// output r, numbers 2 p and 2 p + 1: with 8 bits [p][r][2] bytes; with 4 bits, plus 8, [p / 4][r][2]
// words of 16 bits, pair p in bits 4 (p % 4) and on.
struct Weight {
    const uint8_t* codes;
    const bf16* scales;  // [tiles][groups][2][16]: s and o
    int64_t in, out, bits, group;
};

#if defined(__AVX512F__)
constexpr int kLanes = 16;
constexpr int kStep = 32;
constexpr int kStrip = 4;  // tile registers of sums
constexpr int64_t kAtOnce = 4;  // steps that are unpacked together
constexpr int64_t kLeastWork = 1 << 20;  // multiplications from which threads share
constexpr int64_t kAhead = 4096;  // bytes; the hardware's own prefetch stops at each 4 KiB page

inline int64_t steps_of(const Weight& w) { return (w.in + kStep - 1) / kStep; }
inline int64_t groups_of(const Weight& w) { return (w.in + w.group - 1) / w.group; }

// Steps as [16 pairs][16 outputs][2] bfloat16.
__attribute__((target("avx512bf16"))) void unpack4(const uint8_t* from, bf16* to, int64_t steps) {
    alignas(64) bf16 numbers[32];  // bit 4 of an index belongs to the next code
    for (int i = 0; i < 32; ++i) store(&numbers[i], static_cast<float>(i % 16 - 8));
    const __m512i table = _mm512_load_si512(numbers);
    for (int64_t quarter = 0; quarter < 4 * steps; ++quarter, from += 64, to += 4 * 32) {
        _mm_prefetch(reinterpret_cast<const char*>(from + kAhead), _MM_HINT_T0);
        const __m512i four = _mm512_loadu_si512(from);
        _mm512_store_si512(to, _mm512_permutexvar_epi16(four, table));
        _mm512_store_si512(to + 32, _mm512_permutexvar_epi16(_mm512_srli_epi16(four, 4), table));
        _mm512_store_si512(to + 64, _mm512_permutexvar_epi16(_mm512_srli_epi16(four, 8), table));
        _mm512_store_si512(to + 96, _mm512_permutexvar_epi16(_mm512_srli_epi16(four, 12), table));
    }
}

__attribute__((target("avx512bf16"))) void unpack8(const uint8_t* from, bf16* to, int64_t steps) {
    for (int64_t pair = 0; pair < 16 * steps; ++pair, from += 32, to += 32) {
        _mm_prefetch(reinterpret_cast<const char*>(from + kAhead), _MM_HINT_T0);
        const __m256i bytes = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
        const __m512 low = _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm256_castsi256_si128(bytes)));
        const __m512 high =
            _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm256_extracti128_si256(bytes, 1)));
        _mm512_store_si512(to, (__m512i)_mm512_cvtne2ps_pbh(high, low));
    }
}

void unpack(const Weight& w, int64_t tile, int64_t step, int64_t steps, bf16* to) {
    const uint8_t* from = w.codes + (tile * steps_of(w) + step) * 64 * w.bits;
    w.bits == 4 ? unpack4(from, to, steps) : unpack8(from, to, steps);
}

inline __m512 wide(const bf16* from) {
    const __m256i half = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16));
}

// Rows of x: [rows / 16][steps][16][32], filled up with zeros; sums [rows][groups].
struct Inputs {
    const bf16* values;
    const float* sums;
    int64_t rows;
};

// sums [rows][16] += dots * s + (sum of x) * o, of one group.
inline void take(const Weight& w, int64_t tile, int64_t g, const Inputs& x, int64_t first,
                 int64_t rows, const float* dots, float* sums) {
    const int64_t groups = groups_of(w);
    const bf16* from = w.scales + (tile * groups + g) * 2 * kLanes;
    const __m512 scale = wide(from), offset = wide(from + kLanes);
    for (int64_t r = 0; r < rows; ++r) {
        __m512 all = _mm512_load_ps(sums + r * kLanes);
        all = _mm512_fmadd_ps(_mm512_load_ps(dots + r * kLanes), scale, all);
        all = _mm512_fmadd_ps(_mm512_set1_ps(x.sums[(first + r) * groups + g]), offset, all);
        _mm512_store_ps(sums + r * kLanes, all);
    }
}

// 16 outputs of up to R rows by vdpbf16ps.
template <int R>
__attribute__((target("avx512bf16"))) void dots_rows(const Weight& w, int64_t tile,
                                                     const bf16* codes, const Inputs& x,
                                                     int64_t first, int64_t rows, float* sums) {
    const int64_t steps = steps_of(w), per = w.group / kStep;
    const bf16* row = x.values + (first / kTileRows * steps * kTileRows + first % kTileRows) * kStep;
    alignas(64) float dots[R * kLanes];
    for (int64_t g = 0; g < groups_of(w); ++g) {
        __m512 found[R];
        for (int r = 0; r < R; ++r) found[r] = _mm512_setzero_ps();
        for (int64_t s = g * per; s < std::min(steps, (g + 1) * per); ++s)
            for (int p = 0; p < kStep / 2; ++p) {
                const __m512bh both = (__m512bh)_mm512_load_si512(codes + (s * 16 + p) * 32);
#pragma GCC unroll 8
                for (int r = 0; r < R; ++r) {
                    int32_t pair;
                    std::memcpy(&pair, row + (s * kTileRows + r) * kStep + 2 * p, 4);
                    found[r] = _mm512_dpbf16_ps(found[r], both, (__m512bh)_mm512_set1_epi32(pair));
                }
            }
        for (int r = 0; r < R; ++r) _mm512_store_ps(dots + r * kLanes, found[r]);
        take(w, tile, g, x, first, rows, dots, sums);
    }
}

// 16 outputs of 16 Strip rows by tile registers; codes are unpacked with the first rows, while those
// before are multiplied. They stay for more rows; if there are none, in the nearest cache.
template <int Strip>
__attribute__((target("amx-tile,amx-bf16"))) void dots_tiles(const Weight& w, int64_t tile,
                                                             bf16* codes, const Inputs& x,
                                                             int64_t first, int64_t rows,
                                                             float* sums) {
    const int64_t steps = steps_of(w), per = w.group / kStep, size = kTileRows * kStep;
    const bf16* row = x.values + first * steps * kStep;
    alignas(64) float dots[Strip * kTileRows * kLanes];
    int64_t unpacked = first == 0 ? 0 : steps;
    const int64_t place = x.rows > Strip * kTileRows ? -1 : 2 * kAtOnce - 1;  // bits of a step
    for (int64_t g = 0; g < groups_of(w); ++g) {
        _tile_zero(0);
        _tile_zero(1);
        _tile_zero(2);
        _tile_zero(3);
        for (int64_t s = g * per; s < std::min(steps, (g + 1) * per); ++s) {
            if (unpacked < std::min(steps, s + kAtOnce)) {
                const int64_t more = std::min(kAtOnce, steps - unpacked);
                unpack(w, tile, unpacked, more, codes + (unpacked & place) * kStep * kLanes);
                unpacked += more;
            }
            _tile_loadd(6, codes + (s & place) * kStep * kLanes, 64);
            _tile_loadd(4, row + s * size, 64);
            _tile_dpbf16ps(0, 4, 6);
            if constexpr (Strip > 1) {
                _tile_loadd(5, row + (steps + s) * size, 64);
                _tile_dpbf16ps(1, 5, 6);
            }
            if constexpr (Strip > 2) {
                _tile_loadd(4, row + (2 * steps + s) * size, 64);
                _tile_dpbf16ps(2, 4, 6);
                _tile_loadd(5, row + (3 * steps + s) * size, 64);
                _tile_dpbf16ps(3, 5, 6);
            }
        }
        _tile_stored(0, dots, 64);
        if constexpr (Strip > 1) _tile_stored(1, dots + kTileRows * kLanes, 64);
        if constexpr (Strip > 2) {
            _tile_stored(2, dots + 2 * kTileRows * kLanes, 64);
            _tile_stored(3, dots + 3 * kTileRows * kLanes, 64);
        }
        take(w, tile, g, x, first, rows, dots, sums);
    }
}

template <class T>
void tile_of(const Weight& w, int64_t tile, const Inputs& x, const float* bias, T* y, int64_t rows,
             bool tiles, bf16* codes) {
    alignas(64) float sums[kStrip * kTileRows * kLanes];
    if (!tiles) unpack(w, tile, 0, steps_of(w), codes);
    const int64_t width = std::min<int64_t>(kLanes, w.out - tile * kLanes);
    for (int64_t r = 0; r < rows;) {
        const int64_t left = rows - r;
        int64_t most = left > 32 ? 64 : left > 16 ? 32 : 16;
        if (!tiles) most = left > 4 ? 8 : left > 1 ? 4 : 1;
        const int64_t taken = std::min(most, left);
        std::memset(sums, 0, most * kLanes * sizeof(float));
        if (tiles)
            most == 64   ? dots_tiles<4>(w, tile, codes, x, r, taken, sums)
            : most == 32 ? dots_tiles<2>(w, tile, codes, x, r, taken, sums)
                         : dots_tiles<1>(w, tile, codes, x, r, taken, sums);
        else
            most == 8   ? dots_rows<8>(w, tile, codes, x, r, taken, sums)
            : most == 4 ? dots_rows<4>(w, tile, codes, x, r, taken, sums)
                        : dots_rows<1>(w, tile, codes, x, r, taken, sums);
        for (int64_t i = 0; i < taken; ++i)
            for (int64_t k = 0; k < width; ++k) {
                const int64_t o = tile * kLanes + k;
                const float sum = sums[i * kLanes + k];
                store(&y[(r + i) * w.out + o], bias ? sum + bias[o] : sum);
            }
        r += taken;
    }
}

template <class T>
void product(const Weight& w, const float* bias, const bf16* x, T* y, int64_t rows, bool tiles,
             int threads) {
    const int64_t steps = steps_of(w), groups = groups_of(w), size = kTileRows * kStep;
    const int64_t blocks = (rows + kTileRows - 1) / kTileRows;
    const int64_t strip = (blocks + kStrip - 1) / kStrip * kStrip;
    std::vector<bf16> space(strip * steps * size + 32, bf16{0});
    std::vector<float> sums(rows * groups, 0.0f);
    bf16* filled = space.data() + (-reinterpret_cast<uintptr_t>(space.data()) & 63) / 2;
    const Inputs inputs{filled, sums.data(), rows};
    const int64_t count = (w.out + kLanes - 1) / kLanes;
    const int64_t chunk = std::max<int64_t>(1, count / (8 * threads));
#pragma omp parallel num_threads(threads) if (threads > 1 && std::min<int64_t>(rows, 4) * w.in * w.out > kLeastWork)
    {
        std::vector<bf16> buffer(std::max(steps, 2 * kAtOnce) * kStep * kLanes + 32);
        bf16* codes = buffer.data() + (-reinterpret_cast<uintptr_t>(buffer.data()) & 63) / 2;
        const Tiles registers(tiles);
#pragma omp for schedule(static)
        for (int64_t r = 0; r < rows; ++r) {
            const bf16* row = x + r * w.in;
            bf16* to = filled + r / kTileRows * steps * size + r % kTileRows * kStep;
            for (int64_t i = 0; i < w.in; i += kStep, to += size)
                std::memcpy(to, row + i, 2 * std::min<int64_t>(kStep, w.in - i));
            for (int64_t g = 0; g < groups; ++g) {
                const int64_t end = std::min(w.in, (g + 1) * w.group);
                float sum = 0.0f;
#pragma omp simd reduction(+ : sum)
                for (int64_t i = g * w.group; i < end; ++i) sum += load(row[i]);
                sums[r * groups + g] = sum;
            }
        }
#pragma omp for schedule(dynamic, chunk)
        for (int64_t t = 0; t < count; ++t) tile_of(w, t, inputs, bias, y, rows, tiles, codes);
    }
}
#else
template <class T>
void product(const Weight&, const float*, const bf16*, T*, int64_t, bool, int) {}
#endif

}  // namespace

// bias [out] or null, x [rows, in], y [rows, out]. tiles: by tile registers, else by vdpbf16ps.
extern "C" void product_f32(const Weight* weight, const float* bias, const bf16* x, float* y,
                            int64_t rows, int tiles, int threads) {
    product(*weight, bias, x, y, rows, tiles != 0, threads);
}

extern "C" void product_bf16(const Weight* weight, const float* bias, const bf16* x, bf16* y,
                             int64_t rows, int tiles, int threads) {
    product(*weight, bias, x, y, rows, tiles != 0, threads);
}
