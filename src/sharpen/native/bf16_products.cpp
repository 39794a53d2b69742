// y = x W^T + b in bfloat16 for few rows, each weight read once at memory speed; sums in float32, in
// one order for any number of rows and threads. Weights lie as oneDNN lays them out for these
// processors, so both read the same bytes. Twin: torch.nn.functional.linear
// (sharpen/models/products.py).

#include <algorithm>
#include <vector>

#if defined(__AVX512F__)
#include <immintrin.h>
#endif

#include "bfloat16.h"
#include "tiles.h"

namespace {

constexpr int64_t kInputs = 32;  // of a block: 16 pairs
constexpr int64_t kLeastWork = 1 << 19;  // multiplications from which threads share
constexpr int64_t kAhead = 8192;  // bytes; the hardware's own prefetch stops at each 4 KiB page

// [out / width][in / 32][16][width][2], filled up with zeros; width 32 or 64.
struct Weight {
    const bf16* values;
    int64_t in, out, width;
};

#if defined(__AVX512F__)
// Rows of 16 sums, for outputs from `first`.
inline void put(const __m512& sums, const Weight& w, int64_t first, const float* bias, bf16* y) {
    const int64_t left = w.out - first;
    if (left <= 0) return;
    const __mmask16 kept = left >= 16 ? 0xffff : static_cast<__mmask16>((1u << left) - 1);
    __m512 all = sums;
    if (bias) all = _mm512_add_ps(all, _mm512_maskz_loadu_ps(kept, bias + first));
    const __m512i bits = _mm512_castps_si512(all);
    const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
    __m512i rounded = _mm512_add_epi32(_mm512_add_epi32(bits, odd), _mm512_set1_epi32(0x7fff));
    rounded = _mm512_mask_mov_epi32(rounded, _mm512_cmp_ps_mask(all, all, _CMP_UNORD_Q),
                                    _mm512_set1_epi32(0x7fc00000));
    _mm256_mask_storeu_epi16(y + first, kept,
                             _mm512_cvtepi32_epi16(_mm512_srli_epi32(rounded, 16)));
}

// A block of outputs of R rows, 16 V of them at a time, by vdpbf16ps.
template <int R, int V>
__attribute__((target("avx512bf16"))) void dots(const Weight& w, int64_t block, const bf16* x,
                                                const float* bias, bf16* y, int64_t rows) {
    const int64_t pairs = (w.in + kInputs - 1) / kInputs * kInputs / 2;
    for (int64_t part = 0; part < w.width; part += 16 * V) {
        const bf16* from = w.values + (block * pairs * w.width + part) * 2;
        __m512 sums[R][V];
        for (int r = 0; r < R; ++r)
            for (int v = 0; v < V; ++v) sums[r][v] = _mm512_setzero_ps();
        for (int64_t p = 0; p < pairs; ++p, from += 2 * w.width) {
            __m512i here[V];
#pragma GCC unroll 4
            for (int v = 0; v < V; ++v) {
                _mm_prefetch(reinterpret_cast<const char*>(from + 32 * v) + kAhead, _MM_HINT_T0);
                here[v] = _mm512_loadu_si512(from + 32 * v);
            }
#pragma GCC unroll 8
            for (int r = 0; r < R; ++r) {
                int32_t pair;
                std::memcpy(&pair, x + (r * pairs + p) * 2, 4);
                const __m512i both = _mm512_set1_epi32(pair);
#pragma GCC unroll 4
                for (int v = 0; v < V; ++v)
                    sums[r][v] = _mm512_dpbf16_ps(sums[r][v], (__m512bh)here[v], (__m512bh)both);
            }
        }
        for (int r = 0; r < R && r < rows; ++r)
            for (int v = 0; v < V; ++v)
                put(sums[r][v], w, block * w.width + part + 16 * v, bias, y + r * w.out);
    }
}
#endif

#if defined(SHARPEN_TILES)
// 32 outputs of 16 R rows. x: [rows / 16][in / 32][16][32].
template <int R>
__attribute__((target("amx-tile,amx-bf16"))) void by_tiles(const Weight& w, int64_t block,
                                                           int64_t part, const bf16* x, bool fresh,
                                                           float* out) {
    const int64_t blocks = (w.in + kInputs - 1) / kInputs, size = kTileRows * kInputs;
    const bf16* from = w.values + (block * blocks * kInputs * w.width + part * 2);
    const int64_t stride = 4 * w.width;
    _tile_zero(0);
    _tile_zero(1);
    if constexpr (R > 1) {
        _tile_zero(2);
        _tile_zero(3);
    }
    for (int64_t k = 0; k < blocks; ++k, x += size, from += kInputs * w.width) {
        const char* bytes = reinterpret_cast<const char*>(from);
        for (int i = 0; fresh && i < kTileRows; ++i) {
            _mm_prefetch(bytes + kAhead + i * stride, _MM_HINT_T0);
            _mm_prefetch(bytes + kAhead + i * stride + 64, _MM_HINT_T0);
        }
        _tile_loadd(4, bytes, stride);
        _tile_loadd(5, bytes + 64, stride);
        _tile_loadd(6, x, 64);
        _tile_dpbf16ps(0, 6, 4);
        _tile_dpbf16ps(1, 6, 5);
        if constexpr (R > 1) {
            _tile_loadd(7, x + blocks * size, 64);
            _tile_dpbf16ps(2, 7, 4);
            _tile_dpbf16ps(3, 7, 5);
        }
    }
    _tile_stored(0, out, 128);
    _tile_stored(1, out + 16, 128);
    if constexpr (R > 1) {
        _tile_stored(2, out + 32 * kTileRows, 128);
        _tile_stored(3, out + 32 * kTileRows + 16, 128);
    }
}
#endif

#if defined(__AVX512F__)
void block_of(const Weight& w, int64_t block, const bf16* x, const float* bias, bf16* y,
              int64_t rows, bool tiles) {
    const int64_t padded = (w.in + kInputs - 1) / kInputs * kInputs;
#if defined(SHARPEN_TILES)
    alignas(64) float sums[2 * kTileRows * 32];
    for (int64_t part = 0; tiles && part < w.width; part += 32) {
        const int64_t first = block * w.width + part;
        for (int64_t r = 0; r < rows; r += 2 * kTileRows) {
            if (rows - r > kTileRows)
                by_tiles<2>(w, block, part, x + r * padded, r == 0, sums);
            else
                by_tiles<1>(w, block, part, x + r * padded, r == 0, sums);
            const int64_t count = std::min<int64_t>(2 * kTileRows, rows - r);
            for (int64_t i = 0; i < count; ++i)
                for (int half = 0; half < 32; half += 16)
                    put(_mm512_load_ps(sums + 32 * i + half), w, first + half, bias,
                        y + (r + i) * w.out);
        }
    }
#endif
    for (int64_t r = 0; !tiles && r < rows;) {
        const int64_t left = rows - r, taken = left > 4 ? 8 : left > 2 ? 4 : left;
        const bf16* from = x + r * padded;
        bf16* to = y + r * w.out;
        if (taken == 8)
            dots<8, 2>(w, block, from, bias, to, left);
        else if (taken == 4)
            w.width == 64 ? dots<4, 4>(w, block, from, bias, to, left)
                          : dots<4, 2>(w, block, from, bias, to, left);
        else if (taken == 2)
            w.width == 64 ? dots<2, 4>(w, block, from, bias, to, left)
                          : dots<2, 2>(w, block, from, bias, to, left);
        else
            w.width == 64 ? dots<1, 4>(w, block, from, bias, to, left)
                          : dots<1, 2>(w, block, from, bias, to, left);
        r += taken;
    }
}
#endif

}  // namespace

