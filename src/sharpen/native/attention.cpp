// Softmax attention over a cache of blocks in bfloat16, for any rows of any sequences: one token or
// a long part of a prompt. Positions are taken in parts of 256 that begin at multiples of 256, each
// with its own maximum, and parts are put together in order. So a row's bits depend neither on the
// rows beside it (how a prompt was cut) nor on the number of threads. Twin: sharpen/models/step.py.

#include <algorithm>
#include <cmath>
#include <vector>

#if defined(__AVX512F__)
#include <immintrin.h>
#endif

#include "bfloat16.h"
#include "tiles.h"

namespace {

// Keys and values lie in blocks [blocks, kv_heads, block, size].
struct Shape {
    int64_t rows, heads, kv_heads, size, block, table_width, window, rope_stride;
};

#if defined(__AVX512F__)
constexpr int kPart = 256;            // positions
constexpr int kLanes = 16;            // queries, positions or numbers of a tile
constexpr int kDwords = 16 * kLanes;  // of a tile: sixteen pairs of bfloat16 for each of 16 columns
constexpr int kMostTiles = 8;         // of queries that share a part's packed keys and values
constexpr float kNone = -1e30f;       // the maximum of nothing
constexpr int64_t kLeastWork = 1 << 22;  // multiplications from which threads share

inline __m512i row_of(const bf16* from) { return _mm512_loadu_si512(from); }

// Nearest bfloat16, in the upper halves.
inline __m512i rounded(__m512 x) {
    const __m512i bits = _mm512_castps_si512(x);
    const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
    const __m512i near = _mm512_add_epi32(_mm512_add_epi32(bits, odd), _mm512_set1_epi32(0x7fff));
    return _mm512_mask_mov_epi32(near, _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q),
                                 _mm512_set1_epi32(0x7fc00000));
}

inline void store(bf16* to, __m512 x) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to),
                        _mm512_cvtepi32_epi16(_mm512_srli_epi32(rounded(x), 16)));
}

// e^x for x <= 0: 2^n e^r, |r| <= ln(2) / 2, the second factor by its series to r^6. Below -88 it is
// e^-88, and a NaN stays one.
inline __m512 exponential(__m512 x) {
    x = _mm512_max_ps(_mm512_set1_ps(-88.0f), x);
    const __m512 n = _mm512_roundscale_ps(_mm512_mul_ps(x, _mm512_set1_ps(1.44269504f)), 0);
    __m512 r = _mm512_fmadd_ps(n, _mm512_set1_ps(-0.693145752f), x);
    r = _mm512_fmadd_ps(n, _mm512_set1_ps(-1.42860677e-6f), r);
    __m512 y = _mm512_set1_ps(1.0f / 720.0f);
    y = _mm512_fmadd_ps(y, r, _mm512_set1_ps(1.0f / 120.0f));
    y = _mm512_fmadd_ps(y, r, _mm512_set1_ps(1.0f / 24.0f));
    y = _mm512_fmadd_ps(y, r, _mm512_set1_ps(1.0f / 6.0f));
    y = _mm512_fmadd_ps(y, r, _mm512_set1_ps(0.5f));
    y = _mm512_fmadd_ps(y, r, _mm512_set1_ps(1.0f));
    y = _mm512_fmadd_ps(y, r, _mm512_set1_ps(1.0f));
    return _mm512_scalef_ps(y, n);
}

inline float exponential(float x) { return _mm512_cvtss_f32(exponential(_mm512_set1_ps(x))); }

