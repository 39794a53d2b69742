// Steps of element-wise optimizers on float32 weights, with states in float32 or in 8-bit blocks,
// for all parameters at once. Twins: the rules in sharpen/optim/ through engine.py, and quant.py there. States, codes and the weights of Lion and SGD have the twins' bits, so
// fused multiply-adds are written out and the file is compiled without contraction of others.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

#if defined(__AVX2__)
#include <immintrin.h>
#endif

namespace {

constexpr int64_t kAhead = 512;  // elements; the hardware's own prefetch stops at each 4 KiB page
constexpr int64_t kChunk = 1 << 16;  // elements that a thread takes at a time

// ---- Vectors.

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

// ---- The codes: 256 dynamic ones, and their midpoints.

#if defined(__AVX512F__)
const bool quick_loads_ = __builtin_cpu_is("intel");
#endif

// A table of N floats, N = 128 or 256; higher bits of an index are ignored.
template <int N>
class Table {
#if defined(__AVX512F__)
   public:
    // Two registers at a time hold 32 entries. Loads of single ones are quicker only for the larger
    // table, and on Intel's processors.
    explicit Table(const float* values) : values_(values) {
#pragma GCC unroll 16
        for (int k = 0; k < N / 16; ++k) part_[k] = _mm512_loadu_ps(values + 16 * k);
    }
    Floats operator()(Ints index) const {
        if (N == 256 && quick_loads_)
            return _mm512_i32gather_ps(__m512i(index & (N - 1)), values_, 4);
        const __m512i i = __m512i(index);
        __m512 found[N / 32];
#pragma GCC unroll 16
        for (int k = 0; k < N / 32; ++k)
            found[k] = _mm512_permutex2var_ps(part_[2 * k], i, part_[2 * k + 1]);
#pragma GCC unroll 16
        for (int bit = 32, left = N / 64; left > 0; bit *= 2, left /= 2) {
            const __mmask16 upper = _mm512_test_epi32_mask(i, _mm512_set1_epi32(bit));
#pragma GCC unroll 16
            for (int k = 0; k < left; ++k)
                found[k] = _mm512_mask_blend_ps(upper, found[2 * k], found[2 * k + 1]);
        }
        return found[0];
    }

   private:
    const float* values_;
    __m512 part_[N / 16];
#else
   public:
    explicit Table(const float* values) : values_(values) {}
    Floats operator()(Ints index) const {
        index &= N - 1;
#if defined(__AVX2__)
        return _mm256_i32gather_ps(values_, __m256i(index), 4);
#else
        Floats found;
        for (int64_t k = 0; k < kLanes; ++k) found[k] = values_[index[k]];
        return found;
#endif
    }

   private:
    const float* values_;
#endif
};

// Codes lie evenly within a decade, a fifth as densely as in the decade below. So the number of a
// code is a concave function of its value, the least of seven lines, to which a half is added to
// make up for rounding: cut down to a whole number it is the code, or one below it. The midpoint
// above that decides, exactly.
constexpr int kDecades = 7;

struct Code {
    float value[256];   // unsigned: of the code; signed: of the distance from code 127
    float middle[256];  // between an entry and the next
    float slope[kDecades], offset[kDecades];

    // values: `count` ascending ones from 0 to 1; decade i has first << i.
    void prepare(const float* values, int count, int first) {
        std::copy(values, values + count, value);
        for (int k = 0; k + 1 < count; ++k) middle[k] = 0.5f * (values[k] + values[k + 1]);
        double edge = 1e-6;  // upper end of the decade
        for (int i = 0; i < kDecades; ++i, edge *= 10) {
            const double steps = (first << i) / 0.9, below = first * ((1 << i) - 1);
            slope[i] = static_cast<float>(steps / edge);
            offset[i] = static_cast<float>(below - 0.1 * steps + 0.5);
        }
    }
};

struct Codes {
    Code with_sign, without_sign;
    float floored[256];  // without_sign's values, the first a little above 0
} codes_;

template <bool Signed>
class Decoder {
   public:
    Decoder(const float* values, float scale) : values_(values), scale_(broadcast(scale)) {}

