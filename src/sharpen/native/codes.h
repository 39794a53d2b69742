// Codes of 8 and of 4 bits with a scale for each block. Twin: sharpen/optim/engine/quant.py, bit for bit.

#pragma once

#include <algorithm>

#include "vectors.h"

namespace {

#if defined(__AVX512F__)
const bool quick_loads_ = __builtin_cpu_is("intel");
#endif

// A table of N floats, N = 8, 128 or 256; higher bits of an index are ignored.
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

#if defined(__AVX512F__)
template <>
class Table<8> {
   public:
    explicit Table(const float* values) : part_(_mm512_broadcast_f32x8(_mm256_loadu_ps(values))) {}
    Floats operator()(Ints index) const { return _mm512_permutexvar_ps(__m512i(index), part_); }

   private:
    __m512 part_;
};
#elif defined(__AVX2__)
template <>
class Table<8> {
   public:
    explicit Table(const float* values) : part_(_mm256_loadu_ps(values)) {}
    Floats operator()(Ints index) const {
        return _mm256_permutevar8x32_ps(part_, __m256i(index));
    }

   private:
    __m256 part_;
};
#endif

// Dynamic codes lie evenly within a decade, a fifth as densely as in the decade below.
// So the number of a code is a concave function of its value, the least of a line for each decade,
// to which a half is added to make up for rounding: cut down to a whole number it is the code, or
// one below it. The midpoint above that decides, exactly.
template <int Bits>
struct Code {
    static constexpr int kDecades = Bits - 1;
    float value[1 << Bits];   // unsigned: of the code; signed: of the distance from code 0
    float middle[1 << Bits];  // between an entry and the next
    float slope[kDecades], offset[kDecades];

    // values: `count` ascending ones from 0 to 1; decade i has first << i.
    void prepare(const float* values, int count, int first) {
        std::copy(values, values + count, value);
        for (int k = 0; k + 1 < count; ++k) middle[k] = 0.5f * (values[k] + values[k + 1]);
        double edge = std::pow(10.0, 2 - Bits);  // upper end of the decade
        for (int i = 0; i < kDecades; ++i, edge *= 10) {
            const double steps = (first << i) / 0.9, below = first * ((1 << i) - 1);
            slope[i] = static_cast<float>(steps / edge);
            offset[i] = static_cast<float>(below - 0.1 * steps + 0.5);
        }
    }
};

struct Codes {
    Code<8> with_sign, without_sign;
    Code<4> small;     // with sign
    float floored[256];  // without_sign's values, the first a little above 0
} codes_;

template <bool Signed, int Bits>
const Code<Bits>& code_of() {
    if constexpr (Bits == 4)
        return codes_.small;
    else
        return Signed ? codes_.with_sign : codes_.without_sign;
}

constexpr int zero_of(int bits) { return (1 << (bits - 1)) - 1; }  // the signed code of 0

// Values of codes. Floor: code 0 without sign is a little above 0.
template <bool Signed, int Bits>
class Decoder {
   public:
    Decoder(float scale, bool floor)
        : values_(!Signed && floor ? codes_.floored : code_of<Signed, Bits>().value),
          scale_(broadcast(scale)) {}

    Floats operator()(Bytes codes) const {
        const Ints code = widened(codes);
        if constexpr (!Signed) return values_(code) * scale_;
        constexpr int kZero = zero_of(Bits);
        const Ints steps = code - kZero;
        const Ints sign = steps & static_cast<int32_t>(0x80000000);
        const Ints distance = absolute(steps);
        const Floats value = distance == kZero + 1 ? broadcast(1.0f) : values_(distance);
        return floats(bits(value) | sign) * scale_;
    }

   private:
    Table<Signed ? 1 << (Bits - 1) : 1 << Bits> values_;
    Floats scale_;
};

// Sixteenths, from one on.
template <>
class Decoder<false, 4> {
   public:
    Decoder(float scale, bool) : scale_(broadcast(scale)) {}
    Floats operator()(Bytes codes) const {
        return __builtin_convertvector(widened(codes) + 1, Floats) * 0.0625f * scale_;
    }