// Rows and columns of 16 numbers change places.
inline void transpose(__m512i* x) {
    __m512i y[16];
    for (int i = 0; i < 16; i += 4) {
        const __m512i a = _mm512_unpacklo_epi32(x[i], x[i + 1]), b = _mm512_unpackhi_epi32(x[i], x[i + 1]);
        const __m512i c = _mm512_unpacklo_epi32(x[i + 2], x[i + 3]);
        const __m512i d = _mm512_unpackhi_epi32(x[i + 2], x[i + 3]);
        y[i] = _mm512_unpacklo_epi64(a, c);
        y[i + 1] = _mm512_unpackhi_epi64(a, c);
        y[i + 2] = _mm512_unpacklo_epi64(b, d);
        y[i + 3] = _mm512_unpackhi_epi64(b, d);
    }
    for (int i = 0; i < 4; ++i) {
        const __m512i a = _mm512_shuffle_i32x4(y[i], y[i + 4], 0x88);
        const __m512i b = _mm512_shuffle_i32x4(y[i], y[i + 4], 0xdd);
        const __m512i c = _mm512_shuffle_i32x4(y[i + 8], y[i + 12], 0x88);
        const __m512i d = _mm512_shuffle_i32x4(y[i + 8], y[i + 12], 0xdd);
        x[i] = _mm512_shuffle_i32x4(a, c, 0x88);
        x[i + 4] = _mm512_shuffle_i32x4(b, d, 0x88);
        x[i + 8] = _mm512_shuffle_i32x4(a, c, 0xdd);
        x[i + 12] = _mm512_shuffle_i32x4(b, d, 0xdd);
    }
}

// c [rows][16 columns ...] = a [rows][32 steps] times b, columns tiles of 16. b's tile of step s and
// column c is [16][16][2] at b + (s by_step + c by_column) dwords; a has a_stride numbers a row.
struct Product {
    const bf16* a;
    const int32_t* b;
    float* c;
    int64_t a_stride, by_step, by_column, c_stride, rows, steps, columns;
};

template <int R>
__attribute__((target("avx512bf16"))) void multiply_rows(const Product& p) {
    for (int64_t column = 0; column < p.columns; ++column) {
        __m512 sums[R];
        for (int r = 0; r < R; ++r) sums[r] = _mm512_setzero_ps();
        for (int64_t s = 0; s < p.steps; ++s) {
            const int32_t* b = p.b + s * p.by_step + column * p.by_column;
            for (int i = 0; i < 16; ++i) {
                const __m512bh pairs = (__m512bh)_mm512_loadu_si512(b + i * kLanes);
#pragma GCC unroll 16
                for (int r = 0; r < R; ++r) {
                    int32_t pair;
                    std::memcpy(&pair, p.a + r * p.a_stride + 32 * s + 2 * i, 4);
                    sums[r] = _mm512_dpbf16_ps(sums[r], (__m512bh)_mm512_set1_epi32(pair), pairs);
                }
            }
        }
        for (int r = 0; r < R; ++r)
            _mm512_storeu_ps(p.c + r * p.c_stride + column * kLanes, sums[r]);
    }
}

__attribute__((target("amx-tile,amx-bf16"))) void multiply_tiles(const Product& p) {
    int64_t column = 0;
    for (; column + 4 <= p.columns; column += 4) {
        _tile_zero(0);
        _tile_zero(1);
        _tile_zero(2);
        _tile_zero(3);
        for (int64_t s = 0; s < p.steps; ++s) {
            const int32_t* b = p.b + s * p.by_step + column * p.by_column;
            _tile_loadd(4, p.a + 32 * s, 2 * p.a_stride);
            _tile_loadd(5, b, 64);
            _tile_dpbf16ps(0, 4, 5);
            _tile_loadd(6, b + p.by_column, 64);
            _tile_dpbf16ps(1, 4, 6);
            _tile_loadd(7, b + 2 * p.by_column, 64);
            _tile_dpbf16ps(2, 4, 7);
            _tile_loadd(5, b + 3 * p.by_column, 64);
            _tile_dpbf16ps(3, 4, 5);
        }
        float* c = p.c + column * kLanes;
        _tile_stored(0, c, 4 * p.c_stride);
        _tile_stored(1, c + kLanes, 4 * p.c_stride);
        _tile_stored(2, c + 2 * kLanes, 4 * p.c_stride);
        _tile_stored(3, c + 3 * kLanes, 4 * p.c_stride);
    }
    for (; column < p.columns; ++column) {
        _tile_zero(0);
        for (int64_t s = 0; s < p.steps; ++s) {
            _tile_loadd(4, p.a + 32 * s, 2 * p.a_stride);
            _tile_loadd(5, p.b + s * p.by_step + column * p.by_column, 64);
            _tile_dpbf16ps(0, 4, 5);
        }
        _tile_stored(0, p.c + column * kLanes, 4 * p.c_stride);
    }
}