    Floats operator()(Bytes codes) const {
        const Ints code = widened(codes);
        if constexpr (!Signed) return values_(code) * scale_;
        const Ints steps = code - 127;
        const Ints sign = steps & static_cast<int32_t>(0x80000000);
        const Ints distance = absolute(steps);
        const Floats value = distance == 128 ? broadcast(1.0f) : values_(distance);
        return floats(bits(value) | sign) * scale_;
    }

   private:
    Table<Signed ? 128 : 256> values_;
    Floats scale_;
};

// Peak: bits of the largest magnitude of a block, which are ordered as magnitudes are.
inline Ints magnitude(Floats x) { return bits(x) & 0x7fffffff; }

inline float scale_of(Ints peaks) {
    int32_t peak = 0;
    for (int64_t k = 0; k < kLanes; ++k) peak = std::max(peak, peaks[k]);
    peak = std::min(peak, int32_t{0x7f7fffff});  // no infinite scale
    float scale;
    std::memcpy(&scale, &peak, 4);
    return scale;
}

// How many midpoints of a codebook are below x / scale.
template <bool Signed>
class Encoder {
   public:
    Encoder(const Code& code, float scale) : middle_(code.middle) {
        const float inverse = scale > 0.0f ? std::min(1.0f / scale, 3.402823466e38f) : 1.0f;
        inverse_ = broadcast(inverse);
#pragma GCC unroll 16
        for (int i = 0; i < kDecades; ++i) {
            slope_[i] = broadcast(code.slope[i]);
            offset_[i] = broadcast(code.offset[i]);
        }
    }

    Bytes operator()(Floats value) const {
        Ints x = bits(value * inverse_);
        const Ints negative = x >> 31;
        // A tie goes down, which is away from 0 where x is negative: to one bit more.
        if constexpr (Signed) x = (x & 0x7fffffff) - negative;
        const Floats size = least(floats(x), broadcast(1.0f));
        Floats line = about(size, slope_[0], offset_[0]);
#pragma GCC unroll 16
        for (int i = 1; i < kDecades; ++i) line = least(line, about(size, slope_[i], offset_[i]));
        const Ints guess = __builtin_convertvector(line, Ints);
        Ints code = guess - (size > middle_(guess));
        if constexpr (Signed)
            code = 127 + ((least(code, 128 + negative) ^ negative) - negative);  // there is no -1
        return narrowed(code);
    }