   private:
    Floats scale_;
};

inline float scale_of(Ints peaks) {
    int32_t peak = 0;
    for (int64_t k = 0; k < kLanes; ++k) peak = std::max(peak, peaks[k]);
    peak = std::min(peak, int32_t{0x7f7fffff});  // no infinite scale
    float scale;
    std::memcpy(&scale, &peak, 4);
    return scale;
}

inline Floats inverse_of(float scale) {
    return broadcast(scale > 0.0f ? std::min(1.0f / scale, 3.402823466e38f) : 1.0f);
}

// How many midpoints of a codebook are below x / scale.
template <bool Signed, int Bits>
class Encoder {
   public:
    explicit Encoder(float scale)
        : middle_(code_of<Signed, Bits>().middle), inverse_(inverse_of(scale)) {
#pragma GCC unroll 16
        for (int i = 0; i < kDecades; ++i) {
            slope_[i] = broadcast(code_of<Signed, Bits>().slope[i]);
            offset_[i] = broadcast(code_of<Signed, Bits>().offset[i]);
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
        if constexpr (Signed) {
            constexpr int kZero = zero_of(Bits);
            code = least(code, kZero + 1 + negative);  // there is no -1
            code = kZero + ((code ^ negative) - negative);
        }
        return narrowed(code);
    }

   private:
    static constexpr int kDecades = Code<Bits>::kDecades;
    Table<Signed ? 1 << (Bits - 1) : 1 << Bits> middle_;
    Floats inverse_, slope_[kDecades], offset_[kDecades];
};

template <>
class Encoder<false, 4> {
   public:
    explicit Encoder(float scale) : inverse_(inverse_of(scale)) {}
    Bytes operator()(Floats value) const {
        const Floats size = least(value * inverse_, broadcast(1.0f));
        const Floats steps = size * 16.0f - 1.5f;  // exact above 0
        const Ints whole = __builtin_convertvector(steps, Ints);
        const Ints code = whole - (steps > __builtin_convertvector(whole, Floats));
        return narrowed(most(code, Ints{}));
    }

   private:
    Floats inverse_;
};

inline int64_t code_bytes(int64_t n, int bits) { return (n * bits + 7) / 8; }

// Codes of 4 bits, two a byte and the first in its low half, to codes of a byte each; and back.
inline void unpack(const uint8_t* halves, uint8_t* code, int64_t n) {
    for (int64_t i = 0; i < n / 2; ++i) {
        code[2 * i] = halves[i] & 15;
        code[2 * i + 1] = halves[i] >> 4;
    }
    if (n % 2) code[n - 1] = halves[n / 2] & 15;
}

inline void pack(const uint8_t* code, uint8_t* halves, int64_t n) {
    for (int64_t i = 0; i < n / 2; ++i)
        halves[i] = static_cast<uint8_t>(code[2 * i] | code[2 * i + 1] << 4);
    if (n % 2) halves[n / 2] = code[n - 1];
}

// buffer: of n bytes, for 4 bits.
template <bool Signed, int Bits>
void encode_block(const float* x, uint8_t* code, float scale, int64_t n, uint8_t* buffer) {
    const Encoder<Signed, Bits> encode(scale);
    uint8_t* to = Bits == 4 ? buffer : code;
    for_lanes(n, [&](int64_t i, int64_t lanes) {
        store(to + i, encode(load<Floats>(x + i, lanes)), lanes);
    });
    if (Bits == 4) pack(buffer, code, n);
}

// A block of a tensor [rows, width], its blocks counted along the rows.
struct Span {
    int64_t start, n;  // elements
    int64_t code;      // byte of the first code
};

inline int64_t blocks_of(int64_t width, int64_t block) { return (width + block - 1) / block; }

inline Span span_of(int64_t number, int64_t width, int64_t block, int bits) {
    const int64_t per_row = blocks_of(width, block), row = number / per_row;
    const int64_t column = number % per_row * block;
    return {row * width + column, std::min(block, width - column),
            row * code_bytes(width, bits) + column * bits / 8};
}

}  // namespace