// All 16 rows are there; the first `rows` are wanted.
void multiply(const Product& p, bool tiles) {
    if (tiles)
        multiply_tiles(p);
    else if (p.rows <= 4)
        multiply_rows<4>(p);
    else if (p.rows <= 8)
        multiply_rows<8>(p);
    else
        multiply_rows<16>(p);
}

// Consecutive rows of a sequence, and the queries of one key head: `heads` of each row from `head`.
struct Unit {
    int64_t first, rows, head, heads, kv_head, parts_begin, parts_end;
    int64_t tile_rows() const { return kLanes / heads; }
    int64_t tiles() const { return (rows + tile_rows() - 1) / tile_rows(); }
    int64_t lanes() const { return tiles() * kLanes; }
};

struct Call {
    const float* queries;
    const bf16 *keys, *values;
    const int32_t *tables, *sequences, *positions, *firsts;
    bf16* out;
    Shape s;
    bool tiles;

    int64_t begin(int64_t row) const {
        int64_t first = firsts ? firsts[row] : 0;
        if (s.window > 0) first = std::max<int64_t>(first, positions[row] + 1 - s.window);
        return std::min<int64_t>(first, positions[row]);
    }
};

// A thread's memory, which it keeps.
struct Space {
    int64_t size = 0;
    std::vector<int32_t> packed;
    std::vector<bf16> bytes;
    std::vector<float> numbers;
    int32_t *keys, *values;  // [16][size / 2][16] and [8][size / 16][16][16] dwords
    bf16 *queries, *weights;  // [tiles][16][size], [16][256]
    float *scores, *sums, *result;  // [16][256], [16][size], of a unit
    void fit(int64_t n) {
        if (size == n) return;
        size = n;
        const int64_t part = kPart * n / 2, lanes = kMostTiles * kLanes;
        packed.resize(2 * part + 16);
        bytes.resize(lanes * n + kLanes * kPart + 32);
        numbers.resize(kLanes * (kPart + n) + lanes * (2 + n) + 16);
        keys = aligned(packed.data());
        values = keys + part;
        queries = aligned(bytes.data());
        weights = queries + lanes * n;
        scores = aligned(numbers.data());
        sums = scores + kLanes * kPart;
        result = sums + kLanes * n;
    }
    template <class T>
    static T* aligned(T* x) {
        return x + (-reinterpret_cast<uintptr_t>(x) & 63) / sizeof(T);
    }
};

// Queries of a unit by tiles of 16, rounded; the rest of a tile is 0.
void pack_queries(const Call& call, const Unit& u, bf16* to) {
    const int64_t n = call.s.size;
    for (int64_t tile = 0; tile < u.tiles(); ++tile)
        for (int64_t lane = 0; lane < kLanes; ++lane, to += n) {
            const int64_t row = tile * u.tile_rows() + lane / u.heads;
            if (lane >= u.tile_rows() * u.heads || row >= u.rows) {
                std::memset(to, 0, n * sizeof(bf16));
                continue;
            }
            const float* from = call.queries +
                                ((u.first + row) * call.s.heads + u.head + lane % u.heads) * n;
            for (int64_t i = 0; i < n; i += kLanes) store(to + i, _mm512_loadu_ps(from + i));
        }
}