   private:
    Table<Signed ? 128 : 256> middle_;
    Floats inverse_, slope_[kDecades], offset_[kDecades];
};

template <bool Signed>
void encode_block(const float* x, uint8_t* code, float scale, int64_t n) {
    const Encoder<Signed> encode(Signed ? codes_.with_sign : codes_.without_sign, scale);
    for_lanes(n, [&](int64_t i, int64_t lanes) {
        store(code + i, encode(load<Floats>(x + i, lanes)), lanes);
    });
}

// ---- The rules: weights w of elements with gradients g, and up to two states: kFirst has a sign in
// codes, kSecond has none.

struct AdamW {
    static constexpr bool kFirst = true, kSecond = true;
    static constexpr int kNumbers = 8;
    Floats decay, beta1, rest1, beta2, rest2, rate, correction, eps;
    explicit AdamW(const float* k)
        : decay(broadcast(k[0])), beta1(broadcast(k[1])), rest1(broadcast(k[2])),
          beta2(broadcast(k[3])), rest2(broadcast(k[4])), rate(broadcast(k[5])),
          correction(broadcast(k[6])), eps(broadcast(k[7])) {}
    void operator()(Floats g, Floats& w, Floats& m, Floats& v) const {
        m = fused(g, rest1, m * beta1);
        v = fused(g * rest2, g, v * beta2);
        w = w * decay - m * rate / (root(v) * correction + eps);
    }
};

struct NAdamW : AdamW {
    using AdamW::AdamW;
    void operator()(Floats g, Floats& w, Floats& m, Floats& v) const {
        m = fused(g, rest1, m * beta1);
        v = fused(g * rest2, g, v * beta2);
        const Floats ahead = fused(g, rest1, m * beta1);
        w = w * decay - ahead * rate / (root(v) * correction + eps);
    }
};

struct Adagrad {
    static constexpr bool kFirst = false, kSecond = true;
    static constexpr int kNumbers = 4;
    Floats decay, coupled, rate, eps;
    explicit Adagrad(const float* k)
        : decay(broadcast(k[0])), coupled(broadcast(k[1])), rate(broadcast(k[2])),
          eps(broadcast(k[3])) {}
    void operator()(Floats g, Floats& w, Floats&, Floats& sum) const {
        g = fused(w, coupled, g);
        sum = fused(g, g, sum);
        w = w * decay - g * rate / (root(sum) + eps);
    }
};

// rate, -rate or 0.
inline Floats signed_as(Floats x, Floats rate) {
    const Ints size = bits(rate) & (x != 0.0f);
    return floats(size | (bits(x) & static_cast<int32_t>(0x80000000)));
}

struct Lion {
    static constexpr bool kFirst = true, kSecond = false;
    static constexpr int kNumbers = 6;
    Floats decay, beta1, rest1, beta2, rest2, rate;
    explicit Lion(const float* k)
        : decay(broadcast(k[0])), beta1(broadcast(k[1])), rest1(broadcast(k[2])),
          beta2(broadcast(k[3])), rest2(broadcast(k[4])), rate(broadcast(k[5])) {}
    void operator()(Floats g, Floats& w, Floats& m, Floats&) const {
        w = w * decay - signed_as(fused(g, rest1, m * beta1), rate);
        m = fused(g, rest2, m * beta2);
    }
};

struct Sgd {
    static constexpr bool kFirst = false, kSecond = false;
    static constexpr int kNumbers = 3;
    Floats decay, coupled, rate;
    explicit Sgd(const float* k)
        : decay(broadcast(k[0])), coupled(broadcast(k[1])), rate(broadcast(k[2])) {}
    void operator()(Floats g, Floats& w, Floats&, Floats&) const {
        w = w * decay - fused(w, coupled, g) * rate;
    }
};

struct Momentum {
    static constexpr bool kFirst = true, kSecond = false;
    static constexpr int kNumbers = 6;
    Floats decay, coupled, rate, momentum, rest;
    bool ahead;  // Nesterov's
    explicit Momentum(const float* k)
        : decay(broadcast(k[0])), coupled(broadcast(k[1])), rate(broadcast(k[2])),
          momentum(broadcast(k[3])), rest(broadcast(k[4])), ahead(k[5] != 0.0f) {}
    void operator()(Floats g, Floats& w, Floats& m, Floats&) const {
        g = fused(w, coupled, g);
        m = fused(g, rest, m * momentum);
        w = w * decay - (ahead ? fused(m, momentum, g) : m) * rate;
    }
};

struct SignSgd {
    static constexpr bool kFirst = false, kSecond = false;
    static constexpr int kNumbers = 2;
    Floats decay, rate;
    explicit SignSgd(const float* k) : decay(broadcast(k[0])), rate(broadcast(k[1])) {}
    void operator()(Floats g, Floats& w, Floats&, Floats&) const {
        w = w * decay - signed_as(g, rate);
    }
};

// ---- A step: blocks of all parameters, in chunks, over all threads.

struct Job {
    float* w;
    const float* g;
    void* state[2];   // float32; or codes, the first with and the second without sign
    float* scale[2];  // of the blocks of codes; null where states are float32
    int64_t rows, width, block;
    int64_t floor, mask;  // whether code 0 without sign is a little above 0; see update_block
    bool is_packed() const { return scale[0] || scale[1]; }
};

struct Chunk {
    int64_t job, first, last;
};

// A block of elements. With Mask, those whose gradient is not finite stay as they were; returns how
// many there are. space: two blocks of floats.
template <bool Mask, bool Packed, class Rule>
int64_t update_block(const Job& job, const Rule& rule, float factor, int64_t number, float* space) {
    constexpr bool kFirst = Rule::kFirst, kSecond = Rule::kSecond;
    const int64_t per_row = (job.width + job.block - 1) / job.block;
    const int64_t column = number % per_row * job.block;
    const int64_t start = number / per_row * job.width + column;
    const int64_t n = std::min(job.block, job.width - column);
    float* __restrict w = job.w + start;
    const float* __restrict g = job.g + start;
    uint8_t* __restrict code_a = static_cast<uint8_t*>(job.state[0]) + start;
    uint8_t* __restrict code_b = static_cast<uint8_t*>(job.state[1]) + start;
    float* __restrict a = Packed ? space : static_cast<float*>(job.state[0]) + start;
    float* __restrict b = Packed ? space + job.block : static_cast<float*>(job.state[1]) + start;
    const Decoder<true> decode_a(codes_.with_sign.value,
                                 Packed && kFirst ? job.scale[0][number] : 0.0f);
    const Decoder<false> decode_b(job.floor ? codes_.floored : codes_.without_sign.value,
                                  Packed && kSecond ? job.scale[1][number] : 0.0f);
    const Floats scale = broadcast(factor);
    Ints bad = {}, peak_a = {}, peak_b = {};
    for_lanes(n, [&](int64_t i, int64_t lanes) {
        __builtin_prefetch(w + i + kAhead, 1);
        __builtin_prefetch(g + i + kAhead, 0);
        if constexpr (!Packed && kFirst) __builtin_prefetch(a + i + kAhead, 1);
        if constexpr (!Packed && kSecond) __builtin_prefetch(b + i + kAhead, 1);
        const Floats gradient = load<Floats>(g + i, lanes) * scale, w0 = load<Floats>(w + i, lanes);
        Floats a0 = {}, b0 = {};
        if constexpr (kFirst)
            a0 = Packed ? decode_a(load<Bytes>(code_a + i, lanes)) : load<Floats>(a + i, lanes);
        if constexpr (kSecond)
            b0 = Packed ? decode_b(load<Bytes>(code_b + i, lanes)) : load<Floats>(b + i, lanes);
        Floats w1 = w0, a1 = a0, b1 = b0;
        rule(gradient, w1, a1, b1);
        if constexpr (Mask) {
            const Ints finite = magnitude(gradient) < 0x7f800000;
            bad += finite + 1;
            w1 = finite ? w1 : w0;
            a1 = finite ? a1 : a0;
            b1 = finite ? b1 : b0;
        }
        store(w + i, w1, lanes);
        if constexpr (kFirst) store(a + i, a1, lanes);
        if constexpr (kSecond) store(b + i, b1, lanes);
        if constexpr (Packed) {
            // What was stored: lanes past the end are 0 there, but hold values here.
            if constexpr (kFirst) peak_a = most(peak_a, magnitude(load<Floats>(a + i, lanes)));
            if constexpr (kSecond) peak_b = most(peak_b, magnitude(load<Floats>(b + i, lanes)));
        }
    });
    if constexpr (Packed) {
        if constexpr (kFirst) {
            job.scale[0][number] = scale_of(peak_a);
            encode_block<true>(a, code_a, job.scale[0][number], n);
        }
        if constexpr (kSecond) {
            job.scale[1][number] = scale_of(peak_b);
            encode_block<false>(b, code_b, job.scale[1][number], n);
        }
    }
    int64_t total = 0;
    for (int64_t k = 0; k < kLanes; ++k) total += bad[k];
    return total;
}

// numbers: for each job the factor of its gradients, then those of the rule.
template <class Rule>
int64_t update_blocks(const Job& job, const float* numbers, int64_t first, int64_t last,
                      float* space) {
    constexpr bool kCanPack = Rule::kFirst || Rule::kSecond;
    const Rule rule(numbers + 1);
    const auto update = kCanPack && job.is_packed()
                            ? (job.mask ? update_block<true, kCanPack, Rule>
                                        : update_block<false, kCanPack, Rule>)
                            : (job.mask ? update_block<true, false, Rule>
                                        : update_block<false, false, Rule>);
    int64_t bad = 0;
    for (int64_t k = first; k < last; ++k) bad += update(job, rule, numbers[0], k, space);
    return bad;
}

template <class Rule>
int64_t step(const Job* jobs, const float* numbers, int64_t count, int threads) {
    std::vector<Chunk> chunks;
    int64_t longest = 0;
    for (int64_t j = 0; j < count; ++j) {
        const Job& job = jobs[j];
        const int64_t blocks = job.rows * ((job.width + job.block - 1) / job.block);
        const int64_t size = std::max<int64_t>(kChunk / job.block, 1);
        for (int64_t first = 0; first < blocks; first += size)
            chunks.push_back({j, first, std::min(first + size, blocks)});
        if (job.is_packed()) longest = std::max(longest, job.block);
    }
    int64_t bad = 0;
    const int64_t total = static_cast<int64_t>(chunks.size());
#pragma omp parallel num_threads(threads) reduction(+ : bad) if (threads > 1 && total > 1)
    {
        std::vector<float> space(2 * longest);
#pragma omp for schedule(static)
        for (int64_t c = 0; c < total; ++c) {
            const Chunk& chunk = chunks[c];
            const float* given = numbers + chunk.job * (1 + Rule::kNumbers);
            bad += update_blocks<Rule>(jobs[chunk.job], given, chunk.first, chunk.last,
                                       space.data());
        }
    }
    return bad;
}

template <bool Signed>
void quantize(const float* x, uint8_t* code, float* scale, int64_t rows, int64_t width,
              int64_t block, int threads) {
    const int64_t per_row = (width + block - 1) / block;
#pragma omp parallel for schedule(static) num_threads(threads) if (threads > 1 && rows * width > kChunk)
    for (int64_t k = 0; k < rows * per_row; ++k) {
        const int64_t column = k % per_row * block, start = k / per_row * width + column;
        const int64_t n = std::min(block, width - column);
        Ints peak = {};
        for_lanes(n, [&](int64_t i, int64_t lanes) {
            peak = most(peak, magnitude(load<Floats>(x + start + i, lanes)));
        });
        scale[k] = scale_of(peak);
        encode_block<Signed>(x + start, code + start, scale[k], n);
    }
}

template <bool Signed>
void dequantize(const uint8_t* code, const float* scale, float* x, const float* values,
                int64_t rows, int64_t width, int64_t block, int threads) {
    const int64_t per_row = (width + block - 1) / block;
#pragma omp parallel for schedule(static) num_threads(threads) if (threads > 1 && rows * width > kChunk)
    for (int64_t k = 0; k < rows * per_row; ++k) {
        const int64_t column = k % per_row * block, start = k / per_row * width + column;
        const Decoder<Signed> decode(values, scale[k]);
        for_lanes(std::min(block, width - column), [&](int64_t i, int64_t lanes) {
            store(x + start + i, decode(load<Bytes>(code + start + i, lanes)), lanes);
        });
    }
}

}  // namespace