// bias [out] or null, x [rows, in], y [rows, out]. tiles: by tile registers, else by vdpbf16ps.
extern "C" void linear_bf16(const Weight* weight, const float* bias, const bf16* x, bf16* y,
                            int64_t rows, int tiles, int threads) {
#if defined(__AVX512F__)
    const Weight& w = *weight;
    const int64_t padded = (w.in + kInputs - 1) / kInputs * kInputs;
    const int64_t step = tiles ? kTileRows : 8, full = (rows + step - 1) / step * step;
    std::vector<bf16> space(full * padded + 32, bf16{0});
    bf16* filled = space.data() + (-reinterpret_cast<uintptr_t>(space.data()) & 63) / 2;
    for (int64_t r = 0; r < rows; ++r) {
        if (!tiles) {
            std::memcpy(filled + r * padded, x + r * w.in, 2 * w.in);
            continue;
        }
        bf16* to = filled + (r - r % kTileRows) * padded + r % kTileRows * kInputs;
        for (int64_t i = 0; i < w.in; i += kInputs, to += kTileRows * kInputs)
            std::memcpy(to, x + r * w.in + i, 2 * std::min(kInputs, w.in - i));
    }
    const int64_t blocks = (w.out + w.width - 1) / w.width;
    const int64_t chunk = std::max<int64_t>(1, blocks / (8 * threads));
#pragma omp parallel num_threads(threads) if (threads > 1 && std::min<int64_t>(rows, 4) * w.in * w.out > kLeastWork)
    {
        const Tiles registers(tiles);
#pragma omp for schedule(dynamic, chunk)
        for (int64_t b = 0; b < blocks; ++b) block_of(w, b, filled, bias, y, rows, tiles);
    }
#else
    (void)weight, (void)bias, (void)x, (void)y, (void)rows, (void)tiles, (void)threads;
#endif
}