// Keys of a part as [position / 16][pair of numbers][16 positions], values as [position / 32]
// [number / 16][pair of positions][16 numbers]; positions from `end` on are 0.
void pack_part(const Call& call, const Unit& u, int64_t part, int64_t end, Space& space) {
    const Shape& s = call.s;
    const int64_t n = s.size, base = part * kPart, count = std::min<int64_t>(kPart, end - base);
    const int32_t* table = call.tables + call.sequences[u.first] * s.table_width;
    int64_t block = base / s.block, offset = base % s.block;
    for (int64_t i = 0; i < count; i += 32) {
        int64_t at[32];
        for (int64_t k = 0; k < 32; ++k) {
            at[k] = -1;
            if (i + k >= count) continue;
            at[k] = ((table[block] * s.kv_heads + u.kv_head) * s.block + offset) * n;
            if (++offset == s.block) offset = 0, ++block;
        }
        for (int64_t half = 0; half < 2; ++half)
            for (int64_t c = 0; c < n / 32; ++c) {
                __m512i rows[16];
                for (int k = 0; k < 16; ++k)
                    rows[k] = at[16 * half + k] < 0 ? _mm512_setzero_si512()
                                                    : row_of(call.keys + at[16 * half + k] + 32 * c);
                transpose(rows);
                int32_t* to = space.keys + ((i / 16 + half) * n / 2 + 16 * c) * kLanes;
                for (int k = 0; k < 16; ++k) _mm512_store_si512(to + k * kLanes, rows[k]);
            }
        const __m512i both = _mm512_set_epi16(
            47, 15, 46, 14, 45, 13, 44, 12, 43, 11, 42, 10, 41, 9, 40, 8, 39, 7, 38, 6, 37, 5, 36,
            4, 35, 3, 34, 2, 33, 1, 32, 0);
        const __m512i upper = _mm512_add_epi16(both, _mm512_set1_epi16(16));
        for (int64_t k = 0; k < 16; ++k)
            for (int64_t c = 0; c < n / 32; ++c) {
                const int64_t a = at[2 * k], b = at[2 * k + 1];
                const __m512i one = a < 0 ? _mm512_setzero_si512() : row_of(call.values + a + 32 * c);
                const __m512i two = b < 0 ? _mm512_setzero_si512() : row_of(call.values + b + 32 * c);
                int32_t* to = space.values + ((i / 32 * (n / 16) + 2 * c) * 16 + k) * kLanes;
                _mm512_store_si512(to, _mm512_permutex2var_epi16(one, both, two));
                _mm512_store_si512(to + kDwords, _mm512_permutex2var_epi16(one, upper, two));
            }
    }
}

// Weights e^(score - highest) at positions low .. high - 1 of the part, 0 elsewhere up to count.
void softmax(const float* scores, float scale, int64_t low, int64_t high, int64_t count,
             bf16* weights, float& highest, float& total) {
    const __m512i index = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
    const auto seen = [&](int64_t i) {
        const __m512i at = _mm512_add_epi32(index, _mm512_set1_epi32(static_cast<int32_t>(i)));
        return _mm512_cmpge_epi32_mask(at, _mm512_set1_epi32(static_cast<int32_t>(low))) &
               _mm512_cmplt_epi32_mask(at, _mm512_set1_epi32(static_cast<int32_t>(high)));
    };
    const int64_t from = low / kLanes * kLanes;
    __m512 most = _mm512_set1_ps(kNone);
    for (int64_t i = from; i < high; i += kLanes)
        most = _mm512_mask_max_ps(most, seen(i), most, _mm512_load_ps(scores + i));
    highest = low < high ? _mm512_reduce_max_ps(most) * scale : kNone;
    __m512 sum = _mm512_setzero_ps();
    for (int64_t i = 0; i < count; i += kLanes) {
        __m512 weight = _mm512_setzero_ps();
        if (i >= from && i < high) {
            const __m512 x = _mm512_fmsub_ps(_mm512_load_ps(scores + i), _mm512_set1_ps(scale),
                                             _mm512_set1_ps(highest));
            weight = _mm512_maskz_mov_ps(seen(i), exponential(x));
        }
        store(weights + i, weight);
        sum = _mm512_add_ps(sum, weight);
    }
    total = _mm512_reduce_add_ps(sum);
}