// Take the ascending code values, 256 with and 256 without sign; called once, before all others.
extern "C" void set_codes(const float* with_sign, const float* without_sign, float floor) {
    codes_.with_sign.prepare(with_sign + 127, 129, 1);
    codes_.without_sign.prepare(without_sign, 256, 2);
    std::copy(without_sign, without_sign + 256, codes_.floored);
    codes_.floored[0] = floor;
}

// x, codes [rows, width]; scale [rows, ceil(width / block)].
extern "C" void quantize_q8(const float* x, uint8_t* code, float* scale, int64_t rows,
                            int64_t width, int64_t block, int with_sign, int threads) {
    if (with_sign)
        quantize<true>(x, code, scale, rows, width, block, threads);
    else
        quantize<false>(x, code, scale, rows, width, block, threads);
}

extern "C" void dequantize_q8(const uint8_t* code, const float* scale, float* x, int64_t rows,
                              int64_t width, int64_t block, int with_sign, int floor, int threads) {
    if (with_sign)
        dequantize<true>(code, scale, x, codes_.with_sign.value, rows, width, block, threads);
    else
        dequantize<false>(code, scale, x, floor ? codes_.floored : codes_.without_sign.value, rows,
                          width, block, threads);
}

// Take the steps of `count` jobs; bad: how many gradients are not finite.
#define SHARPEN_STEP(NAME, RULE)                                                              \
    extern "C" void NAME(const void* jobs, const float* numbers, int64_t count, int64_t* bad, \
                         int threads) {                                                       \
        *bad = step<RULE>(static_cast<const Job*>(jobs), numbers, count, threads);            \
    }

SHARPEN_STEP(adamw_step, AdamW)
SHARPEN_STEP(nadamw_step, NAdamW)
SHARPEN_STEP(adagrad_step, Adagrad)
SHARPEN_STEP(lion_step, Lion)
SHARPEN_STEP(sgd_step, Sgd)
SHARPEN_STEP(momentum_step, Momentum)
SHARPEN_STEP(sign_sgd_step, SignSgd)