// Into one result [2 + size] (highest score, sum of weights, weighted values) comes another.
void merge(float* result, float highest, float total, const float* sums, int64_t n) {
    const float most = std::max(result[0], highest);
    const float mine = exponential(result[0] - most), theirs = exponential(highest - most);
    result[0] = most;
    result[1] = result[1] * mine + total * theirs;
    for (int64_t i = 0; i < n; i += kLanes) {
        const __m512 ours = _mm512_mul_ps(_mm512_loadu_ps(result + 2 + i), _mm512_set1_ps(mine));
        _mm512_storeu_ps(result + 2 + i, _mm512_fmadd_ps(_mm512_loadu_ps(sums + i),
                                                         _mm512_set1_ps(theirs), ours));
    }
}

// One part of a unit, whose queries are packed; results [lanes][2 + size].
void attend_part(const Call& call, const Unit& u, int64_t part, Space& space, float* results) {
    const int64_t n = call.s.size, base = part * kPart;
    const float scale = 1.0f / std::sqrt(static_cast<float>(n));
    pack_part(call, u, part, call.positions[u.first + u.rows - 1] + 1, space);
    for (int64_t tile = 0; tile < u.tiles(); ++tile) {
        const int64_t first = u.first + tile * u.tile_rows();
        const int64_t rows = std::min(u.tile_rows(), u.first + u.rows - first);
        const int64_t seen = call.positions[first + rows - 1] + 1 - base;
        if (seen <= 0) continue;
        const int64_t count = std::min<int64_t>(kPart, (seen + 31) / 32 * 32);
        const bf16* queries = space.queries + tile * kLanes * n;
        multiply({queries, space.keys, space.scores, n, kDwords, n / 32 * kDwords, kPart,
                  rows * u.heads, n / 32, count / 16},
                 call.tiles);
        float highest[kLanes], totals[kLanes];
        for (int64_t lane = 0; lane < rows * u.heads; ++lane) {
            const int64_t row = first + lane / u.heads;
            const int64_t low = std::clamp<int64_t>(call.begin(row) - base, 0, count);
            const int64_t high = std::clamp<int64_t>(call.positions[row] + 1 - base, 0, count);
            softmax(space.scores + lane * kPart, scale, low, high, count,
                    space.weights + lane * kPart, highest[lane], totals[lane]);
        }
        multiply({space.weights, space.values, space.sums, kPart, n / 16 * kDwords, kDwords, n,
                  rows * u.heads, count / 32, n / 16},
                 call.tiles);
        for (int64_t lane = 0; lane < rows * u.heads; ++lane)
            merge(results + (tile * kLanes + lane) * (2 + n), highest[lane], totals[lane],
                  space.sums + lane * n, n);
    }
}

void clear(float* results, int64_t lanes, int64_t n) {
    std::memset(results, 0, lanes * (2 + n) * sizeof(float));
    for (int64_t lane = 0; lane < lanes; ++lane) results[lane * (2 + n)] = kNone;
}

void finish(const Call& call, const Unit& u, const float* results) {
    const int64_t n = call.s.size;
    for (int64_t row = 0; row < u.rows; ++row)
        for (int64_t h = 0; h < u.heads; ++h) {
            const int64_t lane = row / u.tile_rows() * kLanes + row % u.tile_rows() * u.heads + h;
            const float* from = results + lane * (2 + n);
            bf16* to = call.out + ((u.first + row) * call.s.heads + u.head + h) * n;
            const __m512 inverse = _mm512_set1_ps(1.0f / from[1]);
            for (int64_t i = 0; i < n; i += kLanes)
                store(to + i, _mm512_mul_ps(_mm512_loadu_ps(from + 2 + i), inverse));
        }
}

// Rows of one sequence at consecutive positions stay together, up to eight tiles of queries.
std::vector<Unit> units_of(const Call& call) {
    const Shape& s = call.s;
    const int64_t group = s.heads / s.kv_heads;
    std::vector<Unit> units;
    for (int64_t first = 0; first < s.rows;) {
        int64_t run = 1;
        while (first + run < s.rows && call.sequences[first + run] == call.sequences[first] &&
               call.positions[first + run] == call.positions[first] + run)
            ++run;
        for (int64_t h = 0; h < s.heads;) {
            const int64_t heads = std::min<int64_t>(kLanes, group - h % group);
            const int64_t most = kMostTiles * (kLanes / heads);
            for (int64_t r = first; r < first + run; r += most) {
                const int64_t rows = std::min(most, first + run - r);
                int64_t begin = call.begin(r);
                for (int64_t k = r; k < r + rows; ++k) begin = std::min(begin, call.begin(k));
                units.push_back({r, rows, h, heads, h / group, begin / kPart,
                                 call.positions[r + rows - 1] / kPart + 1});
            }
            h += heads;
        }
        first += run;
    }
    return units;
}

void attend(const Call& call, int threads) {
    const int64_t width = 2 + call.s.size;
    const std::vector<Unit> units = units_of(call);
    const int64_t count = static_cast<int64_t>(units.size());
    int64_t work = 0;
    for (const Unit& u : units)
        work += (u.parts_end - u.parts_begin) * u.lanes() * kPart * call.s.size;
    const bool together = threads > 1 && work > kLeastWork;
    // Few units: their parts go to the threads one by one, and are put together at the end.
    const bool split = together && count < 4 * threads;
    std::vector<int64_t> offsets(count + 1, 0), places(count + 1, 0);
    for (int64_t i = 0; i < count; ++i) {
        const int64_t parts = units[i].parts_end - units[i].parts_begin;
        offsets[i + 1] = offsets[i] + (split ? parts : 1);
        places[i + 1] = places[i] + parts * units[i].lanes() * width;
    }
    std::vector<float> results(split ? places[count] : 0);
#pragma omp parallel num_threads(threads) if (together)
    {
        static thread_local Space space;
        space.fit(call.s.size);
        const Tiles registers(call.tiles);
        int64_t packed = -1;
#pragma omp for schedule(dynamic, 1)
        for (int64_t task = 0; task < offsets[count]; ++task) {
            const int64_t i = std::upper_bound(offsets.begin(), offsets.end(), task) -
                              offsets.begin() - 1;
            const Unit& u = units[i];
            if (packed != i) pack_queries(call, u, space.queries);
            packed = i;
            const int64_t from = u.parts_begin + (split ? task - offsets[i] : 0);
            const int64_t to = split ? from + 1 : u.parts_end;
            float* result = space.result;
            if (split) result = results.data() + places[i] + (task - offsets[i]) * u.lanes() * width;
            clear(result, u.lanes(), call.s.size);
            for (int64_t part = from; part < to; ++part) attend_part(call, u, part, space, result);
            if (!split) finish(call, u, result);
        }
#pragma omp for schedule(dynamic, 1)
        for (int64_t i = 0; i < (split ? count : 0); ++i) {
            float* all = results.data() + places[i];
            const int64_t step = units[i].lanes() * width;
            for (float* part = all + step; part < results.data() + places[i + 1]; part += step)
                for (int64_t lane = 0; lane < units[i].lanes(); ++lane) {
                    const float* from = part + lane * width;
                    merge(all + lane * width, from[0], from[1], from + 2, call.s.size);
                }
            finish(call, units[i], all);
        }
    }
}
#endif

}  // namespace

// Each row attends to positions first .. its own of its sequence; size divides by 32. tiles: by tile
// registers, else by vdpbf16ps.
extern "C" void attend_bf16(const float* queries, const bf16* keys, const bf16* values,
                            const int32_t* tables, const int32_t* sequences,
                            const int32_t* positions, const int32_t* firsts, bf16* out,
                            const Shape* shape, int tiles, int threads) {
#if defined(__AVX512F__)
    attend({queries, keys, values, tables, sequences, positions, firsts, out, *shape, tiles != 0},
           threads);
#else
    (void)queries, (void)keys, (void)values, (void)tables, (void)sequences, (void)positions;
    (void)firsts, (void)out, (void)shape, (void)tiles, (void)threads;
#endif
}
